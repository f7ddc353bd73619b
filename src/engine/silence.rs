//! Silence: since when a client has moved no byte.
//!
//! Owns that instant for each client that was asked about. Refuses to say what
//! silence means: judging idle clients and stopping the server do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::client::Client;
use super::client_table::ClientId;
use super::network::Stream;

/// Since when nothing has moved, for each client that was asked about.
#[derive(Debug, Default)]
pub(super) struct Silence {
    clients: HashMap<ClientId, (u64, Instant)>,
}

impl Silence {
    /// For how long the client has moved no byte, as far as earlier calls saw.
    /// The first call begins to look.
    pub(super) fn of<S: Stream>(&mut self, id: ClientId, client: &Client<S>, now: Instant) -> Duration {
        let moved_bytes = client.received_bytes + client.sent_bytes;
        let (seen_bytes, since) = self.clients.entry(id).or_insert((moved_bytes, now));
        if *seen_bytes != moved_bytes {
            (*seen_bytes, *since) = (moved_bytes, now);
        }
        now.saturating_duration_since(*since)
    }

    /// Counts from now: bytes still wait for the client, or for the other end of
    /// its pair.
    pub(super) fn begin_anew(&mut self, id: ClientId, now: Instant) {
        if let Some((_, since)) = self.clients.get_mut(&id) {
            *since = now;
        }
    }

    pub(super) fn forget(&mut self, id: ClientId) {
        if self.clients.remove(&id).is_some() && self.clients.is_empty() {
            self.clients = HashMap::new();
        }
    }
}
