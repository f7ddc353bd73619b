//! Shadowing: a rule is broken, and nobody is disconnected.
//!
//! Owns when an episode begins and ends, and its lines in the log. Refuses to
//! recommend: `shadow` does.

use std::time::Instant;

use log::info;

use super::actions::Slowness;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::Network;
use super::service::Service;
use super::shadow::{Ending, ShadowEnding, ShadowReport};
use crate::backpressure::{Clocks, SlowReason};
use crate::error::CloseReason;

impl<N: Network, S: Service> Engine<N, S> {
    /// What shadow mode has seen and recommends, if it is on.
    #[must_use]
    pub fn shadow_report(&self) -> Option<ShadowReport> {
        let shadow = self.core.shadow.as_ref()?;
        let own = self.service.own_limits();
        Some(shadow.report(own.as_ref().unwrap_or(&self.core.limits)))
    }

    /// Writes what shadow mode recommends into the log.
    pub(crate) fn log_shadow(&self) {
        let Some(report) = self.shadow_report() else {
            return info!(event = "shadow"; "shadow: this server is not in shadow mode and has nothing to tell");
        };
        info!(event = "shadow", recommendation = report.options().as_str(); "shadow: {}", report.sentence());
        info!(event = "shadow"; "shadow: time over the limit of those that recovered: {}", report.table());
    }
}

impl<N: Network> Core<N> {
    /// Whether shadow mode keeps a client that broke this rule. Bounds of memory
    /// hold all the same.
    pub(super) fn is_shadowed(&self, reason: SlowReason) -> bool {
        self.shadow.is_some() && matches!(reason, SlowReason::WriteTimeout | SlowReason::DrainTimeout)
    }

    /// Notes a client that a rule would disconnect, once in an episode.
    pub(super) fn would_disconnect(
        &mut self,
        id: ClientId,
        reason: SlowReason,
        slow: Slowness,
        detail: &str,
    ) {
        let Some(since) = self.now.checked_sub(slow.slow_for) else {
            return;
        };
        if let (Some(shadow), Some(client)) = (&mut self.shadow, self.clients.get(id))
            && shadow.begin(id, reason, since)
        {
            self.journal.would_disconnect(client, reason, slow, detail);
        }
        self.hold_undrained(id);
    }

    /// Whoever has not drained in time has not recovered before it has drained,
    /// whatever rule it broke first.
    fn hold_undrained(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else {
            return;
        };
        let rule = SlowReason::DrainTimeout;
        let (limits, window_bytes) = (self.limits_of(client), client.reopening_window_bytes());
        let is_broken = client.clocks.breaks(rule, limits, window_bytes, self.now);
        if let Some(shadow) = self.shadow.as_mut().filter(|_| is_broken) {
            shadow.hold(id, rule);
        }
    }

    /// Looks at a client whose queue was written: it may be back below the limit.
    pub(super) fn shadow_flush(&mut self, id: ClientId, before: Clocks) {
        self.hold_undrained(id);
        let (Some(shadow), Some(client)) = (&mut self.shadow, self.clients.get(id)) else {
            return;
        };
        let stopped = |reason| match client.clocks.since(reason) {
            None => before.since(reason),
            Some(_) => None,
        };
        let is_upstream = client.is_upstream();
        let now = self.now;
        let age = |since: Instant| now.saturating_duration_since(since);
        if let Some(since) = stopped(SlowReason::WriteTimeout) {
            shadow.back_below_limit(age(since), client.peak_bytes as usize, is_upstream);
        }
        if let Some(since) = stopped(SlowReason::DrainTimeout) {
            shadow.drained(age(since), is_upstream);
        }
        if let Some(episode) = shadow.episode(id)
            && (stopped(episode.holds).is_some() || client.queue.is_empty())
        {
            self.end_episode(id, Ending::Recovered);
        }
    }

    /// A client is no longer slow by a rule that its service judges.
    pub(super) fn shadow_recovery(&mut self, id: ClientId, reason: SlowReason, slow: Slowness) {
        let Some(shadow) = &mut self.shadow else { return };
        match reason {
            SlowReason::WriteTimeout => shadow.back_below_limit(slow.slow_for, slow.peak_bytes, false),
            SlowReason::DrainTimeout => shadow.drained(slow.slow_for, false),
            _ => {}
        }
        if shadow.is_held_by(id, reason) {
            self.end_episode(id, Ending::Recovered);
        }
    }

    /// A client whose progress is watched has acknowledged something.
    pub(super) fn shadow_progress(&mut self, id: ClientId, silence: std::time::Duration) {
        if let Some(shadow) = &mut self.shadow {
            shadow.back_below_limit(silence, 0, false);
            if shadow.episode(id).is_some() {
                self.end_episode(id, Ending::Recovered);
            }
        }
    }

    /// A client is about to be closed.
    pub(super) fn shadow_close(&mut self, id: ClientId, reason: &CloseReason) {
        if self
            .shadow
            .as_ref()
            .is_some_and(|shadow| shadow.episode(id).is_some())
        {
            let ending = match reason {
                CloseReason::Stopped | CloseReason::Slow(_) | CloseReason::NotAcknowledged => {
                    Ending::StillStuck
                }
                _ => Ending::Left,
            };
            self.end_episode(id, ending);
        }
    }

    fn end_episode(&mut self, id: ClientId, ending: Ending) {
        let (Some(shadow), Some(client)) = (&mut self.shadow, self.clients.get(id)) else {
            return;
        };
        let Some(episode) = shadow.episode(id) else {
            return;
        };
        let ended = ShadowEnding {
            name: client.name(),
            address: client.peer,
            reason: episode.reason,
            slow_for: self.now.saturating_duration_since(episode.since),
            ending,
        };
        shadow.end(id, ended);
        self.journal.shadow_ended(client, &ended);
    }
}
