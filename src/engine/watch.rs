//! What is kept for an operator while somebody may ask: when clients came, the
//! largest windows, those that have left, and the questions under way.
//!
//! Owns the memory for it. Refuses to walk over clients: `inspecting` does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::{Client, Phase};
use super::client_table::ClientId;
use super::departures::Departures;
use super::histogram::Histogram;
use super::journal::standstill;
use super::network::Stream;
use super::report::{ClientList, ClientReport, Question, Reply};
use crate::backpressure::SlowReason;
use crate::error::CloseReason;

/// What is kept of clients for an operator.
#[derive(Default)]
pub(super) struct Watch {
    /// By slot: when its client came, and the largest window that was seen.
    seen: Vec<Seen>,
    pub(super) departures: Departures,
    pub(super) walks: VecDeque<Walk>,
    /// The largest sum that was answered: a client that leaves during a walk may be missed once.
    pub(super) sent_bytes: u64,
    pub(super) loop_lag: Histogram,
}

#[derive(Clone, Copy)]
struct Seen {
    came: Instant,
    largest_window_bytes: u32,
}

/// One question under way.
pub(super) struct Walk {
    pub(super) question: Question,
    pub(super) reply: Reply,
    pub(super) next_slot: usize,
    pub(super) kernel_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) list: ClientList,
}

impl Watch {
    pub(super) fn came(&mut self, id: ClientId, now: Instant) {
        let seen = Seen {
            came: now,
            largest_window_bytes: 0,
        };
        if id.slot() >= self.seen.len() {
            self.seen.resize(id.slot() + 1, seen);
        }
        self.seen[id.slot()] = seen;
    }

    pub(super) fn is_asked(&self) -> bool {
        !self.walks.is_empty()
    }

    /// What is known of a client. Costs a system call.
    pub(super) fn report<S: Stream>(
        &mut self,
        id: ClientId,
        client: &Client<S>,
        reason: Option<&CloseReason>,
        now: Instant,
    ) -> ClientReport {
        let window_bytes = client
            .stream
            .peer_window()
            .map_or(0, |window| window.window_bytes);
        let mut largest_window_bytes = window_bytes.max(client.largest_window_bytes);
        let mut age = Duration::ZERO;
        if let Some(seen) = self.seen.get_mut(id.slot()) {
            seen.largest_window_bytes = seen.largest_window_bytes.max(largest_window_bytes);
            largest_window_bytes = seen.largest_window_bytes;
            age = now.saturating_duration_since(seen.came);
        }
        let since = client.clocks.since(SlowReason::WriteTimeout);
        ClientReport {
            name: client.name(),
            address: client.peer,
            age,
            queued_bytes: client.queue.len() + client.held_bytes,
            peak_bytes: client.peak_bytes as usize,
            over_limit: since.map(|since| now.saturating_duration_since(since)),
            received_bytes: client.received_bytes,
            sent_bytes: client.sent_bytes,
            largest_window_bytes,
            state: state(client, since.is_some(), largest_window_bytes),
            reason: reason.map(CloseReason::word),
        }
    }
}

fn state<S: Stream>(client: &Client<S>, is_over_limit: bool, largest_window_bytes: u32) -> String {
    match client.phase {
        Phase::Connecting => "connecting".to_owned(),
        _ if is_over_limit => standstill(client, largest_window_bytes),
        Phase::Closing(_) => "closing".to_owned(),
        _ if client.is_half_closed() => "half-closed".to_owned(),
        _ if !client.is_sent() => "sending".to_owned(),
        _ => "open".to_owned(),
    }
}
