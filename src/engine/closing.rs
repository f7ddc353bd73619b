//! Closing: every way out, orderly or by a reset.
//!
//! Owns the steps of an orderly end, and the sweep that takes closed clients
//! out of the table. Refuses to decide why a client goes.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::actions::{Actions, Slowness};
use super::client::readiness::Event;
use super::client::{Client, Ending, Input, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::journal::slowness;
use super::network::{Network, Stream};
use super::service::Service;
use super::timers::Timer;
use crate::backpressure::SlowReason;
use crate::error::{CloseReason, Operation};

impl<N: Network> Core<N> {
    /// Sends our FIN to a client once its queue is empty.
    pub(super) fn end(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.queue.end();
            self.advance_end(id);
            self.watch_half_closed(id);
        }
    }

    /// Ends a client, and drops what it still sends.
    pub(super) fn close(&mut self, id: ClientId) {
        self.close_with(id, Ending::Complete);
    }

    /// Ends a client; `ending` says how its stream may end.
    pub(super) fn close_with(&mut self, id: ClientId, ending: Ending) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        match client.phase {
            Phase::Open => {
                client.phase = Phase::Closing(ending);
                client.queue.end();
                // It may have sent something that no event has announced yet.
                client.readiness.announce(Event {
                    readable: true,
                    ..Event::default()
                });
                self.list_if_work(id);
                self.advance_end(id);
            }
            Phase::Connecting => self.mark_closed(id, CloseReason::Finished),
            Phase::Closing(_) | Phase::Closed => {}
        }
    }

    /// Disconnects a client that the service does not want.
    pub(super) fn reject(&mut self, id: ClientId, why: Cow<'static, str>) {
        self.mark_closed(id, CloseReason::Rejected(why));
    }

    /// Disconnects a client without a line in the log.
    pub(super) fn reset(&mut self, id: ClientId) {
        self.mark_closed(id, CloseReason::Reset);
    }

    /// Disconnects a client that broke a rule; `detail` has the number of that
    /// rule.
    pub(super) fn disconnect(&mut self, id: ClientId, reason: SlowReason, detail: &str) {
        if let Some(client) = self.clients.get(id)
            && client.phase != Phase::Closed
        {
            if self.is_shadowed(reason) {
                let slow = slowness(client, reason, self.now);
                return self.would_disconnect(id, reason, slow, detail);
            }
            self.journal.slow(client, reason, self.now, detail);
            self.mark_closed(id, CloseReason::Slow(reason));
        }
    }

    /// Disconnects a client that broke a rule which its service judges.
    pub(super) fn disconnect_slow(&mut self, id: ClientId, reason: SlowReason, slow: Slowness, detail: &str) {
        let is_shadowed = self.is_shadowed(reason);
        if let Some(client) = self.clients.get_mut(id)
            && client.phase != Phase::Closed
        {
            if is_shadowed {
                return self.would_disconnect(id, reason, slow, detail);
            }
            let _ = client.look_at_window();
            self.journal.slow_by_service(client, reason, slow, detail);
            self.mark_closed(id, CloseReason::Slow(reason));
        }
    }

    /// Takes the next step in the orderly end of a client, if one is due. Call
    /// it when its queue has become empty, when a FIN was read or asked for,
    /// and at every event of a client that is ending.
    pub(super) fn advance_end(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        let ending = match client.phase {
            Phase::Open => None,
            Phase::Closing(ending) => Some(ending),
            // A FIN sent before the connection is made would break it off.
            Phase::Connecting | Phase::Closed => return,
        };
        if !client.queue.is_ended() || !client.is_sent() {
            return;
        }
        let both_ended = ending.is_some() || client.input == Input::Ended;
        // Closing with unread input would reset, so input is read first; the
        // close itself sends the FIN.
        if both_ended && !client.may_have_unread() && client.stream.is_settled() {
            let reason = match ending {
                Some(Ending::Truncated) => CloseReason::Stopped,
                _ => CloseReason::Finished,
            };
            return self.mark_closed(id, reason);
        }
        if matches!(ending, Some(Ending::IfNothingElseCame | Ending::Truncated)) && client.may_have_unread() {
            // Only a read can tell whether its stream is truncated, and a FIN
            // could not be taken back.
            return;
        }
        if !client.fin_sent && ending != Some(Ending::Truncated) {
            client.fin_sent = true;
            if let Err(error) = client.stream.shut_down_write() {
                return self.mark_closed(id, CloseReason::Failed(Operation::ShutDown, error));
            }
        }
        if both_ended && client.awaiting_since.is_none() {
            client.awaiting_since = Some(self.now);
            self.timers.arm(Timer::CloseTimeout, id, self.now);
        }
    }

    /// Takes a client that leaves the table out of all pipes.
    fn unlink(&mut self, id: ClientId, client: &Client<N::Stream>) {
        for &from in client.sources.as_slice() {
            if let Some(source) = self.clients.get_mut(from) {
                source.pipe.remove(id);
                if source.has_work() {
                    self.ready.list(from, &mut source.place);
                }
            }
        }
        for to in client.pipe.names() {
            if let Some(destination) = self.clients.get_mut(to) {
                destination.sources.retain(|&source| source != id);
            }
        }
    }

    /// Closes the socket of a client that has left the table.
    fn drop_client(&mut self, mut client: Client<N::Stream>, reason: &CloseReason) {
        self.upstreams -= usize::from(client.is_upstream());
        self.journal.closed(&client, reason);
        if reason.is_reset() {
            client.stream.reset_on_close();
        } else {
            client.stream.bound_close(self.limits.grace);
        }
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Takes clients that are marked as closed out of the table. The service
    /// may mark others when it hears of one, so this goes on until none is
    /// left. Connections that the service begins meanwhile are left for the
    /// next turn, because it could begin and end them for ever.
    pub(super) fn sweep(&mut self) {
        let begun = self.core.clients.next_generation();
        let mut later = VecDeque::new();
        while let Some((id, reason)) = self.core.marked.pop_front() {
            if id.is_since(begun) {
                later.push_back((id, reason));
                continue;
            }
            let Some(client) = self.core.clients.remove(id) else {
                continue;
            };
            self.core.silence.forget(id);
            let acknowledged_bytes = if client.is_watched {
                client.acknowledged_bytes()
            } else {
                client.sent_bytes
            };
            self.core.departed = Some((id, acknowledged_bytes));
            self.core.unlink(id, &client);
            self.core.drop_client(client, &reason);
            self.acceptor.descriptor_freed();
            self.service
                .closed(id, &reason, &mut Actions::new(&mut self.core));
        }
        self.core.marked.append(&mut later);
    }
}
