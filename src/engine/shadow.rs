//! Shadow mode: who would have been disconnected, how that ended, and which
//! limits would have kept all that recovered.
//!
//! Owns the episodes and the recommendation. Refuses to disconnect, to log and
//! to look at a clock.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::ClientName;
use super::client_table::ClientId;
use super::histogram::Histogram;
use crate::backpressure::SlowReason;
use crate::limits::{Limits, SHADOW_ENDINGS, SMALLEST_READ_BYTES};
use crate::units::format_size;

/// A client that would have been disconnected, and has not ended that yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    /// The first rule that it broke.
    pub(super) reason: SlowReason,
    pub(super) since: Instant,
    /// The rule that ends the episode once it is kept: of all that were broken
    /// the one that takes longest.
    pub(super) holds: SlowReason,
}

/// How an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The client took what it was owed.
    Recovered,
    /// It went by itself.
    Left,
    /// It was stuck to the end.
    StillStuck,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recovered => "recovered",
            Self::Left => "left by itself",
            Self::StillStuck => "still stuck",
        })
    }
}

/// A client that would have been disconnected, and what became of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShadowEnding {
    /// Its name in the log.
    pub name: ClientName,
    /// The peer.
    pub address: SocketAddr,
    /// The rule that it would have broken first.
    pub reason: SlowReason,
    /// How long it was slow in all.
    pub slow_for: Duration,
    /// What became of it.
    pub ending: Ending,
}

/// What shadow mode has seen.
#[derive(Default)]
pub(super) struct Shadow {
    episodes: HashMap<ClientId, Episode>,
    endings: VecDeque<ShadowEnding>,
    would_disconnect: u64,
    counts: [u64; 3],
    /// Times over the limit of clients that recovered.
    recovered: Histogram,
    longest_over_limit: Duration,
    longest_waiting: Duration,
    longest_upstream: Duration,
    largest_peak_bytes: usize,
}

impl Shadow {
    /// A rule is broken. Answers whether this is the first of the episode.
    pub(super) fn begin(&mut self, id: ClientId, reason: SlowReason, since: Instant) -> bool {
        if self.episodes.contains_key(&id) {
            self.hold(id, reason);
            return false;
        }
        let episode = Episode {
            reason,
            since,
            holds: reason,
        };
        self.episodes.insert(id, episode);
        self.would_disconnect += 1;
        true
    }

    /// A rule is broken, perhaps one more in an episode. Who is back below the
    /// limit and has not drained in time has not recovered.
    pub(super) fn hold(&mut self, id: ClientId, reason: SlowReason) {
        if let Some(episode) = self.episodes.get_mut(&id)
            && reason == SlowReason::DrainTimeout
        {
            episode.holds = reason;
        }
    }

    /// Whether the episode of a client is over once it keeps this rule.
    pub(super) fn is_held_by(&self, id: ClientId, reason: SlowReason) -> bool {
        self.episode(id).is_some_and(|episode| episode.holds == reason)
    }

    pub(super) fn episode(&self, id: ClientId) -> Option<Episode> {
        self.episodes.get(&id).copied()
    }

    /// The episode of a client is over. At most
    /// [`SHADOW_ENDINGS`] are remembered.
    pub(super) fn end(&mut self, id: ClientId, ending: ShadowEnding) {
        self.episodes.remove(&id);
        self.counts[ending.ending as usize] += 1;
        if self.endings.len() == SHADOW_ENDINGS {
            self.endings.pop_front();
        }
        self.endings.push_back(ending);
    }

    /// A client came back below the limit after so long, with this peak.
    pub(super) fn back_below_limit(&mut self, time: Duration, peak_bytes: usize, is_upstream: bool) {
        if is_upstream {
            self.longest_upstream = self.longest_upstream.max(time);
            return;
        }
        self.recovered.observe(time);
        self.longest_over_limit = self.longest_over_limit.max(time);
        self.largest_peak_bytes = self.largest_peak_bytes.max(peak_bytes);
    }

    /// The queue of a client is empty after so long.
    pub(super) fn drained(&mut self, time: Duration, is_upstream: bool) {
        if !is_upstream {
            self.longest_waiting = self.longest_waiting.max(time);
        }
    }

    pub(super) fn report(&self, limits: &Limits) -> ShadowReport {
        let over = longer(self.longest_over_limit);
        let is_paused = self.largest_peak_bytes <= limits.high_water_mark_bytes + SMALLEST_READ_BYTES;
        let larger = self.largest_peak_bytes + self.largest_peak_bytes.div_ceil(10);
        let larger = larger.next_multiple_of(1024);
        let (limit_bytes, grace) = match over <= limits.grace {
            true => (limits.limit_bytes(), limits.grace),
            // The longer grace keeps them whatever the queue; a higher limit
            // is sought only where no source is paused.
            false if is_paused || larger > limits.hard_limit_bytes() => (limits.limit_bytes(), over),
            false => (larger.max(limits.limit_bytes()), limits.grace),
        };
        let least = longer(self.longest_waiting).max(grace);
        let upstream = longer(self.longest_upstream);
        ShadowReport {
            limit_bytes,
            grace,
            drain_timeout: (least > limits.drain_timeout().max(grace)).then_some(least),
            upstream_grace: (upstream > limits.upstream_grace).then_some(upstream),
            memory_bytes: limit_bytes.max(limits.high_water_mark_bytes) + SMALLEST_READ_BYTES,
            would_disconnect: self.would_disconnect,
            recovered: self.counts[Ending::Recovered as usize],
            left: self.counts[Ending::Left as usize],
            stuck: self.counts[Ending::StillStuck as usize] + self.episodes.len() as u64,
            longest_over_limit: self.longest_over_limit,
            times: self.recovered,
            endings: self.endings.iter().rev().copied().collect(),
        }
    }
}

/// A tenth more, rounded up: to a tenth of a second below 10 s, else to a
/// second.
fn longer(time: Duration) -> Duration {
    let milliseconds = (time + time / 10).as_millis();
    let step = if milliseconds < 10_000 { 100 } else { 1000 };
    let rounded = milliseconds.div_ceil(step) * step;
    Duration::from_millis(u64::try_from(rounded).unwrap_or(u64::MAX))
}

/// A time without a space, so that no quotes are needed.
fn one_word(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

/// What shadow mode recommends, and the numbers behind it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShadowReport {
    /// The limit to choose.
    pub limit_bytes: usize,
    /// The grace to choose.
    pub grace: Duration,
    /// The drain timeout to choose, where the default is too short.
    pub drain_timeout: Option<Duration>,
    /// The grace of upstreams to choose, where the present one is too short.
    pub upstream_grace: Option<Duration>,
    /// What one stuck client then holds for the grace, at most.
    pub memory_bytes: usize,
    /// Clients and episodes that would have been disconnected.
    pub would_disconnect: u64,
    /// Those that recovered.
    pub recovered: u64,
    /// Those that left by themselves.
    pub left: u64,
    /// Those that are, or were to the end, still stuck.
    pub stuck: u64,
    /// The longest time over the limit of a client that recovered.
    pub longest_over_limit: Duration,
    /// The times over the limit of all that recovered.
    pub times: Histogram,
    /// What became of each, the last one first.
    pub endings: Vec<ShadowEnding>,
}

impl ShadowReport {
    /// The options to type, such as `--limit 64KiB --grace 8s`.
    #[must_use]
    pub fn options(&self) -> String {
        let mut options = format!(
            "--limit {} --grace {}",
            format_size(self.limit_bytes),
            one_word(self.grace)
        );
        if let Some(time) = self.drain_timeout {
            options.push_str(&format!(" --drain-timeout {}", one_word(time)));
        }
        if let Some(time) = self.upstream_grace {
            options.push_str(&format!(" --upstream-grace {}", one_word(time)));
        }
        options
    }

    /// The recommendation and its reason in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!(
            "{} keeps all that recovered, the slowest after {:.1} s over the limit, and costs at most {} for each \
             client that is stuck; of {} that would have been disconnected {} recovered, {} left by themselves, \
             {} are still stuck",
            self.options(),
            self.longest_over_limit.as_secs_f64(),
            format_size(self.memory_bytes),
            self.would_disconnect,
            self.recovered,
            self.left,
            self.stuck,
        )
    }

    /// How many clients were how long over the limit and recovered, such as
    /// `up to 0.5 s: 12, up to 10 s: 1`.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = self.times.buckets().filter(|(_, count)| *count > 0);
        let rows: Vec<String> = rows
            .map(|(bound, count)| match bound.is_finite() {
                true => format!("up to {bound} s: {count}"),
                false => format!("longer: {count}"),
            })
            .collect();
        if rows.is_empty() {
            return "nobody was over the limit and recovered".to_owned();
        }
        rows.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_made_a_tenth_longer_and_rounded_up() {
        for (milliseconds, longer_milliseconds) in [
            (0, 0),
            (1, 100),
            (1000, 1100),
            (7200, 8000),
            (9_100, 11_000),
            (12_000, 14_000),
        ] {
            let time = longer(Duration::from_millis(milliseconds));
            assert_eq!(time, Duration::from_millis(longer_milliseconds), "{milliseconds}");
        }
    }

    #[test]
    fn where_the_source_pauses_only_a_longer_grace_is_recommended() {
        let limits = Limits::default();
        let mut shadow = Shadow::default();
        shadow.back_below_limit(Duration::from_millis(7_200), 65_536, false);
        shadow.back_below_limit(Duration::from_millis(300), 65_536, false);
        let report = shadow.report(&limits);
        assert_eq!(report.options(), "--limit 64KiB --grace 8s");
        assert_eq!(report.table(), "up to 0.5 s: 1, up to 10 s: 1");
        shadow.drained(Duration::from_secs(100), false);
        let options = shadow.report(&limits).options();
        assert_eq!(options, "--limit 64KiB --grace 8s --drain-timeout 110s");
    }

    #[test]
    fn where_it_does_not_pause_a_limit_above_every_peak_is_recommended() {
        let mut shadow = Shadow::default();
        shadow.back_below_limit(Duration::from_secs(20), 300_000, false);
        assert_eq!(
            shadow.report(&Limits::default()).options(),
            "--limit 323KiB --grace 5s"
        );
    }

    #[test]
    fn an_episode_lasts_as_long_as_the_longest_of_the_rules_that_were_broken() {
        let (id, since) = (ClientId::from_token(1), crate::test_time::start());
        let mut shadow = Shadow::default();
        assert!(shadow.begin(id, SlowReason::WriteTimeout, since));
        assert!(shadow.is_held_by(id, SlowReason::WriteTimeout));
        assert!(!shadow.begin(id, SlowReason::DrainTimeout, since));
        assert!(!shadow.begin(id, SlowReason::WriteTimeout, since));
        assert!(!shadow.is_held_by(id, SlowReason::WriteTimeout));
        assert!(shadow.is_held_by(id, SlowReason::DrainTimeout));
        let first = shadow.episode(id).map(|episode| episode.reason);
        assert_eq!(first, Some(SlowReason::WriteTimeout), "the first rule names it");
        assert_eq!(shadow.report(&Limits::default()).would_disconnect, 1);
    }

    #[test]
    fn nobody_who_was_too_slow_leaves_the_limits_as_they_are() {
        let mut shadow = Shadow::default();
        shadow.back_below_limit(Duration::from_secs(1), 65_536, false);
        let report = shadow.report(&Limits::default());
        assert_eq!(report.options(), "--limit 64KiB --grace 5s");
        assert!(
            report.sentence().contains("of 0 that would have been"),
            "{}",
            report.sentence()
        );
    }
}
