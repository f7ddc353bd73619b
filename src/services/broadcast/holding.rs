//! Publishers that are not read while a subscriber of theirs is full, under
//! the action `pause`.
//!
//! Owns who is held, since when, and what ends it. A publisher is held for at
//! most the grace: then the subscribers that held it go, all at once, so that
//! many stalled ones cost it one grace and not one each. Refuses to hold a
//! publisher for its own sake.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Broadcast;
use super::channels::TopicId;
use crate::backpressure::Action;
use crate::limits::GRACE;
use crate::{Actions, SlowReason};

/// All publishers that are held.
#[derive(Debug, Default)]
pub(super) struct Holding {
    holds: HashMap<usize, Hold>,
    /// Something has changed that may end a hold.
    pub(super) is_to_review: bool,
}

#[derive(Clone, Debug)]
struct Hold {
    topics: Vec<TopicId>,
    since: Instant,
}

impl Holding {
    pub(super) fn count(&self) -> usize {
        self.holds.len()
    }

    /// All holds have their time once more, which became shorter: the subscribers
    /// that they blame have it too.
    pub(super) fn all_begin_anew(&mut self, now: Instant) {
        for hold in self.holds.values_mut() {
            hold.since = now;
        }
    }

    pub(super) fn is_active(&self) -> bool {
        !self.holds.is_empty()
    }
}

impl Broadcast {
    /// Holds a client that has published to these topics, if one of them has a
    /// full subscriber.
    pub(super) fn hold_publisher(&mut self, slot: usize, topics: &[TopicId], actions: &mut Actions<'_>) {
        for &id in topics {
            self.notice_full(slot, id, actions.now());
        }
        if !topics
            .iter()
            .any(|&id| self.full_members(slot, id).next().is_some())
        {
            return;
        }
        let now = actions.now();
        let session = &mut self.sessions[slot];
        session.held_since = Some(now);
        actions.pause(session.id);
        let topics = topics.to_vec();
        self.holding.holds.insert(slot, Hold { topics, since: now });
        self.statistics.publisher_pauses += 1;
    }

    /// Finds out who has become full, once that is possible.
    fn notice_full(&mut self, publisher: usize, id: TopicId, now: Instant) {
        let log = self
            .channels
            .get(id)
            .and_then(|topic| topic.log_if_any(Action::Pause));
        if log.is_some_and(|log| log.bytes() >= self.settings.high_water_mark_bytes) {
            let waiting: Vec<usize> = self.waiting_members(publisher, id).collect();
            for slot in waiting {
                self.turn_clocks(slot, now);
            }
        }
    }

    /// Subscribers of a topic that are full and wait for its messages, without
    /// the publisher itself.
    fn full_members(&self, publisher: usize, id: TopicId) -> impl Iterator<Item = usize> {
        let waiting = self.waiting_members(publisher, id);
        waiting.filter(|&slot| self.states[slot].is_full)
    }

    fn waiting_members(&self, publisher: usize, id: TopicId) -> impl Iterator<Item = usize> {
        let topic = self.channels.get(id);
        let waits = topic.filter(|topic| {
            topic
                .log_if_any(Action::Pause)
                .is_some_and(|log| log.has_readers())
        });
        waits
            .into_iter()
            .flat_map(|topic| {
                let asleep = topic.members.asleep();
                asleep.filter(|(place, _)| topic.members.waits(*place, Action::Pause))
            })
            .map(|(_, member)| member.slot)
            .filter(move |&slot| slot != publisher)
    }

    /// Ends the holds whose reason is gone, or whose time is over.
    pub(super) fn review_holds(&mut self, actions: &mut Actions<'_>) {
        if self.holding.holds.is_empty() {
            return;
        }
        let now = actions.now();
        let grace = if self.settings.grace.is_zero() {
            GRACE
        } else {
            self.settings.grace
        };
        let holds: Vec<(usize, Hold)> = self
            .holding
            .holds
            .iter()
            .map(|(slot, hold)| (*slot, hold.clone()))
            .collect();
        for (publisher, hold) in holds {
            let is_over = now.saturating_duration_since(hold.since) >= grace;
            if is_over {
                self.disconnect_holders(publisher, &hold, actions);
            }
            let holds_on = hold
                .topics
                .iter()
                .any(|&id| self.full_members(publisher, id).next().is_some());
            if is_over || !holds_on {
                self.release(publisher, actions);
            }
        }
    }

    /// Disconnects all that are full, or have taken nothing, since a publisher
    /// was held for them.
    fn disconnect_holders(&mut self, publisher: usize, hold: &Hold, actions: &mut Actions<'_>) {
        let has_taken_nothing = |slot: usize| {
            let silent_since = self.sessions[slot].outgoing.clocks.silent_since;
            silent_since.is_some_and(|since| since <= hold.since)
        };
        let waiting = hold
            .topics
            .iter()
            .flat_map(|&id| self.waiting_members(publisher, id));
        let holders: Vec<usize> = waiting
            .filter(|&slot| self.states[slot].is_full || has_taken_nothing(slot))
            .collect();
        for slot in holders {
            if self.states[slot].is_behind {
                let held: Duration = actions.now().saturating_duration_since(hold.since);
                let detail = format!("a publisher waited for {:.3} s", held.as_secs_f64());
                self.disconnect(slot, SlowReason::WriteTimeout, Some(hold.since), &detail, actions);
            }
        }
    }

    fn release(&mut self, slot: usize, actions: &mut Actions<'_>) {
        self.release_publisher(slot);
        // What it had sent before it was held.
        self.take_input(slot, &[], actions);
        self.read_on(slot, actions);
    }

    /// Reads a client again, unless something else forbids it.
    pub(super) fn read_on(&mut self, slot: usize, actions: &mut Actions<'_>) {
        if let Some(session) = self.sessions.get(slot)
            && session.held_since.is_none()
            && !session.awaits_drain
        {
            actions.resume(session.id);
        }
    }

    /// A publisher is no longer held, for it is free or gone.
    pub(super) fn release_publisher(&mut self, slot: usize) {
        self.holding.holds.remove(&slot);
        if let Some(session) = self.sessions.get_mut(slot) {
            session.held_since = None;
        }
    }
}
