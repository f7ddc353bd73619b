//! Timers of single clients that do not run as long as those of all others.
//!
//! Owns the order by the instant at which each is due. A client gets here once
//! the common time is over and its own is not, or for a last look that comes
//! before the common time. Refuses to decide whether an entry still counts, as
//! [`Timers`](super::timers::Timers) does.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Instant;

use super::client_table::ClientId;
use super::timers::{Entry, Timer};

/// Below this length, entries that do not count any more are left in.
const SMALLEST_WEEDING_ENTRIES: usize = 1024;

/// One timer, due at an instant of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Late {
    due: Instant,
    timer: Timer,
    entry: Entry,
}

impl Ord for Late {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |late: &Self| (late.due, late.entry.start, late.entry.client.to_token());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Timers that run longer or shorter than those of their kind.
#[derive(Debug)]
pub(super) struct LateTimers {
    heap: BinaryHeap<Reverse<Late>>,
    /// Length from which entries that do not count any more are dropped.
    weed_at: usize,
}

impl Default for LateTimers {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            weed_at: SMALLEST_WEEDING_ENTRIES,
        }
    }
}

impl LateTimers {
    /// Arms a timer whose clock has run since `start`, to be due at `due`.
    pub(super) fn arm(&mut self, timer: Timer, client: ClientId, start: Instant, due: Instant) {
        let entry = Entry { start, client };
        self.heap.push(Reverse(Late { due, timer, entry }));
    }

    /// Whether an entry is due at `now`. It may be stale.
    pub(super) fn has_due(&self, now: Instant) -> bool {
        self.heap.peek().is_some_and(|Reverse(first)| first.due <= now)
    }

    /// Takes out the next entry that is due at `now`. It may be stale.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Timer, Entry)> {
        if !self.has_due(now) {
            return None;
        }
        self.heap.pop().map(|Reverse(first)| (first.timer, first.entry))
    }

    /// The next instant at which a live entry is due. Stale entries in front
    /// are dropped.
    pub(super) fn next(&mut self, is_live: impl Fn(Timer, &Entry) -> bool) -> Option<Instant> {
        while let Some(Reverse(first)) = self.heap.peek() {
            if is_live(first.timer, &first.entry) {
                return Some(first.due);
            }
            self.heap.pop();
        }
        self.heap = BinaryHeap::new();
        None
    }

    /// Drops stale entries once they may be half of all.
    pub(super) fn weed(&mut self, is_live: impl Fn(Timer, &Entry) -> bool) {
        if self.heap.len() > self.weed_at {
            self.heap.retain(|Reverse(late)| is_live(late.timer, &late.entry));
            self.weed_at = SMALLEST_WEEDING_ENTRIES.max(2 * self.heap.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn client(number: usize) -> ClientId {
        ClientId::from_token(number)
    }

    #[test]
    fn the_first_due_comes_first_whenever_it_was_armed() {
        let t0 = start();
        let mut timers = LateTimers::default();
        timers.arm(Timer::CloseTimeout, client(1), t0, t0 + 30 * SECOND);
        timers.arm(Timer::CloseTimeout, client(2), t0 + SECOND, t0 + 7 * SECOND);
        assert_eq!(timers.pop_due(t0 + 6 * SECOND), None);
        assert_eq!(timers.next(|_, _| true), Some(t0 + 7 * SECOND));
        let mut due = || timers.pop_due(t0 + 30 * SECOND).map(|(_, entry)| entry.client);
        assert_eq!((due(), due(), due()), (Some(client(2)), Some(client(1)), None));
    }

    #[test]
    fn stale_entries_neither_wake_the_loop_nor_pile_up() {
        let t0 = start();
        let mut timers = LateTimers::default();
        for number in 0..=SMALLEST_WEEDING_ENTRIES {
            timers.arm(Timer::CloseTimeout, client(number), t0, t0 + SECOND);
        }
        timers.weed(|_, entry| entry.client == client(7));
        assert_eq!(timers.heap.len(), 1);
        assert_eq!(
            timers.next(|_, entry| entry.client == client(7)),
            Some(t0 + SECOND)
        );
        assert_eq!(timers.next(|_, _| false), None);
        assert!(!timers.has_due(t0 + 60 * SECOND));
    }
}
