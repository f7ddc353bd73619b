//! The rules by which a slow client is disconnected, and the clocks of one
//! client that they read.
//!
//! Owns the table of rules. A new rule is a variant, a row, and a clock if no
//! present one will do, all in this file; its number stands in `limits`.
//! Timers, log and counters iterate over the table. Refuses to sample: a clock
//! starts and stops inside the write or flush that changed the queue. A queue
//! that drains and fills again between two looks is therefore seen. Nothing
//! that a client sends resets a clock.

use std::fmt;
use std::time::{Duration, Instant};

use super::send_queue::SendQueue;
use crate::limits::Limits;

/// The rule that a slow client broke. Log, counters and tests share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SlowReason {
    /// The queue was at or over the limit for the grace.
    WriteTimeout,
    /// The queue was never empty for the drain timeout.
    DrainTimeout,
    /// A write would have brought the queue over the hard limit.
    HardLimit,
    /// All queues together were over the memory budget, and this was the
    /// longest.
    MemoryBudget,
}

/// One row of [`RULES`].
struct Rule {
    reason: SlowReason,
    /// The words of the log and of the counters.
    words: &'static str,
    /// Since when the client has been slow, as far as this rule sees.
    since: fn(&Clocks) -> Option<Instant>,
    /// `None`: judged at the write, which logs its own numbers.
    timed: Option<Timed>,
}

/// A rule that a timer judges.
struct Timed {
    /// Whether the clock of this rule is among those that have started.
    starts: fn(Started) -> bool,
    /// How long the clock may run, for a client that has announced a window of
    /// so many bytes at most.
    after: fn(&Limits, u32) -> Duration,
    /// The number that the log line gives.
    detail: fn(&Limits, u32) -> String,
}

/// Every rule. Of several broken ones the first is named.
const RULES: [Rule; 4] = [
    Rule {
        reason: SlowReason::WriteTimeout,
        words: "write timeout",
        since: |clocks| clocks.over_limit_since,
        timed: Some(Timed {
            starts: |started| started.over_limit,
            after: Limits::grace_for,
            detail: |limits, largest_window_bytes| {
                let grace = limits.grace_for(largest_window_bytes);
                let raised = match grace > limits.grace {
                    true => format!(", grace {:.3} s", grace.as_secs_f64()),
                    false => String::new(),
                };
                format!("limit {}{raised}", limits.limit_bytes())
            },
        }),
    },
    Rule {
        reason: SlowReason::DrainTimeout,
        words: "not drained",
        since: |clocks| clocks.waiting_since,
        timed: Some(Timed {
            starts: |started| started.waiting,
            after: Limits::drain_timeout_for,
            detail: |limits, largest_window_bytes| {
                let after = limits.drain_timeout_for(largest_window_bytes);
                format!("not empty for {after:?}")
            },
        }),
    },
    Rule {
        reason: SlowReason::HardLimit,
        words: "hard limit",
        since: |clocks| clocks.waiting_since,
        timed: None,
    },
    Rule {
        reason: SlowReason::MemoryBudget,
        words: "memory budget",
        since: |clocks| clocks.waiting_since,
        timed: None,
    },
];

/// A reason is the index of its rule.
const _: () = {
    let mut index = 0;
    while index < RULES.len() {
        assert!(RULES[index].reason as usize == index);
        index += 1;
    }
};

impl SlowReason {
    /// Every reason, in the order in which counters list them.
    pub const ALL: [Self; RULES.len()] = {
        let mut all = [Self::WriteTimeout; RULES.len()];
        let mut index = 0;
        while index < RULES.len() {
            all[index] = RULES[index].reason;
            index += 1;
        }
        all
    };

    const fn rule(self) -> &'static Rule {
        let rules: &'static [Rule] = &RULES;
        &rules[self as usize]
    }

    /// The reason in a word or two, as the log has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.rule().words
    }

    /// Whether a timer judges by this rule, and not a write.
    #[must_use]
    pub const fn is_timed(self) -> bool {
        self.rule().timed.is_some()
    }

    /// How long the clock of this rule may run, for a client that has announced
    /// a window of `largest_window_bytes` at most. `None` for a rule that is
    /// judged at a write, not by a timer.
    #[must_use]
    pub fn after(self, limits: &Limits, largest_window_bytes: u32) -> Option<Duration> {
        let timed = self.rule().timed.as_ref();
        timed.map(|timed| (timed.after)(limits, largest_window_bytes))
    }

    /// The number of this rule, as the log line of a disconnect gives it, for a
    /// client that has announced a window of `largest_window_bytes` at most.
    /// Empty for a rule that is judged at a write.
    #[must_use]
    pub fn detail(self, limits: &Limits, largest_window_bytes: u32) -> String {
        let timed = self.rule().timed.as_ref();
        timed.map_or_else(String::new, |timed| (timed.detail)(limits, largest_window_bytes))
    }
}

impl fmt::Display for SlowReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule().words)
    }
}

/// Whether a write that leaves `rest_bytes` to wait behind `queue_bytes` goes
/// over the hard limit.
#[must_use]
pub fn exceeds_hard_limit(limits: &Limits, queue_bytes: usize, rest_bytes: usize) -> bool {
    queue_bytes.saturating_add(rest_bytes) > limits.hard_limit_bytes()
}

/// The clocks that a change of the queue has started. The caller arms one
/// timer for each [`reason`](Self::reasons), and may ignore clocks that stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The queue reached the limit.
    pub over_limit: bool,
    /// The queue is no longer empty.
    pub waiting: bool,
}

impl Started {
    /// The rules to judge once their time is over.
    pub fn reasons(self) -> impl Iterator<Item = SlowReason> {
        let starts = move |rule: &&Rule| rule.timed.as_ref().is_some_and(|timed| (timed.starts)(self));
        RULES.iter().filter(starts).map(|rule| rule.reason)
    }
}

/// Other limits for a client that is connected.
#[derive(Clone, Copy, Debug)]
pub struct LimitsChange<'a> {
    /// The limits that held so far.
    pub before: &'a Limits,
    /// Those that hold from here on.
    pub after: &'a Limits,
    /// The largest window that the client has announced, in bytes.
    pub largest_window_bytes: u32,
    /// From here on.
    pub now: Instant,
}

impl LimitsChange<'_> {
    /// Whether a client has less time by this rule than before. Shadow mode
    /// allows any time, so its end shortens all.
    #[must_use]
    pub fn shortens(&self, reason: SlowReason) -> bool {
        let time = |limits| reason.after(limits, self.largest_window_bytes);
        (self.before.shadow && !self.after.shadow) || time(self.after) < time(self.before)
    }
}

/// The clocks of one client: since when it is slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    over_limit_since: Option<Instant>,
    waiting_since: Option<Instant>,
}

impl Clocks {
    /// Starts and stops the clocks by the queue as it is after a write or a
    /// flush. Call it after every change of the queue, also when a flush
    /// empties the queue and a write fills it again at the same instant.
    pub fn queue_changed(&mut self, limits: &Limits, queue: &SendQueue, now: Instant) -> Started {
        let mut started = Started::default();
        if queue.is_empty() {
            *self = Self::default();
            return started;
        }
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
            started.waiting = true;
        }
        if queue.len() >= limits.limit_bytes() {
            if self.over_limit_since.is_none() {
                self.over_limit_since = Some(now);
                started.over_limit = true;
            }
        } else if !queue.needs_drain() {
            self.over_limit_since = None;
        }
        started
    }

    /// Starts and stops the clocks by new limits. A clock whose time became
    /// shorter starts anew, so that nobody is judged for a time that was allowed.
    /// A limit that was raised above the queue stops the clock of the grace.
    pub fn limits_changed(&mut self, change: &LimitsChange<'_>, queue: &SendQueue) -> Started {
        let mut started = Started::default();
        if queue.is_empty() {
            return started;
        }
        let is_over = queue.len() >= change.after.limit_bytes();
        let was_raised = change.after.limit_bytes() > change.before.limit_bytes();
        if was_raised && !is_over {
            self.over_limit_since = None;
        }
        let is_running = self.over_limit_since.is_some();
        if (is_over && !is_running) || (is_running && change.shortens(SlowReason::WriteTimeout)) {
            self.over_limit_since = Some(change.now);
            started.over_limit = true;
        }
        if self.waiting_since.is_some() && change.shortens(SlowReason::DrainTimeout) {
            self.waiting_since = Some(change.now);
            started.waiting = true;
        }
        started
    }

    /// Has clocks that have just started begin later, so that many clients do not
    /// go together.
    pub fn postpone(&mut self, started: Started, over_limit_by: Duration, waiting_by: Duration) {
        let later = |clock: &mut Option<Instant>, time: Duration| {
            *clock = clock.and_then(|since| since.checked_add(time));
        };
        if started.over_limit {
            later(&mut self.over_limit_since, over_limit_by);
        }
        if started.waiting {
            later(&mut self.waiting_since, waiting_by);
        }
    }

    /// The first rule that is broken at `now`, if any, by a client that has
    /// announced a window of `largest_window_bytes` at most. Before you act on it,
    /// try one last flush, report it by [`queue_changed`](Self::queue_changed),
    /// and ask again.
    #[must_use]
    pub fn broken(&self, limits: &Limits, largest_window_bytes: u32, now: Instant) -> Option<SlowReason> {
        let is_broken = |reason: &SlowReason| self.breaks(*reason, limits, largest_window_bytes, now);
        SlowReason::ALL.into_iter().find(is_broken)
    }

    /// Whether the client breaks this rule, which a timer judges.
    pub(crate) fn breaks(
        &self,
        reason: SlowReason,
        limits: &Limits,
        largest_window_bytes: u32,
        now: Instant,
    ) -> bool {
        let (since, after) = (self.since(reason), reason.after(limits, largest_window_bytes));
        since
            .zip(after)
            .is_some_and(|(since, after)| now.saturating_duration_since(since) >= after)
    }

    /// Since when the client has been slow by this rule.
    #[must_use]
    pub fn since(&self, reason: SlowReason) -> Option<Instant> {
        (reason.rule().since)(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    const MARK: usize = 100;
    const WINDOW: u32 = 1 << 20;
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn limits() -> Limits {
        Limits {
            high_water_mark_bytes: MARK,
            limit_bytes: Some(MARK),
            hard_limit_bytes: Some(16 * MARK),
            grace: Duration::from_secs(5),
            drain_timeout: Some(Duration::from_secs(60)),
            ..Limits::default()
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
        clocks: Clocks,
        limits: Limits,
    }

    impl Client {
        fn new() -> Self {
            Self {
                queue: SendQueue::new(MARK),
                clocks: Clocks::default(),
                limits: limits(),
            }
        }

        fn write(&mut self, count: usize, now: Instant) -> Started {
            self.queue.write(&vec![0; count]);
            self.clocks.queue_changed(&self.limits, &self.queue, now)
        }

        fn flush(&mut self, count: usize, now: Instant) -> Started {
            self.queue.sent(count);
            self.clocks.queue_changed(&self.limits, &self.queue, now)
        }

        fn broken(&self, now: Instant) -> Option<SlowReason> {
            self.clocks.broken(&self.limits, WINDOW, now)
        }
    }

    #[test]
    fn a_client_over_the_limit_for_the_grace_has_to_go_and_not_a_moment_earlier() {
        let t0 = start();
        let mut client = Client::new();
        assert!(client.write(MARK, t0).over_limit);
        let deadline = t0 + limits().grace;
        assert_eq!(client.broken(deadline - MILLISECOND), None);
        assert_eq!(client.broken(deadline), Some(SlowReason::WriteTimeout));
    }

    #[test]
    fn a_client_has_until_a_reader_of_the_slowest_rate_would_have_opened_its_window() {
        let t0 = start();
        let mut client = Client::new();
        client.limits.slowest_reader_bytes_per_s = Some(64 * 1024);
        client.write(MARK, t0);
        let grace = client.limits.grace_for(WINDOW);
        assert!(grace > limits().grace + MILLISECOND);
        assert_eq!(client.broken(t0 + grace - MILLISECOND), None);
        assert_eq!(client.broken(t0 + grace), Some(SlowReason::WriteTimeout));
        client.limits.slowest_reader_bytes_per_s = Some(4096);
        let grace = client.limits.grace_for(WINDOW);
        assert!(grace > limits().drain_timeout());
        assert_eq!(
            client.broken(t0 + grace - MILLISECOND),
            None,
            "the drain timeout rises with it"
        );
    }

    fn change<'a>(before: &'a Limits, after: &'a Limits, now: Instant) -> LimitsChange<'a> {
        LimitsChange {
            before,
            after,
            largest_window_bytes: WINDOW,
            now,
        }
    }

    #[test]
    fn a_grace_that_became_shorter_begins_anew_and_a_longer_one_goes_on() {
        let (t0, second) = (start(), Duration::from_secs(1));
        let shorter = Limits {
            grace: second,
            ..limits()
        };
        let mut client = Client::new();
        client.write(MARK, t0);
        let later = t0 + 4 * second;
        let started = client
            .clocks
            .limits_changed(&change(&limits(), &shorter, later), &client.queue);
        assert!(
            started.over_limit && !started.waiting,
            "the drain timeout is as it was"
        );
        client.limits = shorter.clone();
        assert_eq!(client.broken(later + second - MILLISECOND), None);
        assert_eq!(client.broken(later + second), Some(SlowReason::WriteTimeout));
        let started = client
            .clocks
            .limits_changed(&change(&shorter, &limits(), later + second), &client.queue);
        assert_eq!(started, Started::default());
        assert_eq!(
            client.clocks.since(SlowReason::WriteTimeout),
            Some(later),
            "what was used up stays used up"
        );
    }

    #[test]
    fn a_limit_raised_above_the_queue_stops_the_clock_though_a_pause_stands() {
        let t0 = start();
        let higher = Limits {
            limit_bytes: Some(2 * MARK),
            ..limits()
        };
        let mut client = Client::new();
        client.write(MARK, t0);
        client
            .clocks
            .limits_changed(&change(&limits(), &higher, t0), &client.queue);
        assert_eq!(client.clocks.since(SlowReason::WriteTimeout), None);
        let later = t0 + MILLISECOND;
        let started = client
            .clocks
            .limits_changed(&change(&higher, &limits(), later), &client.queue);
        assert!(started.over_limit, "and a lower one starts it");
        assert_eq!(client.clocks.since(SlowReason::WriteTimeout), Some(later));
        client.flush(1, later);
        client
            .clocks
            .limits_changed(&change(&limits(), &limits(), later), &client.queue);
        assert_eq!(
            client.clocks.since(SlowReason::WriteTimeout),
            Some(later),
            "a reload that changes no limit is no dip below it"
        );
    }

    #[test]
    fn the_end_of_shadow_mode_gives_all_their_time_once_more() {
        let t0 = start();
        let shadow = Limits {
            shadow: true,
            ..limits()
        };
        let mut client = Client::new();
        client.write(MARK, t0);
        let later = t0 + 100 * limits().grace;
        let started = client
            .clocks
            .limits_changed(&change(&shadow, &limits(), later), &client.queue);
        assert!(started.over_limit && started.waiting);
        client.clocks.postpone(started, MILLISECOND, 2 * MILLISECOND);
        assert_eq!(client.broken(later + limits().grace), None);
        assert_eq!(
            client.broken(later + limits().grace + MILLISECOND),
            Some(SlowReason::WriteTimeout)
        );
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
        assert_eq!(client.broken(t0 + limits().grace), None);
    }

    #[test]
    fn a_dip_below_the_limit_does_not_stop_the_clock_while_a_pause_stands() {
        let t0 = start();
        let mut client = Client::new();
        client.write(MARK, t0);
        client.flush(MARK - 1, t0 + 4_999 * MILLISECOND);
        assert_eq!(client.broken(t0 + limits().grace), Some(SlowReason::WriteTimeout));
    }

    #[test]
    fn drain_stops_the_clock_and_the_next_time_over_starts_it_anew() {
        let t0 = start();
        let mut client = Client::new();
        client.write(MARK, t0);
        let drained = t0 + 4_999 * MILLISECOND;
        client.flush(MARK, drained);
        assert_eq!(client.broken(t0 + 60 * limits().grace), None);
        // Full again at the same instant, as one turn does it.
        assert!(client.write(MARK, drained).over_limit);
        assert_eq!(client.broken(t0 + limits().grace), None);
        assert_eq!(
            client.broken(drained + limits().grace),
            Some(SlowReason::WriteTimeout)
        );
    }

    #[test]
    fn with_a_limit_above_the_mark_the_clock_stops_below_it_only_once_drained() {
        let t0 = start();
        let mut client = Client::new();
        client.limits.limit_bytes = Some(3 * MARK);
        assert!(!client.write(2 * MARK, t0).over_limit);
        assert!(client.write(MARK, t0).over_limit);
        client.flush(MARK, t0);
        assert!(client.clocks.over_limit_since.is_some(), "a pause stands");
        client.flush(2 * MARK, t0);
        assert!(client.clocks.over_limit_since.is_none());
    }

    #[test]
    fn with_a_limit_below_the_mark_the_clock_stops_below_it_as_nobody_paused() {
        let t0 = start();
        let mut client = Client::new();
        client.limits.limit_bytes = Some(MARK / 2);
        assert!(client.write(MARK / 2, t0).over_limit);
        client.flush(1, t0);
        assert!(client.clocks.over_limit_since.is_none());
        assert!(client.clocks.waiting_since.is_some());
    }

    #[test]
    fn a_queue_below_the_limit_that_never_empties_goes_at_the_drain_timeout() {
        let t0 = start();
        let mut client = Client::new();
        client.write(50, t0);
        let mut now = t0;
        while now < t0 + limits().drain_timeout() - MILLISECOND {
            assert_eq!(client.broken(now), None);
            client.flush(10, now);
            client.write(10, now);
            now += Duration::from_millis(100);
        }
        assert_eq!(
            client.broken(t0 + limits().drain_timeout()),
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
        assert_eq!(client.broken(t0 + limits().drain_timeout()), None);
        assert_eq!(
            client.broken(later + limits().drain_timeout()),
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
        assert_eq!(client.broken(t0 + limits().grace), Some(SlowReason::WriteTimeout));
    }

    #[test]
    fn the_hard_limit_may_be_reached_but_not_exceeded() {
        let hard = limits().hard_limit_bytes();
        assert!(!exceeds_hard_limit(&limits(), 0, hard));
        assert!(exceeds_hard_limit(&limits(), 1, hard));
        assert!(exceeds_hard_limit(&limits(), usize::MAX, usize::MAX));
    }

    #[test]
    fn a_clock_that_goes_backwards_disconnects_nobody() {
        let t0 = start();
        let mut client = Client::new();
        client.write(MARK, t0 + Duration::from_secs(10));
        assert_eq!(client.broken(t0), None);
    }
}
