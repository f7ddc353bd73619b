//! Timers of clients, one queue for each kind.
//!
//! Owns the order: all timers of one kind run for the same time, so a queue in
//! order of arrival is sorted. An entry is pushed once for each start of a
//! clock, with the instant of that turn and never an older one. Refuses to
//! decide: an entry of a clock that has stopped is stale, and whether one is
//! stale is asked of the client when the entry is due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client_table::ClientId;
use crate::backpressure::SlowReason;
use crate::backpressure::rules::Started;
use crate::limits::{Limits, SILENCE_LOOKS};

/// What a client may have due. Each kind runs for one time for all clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The clock of a rule about slow clients.
    Slow(SlowReason),
    /// The same for an upstream, which has longer.
    SlowUpstream(SlowReason),
    /// Over the limit for a share of the grace: time to check that our own
    /// kernel does not drop the ACKs of this client.
    AckCheck,
    /// The peer has not acknowledged the last bytes of an orderly close.
    CloseTimeout,
    /// The connection that we asked for is not made.
    ConnectTimeout,
    /// Time to look whether the peer acknowledges what it is sent.
    Progress,
    /// Time to look whether a client is idle.
    Idle,
    /// Time to look whether a half-closed client is silent.
    HalfClosed,
}

const RULES: usize = SlowReason::ALL.len();
const KINDS: usize = 2 * RULES + 6;

impl Timer {
    /// Every timer, at its index.
    const ALL: [Self; KINDS] = {
        let mut all = [Self::AckCheck; KINDS];
        let mut rule = 0;
        while rule < RULES {
            all[rule] = Self::Slow(SlowReason::ALL[rule]);
            all[RULES + rule] = Self::SlowUpstream(SlowReason::ALL[rule]);
            rule += 1;
        }
        all[Self::CloseTimeout.index()] = Self::CloseTimeout;
        all[Self::ConnectTimeout.index()] = Self::ConnectTimeout;
        all[Self::Progress.index()] = Self::Progress;
        all[Self::Idle.index()] = Self::Idle;
        all[Self::HalfClosed.index()] = Self::HalfClosed;
        all
    };

    const fn index(self) -> usize {
        match self {
            Self::Slow(reason) => reason as usize,
            Self::SlowUpstream(reason) => RULES + reason as usize,
            Self::AckCheck => 2 * RULES,
            Self::CloseTimeout => 2 * RULES + 1,
            Self::ConnectTimeout => 2 * RULES + 2,
            Self::Progress => 2 * RULES + 3,
            Self::Idle => 2 * RULES + 4,
            Self::HalfClosed => 2 * RULES + 5,
        }
    }

    /// The timers that run as long as a clock of their client does.
    pub(super) fn of_clocks() -> impl Iterator<Item = Self> {
        let timed = SlowReason::ALL.into_iter().filter(|reason| reason.is_timed());
        let slow = timed.flat_map(|reason| [Self::Slow(reason), Self::SlowUpstream(reason)]);
        slow.chain([Self::AckCheck, Self::CloseTimeout, Self::ConnectTimeout])
    }

    /// How long this timer runs.
    pub(super) fn after(self, limits: &Limits) -> Duration {
        match self {
            // A rule without a time is judged at a write, and never armed.
            Self::Slow(reason) => reason.after(limits, 0).unwrap_or_default(),
            Self::SlowUpstream(reason) => reason.after(&limits.for_upstreams(), 0).unwrap_or_default(),
            Self::AckCheck => limits.ack_check_delay(),
            Self::CloseTimeout => limits.grace,
            Self::ConnectTimeout => limits.connect_timeout,
            Self::Progress => limits.progress_interval(),
            Self::Idle => limits.idle_timeout.unwrap_or_default() / SILENCE_LOOKS,
            Self::HalfClosed => limits.half_closed_timeout / SILENCE_LOOKS,
        }
    }
}

/// All timers of all clients.
#[derive(Debug)]
pub(super) struct Timers {
    queues: [TimerQueue; KINDS],
    /// A queue has grown to the length at which it is weeded.
    is_weeding_due: bool,
}

impl Timers {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            queues: Timer::ALL.map(|timer| TimerQueue::new(timer.after(limits))),
            is_weeding_due: false,
        }
    }

    /// Arms a timer that begins to run at `now`, the instant of this turn.
    pub(super) fn arm(&mut self, timer: Timer, id: ClientId, now: Instant) {
        self.is_weeding_due |= self.queues[timer.index()].push(now, id);
    }

    /// Arms a timer for each clock of a client, or of an upstream, that has
    /// started.
    pub(super) fn arm_started(&mut self, started: Started, id: ClientId, is_upstream: bool, now: Instant) {
        for reason in started.reasons() {
            let timer = match is_upstream {
                true => Timer::SlowUpstream(reason),
                false => Timer::Slow(reason),
            };
            self.arm(timer, id, now);
        }
        if started.over_limit {
            self.arm(Timer::AckCheck, id, now);
        }
    }

    /// Whether a rule about slow clients may be broken by now.
    pub(super) fn has_slow_due(&self, now: Instant) -> bool {
        self.queues[..2 * RULES].iter().any(|queue| queue.has_due(now))
    }

    /// Takes out the next entry of this kind that is due at `now`. It may be
    /// stale.
    pub(super) fn pop_due(&mut self, timer: Timer, now: Instant) -> Option<Entry> {
        self.queues[timer.index()].pop_due(now)
    }

    /// The next instant at which a live entry is due. Stale entries in front
    /// are dropped.
    pub(super) fn next(&mut self, is_live: impl Fn(Timer, &Entry) -> bool) -> Option<Instant> {
        let queues = Timer::ALL.into_iter().zip(&mut self.queues);
        queues
            .filter_map(|(timer, queue)| queue.next(|entry| is_live(timer, entry)))
            .min()
    }

    /// Drops stale entries of queues that have grown long, so that a queue
    /// stays below twice its live entries plus those of one turn, or below
    /// 1,024. Call it once a turn.
    pub(super) fn weed(&mut self, is_live: impl Fn(Timer, &Entry) -> bool) {
        if !std::mem::take(&mut self.is_weeding_due) {
            return;
        }
        for (timer, queue) in Timer::ALL.into_iter().zip(&mut self.queues) {
            queue.weed(|entry| is_live(timer, entry));
        }
    }
}

/// Clients that each have something due one fixed time after a start.
#[derive(Debug)]
struct TimerQueue {
    after: Duration,
    /// No entry is older.
    base: Option<Instant>,
    /// Sorted by start.
    entries: VecDeque<Packed>,
    /// Length from which stale entries are dropped.
    weed_at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) start: Instant,
    pub(super) client: ClientId,
}

/// An entry in 16 bytes: every client may have several.
#[derive(Clone, Copy, Debug)]
struct Packed {
    /// From the base of the queue to the start, in nanoseconds.
    offset: u64,
    client: ClientId,
}

impl Packed {
    fn since(self, base: Instant) -> Entry {
        Entry {
            start: base + Duration::from_nanos(self.offset),
            client: self.client,
        }
    }
}

/// A short queue is not worth weeding.
const SMALLEST_WEEDING_ENTRIES: usize = 1024;

impl TimerQueue {
    const fn new(after: Duration) -> Self {
        Self {
            after,
            base: None,
            entries: VecDeque::new(),
            weed_at: SMALLEST_WEEDING_ENTRIES,
        }
    }

    /// Adds an entry that is due one timer's length after `start`. Answers
    /// whether the queue is so long that it should be weeded.
    fn push(&mut self, start: Instant, client: ClientId) -> bool {
        let base = *self.base.get_or_insert(start);
        debug_assert!(
            self.entries
                .back()
                .is_none_or(|last| last.since(base).start <= start)
        );
        // 64 bits of nanoseconds are 584 years.
        let offset = start.saturating_duration_since(base).as_nanos() as u64;
        self.entries.push_back(Packed { offset, client });
        self.entries.len() > self.weed_at
    }

    fn weed(&mut self, is_live: impl Fn(&Entry) -> bool) {
        if let Some(base) = self.base
            && self.entries.len() > self.weed_at
        {
            self.entries.retain(|entry| is_live(&entry.since(base)));
            self.weed_at = SMALLEST_WEEDING_ENTRIES.max(2 * self.entries.len());
        }
    }

    fn first(&self) -> Option<Entry> {
        Some(self.entries.front()?.since(self.base?))
    }

    /// Whether an entry is due at `now`. It may be stale.
    fn has_due(&self, now: Instant) -> bool {
        self.first().is_some_and(|first| first.start + self.after <= now)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        let first = self.first().filter(|first| first.start + self.after <= now)?;
        self.entries.pop_front();
        Some(first)
    }

    fn next(&mut self, is_live: impl Fn(&Entry) -> bool) -> Option<Instant> {
        while let Some(first) = self.first() {
            if is_live(&first) {
                return Some(first.start + self.after);
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
    use crate::test_time::start;

    fn client(number: usize) -> ClientId {
        ClientId::from_token(number)
    }

    #[test]
    fn entries_come_out_in_order_and_not_before_they_are_due() {
        let t0 = start();
        let second = Duration::from_secs(1);
        let mut queue = TimerQueue::new(5 * second);
        queue.push(t0, client(1));
        queue.push(t0 + second, client(2));
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
        queue.push(t0, client(1));
        queue.push(t0, client(2));
        assert_eq!(
            queue.next(|entry| entry.client == client(2)),
            Some(t0 + Duration::from_secs(5))
        );
        assert_eq!(queue.next(|_| false), None);
    }

    #[test]
    fn each_kind_of_timer_has_a_queue_of_its_own() {
        for (index, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer.index(), index);
        }
    }

    #[test]
    fn stale_timers_are_dropped_once_a_turn_and_live_ones_are_not() {
        let t0 = start();
        let mut timers = Timers::new(&Limits::default());
        let timer = Timer::Slow(SlowReason::WriteTimeout);
        for number in 0..=SMALLEST_WEEDING_ENTRIES {
            timers.arm(timer, client(number), t0);
        }
        timers.weed(|_, entry| entry.client == client(7));
        let later = t0 + Limits::default().grace;
        assert_eq!(
            timers.pop_due(timer, later).map(|entry| entry.client),
            Some(client(7))
        );
        assert_eq!(timers.pop_due(timer, later), None);
    }

    #[test]
    fn weeding_costs_little_while_most_entries_still_count() {
        let t0 = start();
        let mut queue = TimerQueue::new(Duration::from_secs(5));
        let looks = std::cell::Cell::new(0);
        let pushes = 10 * SMALLEST_WEEDING_ENTRIES;
        for number in 0..pushes {
            if queue.push(t0, client(number)) {
                queue.weed(|_| {
                    looks.set(looks.get() + 1);
                    true
                });
            }
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
            queue.push(now, client(1));
            queue.weed(|entry| entry.start == now);
            assert!(queue.entries.len() <= SMALLEST_WEEDING_ENTRIES + 1);
        }
    }
}
