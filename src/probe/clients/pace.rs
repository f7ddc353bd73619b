//! How many bytes a slow reader may have read by now.
//!
//! Pure: `now` is an argument. Knows no socket; the driver asks, reads at most
//! that much, and says how much it was.

use std::time::{Duration, Instant};

/// A constant rate since a start. What was not used is not saved up for more
/// than half a second, so that a pause of the prober itself does not
/// become a burst.
#[derive(Debug, Clone)]
pub struct Pace {
    bytes_per_second: u64,
    counted_from: Instant,
    used: u64,
}

/// How much reading may be made up for at once.
const LONGEST_CATCH_UP: Duration = Duration::from_millis(500);

impl Pace {
    /// A pace of `bytes_per_second`, counted from `start`.
    #[must_use]
    pub fn new(bytes_per_second: u64, start: Instant) -> Self {
        Self {
            bytes_per_second,
            counted_from: start,
            used: 0,
        }
    }

    /// How many bytes may be read at `now`. Ask again at any later time.
    pub fn allowed(&mut self, now: Instant) -> usize {
        let earned = self.earned(now);
        let most = self.bytes_per_second * LONGEST_CATCH_UP.as_millis() as u64 / 1000;
        let due = earned.saturating_sub(self.used);
        if due > most.max(1) {
            self.used = earned - most.max(1);
        }
        usize::try_from(earned.saturating_sub(self.used)).unwrap_or(usize::MAX)
    }

    /// Takes note that `bytes` were read.
    pub fn take(&mut self, bytes: usize) {
        self.used += bytes as u64;
    }

    fn earned(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.counted_from).as_micros();
        let earned = elapsed * u128::from(self.bytes_per_second) / 1_000_000;
        u64::try_from(earned).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_its_rate_and_no_more() {
        let start = Instant::now();
        let mut pace = Pace::new(1024, start);
        let mut read = 0;
        for tick in 0..=500u32 {
            let allowed = pace.allowed(start + Duration::from_millis(20) * tick);
            pace.take(allowed);
            read += allowed;
        }
        assert_eq!(read, 10 * 1024);
    }

    #[test]
    fn a_long_gap_is_made_up_for_by_half_a_second_at_most() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        assert_eq!(pace.allowed(start + Duration::from_secs(60)), 500);
        pace.take(500);
        assert_eq!(pace.allowed(start + Duration::from_secs(60)), 0);
        assert_eq!(pace.allowed(start + Duration::from_millis(60_100)), 100);
    }

    #[test]
    fn nothing_is_allowed_before_the_start() {
        let start = Instant::now() + Duration::from_secs(5);
        assert_eq!(Pace::new(1000, start).allowed(start - Duration::from_secs(1)), 0);
    }
}
