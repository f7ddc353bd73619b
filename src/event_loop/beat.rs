//! The beat of a loop that is watched: how late it comes is the loop's lag.
//!
//! Owns when the next beat is due. Refuses to read the clock.

use std::time::{Duration, Instant};

use crate::limits::BEAT_INTERVAL;

pub(super) struct Beat {
    due: Instant,
}

impl Beat {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now + BEAT_INTERVAL,
        }
    }

    /// How late the beat is, if it was due. The next one follows an interval
    /// from now: one long stall is one late beat.
    pub(super) fn late(&mut self, now: Instant) -> Option<Duration> {
        let lag = now.checked_duration_since(self.due)?;
        self.due = now + BEAT_INTERVAL;
        Some(lag)
    }

    /// A wait that ends at the next beat at the latest.
    pub(super) fn shorten(&self, wait: Option<Duration>, now: Instant) -> Duration {
        let left = self.due.saturating_duration_since(now);
        wait.map_or(left, |wait| wait.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    #[test]
    fn a_beat_is_late_once_however_long_the_loop_stood() {
        let t0 = start();
        let mut beat = Beat::new(t0);
        assert_eq!(beat.late(t0 + BEAT_INTERVAL / 2), None);
        assert_eq!(beat.shorten(None, t0), BEAT_INTERVAL);
        assert_eq!(beat.shorten(Some(Duration::ZERO), t0), Duration::ZERO);
        let stall = t0 + 5 * BEAT_INTERVAL;
        assert_eq!(beat.late(stall), Some(4 * BEAT_INTERVAL));
        assert_eq!(beat.late(stall), None);
    }
}
