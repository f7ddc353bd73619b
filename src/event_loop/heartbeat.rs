//! A call at regular intervals from the loop itself: the sign that it runs.
//!
//! Owns when the next call is due, by the real clock. Refuses to know who is
//! told.

use std::time::{Duration, Instant};

use crate::engine::Counters;
use crate::limits::SHORTEST_TICK;

/// What is called, and when.
pub(super) struct Heartbeat {
    interval: Duration,
    due: Instant,
    beat: Box<Beat>,
}

/// Gets the number of connections and the counters.
type Beat = dyn FnMut(usize, &Counters) + Send;

impl Heartbeat {
    /// Due at once, then every `interval`.
    pub(super) fn new(
        interval: Duration,
        now: Instant,
        beat: impl FnMut(usize, &Counters) + Send + 'static,
    ) -> Self {
        Self {
            interval: interval.max(SHORTEST_TICK),
            due: now,
            beat: Box::new(beat),
        }
    }

    /// Calls if it is due at the real instant `now`. Answers the time until it
    /// is due again.
    pub(super) fn beat(&mut self, now: Instant, clients: usize, counters: &Counters) -> Duration {
        if now >= self.due {
            (self.beat)(clients, counters);
            // Beats that were missed are not made up for.
            self.due = now + self.interval;
        }
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn it_beats_at_once_then_once_an_interval_and_makes_up_for_nothing() {
        let beats = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&beats);
        let start = start();
        let interval = Duration::from_secs(1);
        let mut heartbeat = Heartbeat::new(interval, start, move |clients, _| {
            assert_eq!(clients, 7);
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let mut at = |tenths: u32| {
            let now = start + interval * tenths / 10;
            let until = heartbeat.beat(now, 7, &Counters::default());
            (beats.load(Ordering::Relaxed), until.as_millis())
        };
        assert_eq!(at(0), (1, 1000));
        assert_eq!(at(4), (1, 600));
        assert_eq!(at(10), (2, 1000));
        assert_eq!(at(55), (3, 1000), "after a long block once, not four times");
        assert_eq!(at(60), (3, 500));
    }
}
