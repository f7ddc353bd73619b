//! Judging: what an expired timer leads to.
//!
//! Owns the order in which timers are looked at, and the last flush before a
//! client is disconnected. Refuses the rules (`backpressure`) and the closing.

use super::client::readiness::Event;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::Network;
use super::service::Service;
use super::timers::Timer;
use crate::backpressure::SlowReason;
use crate::error::CloseReason;
use crate::limits::EXPIRIES_PER_TURN;

impl<N: Network, S: Service> Engine<N, S> {
    /// Acts on expired timers, at most so many of each kind in one turn.
    pub(super) fn expire(&mut self) {
        for _ in 0..EXPIRIES_PER_TURN {
            let due = self.core.pop_slow_due().or_else(|| self.core.pop_late_due());
            let Some((timer, id)) = due else {
                break;
            };
            // The two ends of a tunnel often block each other. The service
            // must hear that one is closed before the other can be blamed too.
            self.sweep();
            match timer {
                Timer::CloseTimeout => self.judge_close(id),
                Timer::AckCheck => self.core.check_acknowledgements(id),
                Timer::Progress => self.core.check_progress(id),
                _ => self.judge_slow(timer, id),
            }
        }
        self.expire_each(Timer::AckCheck, |engine, id| {
            engine.core.check_acknowledgements(id);
        });
        self.expire_each(Timer::Progress, |engine, id| engine.core.check_progress(id));
        self.expire_each(Timer::CloseTimeout, Self::judge_close);
        for timer in [Timer::Idle, Timer::HalfClosed] {
            self.expire_each(timer, |engine, id| engine.judge_silence(timer, id));
        }
        self.expire_each(Timer::ConnectTimeout, |engine, id| {
            let after = engine.core.limits.connect_timeout;
            engine.core.mark_closed(id, CloseReason::ConnectTimedOut(after));
        });
    }

    fn expire_each(&mut self, timer: Timer, act: impl Fn(&mut Self, ClientId)) {
        for _ in 0..EXPIRIES_PER_TURN {
            let Some(id) = self.core.pop_due(timer) else {
                return;
            };
            act(self, id);
        }
    }

    /// Disconnects a client that did not acknowledge the last bytes, unless all
    /// is well by now: the client may have waited for its turn since its last
    /// event, and the last ACK may have come without an event.
    fn judge_close(&mut self, id: ClientId) {
        self.read_last(id);
        self.core.advance_end(id);
        if !self.core.has_longer(Timer::CloseTimeout, id) {
            self.core.mark_closed(id, CloseReason::NotAcknowledged);
        }
    }

    /// Disconnects a client that breaks a rule even after one last flush.
    fn judge_slow(&mut self, timer: Timer, id: ClientId) {
        self.core.look_at_window(id);
        if self.core.has_longer(timer, id) || self.core.broken_rule(id).is_none() {
            return;
        }
        if let Some(client) = self.core.clients.get_mut(id) {
            // The kernel announces room only once a third of its queue is
            // free, but takes a write long before.
            client.readiness.announce(Event {
                writable: true,
                ..Event::default()
            });
        }
        self.flush(id);
        self.core.list_if_work(id);
        if self.core.has_longer(timer, id) {
            return;
        }
        if let (Some(reason), Some(client)) = (self.core.broken_rule(id), self.core.clients.get(id)) {
            let detail = reason.detail(self.core.limits_of(client), client.reopening_window_bytes());
            self.core.disconnect(id, reason, &detail);
        }
    }
}

impl<N: Network> Core<N> {
    fn broken_rule(&self, id: ClientId) -> Option<SlowReason> {
        let client = self.clients.get(id)?;
        let limits = self.limits_of(client);
        client
            .clocks
            .broken(limits, client.reopening_window_bytes(), self.now)
    }

    /// Whether a client has longer than others until this timer is over, which
    /// is then armed for its own time.
    fn has_longer(&mut self, timer: Timer, id: ClientId) -> bool {
        let raises_grace = self.limits.slowest_reader_bytes_per_s.is_some();
        let Some(client) = self.clients.get(id).filter(|_| raises_grace) else {
            return false;
        };
        let limits = self.limits_of(client);
        let after = match timer {
            Timer::Slow(reason) | Timer::SlowUpstream(reason) => {
                reason.after(limits, client.reopening_window_bytes())
            }
            _ => Some(self.limits.grace_for(client.reopening_window_bytes())),
        };
        let Some((start, after)) = client.since(timer).zip(after) else {
            return false;
        };
        let due = start + after;
        if due <= self.now {
            return false;
        }
        self.late_timers.arm(timer, id, start, due);
        true
    }
}
