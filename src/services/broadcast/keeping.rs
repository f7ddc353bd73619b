//! What sockets refused at the end of a turn begins to wait.
//!
//! Owns the places at which clients wait in the logs of their topics, and puts
//! a turn's messages into these logs if anybody waits for them.

use bytes::Bytes;

use super::Broadcast;
use super::channels::{Kind, Topic, TopicId, TurnEntry};
use super::delivering::{Part, Source};
use super::session::{Begun, Cursor, Pending};
use crate::Actions;
use crate::backpressure::Action;

impl Broadcast {
    /// A member did not take all of a topic's batch, or is behind anyway.
    pub(super) fn batch_refused(
        &mut self,
        id: TopicId,
        place: usize,
        taken: Option<usize>,
        actions: &Actions<'_>,
    ) {
        let Some(topic) = self.channels.get(id) else {
            return;
        };
        let slot = topic.members.slot(place);
        let entries = &topic.turn.entries;
        let Some(taken) = taken else {
            return self.wait_from(slot, id, place, 0);
        };
        let mut first = entries.partition_point(|entry| entry.end <= taken);
        if topic.turn.start(first) < taken {
            let entry = &entries[first];
            let begun = Begun {
                bytes: topic.turn.bytes.slice(taken..entry.end),
                action: Some(entry.action),
            };
            self.sessions[slot].outgoing.begun = Some(begun);
            first += 1;
        }
        self.wait_from(slot, id, place, first);
        self.fell_behind(slot, actions);
    }

    /// A client waits for all messages of this turn from this entry on.
    fn wait_from(&mut self, slot: usize, id: TopicId, place: usize, first: usize) {
        let count = self.channels.get(id).map_or(0, |topic| topic.turn.entries.len());
        for index in first..count {
            self.wait_for(slot, id, place, index);
        }
    }

    /// A member that sleeps waits in one place for each action, and under
    /// `latest` of a pattern in one for each channel. If the turn has messages
    /// for a place that some sleeper does not have, it gets the place. Nearly
    /// always a comparison of two numbers tells that all have it.
    pub(super) fn give_places(&mut self, id: TopicId) {
        let Some(topic) = self.channels.get(id) else {
            return;
        };
        let sleepers = topic.members.sleepers();
        if sleepers == 0 {
            return;
        }
        let is_missing = |entry: &TurnEntry| match entry.action {
            Action::Latest if topic.kind == Kind::Pattern => {
                topic
                    .latest
                    .get(&entry.channel)
                    .map_or(0, |latest| latest.readers)
                    < sleepers
            }
            action => topic.members.waiting(action) < sleepers,
        };
        let entries = &topic.turn.entries;
        // All messages of a channel have one action.
        let looked_at = if topic.kind == Kind::Pattern {
            entries.len()
        } else {
            1
        };
        if !entries.iter().take(looked_at).any(is_missing) {
            return;
        }
        let places = topic.members.asleep().map(|(place, member)| (place, member.slot));
        for (place, slot) in places.collect::<Vec<_>>() {
            self.wait_from(slot, id, place, 0);
        }
    }

    /// A client waits for one message of this turn.
    fn wait_for(&mut self, slot: usize, id: TopicId, place: usize, index: usize) {
        let (Some(topic), Some(session)) = (self.channels.get_mut(id), self.sessions.get_mut(slot)) else {
            return;
        };
        let entry = topic.turn.entries[index].clone();
        let outgoing = &mut session.outgoing;
        if entry.action == Action::Latest {
            // A pattern has many channels, and one bit does not tell which waits.
            let key = (id, entry.channel.clone());
            if topic.members.waits(place, Action::Latest) || outgoing.latest.contains_key(&key) {
                return;
            }
            match topic.kind {
                Kind::Pattern => topic.members.begin_to_wait_for_value(place),
                _ => topic.members.begin_to_wait(place, Action::Latest),
            }
            let since = topic.latest.get(&entry.channel).map_or(0, |latest| latest.count)
                + earlier(topic, index, |other| other.channel == entry.channel);
            topic.latest.entry(entry.channel.clone()).or_default().readers += 1;
            outgoing.latest.insert(key, entry.sequence);
            let pending = Pending::Latest {
                topic: id,
                channel: entry.channel,
                since,
            };
            outgoing.pending.insert(entry.sequence, pending);
            return;
        }
        if topic.members.waits(place, entry.action) {
            return;
        }
        topic.members.begin_to_wait(place, entry.action);
        let before = earlier(topic, index, |_| true);
        let log = topic.log(entry.action);
        let position = log.end() + before;
        log.join(position);
        let cursor = Cursor {
            topic: id,
            action: entry.action,
            position,
            until: u64::MAX,
        };
        outgoing.pending.insert(entry.sequence, Pending::Log(cursor));
    }

    /// Keeps what a client did not take of its parts.
    pub(super) fn parts_refused(&mut self, slot: usize, parts: &[Part], taken: usize) {
        let mut start = 0;
        for part in parts {
            let begun = taken.saturating_sub(start);
            start = part.end;
            if part.end <= taken {
                continue;
            }
            match part.source {
                Source::Reply { start, end } => {
                    let bytes = Bytes::copy_from_slice(&self.sessions[slot].turn.bytes[start + begun..end]);
                    self.keep_reply(slot, part.sequence, bytes, begun > 0);
                }
                Source::Entry { topic: id, index } if begun > 0 => {
                    if let Some(topic) = self.channels.get(id) {
                        let bytes = topic.turn.slice(index).slice(begun..);
                        let action = Some(topic.turn.entries[index].action);
                        self.sessions[slot].outgoing.begun = Some(Begun { bytes, action });
                    }
                }
                Source::Entry { topic: id, index } => {
                    if let Some(member) = self.member_of(slot, id) {
                        self.wait_for(slot, id, member, index);
                    }
                }
            }
        }
    }

    fn keep_reply(&mut self, slot: usize, sequence: u64, bytes: Bytes, is_begun: bool) {
        let outgoing = &mut self.sessions[slot].outgoing;
        self.reply_bytes += bytes.len();
        outgoing.reply_bytes += bytes.len();
        if is_begun {
            outgoing.begun = Some(Begun { bytes, action: None });
        } else {
            outgoing.pending.insert(sequence, Pending::Reply(bytes));
        }
    }

    pub(super) fn member_of(&self, slot: usize, id: TopicId) -> Option<usize> {
        let kind = self.channels.get(id)?.kind;
        self.sessions.get(slot)?.topics[kind as usize].get(&id).copied()
    }

    /// Keeps a topic's messages of this turn as far as somebody waits for them.
    pub(super) fn keep_for_readers(&mut self, id: TopicId, actions: &Actions<'_>) {
        self.keep_values(id);
        let mark_bytes = self.settings.high_water_mark_bytes;
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        if topic.logs.is_some() {
            let before = topic.overhead_bytes();
            topic.keep_in_logs(mark_bytes, actions.now(), &mut self.patrol.kept);
            let overhead = self.patrol.overhead_bytes + topic.overhead_bytes();
            self.patrol.overhead_bytes = overhead.saturating_sub(before);
        }
        topic.turn.clear();
        self.channels.remove_if_unused(id);
    }

    /// Keeps the newest message of each channel, if somebody waits for it; the
    /// others are only counted.
    fn keep_values(&mut self, id: TopicId) {
        let turn = self.turn;
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        if topic.latest.is_empty() {
            return;
        }
        let entries = &topic.turn.entries;
        for (index, entry) in entries.iter().enumerate().rev() {
            if entry.action != Action::Latest {
                continue;
            }
            let Some(latest) = topic.latest.get_mut(&entry.channel) else {
                continue;
            };
            latest.count += 1;
            if std::mem::replace(&mut latest.turn, turn) != turn {
                let bytes = topic.turn.slice(index);
                self.patrol.kept.add(Action::Latest, bytes.len());
                // A copy, so that one value does not keep a whole turn.
                latest.bytes = match entries.len() {
                    1 => bytes,
                    _ => self.memory.share(bytes.to_vec()),
                };
            }
        }
    }
}

/// Entries of the turn in front of `index` with the same action that `counts`
/// accepts.
fn earlier(topic: &Topic, index: usize, counts: impl Fn(&TurnEntry) -> bool) -> u64 {
    let entries = &topic.turn.entries;
    let action = entries[index].action;
    let before = entries[..index].iter();
    before
        .filter(|entry| entry.action == action && counts(entry))
        .count() as u64
}
