//! The slow-client policy: since when a client is too slow, and at which
//! instant it has to go.
//!
//! Owns the two clocks of one client and the rules that read them. Refuses to
//! sample: the clocks start and stop inside the very write and flush that
//! changed the queue, so that a queue that drains and fills again between two
//! looks is seen. Nothing that a client sends resets a clock.

use std::fmt;
use std::time::{Duration, Instant};

use super::send_queue::SendQueue;
use crate::limits::Limits;

/// Why a client is too slow to keep. Log, counters and tests share these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlowReason {
    /// Over the limit for longer than the grace.
    WriteTimeout,
    /// Something waited, without a break, for longer than the drain timeout.
    DrainTimeout,
    /// A write would have brought the queue over the hard limit.
    HardLimit,
    /// All queues together were over the memory budget, and this was the
    /// longest.
    MemoryBudget,
}

impl SlowReason {
    /// Every reason, in the order in which counters list them.
    pub const ALL: [Self; 4] = [
        Self::WriteTimeout,
        Self::DrainTimeout,
        Self::HardLimit,
        Self::MemoryBudget,
    ];
}

impl fmt::Display for SlowReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteTimeout => "write timeout",
            Self::DrainTimeout => "not drained",
            Self::HardLimit => "hard limit",
            Self::MemoryBudget => "memory budget",
        })
    }
}

/// The numbers by which every client of one server is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Queue length in bytes at or above which a client is over the limit.
    pub limit_bytes: usize,
    /// Queue length in bytes that no write may exceed.
    pub hard_limit_bytes: usize,
    /// How long a client may stay over the limit.
    pub grace: Duration,
    /// How long a queue may stay non-empty without a break.
    pub drain_timeout: Duration,
}

impl Policy {
    /// The policy that these limits ask for.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            limit_bytes: limits.limit(),
            hard_limit_bytes: limits.hard_limit(),
            grace: limits.grace,
            drain_timeout: limits.drain_timeout(),
        }
    }

    /// Whether a write that leaves `rest_bytes` to wait behind `queue_bytes`
    /// goes over the hard limit.
    #[must_use]
    pub const fn exceeds_hard_limit(&self, queue_bytes: usize, rest_bytes: usize) -> bool {
        queue_bytes.saturating_add(rest_bytes) > self.hard_limit_bytes
    }
}

/// Which clocks a change of the queue has started. The caller arms one
/// deadline for each, and need not hear of clocks that stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The client came over the limit; ask again after the grace.
    pub over_limit: bool,
    /// Something began to wait; ask again after the drain timeout.
    pub waiting: bool,
}

/// The clocks of one client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    over_limit_since: Option<Instant>,
    waiting_since: Option<Instant>,
}

impl Clocks {
    /// Notes the queue as it is after a write or a flush. Call it after every
    /// change of the queue, also when a flush empties it and a write fills it
    /// again at the same instant.
    pub fn queue_changed(&mut self, policy: &Policy, queue: &SendQueue, now: Instant) -> Started {
        let mut started = Started::default();
        if queue.is_empty() {
            *self = Self::default();
            return started;
        }
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
            started.waiting = true;
        }
        if queue.len() >= policy.limit_bytes {
            if self.over_limit_since.is_none() {
                self.over_limit_since = Some(now);
                started.over_limit = true;
            }
        } else if !queue.needs_drain() {
            self.over_limit_since = None;
        }
        started
    }

    /// The first reason that holds at `now`, if any. Before acting on it, try
    /// one last flush, note its outcome, and ask again.
    #[must_use]
    pub fn verdict(&self, policy: &Policy, now: Instant) -> Option<SlowReason> {
        let longer_than = |since: Option<Instant>, time: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= time)
        };
        if longer_than(self.over_limit_since, policy.grace) {
            Some(SlowReason::WriteTimeout)
        } else if longer_than(self.waiting_since, policy.drain_timeout) {
            Some(SlowReason::DrainTimeout)
        } else {
            None
        }
    }

    /// The instant at which [`verdict`](Self::verdict) will first name a
    /// reason if the queue does not change until then.
    #[must_use]
    pub fn deadline(&self, policy: &Policy) -> Option<Instant> {
        let over_limit = self.over_limit_since.map(|since| since + policy.grace);
        let waiting = self.waiting_since.map(|since| since + policy.drain_timeout);
        match (over_limit, waiting) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Since when the client is over the limit.
    #[must_use]
    pub const fn over_limit_since(&self) -> Option<Instant> {
        self.over_limit_since
    }

    /// Since when something has been waiting without a break.
    #[must_use]
    pub const fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: usize = 100;
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn policy() -> Policy {
        Policy {
            limit_bytes: MARK,
            hard_limit_bytes: 16 * MARK,
            grace: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_reason_reads_as_scripts_know_it_from_the_log() {
        let said = SlowReason::ALL.map(|reason| reason.to_string());
        assert_eq!(
            said,
            ["write timeout", "not drained", "hard limit", "memory budget"]
        );
    }

    struct Client {
        queue: SendQueue,
        slow: Clocks,
        policy: Policy,
    }

    impl Client {
        fn new() -> Self {
            Self {
                queue: SendQueue::new(MARK),
                slow: Clocks::default(),
                policy: policy(),
            }
        }

        fn write(&mut self, count: usize, now: Instant) -> Started {
            self.queue.write(&vec![0; count]);
            self.slow.queue_changed(&self.policy, &self.queue, now)
        }

        fn flush(&mut self, count: usize, now: Instant) -> Started {
            self.queue.sent(count);
            self.slow.queue_changed(&self.policy, &self.queue, now)
        }

        fn verdict(&self, now: Instant) -> Option<SlowReason> {
            self.slow.verdict(&self.policy, now)
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_client_over_the_limit_for_the_grace_has_to_go_and_not_a_moment_earlier() {
        let t0 = start();
        let mut client = Client::new();
        assert!(client.write(MARK, t0).over_limit);
        let deadline = t0 + policy().grace;
        assert_eq!(client.verdict(deadline - MILLISECOND), None);
        assert_eq!(client.verdict(deadline), Some(SlowReason::WriteTimeout));
        assert_eq!(client.slow.deadline(&policy()), Some(deadline));
    }

    #[test]
    fn one_byte_below_the_limit_is_not_over_it() {
        let t0 = start();
        let mut client = Client::new();
        let started = client.write(MARK - 1, t0);
        assert_eq!(
            started,
            Started {
                over_limit: false,
                waiting: true
            }
        );
        assert_eq!(client.verdict(t0 + policy().grace), None);
    }

    #[test]
    fn a_dip_below_the_limit_does_not_stop_the_clock_while_a_pause_stands() {
        let t0 = start();
        let mut client = Client::new();
        client.write(MARK, t0);
        client.flush(MARK - 1, t0 + 4_999 * MILLISECOND);
        assert_eq!(
            client.verdict(t0 + policy().grace),
            Some(SlowReason::WriteTimeout)
        );
    }

    #[test]
    fn drain_stops_the_clock_and_the_next_time_over_starts_it_anew() {
        let t0 = start();
        let mut client = Client::new();
        client.write(MARK, t0);
        let drained = t0 + 4_999 * MILLISECOND;
        client.flush(MARK, drained);
        assert_eq!(client.slow.deadline(&policy()), None);
        // Full again at the same instant, as one turn does it.
        assert!(client.write(MARK, drained).over_limit);
        assert_eq!(client.verdict(t0 + policy().grace), None);
        assert_eq!(
            client.verdict(drained + policy().grace),
            Some(SlowReason::WriteTimeout)
        );
    }

    #[test]
    fn with_a_limit_above_the_mark_the_clock_stops_below_it_only_once_drained() {
        let t0 = start();
        let mut client = Client::new();
        client.policy.limit_bytes = 3 * MARK;
        assert!(!client.write(2 * MARK, t0).over_limit);
        assert!(client.write(MARK, t0).over_limit);
        client.flush(MARK, t0);
        assert!(client.slow.over_limit_since().is_some(), "a pause stands");
        client.flush(2 * MARK, t0);
        assert!(client.slow.over_limit_since().is_none());
    }

    #[test]
    fn with_a_limit_below_the_mark_the_clock_stops_below_it_as_nobody_paused() {
        let t0 = start();
        let mut client = Client::new();
        client.policy.limit_bytes = MARK / 2;
        assert!(client.write(MARK / 2, t0).over_limit);
        client.flush(1, t0);
        assert!(client.slow.over_limit_since().is_none());
        assert!(client.slow.waiting_since().is_some());
    }

    #[test]
    fn a_queue_below_the_limit_that_never_empties_goes_at_the_drain_timeout() {
        let t0 = start();
        let mut client = Client::new();
        client.write(50, t0);
        let mut now = t0;
        while now < t0 + policy().drain_timeout - MILLISECOND {
            assert_eq!(client.verdict(now), None);
            client.flush(10, now);
            client.write(10, now);
            now += Duration::from_millis(100);
        }
        assert_eq!(
            client.verdict(t0 + policy().drain_timeout),
            Some(SlowReason::DrainTimeout)
        );
    }

    #[test]
    fn emptying_the_queue_even_for_an_instant_stops_the_drain_timeout() {
        let t0 = start();
        let mut client = Client::new();
        client.write(50, t0);
        let later = t0 + Duration::from_secs(59);
        client.flush(50, later);
        assert!(client.write(50, later).waiting);
        assert_eq!(client.verdict(t0 + policy().drain_timeout), None);
        assert_eq!(
            client.verdict(later + policy().drain_timeout),
            Some(SlowReason::DrainTimeout)
        );
    }

    #[test]
    fn further_writes_do_not_restart_a_clock() {
        let t0 = start();
        let mut client = Client::new();
        client.write(MARK, t0);
        for seconds in 1..5 {
            let started = client.write(10, t0 + Duration::from_secs(seconds));
            assert_eq!(started, Started::default());
        }
        assert_eq!(
            client.verdict(t0 + policy().grace),
            Some(SlowReason::WriteTimeout)
        );
    }

    #[test]
    fn the_hard_limit_may_be_reached_but_not_exceeded() {
        let hard = policy().hard_limit_bytes;
        assert!(!policy().exceeds_hard_limit(0, hard));
        assert!(policy().exceeds_hard_limit(1, hard));
        assert!(policy().exceeds_hard_limit(usize::MAX, usize::MAX));
    }

    #[test]
    fn a_clock_that_goes_backwards_disconnects_nobody() {
        let t0 = start();
        let mut client = Client::new();
        client.write(MARK, t0 + Duration::from_secs(10));
        assert_eq!(client.verdict(t0), None);
    }
}
