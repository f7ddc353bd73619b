//! Stopping: nobody is accepted any more, and clients are drained for at most
//! the grace.
//!
//! Owns the steps of a stop, and which streams it cuts. Refuses signals: the
//! program hears them.

use log::info;

use super::client::Phase;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::Network;
use super::service::{Actions, Service};
use crate::error::CloseReason;

impl<N: Network> Core<N> {
    pub(super) fn stop(&mut self) {
        self.stop_requested = true;
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Goes on with stopping, if asked to.
    pub(super) fn advance_stop(&mut self) {
        if !self.core.stop_requested {
            return;
        }
        let now = self.core.now;
        match self.stop_by {
            None => {
                let grace = self.core.limits.grace;
                info!(
                    "stopping: {} clients have {} to take what is queued",
                    self.core.client_count(),
                    humantime::format_duration(grace)
                );
                self.stop_by = Some(now + grace);
                self.core.stopping = true;
                self.core.network.stop_listening();
                self.acceptor.stop();
                self.service.stopping(&mut Actions::new(&mut self.core));
                let ids = self.ids();
                for &id in &ids {
                    self.mark_cut(id);
                }
                for id in ids {
                    self.core.close(id);
                }
            }
            Some(by) if now >= by => {
                for id in self.ids() {
                    self.core.mark_closed(id, CloseReason::Stopped);
                }
            }
            Some(_) => {
                for id in self.ids() {
                    self.core.advance_end(id);
                }
            }
        }
        self.sweep();
    }

    fn ids(&self) -> Vec<ClientId> {
        self.core.clients.iter().map(|(id, _)| id).collect()
    }

    /// What another connection was still to send to this client is lost when
    /// the server stops, and so is what the service still holds for it, so
    /// its end must not look complete. A client to which its service has said
    /// its last word loses nothing.
    fn mark_cut(&mut self, id: ClientId) {
        let Some(client) = self.core.clients.get(id) else {
            return;
        };
        if client.phase != Phase::Open {
            return;
        }
        let cut = client.held_bytes > 0
            || client.sources.as_slice().iter().any(|&source| {
                source != id
                    && self
                        .core
                        .clients
                        .get(source)
                        .is_some_and(|client| !client.read_ended)
            });
        if let Some(client) = self.core.clients.get_mut(id) {
            client.stopped = true;
            client.cut |= cut;
        }
    }
}
