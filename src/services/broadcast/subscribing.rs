//! Who subscribes to what.
//!
//! Owns the membership of topics, and what a client that leaves one still gets
//! of it: all that waited then, and nothing that comes later.

use std::collections::BTreeMap;

use super::channels::{Kind, Topic, TopicId};
use super::members::bit;
use super::session::Pending;
use super::{Broadcast, LOST_CHANNEL};
use crate::Actions;
use crate::backpressure::{Action, ChannelName, Lost};

impl Broadcast {
    pub(super) fn join(&mut self, slot: usize, kind: Kind, name: &[u8], actions: &mut Actions<'_>) {
        let id = self.channels.find_or_add(kind, name);
        if self.sessions[slot].topics[kind as usize].contains_key(&id) {
            return;
        }
        self.send_earlier(id, actions);
        // It may have been forgotten meanwhile.
        let id = self.channels.find_or_add(kind, name);
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        let session = &mut self.sessions[slot];
        let place = topic.members.add(slot, session.id);
        session.topics[kind as usize].insert(id, place);
        session.hears_gaps |= kind == Kind::Channel && name == LOST_CHANNEL;
        self.statistics.subscriptions += 1;
    }

    /// A change of members must not change who gets what was published before
    /// it in this turn.
    fn send_earlier(&mut self, id: TopicId, actions: &mut Actions<'_>) {
        if self
            .channels
            .get(id)
            .is_some_and(|topic| !topic.turn.entries.is_empty())
        {
            self.deliver(actions);
        }
    }

    /// Ends one subscription. Answers whether there was one.
    pub(super) fn leave(&mut self, slot: usize, kind: Kind, name: &[u8], actions: &mut Actions<'_>) -> bool {
        let Some(id) = self.channels.find(kind, name) else {
            return false;
        };
        if !self.sessions[slot].topics[kind as usize].contains_key(&id) {
            return false;
        }
        self.send_earlier(id, actions);
        self.leave_topic(slot, kind, id);
        true
    }

    fn leave_topic(&mut self, slot: usize, kind: Kind, id: TopicId) {
        let session = &mut self.sessions[slot];
        let Some(place) = session.topics[kind as usize].remove(&id) else {
            return;
        };
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        let (waits, moved) = topic.members.remove(place);
        session.hears_gaps &= !(kind == Kind::Channel && *topic.name == *LOST_CHANNEL);
        if let Some(moved) = moved {
            self.sessions[moved].topics[kind as usize].insert(id, place);
        }
        self.statistics.subscriptions -= 1;
        self.keep_until_here(slot, id, waits);
        self.channels.remove_if_unused(id);
    }

    /// What waits of a topic that a client leaves is still its due, and
    /// nothing that comes later.
    fn keep_until_here(&mut self, slot: usize, id: TopicId, waits: u8) {
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        let outgoing = &mut self.sessions[slot].outgoing;
        if waits & bit(Action::DropOldest) != 0 {
            freeze_droppable(&mut outgoing.pending, topic, id);
        }
        if waits & (bit(Action::Disconnect) | bit(Action::Pause)) != 0 {
            for pending in outgoing.pending.values_mut() {
                if let Pending::Log(cursor) = pending
                    && cursor.topic == id
                    && cursor.until == u64::MAX
                {
                    cursor.until = topic.log(cursor.action).end();
                }
            }
        }
        let values: Vec<(u64, ChannelName)> = outgoing
            .latest
            .iter()
            .filter(|((topic, _), _)| *topic == id)
            .map(|((_, channel), &sequence)| (sequence, channel.clone()))
            .collect();
        for (sequence, channel) in values {
            self.freeze_value(slot, id, sequence, &channel);
        }
    }

    /// The newest message of a channel becomes one that no other replaces.
    fn freeze_value(&mut self, slot: usize, id: TopicId, sequence: u64, channel: &ChannelName) {
        let outgoing = &mut self.sessions[slot].outgoing;
        outgoing.latest.remove(&(id, channel.clone()));
        let Some(Pending::Latest { since, .. }) = outgoing.pending.remove(&sequence) else {
            return;
        };
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        let Some(latest) = topic.latest.get_mut(channel) else {
            return;
        };
        let (bytes, missed) = (latest.bytes.clone(), latest.count - since - 1);
        latest.readers -= 1;
        if latest.readers == 0 {
            topic.latest.remove(channel);
        }
        let since = outgoing.clocks.behind_since;
        let mut lost = Lost {
            since,
            ..Lost::default()
        };
        if missed > 0 {
            lost.by_channel.insert(channel.clone(), missed);
        }
        outgoing
            .pending
            .insert(sequence, Pending::Message(bytes, lost, Action::Latest));
    }

    pub(super) fn leave_all_topics(&mut self, slot: usize) {
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            let ids: Vec<TopicId> = self.sessions[slot].topics[kind as usize]
                .keys()
                .copied()
                .collect();
            for id in ids {
                self.leave_topic(slot, kind, id);
            }
        }
    }
}

/// What a client has yet to get of a log that is cut for others becomes its
/// own, or what is cut later would be told to it as its loss.
fn freeze_droppable(pending: &mut BTreeMap<u64, Pending>, topic: &mut Topic, id: TopicId) {
    let reading = pending.iter().find_map(|(&sequence, pending)| match pending {
        Pending::Log(cursor) if (cursor.topic, cursor.action) == (id, Action::DropOldest) => {
            Some((sequence, *cursor))
        }
        _ => None,
    });
    let Some((sequence, cursor)) = reading else {
        return;
    };
    pending.remove(&sequence);
    let log = topic.log(Action::DropOldest);
    let mut lost = log.lost(cursor.position);
    let mut position = cursor.position;
    while let Some((found, message)) = log.at(position) {
        let lost = std::mem::take(&mut lost);
        pending.insert(
            message.sequence,
            Pending::Message(message.bytes.clone(), lost, Action::DropOldest),
        );
        position = found + 1;
    }
    log.leave(cursor.position);
}
