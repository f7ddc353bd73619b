//! Silence: since when a client has moved no byte.
//!
//! Owns that instant for each client that was asked about. Refuses to say what
//! silence means: judging idle clients and stopping the server do.

use std::time::{Duration, Instant};

use super::client::Client;
use super::client_map::ClientMap;
use super::client_table::ClientId;
use super::network::Stream;

/// Since when nothing has moved, for each client that was asked about.
#[derive(Debug, Default)]
pub(super) struct Silence {
    clients: ClientMap<(u64, Instant)>,
}

impl Silence {
    /// For how long the client has moved no byte, as far as earlier calls saw.
    /// The first call begins to look.
    pub(super) fn of<S: Stream>(&mut self, id: ClientId, client: &Client<S>, now: Instant) -> Duration {
        let moved_bytes = client.received_bytes + client.sent_bytes;
        let Some((seen_bytes, since)) = self.clients.get_mut(id) else {
            self.clients.insert(id, (moved_bytes, now));
            return Duration::ZERO;
        };
        if *seen_bytes != moved_bytes {
            (*seen_bytes, *since) = (moved_bytes, now);
        }
        now.saturating_duration_since(*since)
    }

    /// Counts from now: bytes still wait for the client, or for the other end of
    /// its pair.
    pub(super) fn begin_anew(&mut self, id: ClientId, now: Instant) {
        if let Some((_, since)) = self.clients.get_mut(id) {
            *since = now;
        }
    }

    /// All silences begin at an instant of their own, by their place and number.
    pub(super) fn all_begin_anew(&mut self, start: impl Fn(usize, usize) -> Instant) {
        let count = self.clients.iter_mut().count();
        for (at, (_, (_, since))) in self.clients.iter_mut().enumerate() {
            *since = start(at, count);
        }
    }

    pub(super) fn forget(&mut self, id: ClientId) {
        self.clients.remove(id);
    }
}
