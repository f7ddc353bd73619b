//! Shadow mode: nobody is disconnected for slowness, and it is told who
//! recovered, and after how long.
//!
//! Owns which clocks that stop are a recovery. Refuses to recommend: the engine
//! does.

use std::time::{Duration, Instant};

use super::Broadcast;
use super::session::Clocks;
use crate::{Actions, SlowReason, Slowness};

impl Broadcast {
    /// Tells shadow mode by which rules a client is no longer slow: `before` are
    /// its clocks before it took something, or before something was dropped.
    pub(super) fn tell_recovery(
        &mut self,
        slot: usize,
        before: Clocks,
        peak_bytes: usize,
        actions: &mut Actions<'_>,
    ) {
        let Some(session) = self.sessions.get(slot).filter(|_| self.settings.shadow) else {
            return;
        };
        let (after, id) = (session.outgoing.clocks, session.id);
        // Who has taken all has ended a silence, too.
        let silent_since = before.silent_since.filter(|_| after.behind_since.is_none());
        let stopped = |before: Option<Instant>, after: Option<Instant>| before.filter(|_| after.is_none());
        let rules = [
            (
                SlowReason::WriteTimeout,
                stopped(before.over_limit_since, after.over_limit_since),
            ),
            (
                SlowReason::DrainTimeout,
                stopped(before.counted_since, after.counted_since),
            ),
            (SlowReason::DrainTimeout, silent_since),
        ];
        if rules.iter().all(|(_, since)| since.is_none()) {
            return;
        }
        let still = self.hold_who_is_slow_still(slot, after, actions);
        for (reason, since) in rules {
            if let Some(since) = since.filter(|_| still != Some(reason)) {
                let slow = Slowness {
                    slow_for: actions.now().saturating_duration_since(since),
                    waiting_bytes: 0,
                    peak_bytes,
                };
                actions.recovered(id, reason, slow);
            }
        }
    }

    /// Whoever breaks another rule still has not recovered. Answers that rule.
    fn hold_who_is_slow_still(
        &mut self,
        slot: usize,
        clocks: Clocks,
        actions: &mut Actions<'_>,
    ) -> Option<SlowReason> {
        let now = actions.now();
        let age = |since: Option<Instant>| {
            since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        let broken = self.broken_rule(clocks, self.owed(slot), age);
        let (reason, since, detail) = broken.filter(|(reason, ..)| reason.is_timed())?;
        self.disconnect(slot, reason, since, &detail, actions);
        Some(reason)
    }
}
