//! When a repeated event is worth a log line: the first time, then at most
//! once in a given time, with the number of events in between.
//!
//! Owns eight bytes for each kind of event. Refuses to log and to read the
//! clock: the caller says how much time has passed, and writes the line.

use std::num::NonZeroU32;
use std::time::Duration;

/// How often one kind of event may be logged.
///
/// ```ignore
/// let mut limit = LogLimit::default();
/// assert_eq!(limit.admit(Duration::ZERO, EVERY), Some(0)); // log it
/// assert_eq!(limit.admit(Duration::from_secs(1), EVERY), None); // counted
/// assert_eq!(limit.admit(EVERY, EVERY), Some(1)); // log it, and one before
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogLimit {
    /// Tenths of a second from the start to the last line, plus one.
    last_line: Option<NonZeroU32>,
    unlogged: u32,
}

impl LogLimit {
    /// Nothing was logged yet.
    pub(crate) const NEW: Self = Self {
        last_line: None,
        unlogged: 0,
    };

    /// Counts one event, `elapsed` after a start that stays the same from call
    /// to call. `Some(n)` says to log it, after `n` events that were not
    /// logged; two lines are at least `every` apart, to a tenth of a second.
    pub(crate) fn admit(&mut self, elapsed: Duration, every: Duration) -> Option<u32> {
        let now = NonZeroU32::MIN.saturating_add(tenths(elapsed));
        if let Some(last) = self.last_line
            && now.get().saturating_sub(last.get()) < tenths(every)
        {
            self.unlogged = self.unlogged.saturating_add(1);
            return None;
        }
        self.last_line = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }

    /// When the sum of the events that were not logged is due, counted from the
    /// start. `None` if all were logged.
    pub(crate) fn sum_due(&self, every: Duration) -> Option<Duration> {
        let last = self.last_line.filter(|_| self.unlogged > 0)?;
        Some(Duration::from_millis(u64::from(last.get() - 1) * 100) + every)
    }

    /// Takes the number of events that were not logged, for a line that is
    /// written now.
    pub(crate) fn take_sum(&mut self, elapsed: Duration) -> Option<NonZeroU32> {
        let sum = NonZeroU32::new(std::mem::take(&mut self.unlogged))?;
        self.last_line = Some(NonZeroU32::MIN.saturating_add(tenths(elapsed)));
        Some(sum)
    }
}

/// Tenths of a second; 13 years are the most that is told apart.
fn tenths(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_event_is_logged_and_those_within_the_interval_are_counted() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.admit(Duration::from_secs(3), EVERY), Some(0));
        for _ in 0..1000 {
            assert_eq!(limit.admit(Duration::from_millis(12_899), EVERY), None);
        }
        assert_eq!(limit.admit(Duration::from_secs(13), EVERY), Some(1000));
        assert_eq!(limit.admit(Duration::from_secs(14), EVERY), None);
    }

    #[test]
    fn events_that_are_rare_are_all_logged() {
        let mut limit = LogLimit::default();
        for number in 0..5 {
            assert_eq!(limit.admit(EVERY * number, EVERY), Some(0));
        }
    }

    #[test]
    fn events_that_were_not_logged_are_due_in_time_and_summed_up_once() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.sum_due(EVERY), None);
        limit.admit(Duration::from_secs(3), EVERY);
        assert_eq!(limit.sum_due(EVERY), None, "all were logged");
        limit.admit(Duration::from_secs(4), EVERY);
        limit.admit(Duration::from_secs(5), EVERY);
        let due = limit.sum_due(EVERY).unwrap();
        assert_eq!(due, Duration::from_secs(13));
        assert_eq!(limit.take_sum(due), NonZeroU32::new(2));
        assert_eq!(limit.take_sum(due), None);
        assert_eq!(
            limit.admit(Duration::from_secs(14), EVERY),
            None,
            "the sum was a line"
        );
    }

    #[test]
    fn a_limit_takes_eight_bytes_of_each_client() {
        assert_eq!(size_of::<LogLimit>(), 8);
    }
}
