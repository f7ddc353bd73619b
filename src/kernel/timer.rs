//! Ticks as events among the others.
//!
//! Owns a kernel timer that is set once. A wait with a timeout would set one
//! for every wait, thousands of times a second. Refuses to count ticks.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer with an interval of zero would never tick (timerfd_settime(2)).
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// A timer that ticks until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticker(OwnedFd);

impl Ticker {
    /// Starts a timer that makes a readable event for `token` every `every`. No
    /// further event comes until [`take`](Self::take).
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub(crate) fn start(registry: &Registry, token: Token, every: Duration) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let every = Timespec::try_from(every.max(SHORTEST_TICK)).map_err(|_| io::ErrorKind::InvalidInput)?;
        let times = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Takes the ticks that came.
    pub(crate) fn take(&self) {
        // Without a tick this fails with EAGAIN, which changes nothing.
        let _ = rustix::io::read(&self.0, &mut [0; size_of::<u64>()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    #[test]
    fn a_timer_of_no_time_ticks_all_the_same() {
        let mut poll = Poll::new().unwrap();
        let _ticker = Ticker::start(poll.registry(), Token(7), Duration::ZERO).unwrap();
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert!(!events.is_empty());
    }

    #[test]
    fn it_ticks_again_and_again_as_long_as_the_ticks_are_taken() {
        let mut poll = Poll::new().unwrap();
        let ticker = Ticker::start(poll.registry(), Token(7), Duration::from_millis(1)).unwrap();
        let mut events = Events::with_capacity(4);
        for _ in 0..5 {
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(
                events.iter().map(|event| event.token()).collect::<Vec<_>>(),
                [Token(7)]
            );
            ticker.take();
        }
    }
}
