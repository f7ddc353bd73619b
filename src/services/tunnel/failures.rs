//! Logs repeated failures once.
//!
//! Owns when a failure deserves a line: the first at once, then one line for
//! all within [`LOG_REPEAT_INTERVAL`]. Refuses to log; it answers what the
//! caller should log.

use std::time::{Duration, Instant};

use crate::limits::LOG_REPEAT_INTERVAL;

/// One kind of failure that may repeat.
#[derive(Debug, Default)]
pub(super) struct Failures {
    last_logged: Option<Instant>,
    /// Failures that were not logged.
    unlogged: u64,
    /// Start of the current outage, and its failures.
    outage: Option<(Instant, u64)>,
    /// Whether the outage was logged, so that its end deserves a line too.
    outage_logged: bool,
}

impl Failures {
    /// Counts a failure. `Some(n)` asks the caller to log it, together with `n`
    /// earlier ones.
    pub(super) fn note(&mut self, now: Instant) -> Option<u64> {
        let (_, count) = self.outage.get_or_insert((now, 0));
        *count += 1;
        let quiet = self
            .last_logged
            .is_some_and(|last| now.saturating_duration_since(last) < LOG_REPEAT_INTERVAL);
        if quiet {
            self.unlogged += 1;
            return None;
        }
        self.last_logged = Some(now);
        self.outage_logged = true;
        Some(self.take_unlogged())
    }

    /// Counts a success. `Some` asks the caller to log the length of the outage
    /// and its failures.
    pub(super) fn recover(&mut self, now: Instant) -> Option<(Duration, u64)> {
        let (since, count) = self.outage.take()?;
        if !std::mem::take(&mut self.outage_logged) {
            return None;
        }
        self.unlogged = 0;
        Some((now.saturating_duration_since(since), count))
    }

    /// Failures that were never logged; they count as logged from here on.
    pub(super) const fn take_unlogged(&mut self) -> u64 {
        std::mem::replace(&mut self.unlogged, 0)
    }
}

/// `, and 3 before`, or nothing.
pub(super) fn and_before(unlogged: u64) -> String {
    match unlogged {
        0 => String::new(),
        some => format!(", and {some} before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_first_failure_is_logged_and_a_thousand_more_are_summed_up() {
        let t0 = start();
        let mut failures = Failures::default();
        assert_eq!(failures.note(t0), Some(0));
        for _ in 0..1000 {
            assert_eq!(failures.note(t0 + Duration::from_secs(1)), None);
        }
        assert_eq!(failures.note(t0 + LOG_REPEAT_INTERVAL), Some(1000));
        assert_eq!(failures.note(t0 + 2 * LOG_REPEAT_INTERVAL), Some(0));
    }

    #[test]
    fn the_end_of_an_outage_is_told_once_with_its_length() {
        let t0 = start();
        let second = Duration::from_secs(1);
        let mut failures = Failures::default();
        assert_eq!(failures.recover(t0), None, "nothing had failed");
        failures.note(t0);
        failures.note(t0 + second);
        assert_eq!(failures.recover(t0 + 2 * second), Some((2 * second, 2)));
        assert_eq!(failures.recover(t0 + 3 * second), None);
    }

    #[test]
    fn an_upstream_that_comes_and_goes_does_not_flood_the_log() {
        let t0 = start();
        let mut failures = Failures::default();
        let mut lines = 0;
        for millisecond in 0..60_000 {
            let now = t0 + Duration::from_millis(millisecond);
            lines += u32::from(failures.note(now).is_some());
            lines += u32::from(failures.recover(now).is_some());
        }
        assert_eq!(lines, 2 * 6);
    }
}
