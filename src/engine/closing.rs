//! Closing: every way out, orderly or by a reset.
//!
//! Owns the steps of an orderly end, and the sweep that takes marked clients
//! out of the table. Refuses to decide why a client goes.

use std::borrow::Cow;
use std::collections::VecDeque;

use log::{debug, info, warn};

use super::client::readiness::Event;
use super::client::{Client, Phase, UpstreamOf};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::{Network, Stream};
use super::service::{Actions, Service};
use super::timers::Timer;
use crate::backpressure::SlowReason;
use crate::error::{CloseReason, Operation};

impl<N: Network> Core<N> {
    pub(super) fn end(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.queue.end();
            self.advance_end(id);
        }
    }

    pub(super) fn close(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        match client.phase {
            Phase::Open => {
                client.phase = Phase::Closing;
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
            Phase::Closing | Phase::Closed => {}
        }
    }

    pub(super) fn reject(&mut self, id: ClientId, why: Cow<'static, str>) {
        self.mark_closed(id, CloseReason::Rejected(why));
    }

    pub(super) fn reset(&mut self, id: ClientId) {
        self.mark_closed(id, CloseReason::Reset);
    }

    /// Disconnects a slow client, and says so.
    pub(super) fn disconnect(&mut self, id: ClientId, reason: SlowReason, detail: &str) {
        let Some(client) = self.clients.get(id) else {
            return;
        };
        if client.phase == Phase::Closed {
            return;
        }
        let since = match reason {
            SlowReason::WriteTimeout => client.clocks.over_limit_since(),
            _ => client.clocks.waiting_since(),
        };
        let slow_for = since.map_or(0.0, |since| {
            self.now.saturating_duration_since(since).as_secs_f64()
        });
        warn!(
            "{} {reason}, disconnecting: slow for {slow_for:.3} s, {} bytes queued (peak {}), {detail}, {} sent, {} ({})",
            client.name(),
            client.queue.len(),
            client.peak_bytes,
            client.sent_bytes,
            client.stream.peer_state(),
            client.peer,
        );
        self.mark_closed(id, CloseReason::Slow(reason));
    }

    /// Goes one step further in the orderly end of a client, if one is due.
    /// Call it whenever its queue has become empty, an end was read or
    /// asked for, or an event came in for one that lingers.
    pub(super) fn advance_end(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        let is_open = matches!(client.phase, Phase::Open | Phase::Closing);
        if !is_open || !client.queue.is_ended() || !client.queue.is_empty() {
            // An end sent before the connection is made would break it off.
            return;
        }
        let both_ended = client.read_ended || client.phase == Phase::Closing;
        // Closing with unread input would reset, so what is there is read
        // first; the end itself is announced by the close.
        if both_ended && !client.may_have_unread() && client.stream.is_settled() {
            let reason = if client.cut {
                CloseReason::Stopped
            } else {
                CloseReason::Finished
            };
            self.mark_closed(id, reason);
            return;
        }
        if client.stopped && client.may_have_unread() {
            // Only a read can tell whether its stream is cut; a clean end
            // could not be taken back.
            return;
        }
        if !client.fin_sent && !client.cut {
            client.fin_sent = true;
            if let Err(error) = client.stream.shut_down_write() {
                self.mark_closed(id, CloseReason::Failed(Operation::ShutDown, error));
                return;
            }
        }
        if both_ended && client.awaiting_since.is_none() {
            client.awaiting_since = Some(self.now);
            self.arm(Timer::CloseTimeout, id);
        }
    }

    /// Takes a client that is to be closed out of all pipes.
    fn unlink(&mut self, id: ClientId, client: &Client<N::Stream>) {
        for &from in client.sources.as_slice() {
            if let Some(source) = self.clients.get_mut(from) {
                source.pipe.remove(id);
                self.list_if_work(from);
            }
        }
        for to in client.pipe.names() {
            if let Some(destination) = self.clients.get_mut(to) {
                destination.sources.retain(|&source| source != id);
            }
        }
    }

    /// Says that a client is gone.
    fn log_closed(client: &Client<N::Stream>, reason: &CloseReason) {
        let (name, peer) = (client.name(), client.peer);
        let (received, sent) = (client.received_bytes, client.sent_bytes);
        match reason {
            CloseReason::Slow(_) => {}
            CloseReason::Rejected(why) => warn!("{name} disconnecting: {why} ({peer})"),
            CloseReason::NotAcknowledged => warn!(
                "{name} {reason}, disconnecting: {sent} bytes sent, the last not taken in time, {} ({peer})",
                client.stream.peer_state(),
            ),
            CloseReason::Stopped => {
                info!("{name} {reason}, disconnecting: {received} bytes received, {sent} sent ({peer})");
            }
            _ => debug!("{name} closed: {reason}, {received} bytes received, {sent} sent ({peer})"),
        }
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Closes those that were marked. Their service may mark others while it
    /// hears of it, so this goes on until nobody is left; only connections
    /// that it begins meanwhile are left for the next turn, as it could begin
    /// and end them for ever.
    pub(super) fn sweep(&mut self) {
        let begun = self.core.clients.next_generation();
        let mut later = VecDeque::new();
        while let Some((id, reason)) = self.core.marked.pop_front() {
            if id.is_since(begun) {
                later.push_back((id, reason));
                continue;
            }
            let Some(mut client) = self.core.clients.remove(id) else {
                continue;
            };
            self.core.unlink(id, &client);
            self.core.upstreams -= usize::from(client.upstream_of != UpstreamOf::NO_CLIENT);
            self.core.counters.sent_bytes += client.sent_bytes;
            self.core.counters.count_closed(&reason);
            Core::<N>::log_closed(&client, &reason);
            if reason.is_reset() {
                client.stream.reset_on_close();
            } else {
                client.stream.bound_close(self.core.limits.grace);
            }
            drop(client);
            self.acceptor.descriptor_freed();
            self.service
                .closed(id, &reason, &mut Actions::new(&mut self.core));
        }
        self.core.marked.append(&mut later);
    }
}
