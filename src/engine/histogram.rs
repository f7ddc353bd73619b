//! How often something took how long.
//!
//! Owns the counts below each bound. Refuses to measure.

use std::time::Duration;

/// Bounds in seconds: from one that nobody notices to the longest grace.
pub const BOUNDS_SECONDS: [f64; 15] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Times, counted by their length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Times up to each of the bounds and above the one before, then longer ones.
    counts: [u64; BOUNDS_SECONDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    pub(crate) fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS_SECONDS.partition_point(|&bound| bound < seconds);
        self.counts[bucket] += 1;
        self.sum += time;
    }

    /// Each bound in seconds, and how many times were at most that and above
    /// the bound before. The last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.counts)
    }

    /// How many times there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_below_the_first_bound_that_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for milliseconds in [0, 1, 2, 5_000, 5_001, 600_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let counted: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            counted,
            [(0.001, 2), (0.002_5, 1), (5.0, 1), (10.0, 1), (f64::INFINITY, 1)]
        );
        assert_eq!(histogram.count(), 6);
        assert_eq!(histogram.sum(), Duration::from_millis(610_004));
    }
}
