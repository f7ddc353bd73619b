//! What happened: the log's sentences about a client, each counted.
//!
//! Owns the words. Refuses to decide anything by them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::Level;

use super::actions::Slowness;
use super::client::Client;
use super::counters::Counters;
use super::histogram::Histogram;
use super::network::{PeerState, Stream};
use super::refusals::Full;
use super::shadow::ShadowEnding;
use crate::backpressure::{Burden, SlowReason};
use crate::error::CloseReason;
use crate::limits::LOG_REPEAT_INTERVAL;

/// A line about one client, with the facts that a log in JSON gives.
macro_rules! about {
    ($level:ident, $event:literal, $client:expr, [$($facts:tt)*], $($text:tt)+) => {
        log::log!(
            Level::$level,
            event = $event,
            client = $client.name().client_number(),
            upstream = $client.name().upstream_number(),
            address:% = $client.peer,
            received_bytes = $client.received_bytes,
            sent_bytes = $client.sent_bytes,
            peak_bytes = $client.peak_bytes,
            $($facts)*;
            $($text)+
        )
    };
}

/// How slow a client is by a rule.
pub(super) fn slowness<S: Stream>(client: &Client<S>, reason: SlowReason, now: Instant) -> Slowness {
    let since = client.clocks.since(reason);
    Slowness {
        slow_for: since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        waiting_bytes: client.queue.len(),
        peak_bytes: client.peak_bytes as usize,
    }
}

/// Why a client is stuck, as far as our kernel knows. While the window is closed
/// only the largest that was ever announced tells how long it may stay so.
pub(super) fn standstill<S: Stream>(client: &Client<S>, largest_window_bytes: u32) -> String {
    match client.stream.peer_state() {
        state @ PeerState::WindowClosed if largest_window_bytes > 0 => {
            format!("{state}, largest {largest_window_bytes}")
        }
        state => state.to_string(),
    }
}

/// The words of a service in the log.
pub(super) struct Words {
    /// What stands in front of names.
    pub(super) role: &'static str,
    pub(super) slow_upstream_advice: Option<String>,
    pub(super) held_words: &'static str,
}

/// The counters of one engine, and its part of the log.
pub(super) struct Journal {
    counters: Counters,
    /// What stands in front of names.
    role: &'static str,
    started: Instant,
    /// The limit in force, in bytes.
    limit_bytes: usize,
    over_limit_episodes: u64,
    over_limit: Histogram,
    /// What the log says of an upstream that was too slow.
    slow_upstream_advice: String,
    /// What the log calls bytes that the service holds.
    held_words: &'static str,
}

impl Journal {
    pub(super) fn new(words: Words, limit_bytes: usize, now: Instant) -> Self {
        let Words {
            role,
            slow_upstream_advice,
            held_words,
        } = words;
        Self {
            counters: Counters::default(),
            role,
            started: now,
            limit_bytes,
            over_limit_episodes: 0,
            over_limit: Histogram::default(),
            held_words,
            slow_upstream_advice: slow_upstream_advice
                .map_or_else(String::new, |advice| format!("; {advice}")),
        }
    }

    /// Another limit, which lines from here on tell.
    pub(super) const fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// The name of a client in the log.
    fn name<S: Stream>(&self, client: &Client<S>) -> String {
        format!("{}{}", self.role, client.name())
    }

    pub(super) const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A connection is in the table, which now has so many.
    pub(super) fn admitted(&mut self, clients: usize) {
        self.counters.most_clients = self.counters.most_clients.max(clients);
    }

    pub(super) const fn served(&mut self) {
        self.counters.served_clients += 1;
    }

    pub(super) const fn refused(&mut self, full: Full) {
        match full {
            Full::Server => self.counters.refused_clients += 1,
            Full::Address => self.counters.address_refused_clients += 1,
        }
    }

    pub(super) const fn accept_failed(&mut self) {
        self.counters.failed_accepts += 1;
    }

    pub(super) const fn connected(&mut self) {
        self.counters.upstreams += 1;
    }

    pub(super) const fn connect_failed(&mut self) {
        self.counters.failed_connects += 1;
    }

    pub(super) const fn received(&mut self, count_bytes: usize) {
        self.counters.received_bytes += count_bytes as u64;
    }

    /// The queue of a client has reached the limit. A fast client that moves
    /// much data gets there all the time, so not every time is logged.
    pub(super) fn blocked<S: Stream>(&mut self, client: &mut Client<S>, now: Instant) {
        self.over_limit_episodes += 1;
        let elapsed = now.saturating_duration_since(self.started);
        let Some(unlogged) = client.blocked_log.admit(elapsed, LOG_REPEAT_INTERVAL) else {
            return;
        };
        let repeated = match unlogged {
            0 => String::new(),
            times => format!(", and {times} times before"),
        };
        let (name, peer, limit_bytes) = (self.name(client), client.peer, self.limit_bytes);
        let queued_bytes = client.queue.len();
        about!(
            Info,
            "write_blocked",
            client,
            [queued_bytes = queued_bytes, limit_bytes = limit_bytes],
            "{name} write blocked: {queued_bytes} bytes queued, over the limit of {limit_bytes}{repeated} ({peer})"
        );
    }

    /// A client is no longer over the limit, or gone, after so long.
    pub(super) fn back_below_limit(&mut self, over_limit: Duration) {
        self.over_limit.observe(over_limit);
    }

    pub(super) const fn over_limit_episodes(&self) -> u64 {
        self.over_limit_episodes
    }

    pub(super) const fn over_limit(&self) -> &Histogram {
        &self.over_limit
    }

    /// A rule disconnects a client; `detail` has the number of that rule.
    pub(super) fn slow<S: Stream>(&self, client: &Client<S>, reason: SlowReason, now: Instant, detail: &str) {
        let slow = slowness(client, reason, now);
        self.slow_by_service(client, reason, slow, detail);
    }

    /// As [`slow`](Self::slow), for a rule that the service judged.
    pub(super) fn slow_by_service<S: Stream>(
        &self,
        client: &Client<S>,
        reason: SlowReason,
        slow: Slowness,
        detail: &str,
    ) {
        let is_timed = matches!(reason, SlowReason::WriteTimeout | SlowReason::DrainTimeout);
        let is_helped = client.is_upstream() && is_timed;
        let advice = if is_helped { &self.slow_upstream_advice } else { "" };
        about!(
            Warn,
            "disconnect",
            client,
            [
                reason:% = reason,
                slow_seconds = slow.slow_for.as_secs_f64(),
                queued_bytes = slow.waiting_bytes,
                limit_bytes = self.limit_bytes
            ],
            "{} {reason}, disconnecting: {}, {}{advice} ({})",
            self.name(client),
            how_slow(client, slow, detail),
            standstill(client, client.largest_window_bytes),
            client.peer,
        );
    }

    /// A rule would disconnect a client, and shadow mode keeps it.
    pub(super) fn would_disconnect<S: Stream>(
        &mut self,
        client: &Client<S>,
        reason: SlowReason,
        slow: Slowness,
        detail: &str,
    ) {
        self.counters.count_would_disconnect(reason);
        about!(
            Warn,
            "would_disconnect",
            client,
            [
                reason:% = reason,
                slow_seconds = slow.slow_for.as_secs_f64(),
                queued_bytes = slow.waiting_bytes,
                limit_bytes = self.limit_bytes
            ],
            "{} would disconnect, {reason}: {}, {} ({})",
            self.name(client),
            how_slow(client, slow, detail),
            standstill(client, client.largest_window_bytes),
            client.peer,
        );
    }

    /// What became of a client that shadow mode has kept.
    pub(super) fn shadow_ended<S: Stream>(&self, client: &Client<S>, ended: &ShadowEnding) {
        about!(
            Info,
            "shadow_ended",
            client,
            [
                reason:% = ended.reason,
                ending:% = ended.ending,
                slow_seconds = ended.slow_for.as_secs_f64()
            ],
            "{} {} after {:.3} s, kept by shadow mode: {} ({})",
            self.name(client),
            ended.ending,
            ended.slow_for.as_secs_f64(),
            ended.reason,
            client.peer,
        );
    }

    /// The memory budget disconnects a client; `detail` has its number.
    pub(super) fn over_budget<S: Stream>(&self, client: &Client<S>, burden: Burden, detail: &str) {
        let reason = SlowReason::MemoryBudget;
        let part = |bytes: usize, what: &str, time: Duration| match bytes {
            0 => format!("0 bytes {what}"),
            _ => format!("{bytes} bytes {what} for {:.3} s", time.as_secs_f64()),
        };
        let held = match burden.held_bytes {
            0 => String::new(),
            bytes => part(bytes, &format!("of {}", self.held_words), burden.held_for) + ", ",
        };
        about!(
            Warn,
            "disconnect",
            client,
            [
                reason:% = reason,
                held_bytes = burden.held_bytes,
                held_seconds = burden.held_for.as_secs_f64(),
                queued_bytes = burden.queued_bytes,
                queued_seconds = burden.queued_for.as_secs_f64()
            ],
            "{} {reason}, disconnecting: {held}{} (peak {}), {detail}, {} sent, {} ({})",
            self.name(client),
            part(burden.queued_bytes, "queued", burden.queued_for),
            client.peak_bytes,
            client.sent_bytes,
            standstill(client, client.largest_window_bytes),
            client.peer,
        );
    }

    /// The receive buffer of a client was enlarged to let its ACKs in.
    pub(super) fn acks_let_in<S: Stream>(&self, client: &Client<S>, silence: Duration) {
        let (name, milliseconds, peer) = (self.name(client), silence.as_millis(), client.peer);
        about!(
            Debug,
            "receive_buffer_enlarged",
            client,
            [silent_seconds = silence.as_secs_f64()],
            "{name} sent no ACK for {milliseconds} ms: receive buffer enlarged, in case our kernel dropped its ACKs ({peer})"
        );
    }

    /// An idle client is let go in order.
    pub(super) fn idle_in_order<S: Stream>(&mut self, client: &Client<S>, silence: Duration) {
        self.counters.idle_clients += 1;
        let (name, seconds, peer) = (self.name(client), silence.as_secs_f64(), client.peer);
        about!(
            Debug,
            "close",
            client,
            [reason = "idle", silent_seconds = seconds],
            "{name} idle, closing in order: no byte moved for {seconds:.3} s ({peer})"
        );
    }

    /// A client is gone.
    pub(super) fn closed<S: Stream>(&mut self, client: &Client<S>, reason: &CloseReason) {
        self.counters.sent_bytes += client.sent_bytes;
        self.counters.count_closed(reason);
        let (name, peer): (_, SocketAddr) = (self.name(client), client.peer);
        let word = reason.word();
        let (received, sent) = (client.received_bytes, client.sent_bytes);
        match reason {
            // Logged when the rule was found to be broken.
            CloseReason::Slow(_) => {}
            CloseReason::Rejected(why) => about!(
                Warn,
                "disconnect",
                client,
                [reason = word],
                "{name} disconnecting: {why} ({peer})"
            ),
            CloseReason::NotAcknowledged => about!(
                Warn,
                "disconnect",
                client,
                [reason = word],
                "{name} {reason}, disconnecting: {sent} bytes sent, the last not taken in time, {} ({peer})",
                standstill(client, client.largest_window_bytes),
            ),
            CloseReason::Idle(silence) | CloseReason::HalfClosed(silence) => about!(
                Info,
                "disconnect",
                client,
                [reason = word, silent_seconds = silence.as_secs_f64()],
                "{name} {reason}, disconnecting: no byte moved for {:.3} s, {received} bytes received, {sent} sent ({peer})",
                silence.as_secs_f64(),
            ),
            CloseReason::FrameTimeout(frame) => about!(
                Warn,
                "disconnect",
                client,
                [reason = word, held_bytes = frame.frame_bytes],
                "{name} {reason}, disconnecting: {} bytes of an unfinished frame, {} of them in the last {:.3} s, \
                 {received} bytes received, {sent} sent ({peer})",
                frame.frame_bytes,
                frame.late_bytes,
                frame.within.as_secs_f64(),
            ),
            CloseReason::Stopped => about!(
                Info,
                "disconnect",
                client,
                [reason = word],
                "{name} {reason}, disconnecting: {received} bytes received, {sent} sent ({peer})"
            ),
            _ => about!(
                Debug,
                "close",
                client,
                [reason = word],
                "{name} closed: {reason}, {received} bytes received, {sent} sent ({peer})"
            ),
        }
    }
}

/// How slow a client is, in the words of the log.
fn how_slow<S>(client: &Client<S>, slow: Slowness, detail: &str) -> String {
    format!(
        "slow for {:.3} s, {} bytes queued (peak {}), {detail}, {} sent",
        slow.slow_for.as_secs_f64(),
        slow.waiting_bytes,
        slow.peak_bytes,
        client.sent_bytes,
    )
}
