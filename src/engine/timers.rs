//! Deadlines that are all the same time away.
//!
//! Owns the order: with equal delays a queue in order of arrival is sorted by
//! itself. An entry is pushed once per transition, with that instant and never
//! an older one, and is looked at again only when it is due. Refuses to
//! decide: whether an entry still means something is asked of the client.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client_table::ClientId;

/// What a client may have due. Each kind has one delay for all clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Over the limit for a share of the grace: time to see that it is not
    /// our own kernel that keeps its acknowledgements out.
    AckCheck,
    /// Over the limit for the grace.
    WriteTimeout,
    /// Not empty for the drain timeout.
    DrainTimeout,
    /// The last of what was sent is not taken for the grace.
    CloseTimeout,
    /// Not connected for the connect timeout.
    ConnectTimeout,
}

impl Timer {
    pub(crate) const ALL: [Self; 5] = [
        Self::AckCheck,
        Self::WriteTimeout,
        Self::DrainTimeout,
        Self::CloseTimeout,
        Self::ConnectTimeout,
    ];
}

/// Clients that each have something due one fixed delay after a start.
#[derive(Debug)]
pub(crate) struct TimerQueue {
    delay: Duration,
    /// Sorted by start.
    entries: VecDeque<Entry>,
    /// Length at which stale entries are weeded out.
    weed_at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start: Instant,
    pub(crate) client: ClientId,
}

/// A short queue is not worth weeding.
const SMALLEST_WEEDING_ENTRIES: usize = 1024;

impl TimerQueue {
    pub(crate) const fn new(delay: Duration) -> Self {
        Self {
            delay,
            entries: VecDeque::new(),
            weed_at: SMALLEST_WEEDING_ENTRIES,
        }
    }

    /// Arms a deadline one delay after `start`. A client that comes and goes
    /// leaves stale entries behind; `is_live` says which still count, so that
    /// the queue stays below twice the number of those, or below 1,024.
    pub(crate) fn push(&mut self, start: Instant, client: ClientId, is_live: impl Fn(&Entry) -> bool) {
        debug_assert!(self.entries.back().is_none_or(|last| last.start <= start));
        if self.entries.len() >= self.weed_at {
            self.entries.retain(is_live);
            self.weed_at = SMALLEST_WEEDING_ENTRIES.max(2 * self.entries.len());
        }
        self.entries.push_back(Entry { start, client });
    }

    /// Whether an entry is due at `now`; it may be stale.
    pub(crate) fn has_due(&self, now: Instant) -> bool {
        self.entries
            .front()
            .is_some_and(|first| first.start + self.delay <= now)
    }

    /// Takes out the next entry that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        if self.has_due(now) {
            self.entries.pop_front()
        } else {
            None
        }
    }

    /// The next instant at which a live entry is due. Stale ones in front are
    /// thrown away on the way.
    pub(crate) fn next(&mut self, is_live: impl Fn(&Entry) -> bool) -> Option<Instant> {
        while let Some(first) = self.entries.front() {
            if is_live(first) {
                return Some(first.start + self.delay);
            }
            self.entries.pop_front();
        }
        if self.entries.capacity() > SMALLEST_WEEDING_ENTRIES {
            self.entries = VecDeque::new();
            self.weed_at = SMALLEST_WEEDING_ENTRIES;
        }
        None
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

    fn client(number: usize) -> ClientId {
        ClientId::from_token(number)
    }

    #[test]
    fn entries_come_out_in_order_and_not_before_they_are_due() {
        let t0 = start();
        let second = Duration::from_secs(1);
        let mut queue = TimerQueue::new(5 * second);
        queue.push(t0, client(1), |_| true);
        queue.push(t0 + second, client(2), |_| true);
        assert_eq!(queue.pop_due(t0 + 5 * second - Duration::from_nanos(1)), None);
        assert_eq!(queue.next(|_| true), Some(t0 + 5 * second));
        assert_eq!(
            queue.pop_due(t0 + 5 * second).map(|entry| entry.client),
            Some(client(1))
        );
        assert_eq!(queue.pop_due(t0 + 5 * second), None);
        assert_eq!(
            queue.pop_due(t0 + 60 * second).map(|entry| entry.client),
            Some(client(2))
        );
    }

    #[test]
    fn stale_entries_do_not_wake_the_loop() {
        let t0 = start();
        let mut queue = TimerQueue::new(Duration::from_secs(5));
        queue.push(t0, client(1), |_| true);
        queue.push(t0, client(2), |_| true);
        assert_eq!(
            queue.next(|entry| entry.client == client(2)),
            Some(t0 + Duration::from_secs(5))
        );
        assert_eq!(queue.next(|_| false), None);
    }

    #[test]
    fn weeding_costs_little_while_most_entries_still_count() {
        let t0 = start();
        let mut queue = TimerQueue::new(Duration::from_secs(5));
        let looks = std::cell::Cell::new(0);
        let pushes = 10 * SMALLEST_WEEDING_ENTRIES;
        for number in 0..pushes {
            queue.push(t0, client(number), |_| {
                looks.set(looks.get() + 1);
                true
            });
        }
        assert_eq!(queue.entries.len(), pushes, "all of them count");
        assert!(looks.get() <= 4 * pushes, "{} looks", looks.get());
    }

    #[test]
    fn a_client_that_stalls_and_recovers_for_ever_does_not_grow_the_queue() {
        let t0 = start();
        let mut queue = TimerQueue::new(Duration::from_secs(5));
        for turn in 0..100_000 {
            let now = t0 + Duration::from_micros(turn);
            queue.push(now, client(1), |entry| entry.start == now);
            assert!(queue.entries.len() <= SMALLEST_WEEDING_ENTRIES + 1);
        }
    }
}
