//! The only place of the prober that reads the clock; everything else is told the time.

use std::time::Instant;

use crate::probe::clients::moment::Moment;

/// Messages that share one reading of the clock: some 0.1 ms of work, by which one wait may
/// look shorter and the next one of that client longer, never their sum.
const MESSAGES_PER_READING: u32 = 16;

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "the loops of the prober own their clock, and read it here"
)]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time for one message after another, read anew after every few.
#[derive(Debug)]
pub(crate) struct MessageClock {
    epoch: Instant,
    reading: Moment,
    left: u32,
}

impl MessageClock {
    /// A clock whose moments count from `epoch`.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            reading: Moment::of(epoch, epoch),
            left: 0,
        }
    }

    /// The time for the next message.
    #[inline]
    pub(crate) fn tick(&mut self) -> Moment {
        if self.left == 0 {
            self.reading = Moment::of(now(), self.epoch);
            self.left = MESSAGES_PER_READING;
        }
        self.left -= 1;
        self.reading
    }

    /// Time has passed that was not spent on messages.
    pub(crate) fn forget(&mut self) {
        self.left = 0;
    }
}
