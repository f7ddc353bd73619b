//! Who is too slow, and what happens then.
//!
//! Owns the clocks of clients that are behind, and the memory budget.
//! Publishing costs nothing for clients that are behind. So each of them is looked
//! at when it takes something, when a clock of its may have run out, and when
//! so much was published that it may have reached a limit. In between it is
//! passed over.

use std::time::{Duration, Instant};

use super::Broadcast;
use super::channels::{Topic, TopicId};
use super::kept::{Kept, Room};
use super::owed::Owed;
use super::session::{Clocks, Cursor, Pending};
use crate::backpressure::ChannelName;
use crate::units::format_time;
use crate::{Actions, SlowReason, Slowness};

/// How often the clocks of clients that are behind are compared with the time.
pub(super) const PATROL_INTERVAL: Duration = Duration::from_millis(50);

/// When to look at clients that are behind.
#[derive(Debug)]
pub(super) struct Patrol {
    pub(super) clients_behind: usize,
    /// What ever began to wait.
    pub(super) kept: Kept,
    /// When to look at the client in each slot; `None`: the next time.
    looks: Vec<Option<Look>>,
    /// The least of `kept` at which somebody is due.
    next_look: Kept,
    /// Memory of logs beside their messages, or more.
    pub(super) overhead_bytes: usize,
}

impl Default for Patrol {
    fn default() -> Self {
        Self {
            clients_behind: 0,
            kept: Kept::NOTHING,
            looks: Vec::new(),
            next_look: Kept::NOTHING,
            overhead_bytes: 0,
        }
    }
}

/// A client is looked at when either comes.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    kept: Kept,
}

impl Patrol {
    pub(super) const fn is_needed(&self) -> bool {
        self.clients_behind > 0
    }

    /// Something about a client has changed: it is due.
    fn is_changed(&mut self, slot: usize) {
        if self.looks.len() <= slot {
            self.looks.resize(slot + 1, None);
        }
        self.looks[slot] = None;
    }

    /// Limits have changed: all are due.
    pub(super) fn look_at_all(&mut self) {
        self.looks.fill(None);
        self.next_look = Kept::NOTHING;
    }

    fn is_due(&self, slot: usize, now: Instant) -> bool {
        self.looks[slot].is_none_or(|look| now >= look.at || self.kept.reaches(look.kept))
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
        self.patrol.is_changed(slot);
        self.patrol.next_look = Kept::NOTHING;
    }

    /// A client took so many bytes of what waits for it.
    pub(super) fn took(&mut self, slot: usize, sent_bytes: usize, actions: &mut Actions<'_>) {
        let now = actions.now();
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let (clocks, peak_bytes) = (session.outgoing.clocks, session.outgoing.peak_bytes);
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
            self.patrol.is_changed(slot);
        } else {
            session.outgoing.clocks = Clocks::default();
            self.states[slot].is_full = false;
            if std::mem::take(&mut self.states[slot].is_behind) {
                self.patrol.clients_behind -= 1;
            }
        }
        self.tell_recovery(slot, clocks, peak_bytes, actions);
    }

    /// Starts and stops the clocks of a client by what waits for it now.
    pub(super) fn turn_clocks(&mut self, slot: usize, now: Instant) -> Owed {
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
        owed
    }

    /// Looks at everybody who is behind and due.
    pub(super) fn patrol(&mut self, actions: &mut Actions<'_>) {
        let mut next_look = Kept::FAR;
        for slot in 0..self.states.len() {
            if self.states[slot].is_behind && self.patrol.is_due(slot, actions.now()) {
                self.look_at(slot, actions);
            }
            if self.states[slot].is_behind {
                let look = self.patrol.looks[slot];
                next_look = next_look.least(look.map_or(Kept::FAR, |look| look.kept));
            }
        }
        self.patrol.next_look = next_look;
    }

    fn look_at(&mut self, slot: usize, actions: &mut Actions<'_>) {
        let now = actions.now();
        let outgoing = &self.sessions[slot].outgoing;
        let (clocks, peak_bytes) = (outgoing.clocks, outgoing.peak_bytes);
        self.keep_mark(slot, now);
        let owed = self.turn_clocks(slot, now);
        self.tell_recovery(slot, clocks, peak_bytes, actions);
        self.judge(slot, owed, actions);
        if self.states[slot].is_behind {
            let look = Look {
                at: self.next_deadline(slot, now),
                kept: self.patrol.kept.with(self.room_of(slot, owed)),
            };
            self.patrol.looks[slot] = Some(look);
        }
    }

    /// Bytes that may be published before a client can reach another limit.
    fn room_of(&self, slot: usize, owed: Owed) -> Room {
        let settings = &self.settings;
        let until = |limit: usize, bytes: usize| match limit {
            0 => usize::MAX,
            limit => limit.saturating_sub(bytes).max(1),
        };
        let mut room = Room {
            counted_bytes: until(settings.hard_limit_bytes, owed.counted_bytes),
            droppable_bytes: usize::MAX,
        };
        if owed.counted_bytes < settings.limit_bytes {
            let until_limit = until(settings.limit_bytes, owed.counted_bytes);
            room.counted_bytes = room.counted_bytes.min(until_limit);
        }
        // Where several logs or values share a bound.
        let outgoing = &self.sessions[slot].outgoing;
        if outgoing.latest.len() > 1 {
            room.droppable_bytes = until(settings.hard_limit_bytes, owed.droppable_bytes);
        }
        if outgoing.pending.len() > 1 {
            let part_of_mark = (settings.high_water_mark_bytes / 4).max(1);
            room.droppable_bytes = room.droppable_bytes.min(part_of_mark);
        }
        room
    }

    /// When a clock of a client runs out, if nothing changes.
    fn next_deadline(&self, slot: usize, now: Instant) -> Instant {
        const FAR: Duration = Duration::from_secs(3600);
        let (clocks, settings) = (self.sessions[slot].outgoing.clocks, &self.settings);
        let last_try = settings.grace.saturating_sub(PATROL_INTERVAL);
        let grace = if clocks.tried_again {
            settings.grace
        } else {
            last_try
        };
        let over = clocks.over_limit_since.filter(|_| !settings.grace.is_zero());
        [
            over.and_then(|since| since.checked_add(grace)),
            clocks
                .counted_since
                .and_then(|since| since.checked_add(settings.drain_timeout)),
            clocks
                .silent_since
                .and_then(|since| since.checked_add(settings.drain_timeout)),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now + FAR)
    }

    /// Looks at clients that may have reached a limit by what was published, and
    /// keeps the memory budget.
    pub(super) fn watch_memory(&mut self, actions: &mut Actions<'_>) {
        if self.patrol.is_needed() && self.patrol.kept.reaches(self.patrol.next_look) {
            self.patrol(actions);
        }
        if std::mem::take(&mut self.holding.is_to_review) {
            self.review_holds(actions);
        }
        for _ in 0..self.states.len() {
            if !self.patrol.is_needed() || !self.is_over_budget(actions) {
                return;
            }
            let behind = (0..self.states.len()).filter(|&slot| self.states[slot].is_behind);
            let Some(slot) = behind.max_by_key(|&slot| self.owed(slot).bytes()) else {
                return;
            };
            let waiting = self.memory.total() + self.reply_bytes + self.patrol.overhead_bytes;
            let detail = format!(
                "the largest of {} clients, {waiting} bytes wait in all",
                self.sessions.len()
            );
            let since = self.sessions[slot].outgoing.clocks.behind_since;
            self.disconnect(slot, SlowReason::MemoryBudget, since, &detail, actions);
        }
    }

    fn is_over_budget(&mut self, actions: &Actions<'_>) -> bool {
        let left = actions.memory_left();
        let messages = self.memory.total() + self.reply_bytes + self.subscription_bytes();
        if messages + self.patrol.overhead_bytes <= left {
            return false;
        }
        // Now it matters, so it is counted.
        self.patrol.overhead_bytes = self.channels.all().map(Topic::overhead_bytes).sum();
        messages + self.patrol.overhead_bytes > left
    }

    fn judge(&mut self, slot: usize, owed: Owed, actions: &mut Actions<'_>) {
        let now = actions.now();
        let clocks = self.sessions[slot].outgoing.clocks;
        let age = |clock: Option<Instant>| {
            clock.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        if let Some((reason, since, detail)) = self.broken_rule(clocks, owed, age) {
            return self.disconnect(slot, reason, since, &detail, actions);
        }
        let grace = self.settings.grace;
        let over = age(clocks.over_limit_since);
        if !grace.is_zero() && over + PATROL_INTERVAL >= grace && !clocks.tried_again {
            let session = &mut self.sessions[slot];
            session.outgoing.clocks.tried_again = true;
            actions.call_when_writable(session.id);
            actions.try_again(session.id);
        }
    }

    /// The first rule that a client breaks, since when, and its number.
    pub(super) fn broken_rule(
        &self,
        clocks: Clocks,
        owed: Owed,
        age: impl Fn(Option<Instant>) -> Duration,
    ) -> Option<(SlowReason, Option<Instant>, String)> {
        let settings = &self.settings;
        let (hard, limit, grace) = (settings.hard_limit_bytes, settings.limit_bytes, settings.grace);
        let patience = settings.drain_timeout;
        // A message is always taken into an empty queue, however long it is.
        if hard > 0 && owed.counted_bytes > hard && owed.pieces > 1 {
            let detail = format!("hard limit {hard}");
            return Some((SlowReason::HardLimit, clocks.behind_since, detail));
        }
        if !grace.is_zero() && age(clocks.over_limit_since) >= grace && clocks.tried_again {
            let detail = format!("limit {limit}");
            return Some((SlowReason::WriteTimeout, clocks.over_limit_since, detail));
        }
        if age(clocks.counted_since) >= patience {
            let detail = format!("not empty for {}", format_time(patience));
            return Some((SlowReason::DrainTimeout, clocks.counted_since, detail));
        }
        if age(clocks.silent_since) >= patience {
            let detail = format!("took nothing for {}", format_time(patience));
            return Some((SlowReason::DrainTimeout, clocks.silent_since, detail));
        }
        None
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
        if actions.disconnect(session.id, reason, slow, detail) {
            self.statistics.slow_clients += 1;
            self.forget_pending(slot);
        }
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
