//! Logs repeated failures once, and the end of an outage.
//!
//! Owns when an outage began, how many failures it had, and whether the log was
//! told. Refuses to log; it answers what the caller should log.

use std::time::{Duration, Instant};

use crate::limits::LOG_REPEAT_INTERVAL;
use crate::log_limit::LogLimit;

/// One kind of failure that may repeat.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The first of all, from which the log limit counts.
    first: Option<Instant>,
    log: LogLimit,
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
        let first = *self.first.get_or_insert(now);
        let unlogged = self
            .log
            .admit(now.saturating_duration_since(first), LOG_REPEAT_INTERVAL)?;
        self.outage_logged = true;
        Some(u64::from(unlogged))
    }

    /// Counts a success. `Some` asks the caller to log the length of the outage
    /// and its failures.
    pub(super) fn recover(&mut self, now: Instant) -> Option<(Duration, u64)> {
        let (since, count) = self.outage.take()?;
        if !std::mem::take(&mut self.outage_logged) {
            return None;
        }
        self.take_unlogged(now);
        Some((now.saturating_duration_since(since), count))
    }

    /// When the sum of the failures that had no line is due. `None` if there are
    /// none.
    pub(super) fn sum_at(&self) -> Option<Instant> {
        Some(self.first? + self.log.sum_due(LOG_REPEAT_INTERVAL)?)
    }

    /// Takes the failures that had no line, for a line that is written now.
    pub(super) fn take_unlogged(&mut self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.first?);
        self.log.take_sum(elapsed).map(|sum| u64::from(sum.get()))
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
    use crate::test_time::start;

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
    fn failures_without_a_line_are_due_for_their_sum_once() {
        let t0 = start();
        let mut failures = Failures::default();
        failures.note(t0);
        assert_eq!(failures.sum_at(), None, "the first has its line");
        failures.note(t0);
        failures.note(t0 + Duration::from_secs(1));
        assert_eq!(failures.sum_at(), Some(t0 + LOG_REPEAT_INTERVAL));
        assert_eq!(failures.take_unlogged(t0 + LOG_REPEAT_INTERVAL), Some(2));
        assert_eq!(failures.sum_at(), None);
        assert_eq!(failures.take_unlogged(t0 + LOG_REPEAT_INTERVAL), None);
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
