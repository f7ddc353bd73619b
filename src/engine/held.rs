//! Since when services hold bytes for clients.
//!
//! Owns that instant for each client that a service holds bytes for. The bytes
//! themselves are counted with the client. Refuses to judge how long is too long.

use std::collections::HashMap;
use std::time::Instant;

use super::client_table::ClientId;

/// Places of an empty table that are kept.
const KEPT_PLACES: usize = 1024;

/// Since when bytes are held, for each client with any.
#[derive(Debug, Default)]
pub(super) struct Held {
    since: HashMap<ClientId, Instant>,
}

impl Held {
    /// The service holds this many bytes now.
    pub(super) fn hold(&mut self, id: ClientId, held_bytes: usize, now: Instant) {
        if held_bytes == 0 {
            self.forget(id);
        } else {
            self.since.entry(id).or_insert(now);
        }
    }

    /// The bytes that are held are of another message than before.
    pub(super) fn begin_anew(&mut self, id: ClientId, now: Instant) {
        if let Some(since) = self.since.get_mut(&id) {
            *since = now;
        }
    }

    pub(super) fn since(&self, id: ClientId) -> Option<Instant> {
        self.since.get(&id).copied()
    }

    pub(super) fn forget(&mut self, id: ClientId) {
        let was_held = self.since.remove(&id).is_some();
        // A crowd that was here once leaves no large table behind.
        if was_held && self.since.is_empty() && self.since.capacity() > KEPT_PLACES {
            self.since = HashMap::new();
        }
    }
}
