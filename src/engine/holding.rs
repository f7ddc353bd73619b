//! Holding: bytes that services keep for clients, and the memory budget of all
//! bytes that wait.
//!
//! Owns what is held for whom, who goes when memory runs out, and the end of a
//! client whose frame does not come. Refuses to say how large or how late a
//! frame may be: its service does.

use super::client::{Client, Phase};
use super::client_table::ClientId;
use super::core::Core;
use super::network::Network;
use crate::backpressure::{Burden, SlowReason};
use crate::error::{CloseReason, LateFrame};

impl<N: Network> Core<N> {
    /// Declares how many bytes the service holds for a client.
    pub(super) fn hold(&mut self, id: ClientId, held_bytes: usize) {
        if let Some(client) = self.clients.get_mut(id)
            && client.phase != Phase::Closed
        {
            let before = std::mem::replace(&mut client.held_bytes, held_bytes);
            self.budget.shrink(before);
            self.budget.grow(held_bytes);
            if (before == 0) != (held_bytes == 0) {
                self.held.hold(id, held_bytes, self.now);
            }
            self.keep_budget();
        }
    }

    /// As [`hold`](Self::hold), for bytes of another message than before.
    pub(super) fn hold_anew(&mut self, id: ClientId, held_bytes: usize) {
        self.held.begin_anew(id, self.now);
        self.hold(id, held_bytes);
    }

    /// Disconnects a client whose frame comes too slowly.
    pub(super) fn time_out_frame(&mut self, id: ClientId, frame: LateFrame) {
        let client = self.clients.get(id);
        if client.is_some_and(|client| client.phase == Phase::Open) {
            self.mark_closed(id, CloseReason::FrameTimeout(frame));
        }
    }

    fn burden(&self, id: ClientId, client: &Client<N::Stream>) -> Burden {
        let queued_since = client.clocks.since(SlowReason::DrainTimeout);
        let held_since = match client.held_bytes {
            0 => None,
            _ => self.held.since(id),
        };
        Burden::new(
            (client.queue.len(), queued_since),
            (client.held_bytes, held_since),
            self.now,
        )
    }

    /// Disconnects the client with the largest burden, while all queues and held
    /// bytes together are over the budget.
    pub(super) fn keep_budget(&mut self) {
        while self.budget.is_over() {
            let heaviest = self
                .clients
                .iter()
                .filter(|(_, client)| client.phase != Phase::Closed)
                .max_by_key(|(id, client)| self.burden(*id, client).weight())
                .map(|(id, _)| id);
            // Each round closes a client, so the rounds have an end.
            let Some(id) = heaviest else { return };
            if let Some(client) = self.clients.get(id) {
                let detail = format!(
                    "the most bytes x seconds of {} clients with {} together, budget {}",
                    self.clients.len(),
                    self.budget.queued_bytes(),
                    self.budget.budget_bytes(),
                );
                self.journal.over_budget(client, self.burden(id, client), &detail);
            }
            self.mark_closed(id, CloseReason::Slow(SlowReason::MemoryBudget));
        }
    }
}
