//! Stopping: nobody is accepted any more, and clients are drained for at most
//! the grace.
//!
//! Owns the steps of a stop, and which streams it truncates. Refuses signals:
//! the program hears them.

use log::info;

use super::client::{Ending, Input, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine, Stop};
use super::network::Network;
use super::service::{Actions, Service};
use crate::error::CloseReason;
use crate::units::format_time;

impl<N: Network, S: Service> Engine<N, S> {
    /// Takes the next step of a stop, if somebody asked for one.
    pub(super) fn advance_stop(&mut self) {
        match self.core.stop {
            Stop::No => return,
            Stop::Asked => self.begin_stop(),
            Stop::Draining { by } if self.core.now >= by => {
                for id in self.core.ids() {
                    self.core.mark_closed(id, CloseReason::Stopped);
                }
            }
            Stop::Draining { .. } => {
                for id in self.core.ids() {
                    self.core.advance_end(id);
                }
            }
        }
        self.sweep();
    }

    fn begin_stop(&mut self) {
        let grace = self.core.limits.grace;
        info!(
            "stopping: {} clients have {} to take what is queued",
            self.core.client_count(),
            format_time(grace)
        );
        self.core.stop = Stop::Draining {
            by: self.core.now + grace,
        };
        self.core.network.stop_listening();
        self.acceptor.stop();
        self.service.stopping(&mut Actions::new(&mut self.core));
        for id in self.core.ids() {
            self.core.close_for_stop(id);
        }
    }
}

impl<N: Network> Core<N> {
    /// Asks for a stop in order. Further calls change nothing.
    pub(super) fn stop(&mut self) {
        if self.stop == Stop::No {
            self.stop = Stop::Asked;
        }
    }

    /// Ends a client that the stop interrupts.
    fn close_for_stop(&mut self, id: ClientId) {
        let ending = if self.loses_bytes(id) {
            Ending::Truncated
        } else {
            Ending::IfNothingElseCame
        };
        self.close_with(id, ending);
    }

    /// Whether bytes for a client are lost by a stop: what the service holds
    /// for it, and what another client has not sent to the end. A client that
    /// its service has already closed loses nothing.
    fn loses_bytes(&self, id: ClientId) -> bool {
        let Some(client) = self.clients.get(id) else {
            return false;
        };
        let flows_on = |&source: &ClientId| {
            let source = self.clients.get(source).filter(|_| source != id);
            source.is_some_and(|source| source.input != Input::Ended)
        };
        let is_open = client.phase == Phase::Open;
        is_open && (client.held_bytes > 0 || client.sources.as_slice().iter().any(flows_on))
    }
}
