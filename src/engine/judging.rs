//! Judging: what an expired timer leads to.
//!
//! Owns the last flush before a client is disconnected, and the order in which
//! timers are looked at. Refuses the rules (`backpressure`) and the closing.

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
    /// Disconnects those whose time is over, after one last flush.
    pub(super) fn expire(&mut self) {
        for _ in 0..EXPIRIES_PER_TURN {
            let over_limit = self.core.pop_due(Timer::WriteTimeout);
            let Some(id) = over_limit.or_else(|| self.core.pop_due(Timer::DrainTimeout)) else {
                break;
            };
            // The two of a tunnel are often held up by each other. The service
            // hears of the one that went before the other can be blamed too.
            self.sweep();
            self.judge_slow(id);
        }
        self.expire_each(Timer::AckCheck, Core::check_acknowledgements);
        self.expire_each(Timer::CloseTimeout, |core, id| {
            // The last of it may have arrived without an event.
            core.advance_end(id);
            core.mark_closed(id, CloseReason::NotAcknowledged);
        });
        self.expire_each(Timer::ConnectTimeout, |core, id| {
            let after = core.limits.connect_timeout;
            core.mark_closed(id, CloseReason::ConnectTimedOut(after));
        });
    }

    fn expire_each(&mut self, delay: Timer, act: impl Fn(&mut Core<N>, ClientId)) {
        for _ in 0..EXPIRIES_PER_TURN {
            let Some(id) = self.core.pop_due(delay) else {
                return;
            };
            act(&mut self.core, id);
        }
    }

    fn judge_slow(&mut self, id: ClientId) {
        let now = self.core.now;
        let policy = *self.core.policy();
        let verdict = |engine: &Self| {
            let client = engine.core.clients.get(id)?;
            client.clocks.verdict(&policy, now)
        };
        if verdict(self).is_none() {
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
        let Some(reason) = verdict(self) else { return };
        let detail = match reason {
            SlowReason::DrainTimeout => format!("not empty for {:?}", policy.drain_timeout),
            _ => format!("limit {}", policy.limit_bytes),
        };
        self.core.disconnect(id, reason, &detail);
    }
}
