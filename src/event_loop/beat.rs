//! The beat of a loop that is watched: how late it comes is the loop's lag.
//!
//! Owns when the next beat is due: an interval after a wake that brought work,
//! so that a loop with nothing to do sleeps on. Refuses to read the clock.

use std::time::{Duration, Instant};

use crate::limits::BEAT_INTERVAL;

/// Not due until there was work.
#[derive(Default)]
pub(super) struct Beat {
    due: Option<Instant>,
    /// When the loop has work even if nothing happens.
    turn_due: Option<Instant>,
}

impl Beat {
    /// How late the beat is, if it was due. The loop has woken: work, which the
    /// beat itself is not, makes the next one due an interval from now. So one
    /// long stall is one late beat.
    pub(super) fn woke(&mut self, now: Instant, has_events: bool) -> Option<Duration> {
        let lag = self.due.and_then(|due| now.checked_duration_since(due));
        if lag.is_some() {
            self.due = None;
        }
        let has_work = has_events || self.turn_due.is_some_and(|due| due <= now);
        if has_work && self.due.is_none() {
            self.due = Some(now + BEAT_INTERVAL);
        }
        lag
    }

    /// A wait that ends at the next beat at the latest, given the wait until the
    /// loop has work again.
    pub(super) fn shorten(&mut self, wait: Option<Duration>, now: Instant) -> Option<Duration> {
        self.turn_due = wait.map(|wait| now + wait);
        let left = self.due.map(|due| due.saturating_duration_since(now));
        match (wait, left) {
            (Some(wait), Some(left)) => Some(wait.min(left)),
            (wait, left) => wait.or(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    #[test]
    fn a_beat_is_late_once_however_long_the_loop_stood() {
        let t0 = start();
        let mut beat = Beat::default();
        assert_eq!(beat.woke(t0, true), None);
        assert_eq!(beat.woke(t0 + BEAT_INTERVAL / 2, true), None);
        assert_eq!(beat.shorten(None, t0), Some(BEAT_INTERVAL));
        assert_eq!(beat.shorten(Some(Duration::ZERO), t0), Some(Duration::ZERO));
        let stall = t0 + 5 * BEAT_INTERVAL;
        assert_eq!(beat.woke(stall, true), Some(4 * BEAT_INTERVAL));
        assert_eq!(beat.woke(stall, true), None);
    }

    #[test]
    fn a_loop_without_work_beats_once_more_and_sleeps_until_it_has_some() {
        let t0 = start();
        let mut beat = Beat::default();
        assert_eq!(beat.shorten(None, t0), None, "before there was work");
        beat.woke(t0, true);
        let minute = Some(Duration::from_secs(60));
        assert_eq!(beat.shorten(minute, t0), Some(BEAT_INTERVAL));
        let t1 = t0 + BEAT_INTERVAL;
        assert_eq!(beat.woke(t1, false), Some(Duration::ZERO));
        assert_eq!(beat.shorten(minute, t1), minute);
        let t2 = t1 + Duration::from_secs(60);
        assert_eq!(beat.woke(t2, false), None);
        assert_eq!(beat.shorten(None, t2), Some(BEAT_INTERVAL), "a turn was due");
    }
}
