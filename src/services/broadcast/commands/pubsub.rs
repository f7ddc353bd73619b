//! Publishing, subscribing, and what PUBSUB tells of it.
//!
//! Owns the replies of these commands and the membership of topics. Refuses to
//! send messages: that is done at the end of the turn.

use std::collections::BTreeMap;

use super::super::channels::{Kind, Member, Topic, TopicId};
use super::super::delivering::bit;
use super::super::session::Pending;
use super::super::{Broadcast, LOST_CHANNEL, RESERVED_PREFIX};
use crate::Actions;
use crate::backpressure::{Action, ChannelName, Lost};
use crate::limits::broadcast::{MAX_CHANNEL_BYTES, MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS_PER_CLIENT};
use crate::protocol::glob;
use crate::protocol::resp::Arguments;
use crate::protocol::resp::reply::MessageKind;

pub(super) fn publish(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    let (channel, payload) = (arguments.at(1), arguments.at(2));
    if let Some(sentence) = refusal_of(channel) {
        return this.error(slot, sentence);
    }
    let mut topics: Vec<TopicId> = Vec::new();
    topics.extend(this.channels.find(Kind::Channel, channel));
    let patterns = this.channels.of_kind(Kind::Pattern);
    topics.extend(
        patterns
            .filter(|(_, topic)| glob::matches(&topic.name, channel))
            .map(|(id, _)| id),
    );
    this.publish_to(slot, &topics, channel, payload, actions);
}

pub(super) fn shard_publish(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    let (channel, payload) = (arguments.at(1), arguments.at(2));
    if let Some(sentence) = refusal_of(channel) {
        return this.error(slot, sentence);
    }
    let topics: Vec<TopicId> = this.channels.find(Kind::Shard, channel).into_iter().collect();
    this.publish_to(slot, &topics, channel, payload, actions);
}

/// Why nobody may publish to this channel.
fn refusal_of(channel: &[u8]) -> Option<&'static str> {
    if channel.starts_with(RESERVED_PREFIX) {
        return Some("ERR channels that begin with __highwater__: are told by the server itself");
    }
    (channel.len() > MAX_CHANNEL_BYTES).then_some("ERR the name of a channel is longer than 65536 bytes")
}

impl Broadcast {
    fn publish_to(
        &mut self,
        slot: usize,
        topics: &[TopicId],
        channel: &[u8],
        payload: &[u8],
        actions: &mut Actions<'_>,
    ) {
        let mut receivers = 0;
        if !topics.is_empty() {
            let action = self.settings.action_for(channel);
            let mut name: Option<ChannelName> = None;
            for &id in topics {
                let sequence = self.next_sequence();
                let Some(topic) = self.channels.get_mut(id) else {
                    continue;
                };
                receivers += topic.members.len();
                let pattern = topic.name.clone();
                let (kind, name) = match topic.kind {
                    Kind::Channel => (MessageKind::Channel, &pattern),
                    Kind::Shard => (MessageKind::Shard, &pattern),
                    Kind::Pattern => (
                        MessageKind::Pattern(&pattern),
                        &*name.get_or_insert_with(|| channel.into()),
                    ),
                };
                if topic.members.is_empty() {
                    continue;
                }
                if topic.turn.entries.is_empty() {
                    self.touched.push(id);
                }
                topic.turn.push((sequence, name.clone(), action), kind, payload);
            }
            if action == Action::Pause {
                self.hold_publisher(slot, topics, actions);
            }
        }
        self.reply(slot, |reply| reply.integer(receivers as i64));
    }

    /// Subscribes a client to each of these names.
    fn subscribe_to(&mut self, slot: usize, kind: Kind, arguments: Arguments<'_>, actions: &mut Actions<'_>) {
        for name in arguments.from(1) {
            if let Some(sentence) = self.refuse_subscription(slot, kind, name) {
                self.error(slot, sentence);
                continue;
            }
            self.join(slot, kind, name, actions);
            self.confirm(slot, kind, true, Some(name));
        }
    }

    fn refuse_subscription(&self, slot: usize, kind: Kind, name: &[u8]) -> Option<&'static str> {
        let session = &self.sessions[slot];
        let is_new = self
            .channels
            .find(kind, name)
            .is_none_or(|id| !session.topics[kind as usize].contains_key(&id));
        if !is_new {
            return None;
        }
        if name.len() > MAX_CHANNEL_BYTES {
            return Some("ERR the name of a channel is longer than 65536 bytes");
        }
        if session.all_subscriptions() >= MAX_SUBSCRIPTIONS_PER_CLIENT {
            return Some("ERR a client may have 100000 subscriptions and has as many");
        }
        (self.statistics.subscriptions >= MAX_SUBSCRIPTIONS)
            .then_some("ERR all clients together may have 1000000 subscriptions and have as many")
    }

    fn join(&mut self, slot: usize, kind: Kind, name: &[u8], actions: &mut Actions<'_>) {
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
        topic.members.push(Member { slot, waits: 0 });
        let place = topic.members.len() - 1;
        let session = &mut self.sessions[slot];
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
    fn leave(&mut self, slot: usize, kind: Kind, name: &[u8], actions: &mut Actions<'_>) -> bool {
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
        let member = topic.members.swap_remove(place);
        let moved = topic.members.get(place).map(|moved| moved.slot);
        session.hears_gaps &= !(kind == Kind::Channel && *topic.name == *LOST_CHANNEL);
        if let Some(moved) = moved {
            self.sessions[moved].topics[kind as usize].insert(id, place);
        }
        self.statistics.subscriptions -= 1;
        self.keep_until_here(slot, id, member.waits);
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

    pub(in super::super) fn leave_all_topics(&mut self, slot: usize) {
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

    /// Ends the subscriptions that are named, or all of a kind.
    fn unsubscribe_from(
        &mut self,
        slot: usize,
        kind: Kind,
        arguments: Arguments<'_>,
        actions: &mut Actions<'_>,
    ) {
        if arguments.len() > 1 {
            for name in arguments.from(1) {
                self.leave(slot, kind, name, actions);
                self.confirm(slot, kind, false, Some(name));
            }
            return;
        }
        let ids: Vec<TopicId> = self.sessions[slot].topics[kind as usize]
            .keys()
            .copied()
            .collect();
        let names = ids
            .iter()
            .filter_map(|&id| self.channels.get(id))
            .map(|topic| topic.name.clone());
        let names: Vec<ChannelName> = names.collect();
        if names.is_empty() {
            return self.confirm(slot, kind, false, None);
        }
        for name in names {
            self.leave(slot, kind, &name, actions);
            self.confirm(slot, kind, false, Some(&name));
        }
    }

    fn confirm(&mut self, slot: usize, kind: Kind, subscribed: bool, name: Option<&[u8]>) {
        let word = match (kind, subscribed) {
            (Kind::Channel, true) => "subscribe",
            (Kind::Channel, false) => "unsubscribe",
            (Kind::Pattern, true) => "psubscribe",
            (Kind::Pattern, false) => "punsubscribe",
            (Kind::Shard, true) => "ssubscribe",
            (Kind::Shard, false) => "sunsubscribe",
        };
        let session = &self.sessions[slot];
        let count = match kind {
            Kind::Shard => session.topics[Kind::Shard as usize].len(),
            _ => session.subscriptions(),
        };
        // A push, and so not subject to CLIENT REPLY.
        self.say(slot, |reply| {
            reply.push(3);
            reply.bulk(word.as_bytes());
            match name {
                Some(name) => reply.bulk(name),
                None => reply.null(),
            }
            reply.integer(count as i64);
        });
    }

    fn list_channels(&mut self, slot: usize, kind: Kind, arguments: Arguments<'_>) {
        let pattern = (arguments.len() > 2).then(|| arguments.at(2));
        let topics = self.channels.of_kind(kind);
        let names: Vec<ChannelName> = topics
            .filter(|(_, topic)| pattern.is_none_or(|pattern| glob::matches(pattern, &topic.name)))
            .map(|(_, topic)| topic.name.clone())
            .collect();
        self.reply(slot, |reply| {
            reply.array(names.len());
            names.iter().for_each(|name| reply.bulk(name));
        });
    }

    fn count_subscribers(&mut self, slot: usize, kind: Kind, arguments: Arguments<'_>) {
        let count = |name: &[u8]| {
            let topic = self
                .channels
                .find(kind, name)
                .and_then(|id| self.channels.get(id));
            topic.map_or(0, |topic| topic.members.len() as i64)
        };
        let counts: Vec<(&[u8], i64)> = arguments.from(2).map(|name| (name, count(name))).collect();
        self.reply(slot, |reply| {
            reply.array(counts.len() * 2);
            for (name, count) in counts {
                reply.bulk(name);
                reply.integer(count);
            }
        });
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

pub(super) fn subscribe(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    this.subscribe_to(slot, Kind::Channel, arguments, actions);
}

pub(super) fn pattern_subscribe(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    this.subscribe_to(slot, Kind::Pattern, arguments, actions);
}

pub(super) fn shard_subscribe(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    if this.in_exec {
        return this.error(slot, "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    }
    this.subscribe_to(slot, Kind::Shard, arguments, actions);
}

pub(super) fn unsubscribe(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    this.unsubscribe_from(slot, Kind::Channel, arguments, actions);
}

pub(super) fn pattern_unsubscribe(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    this.unsubscribe_from(slot, Kind::Pattern, arguments, actions);
}

pub(super) fn shard_unsubscribe(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    this.unsubscribe_from(slot, Kind::Shard, arguments, actions);
}

pub(super) fn channels(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, _: &mut Actions<'_>) {
    this.list_channels(slot, Kind::Channel, arguments);
}

pub(super) fn shard_channels(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    _: &mut Actions<'_>,
) {
    this.list_channels(slot, Kind::Shard, arguments);
}

pub(super) fn subscriber_counts(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    _: &mut Actions<'_>,
) {
    this.count_subscribers(slot, Kind::Channel, arguments);
}

pub(super) fn shard_subscriber_counts(
    this: &mut Broadcast,
    slot: usize,
    arguments: Arguments<'_>,
    _: &mut Actions<'_>,
) {
    this.count_subscribers(slot, Kind::Shard, arguments);
}

pub(super) fn pattern_count(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    let count = this.channels.of_kind(Kind::Pattern).count();
    this.reply(slot, |reply| reply.integer(count as i64));
}
