//! Clients that may have to go because they move nothing.
//!
//! Owns since when. Refuses to decide how long is too long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::client::Client;
use super::client_table::ClientId;
use super::network::Stream;

/// Since when nothing has moved, for each client that was asked about.
///
/// Only clients that may have to go for their silence are in here, so that the
/// others pay nothing for it.
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

    pub(super) fn forget(&mut self, id: ClientId) {
        self.clients.remove(&id);
        if self.clients.is_empty() {
            self.clients = HashMap::new();
        }
    }
}
