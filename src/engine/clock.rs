//! The clock of one event loop, which stands still while the loop does.
//!
//! Owns the difference between real time and charged time. While a process is
//! stopped, or a machine asleep, no client can drain, so nobody is charged.
//! Refuses to read the real clock: the loop does, once a turn.

use std::time::{Duration, Instant};

use log::warn;

use crate::limits::TURN_ALLOWANCE;

/// Shorter stops are normal on a busy machine, and not logged.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// Turns real instants into charged ones, for a program that drives an
/// [`Engine`](super::Engine).
#[derive(Debug)]
pub struct Clock {
    last: Instant,
    not_charged: Duration,
}

impl Clock {
    /// A clock that begins at the real instant `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            last: now,
            not_charged: Duration::ZERO,
        }
    }

    /// The charged instant for the real instant `real`, after a wait of at most
    /// `waited`. `None` means a wait without a limit: no timer was armed, so no
    /// client is charged wrongly.
    pub fn advance(&mut self, real: Instant, waited: Option<Duration>) -> Instant {
        let elapsed = real.saturating_duration_since(self.last);
        if let Some(waited) = waited {
            let excess = elapsed.saturating_sub(waited + TURN_ALLOWANCE);
            if excess >= WORTH_A_LINE {
                warn!(
                    event = "stall",
                    stalled_seconds = excess.as_secs_f64();
                    "did not run for {:.3} s, as if stopped; no client is charged for it",
                    excess.as_secs_f64()
                );
            }
            self.not_charged += excess;
        }
        self.last = self.last.max(real);
        self.last - self.not_charged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    #[test]
    fn time_passes_as_it_should_while_the_loop_runs() {
        let t0 = start();
        let wait = Duration::from_millis(100);
        let mut clock = Clock::new(t0);
        for turn in 1..100 {
            assert_eq!(clock.advance(t0 + turn * wait, Some(wait)), t0 + turn * wait);
        }
    }

    #[test]
    fn time_in_which_the_process_was_stopped_is_not_charged() {
        let t0 = start();
        let wait = Duration::from_millis(100);
        let mut clock = Clock::new(t0);
        let now = clock.advance(t0 + Duration::from_secs(10), Some(wait));
        assert_eq!(now, t0 + wait + TURN_ALLOWANCE);
        let later = clock.advance(t0 + Duration::from_secs(10) + wait, Some(wait));
        assert_eq!(later, now + wait, "and time goes on from there");
    }

    #[test]
    fn a_wait_without_end_is_no_stop() {
        let t0 = start();
        let mut clock = Clock::new(t0);
        let hour = Duration::from_secs(3600);
        assert_eq!(clock.advance(t0 + hour, None), t0 + hour);
    }

    #[test]
    fn a_clock_that_goes_backwards_stands_still() {
        let t0 = start();
        let second = Duration::from_secs(1);
        let mut clock = Clock::new(t0 + second);
        assert_eq!(clock.advance(t0, None), t0 + second);
    }
}
