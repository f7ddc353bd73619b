//! Idling: clients that move no byte, and are no use to anybody after a while.
//!
//! Owns what becomes of idle and of half-closed clients. Refuses to look at
//! clients that no such time concerns: they pay nothing for it.

use super::client::{Client, FileState, Input, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::Network;
use super::service::Service;
use super::timers::Timer;
use crate::error::CloseReason;

impl<S> Client<S> {
    /// Whether one of the two directions has ended and the other has not. Of a
    /// pair the client tells, not the upstream.
    pub(super) fn is_half_closed(&self) -> bool {
        let has_ended = self.input == Input::Ended;
        self.phase == Phase::Open && !self.is_upstream() && has_ended != self.queue.is_ended()
    }
}

impl<N: Network> Core<N> {
    /// Begins to watch a client that was accepted, if idle clients have to go.
    pub(super) fn watch_idle(&mut self, id: ClientId) {
        if self.limits.idle_timeout.is_some() {
            self.watch_silence(Timer::Idle, id);
        }
    }

    /// Begins to watch a client after one of its directions has ended.
    pub(super) fn watch_half_closed(&mut self, id: ClientId) {
        let client = self.clients.get_mut(id);
        if let Some(client) = client.filter(|client| client.is_half_closed() && !client.half_closed_watched) {
            client.half_closed_watched = true;
            self.watch_silence(Timer::HalfClosed, id);
        }
    }

    /// Begins to look at a client from time to time.
    pub(super) fn watch_silence(&mut self, timer: Timer, id: ClientId) {
        if let Some(client) = self.clients.get(id) {
            self.silence.of(id, client, self.now);
            self.timers.arm(timer, id, self.now);
        }
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Looks whether a watched client has been silent for too long. Each is
    /// looked at several times within that time, as no timer starts anew with
    /// each byte.
    pub(super) fn judge_silence(&mut self, timer: Timer, id: ClientId) {
        let core = &mut self.core;
        let limit = match timer {
            Timer::Idle => core.limits.idle_timeout,
            _ => Some(core.limits.half_closed_timeout),
        };
        let (Some(limit), Some(client)) = (limit, core.clients.get(id)) else {
            return;
        };
        let is_queued = |to: ClientId| core.clients.get(to).is_some_and(|to| !to.queue.is_empty());
        let sends_file = client.file != FileState::None;
        let waits = !client.queue.is_empty() || sends_file || client.pipe.names().any(is_queued);
        let silence = core.silence.of(id, client, core.now);
        if waits {
            // A client that was paused meanwhile has its whole time once it is not.
            core.silence.begin_anew(id, core.now);
        }
        if silence < limit || waits {
            return core.timers.arm(timer, id, core.now);
        }
        match timer {
            Timer::Idle if self.service.ends_idle_in_order(id) => {
                core.journal.idle_in_order(client, silence);
                core.close(id);
            }
            Timer::Idle => core.mark_closed(id, CloseReason::Idle(silence)),
            _ => core.mark_closed(id, CloseReason::HalfClosed(silence)),
        }
    }
}
