//! Publishing, subscribing, and what PUBSUB tells of it.
//!
//! Owns the replies of these commands. Refuses to send messages: that is done
//! at the end of the turn.

use super::super::channels::{Kind, TopicId};
use super::super::{Broadcast, RESERVED_PREFIX};
use crate::backpressure::{Action, ChannelName};
use crate::limits::broadcast::{
    MAX_CHANNEL_BYTES, MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS_PER_CLIENT, SUBSCRIPTION_BYTES, TOPIC_BYTES,
};
use crate::protocol::glob;
use crate::protocol::resp::Arguments;
use crate::protocol::resp::reply::MessageKind;
use crate::{Actions, Service};

/// PUBLISH reaches the subscribers of a channel and of patterns that match it;
/// SPUBLISH those of a shard channel.
pub(super) fn publish(
    this: &mut Broadcast,
    slot: usize,
    kind: Kind,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    let (channel, payload) = (arguments.at(1), arguments.at(2));
    if let Some(sentence) = refusal_of(channel) {
        return this.error(slot, sentence);
    }
    let mut topics: Vec<TopicId> = this.channels.find(kind, channel).into_iter().collect();
    if kind == Kind::Channel {
        let patterns = this.channels.of_kind(Kind::Pattern);
        topics.extend(
            patterns
                .filter(|(_, topic)| glob::matches(&topic.name, channel))
                .map(|(id, _)| id),
        );
    }
    this.publish_to(slot, &topics, channel, payload, actions);
}

/// Why nobody may publish to this channel.
fn refusal_of(channel: &[u8]) -> Option<&'static str> {
    if channel.starts_with(RESERVED_PREFIX) {
        return Some("ERR channels that begin with __highwater__: are told by the server itself");
    }
    (channel.len() > MAX_CHANNEL_BYTES).then_some("ERR the name of a channel is longer than 65536 bytes")
}

pub(super) fn subscribe(
    this: &mut Broadcast,
    slot: usize,
    kind: Kind,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    // As in Redis, where SSUBSCRIBE alone may not run in a transaction.
    if kind == Kind::Shard && this.in_exec {
        return this.error(slot, "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    }
    for name in arguments.from(1) {
        if let Some(sentence) = this.refuse_subscription(slot, kind, name, actions) {
            this.error(slot, sentence);
            continue;
        }
        this.join(slot, kind, name, actions);
        this.confirm(slot, kind, true, Some(name));
    }
}

/// Ends the subscriptions that are named, or all of a kind.
pub(super) fn unsubscribe(
    this: &mut Broadcast,
    slot: usize,
    kind: Kind,
    arguments: Arguments<'_>,
    actions: &mut Actions<'_>,
) {
    let names: Vec<ChannelName> = if arguments.len() > 1 {
        arguments.from(1).map(ChannelName::from).collect()
    } else {
        let ids = this.sessions[slot].topics[kind as usize].keys();
        let topics = ids.filter_map(|&id| this.channels.get(id));
        topics.map(|topic| topic.name.clone()).collect()
    };
    if names.is_empty() {
        return this.confirm(slot, kind, false, None);
    }
    for name in names {
        this.leave(slot, kind, &name, actions);
        this.confirm(slot, kind, false, Some(&name));
    }
}

pub(super) fn channels(
    this: &mut Broadcast,
    slot: usize,
    kind: Kind,
    arguments: Arguments<'_>,
    _: &mut Actions<'_>,
) {
    let pattern = (arguments.len() > 2).then(|| arguments.at(2));
    let topics = this.channels.of_kind(kind);
    let names: Vec<ChannelName> = topics
        .filter(|(_, topic)| pattern.is_none_or(|pattern| glob::matches(pattern, &topic.name)))
        .map(|(_, topic)| topic.name.clone())
        .collect();
    this.reply(slot, |reply| {
        reply.array(names.len());
        names.iter().for_each(|name| reply.bulk(name));
    });
}

pub(super) fn subscriber_counts(
    this: &mut Broadcast,
    slot: usize,
    kind: Kind,
    arguments: Arguments<'_>,
    _: &mut Actions<'_>,
) {
    let count = |name: &[u8]| {
        let id = this.channels.find(kind, name);
        let topic = id.and_then(|id| this.channels.get(id));
        topic.map_or(0, |topic| topic.members.len() as i64)
    };
    let counts: Vec<(&[u8], i64)> = arguments.from(2).map(|name| (name, count(name))).collect();
    this.reply(slot, |reply| {
        reply.array(counts.len() * 2);
        for (name, count) in counts {
            reply.bulk(name);
            reply.integer(count);
        }
    });
}

pub(super) fn pattern_count(this: &mut Broadcast, slot: usize, _: Arguments<'_>, _: &mut Actions<'_>) {
    let count = this.channels.of_kind(Kind::Pattern).count();
    this.reply(slot, |reply| reply.integer(count as i64));
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
        self.statistics.messages += 1;
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

    fn refuse_subscription(
        &self,
        slot: usize,
        kind: Kind,
        name: &[u8],
        actions: &Actions<'_>,
    ) -> Option<&'static str> {
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
        if self.statistics.subscriptions >= MAX_SUBSCRIPTIONS {
            return Some("ERR all clients together may have 1000000 subscriptions and have as many");
        }
        let more_bytes = TOPIC_BYTES + SUBSCRIPTION_BYTES + name.len();
        (self.kept_bytes() + more_bytes > actions.memory_left())
            .then_some("ERR the memory budget has no room for another subscription")
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
}
