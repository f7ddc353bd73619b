//! Who is too slow, and what happens then.
//!
//! Owns the clocks of clients that are behind, and the memory budget. Publishing costs nothing for those who are
//! behind, so how much they owe is looked at when they take something, every
//! [`PATROL_INTERVAL`], and after every [`PATROL_BYTES`] that begin to wait.

use std::time::{Duration, Instant};

use super::Broadcast;
use super::channels::TopicId;
use super::session::{Cursor, Pending};
use crate::backpressure::ChannelName;
use crate::units::format_time;
use crate::{Actions, SlowReason, Slowness};

/// How often clients that are behind are looked at.
pub(super) const PATROL_INTERVAL: Duration = Duration::from_millis(50);

/// Bytes that begin to wait after which they are looked at all the same. The
/// hard limit is exceeded by at most this much.
const PATROL_BYTES: usize = 256 * 1024;

/// When to look at clients that are behind.
#[derive(Debug, Default)]
pub(super) struct Patrol {
    pub(super) clients_behind: usize,
    /// Bytes that began to wait since the last look.
    pub(super) kept_bytes: usize,
    /// Memory of logs beside their messages, at the last look.
    overhead_bytes: usize,
}

impl Patrol {
    pub(super) const fn is_needed(&self) -> bool {
        self.clients_behind > 0
    }
}

impl Broadcast {
    /// Something waits for a client that its socket refused.
    pub(super) fn fell_behind(&mut self, slot: usize, actions: &Actions<'_>) {
        let now = actions.now();
        if !std::mem::replace(&mut self.states[slot].is_behind, true) {
            self.patrol.clients_behind += 1;
        }
        let clocks = &mut self.sessions[slot].outgoing.clocks;
        clocks.behind_since.get_or_insert(now);
        clocks.silent_since.get_or_insert(now);
    }

    /// A client took so many bytes of what waits for it.
    pub(super) fn took(&mut self, slot: usize, sent_bytes: usize, actions: &mut Actions<'_>) {
        let now = actions.now();
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if sent_bytes > 0 {
            session.outgoing.clocks.silent_since = Some(now);
        }
        self.holding.is_to_review = true;
        if session.awaits_drain && session.outgoing.reply_bytes == 0 {
            session.awaits_drain = false;
            self.read_on(slot, actions);
        }
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.outgoing.is_behind() {
            self.turn_clocks(slot, now);
        } else {
            session.outgoing.clocks = super::session::Clocks::default();
            self.states[slot].is_full = false;
            if std::mem::take(&mut self.states[slot].is_behind) {
                self.patrol.clients_behind -= 1;
            }
        }
    }

    /// Starts and stops the clocks of a client by what waits for it now.
    pub(super) fn turn_clocks(&mut self, slot: usize, now: Instant) {
        let owed = self.owed(slot);
        let (limit, mark) = (self.settings.limit_bytes, self.settings.high_water_mark_bytes);
        let outgoing = &mut self.sessions[slot].outgoing;
        outgoing.peak_bytes = outgoing.peak_bytes.max(owed.bytes());
        let clocks = &mut outgoing.clocks;
        let run = |clock: &mut Option<Instant>, runs: bool| {
            if runs {
                clock.get_or_insert(now);
            } else {
                *clock = None;
            }
        };
        run(
            &mut clocks.over_limit_since,
            limit > 0 && owed.counted_bytes >= limit,
        );
        run(&mut clocks.counted_since, owed.counted_bytes > 0);
        clocks.tried_again &= clocks.over_limit_since.is_some();
        let state = &mut self.states[slot];
        state.is_full = owed.counted_bytes >= mark || (state.is_full && owed.counted_bytes > 0);
    }

    /// Looks at everybody who is behind.
    pub(super) fn patrol(&mut self, actions: &mut Actions<'_>) {
        self.patrol.kept_bytes = 0;
        self.patrol.overhead_bytes = self
            .channels
            .all()
            .map(super::channels::Topic::overhead_bytes)
            .sum();
        for slot in 0..self.states.len() {
            if self.states[slot].is_behind {
                self.keep_mark(slot, actions.now());
                self.turn_clocks(slot, actions.now());
                self.judge(slot, actions);
            }
        }
    }

    /// Looks at them once enough has begun to wait, and keeps the memory
    /// budget.
    pub(super) fn watch_memory(&mut self, actions: &mut Actions<'_>) {
        if self.patrol.kept_bytes >= PATROL_BYTES {
            self.patrol(actions);
        }
        if std::mem::take(&mut self.holding.is_to_review) {
            self.review_holds(actions);
        }
        if !self.patrol.is_needed() {
            return;
        }
        for _ in 0..self.states.len() {
            let waiting = self.memory.total() + self.reply_bytes + self.patrol.overhead_bytes;
            if waiting <= actions.memory_left() {
                return;
            }
            let behind = (0..self.states.len()).filter(|&slot| self.states[slot].is_behind);
            let Some(slot) = behind.max_by_key(|&slot| self.owed(slot).bytes()) else {
                return;
            };
            let detail = format!(
                "the longest of {} clients, {waiting} bytes wait in all",
                self.sessions.len()
            );
            let since = self.sessions[slot].outgoing.clocks.behind_since;
            self.disconnect(slot, SlowReason::MemoryBudget, since, &detail, actions);
        }
    }

    fn judge(&mut self, slot: usize, actions: &mut Actions<'_>) {
        let (now, settings) = (actions.now(), &self.settings);
        let clocks = self.sessions[slot].outgoing.clocks;
        let age = |clock: Option<Instant>| {
            clock.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        let owed = self.owed(slot);
        let (hard, limit, grace) = (settings.hard_limit_bytes, settings.limit_bytes, settings.grace);
        // A message is always taken into an empty queue, however long it is.
        if hard > 0 && owed.counted_bytes > hard && owed.pieces > 1 {
            let detail = format!("hard limit {hard}");
            return self.disconnect(slot, SlowReason::HardLimit, clocks.behind_since, &detail, actions);
        }
        let over = age(clocks.over_limit_since);
        if !grace.is_zero() && over >= grace && clocks.tried_again {
            let detail = format!("limit {limit}");
            return self.disconnect(
                slot,
                SlowReason::WriteTimeout,
                clocks.over_limit_since,
                &detail,
                actions,
            );
        }
        let patience = settings.drain_timeout;
        if age(clocks.counted_since) >= patience {
            let detail = format!("not empty for {}", format_time(patience));
            return self.disconnect(
                slot,
                SlowReason::DrainTimeout,
                clocks.counted_since,
                &detail,
                actions,
            );
        }
        if age(clocks.silent_since) >= patience {
            let detail = format!("took nothing for {}", format_time(patience));
            return self.disconnect(
                slot,
                SlowReason::DrainTimeout,
                clocks.silent_since,
                &detail,
                actions,
            );
        }
        if !grace.is_zero() && over + PATROL_INTERVAL >= grace && !clocks.tried_again {
            let session = &mut self.sessions[slot];
            session.outgoing.clocks.tried_again = true;
            actions.call_when_writable(session.id);
            actions.try_again(session.id);
        }
    }

    /// Disconnects a client that is too slow, and forgets what waits for it.
    pub(super) fn disconnect(
        &mut self,
        slot: usize,
        reason: SlowReason,
        since: Option<Instant>,
        detail: &str,
        actions: &mut Actions<'_>,
    ) {
        let owed = self.owed(slot);
        let session = &self.sessions[slot];
        let slow = Slowness {
            slow_for: since.map_or(Duration::ZERO, |since| {
                actions.now().saturating_duration_since(since)
            }),
            waiting_bytes: owed.bytes(),
            peak_bytes: session.outgoing.peak_bytes.max(owed.bytes()),
        };
        self.statistics.slow_clients += 1;
        actions.disconnect(session.id, reason, slow, detail);
        self.forget_pending(slot);
    }

    /// Forgets what waits for a client that is gone.
    pub(super) fn forget_pending(&mut self, slot: usize) {
        let outgoing = std::mem::take(&mut self.sessions[slot].outgoing);
        let outgoing_kept = &mut self.sessions[slot].outgoing;
        (outgoing_kept.lost, outgoing_kept.episode) = (outgoing.lost, outgoing.episode);
        self.reply_bytes -= outgoing.reply_bytes;
        for pending in outgoing.pending.into_values() {
            match pending {
                Pending::Log(cursor) => self.leave_log(slot, cursor),
                Pending::Latest { topic, channel, .. } => self.leave_latest(topic, &channel),
                _ => {}
            }
        }
        if std::mem::take(&mut self.states[slot].is_behind) {
            self.patrol.clients_behind -= 1;
        }
        self.states[slot].is_full = false;
        self.holding.is_to_review = true;
    }

    pub(super) fn leave_log(&mut self, slot: usize, cursor: Cursor) {
        let member = self.member_of(slot, cursor.topic);
        let Some(topic) = self.channels.get_mut(cursor.topic) else {
            return;
        };
        topic.log(cursor.action).leave(cursor.position);
        if let Some(member) = member.filter(|_| cursor.until == u64::MAX) {
            topic.members.has_all(member, cursor.action);
        }
        self.channels.remove_if_unused(cursor.topic);
    }

    pub(super) fn leave_latest(&mut self, id: TopicId, channel: &ChannelName) {
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        if let Some(latest) = topic.latest.get_mut(channel) {
            latest.readers -= 1;
            if latest.readers == 0 {
                topic.latest.remove(channel);
            }
        }
        self.channels.remove_if_unused(id);
    }
}
