//! The end of a turn: each client gets all that the turn has for it, in one
//! write.
//!
//! Owns the order in which messages and replies of a turn go out, and what of
//! them begins to wait. Refuses to touch those who are behind already: to them
//! a topic's messages cost nothing.

use bytes::Bytes;

use super::channels::{Kind, Topic, TopicId};
use super::session::{Begun, Cursor, Pending};
use super::{Broadcast, SlotState};
use crate::Actions;
use crate::backpressure::{Action, Message};
use crate::protocol::resp::Version;
use crate::protocol::resp::reply::PUSH;

/// A part of what one client gets in this turn.
#[derive(Clone, Copy, Debug)]
struct Part {
    sequence: u64,
    end: usize,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Reply { start: usize, end: usize },
    Entry { topic: TopicId, index: usize },
}

impl Broadcast {
    /// Sends what the turn has so far, and keeps what sockets refuse.
    pub(super) fn deliver(&mut self, actions: &mut Actions<'_>) {
        if self.touched.is_empty() && self.talking.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut self.touched);
        let talking = std::mem::take(&mut self.talking);
        let gathered = self.count_sources(&touched, &talking);
        for &topic in &touched {
            self.offer_batch(topic, actions);
        }
        for &slot in &gathered {
            self.offer_parts(slot, actions);
        }
        for &topic in &touched {
            self.keep_for_readers(topic, actions);
        }
        self.reuse(touched, talking);
    }

    /// Finds the clients for which the turn has something from more than one
    /// source, which must go out in order. Answers them.
    fn count_sources(&mut self, touched: &[TopicId], talking: &[usize]) -> Vec<usize> {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let fresh = |state: &mut SlotState| {
            if state.turn != turn {
                state.turn = turn;
                state.sources = 0;
                state.is_gathered = false;
            }
        };
        let mut gathered = Vec::new();
        for &slot in talking {
            let state = &mut self.states[slot];
            fresh(state);
            state.sources = 2;
            state.is_gathered = true;
            gathered.push(slot);
        }
        for &id in touched {
            let Some(topic) = self.channels.get_mut(id) else {
                continue;
            };
            topic.turn.freeze(&self.memory);
            // With one topic only those who talk have two sources.
            if touched.len() == 1 {
                continue;
            }
            for member in &topic.members {
                let state = &mut self.states[member.slot];
                fresh(state);
                state.sources = state.sources.saturating_add(1);
            }
        }
        gathered
            .iter()
            .for_each(|&slot| self.sessions[slot].turn.topics.clear());
        self.gather_members(touched, &mut gathered);
        gathered
    }

    /// Notes with each client of several sources which topics these are.
    fn gather_members(&mut self, touched: &[TopicId], gathered: &mut Vec<usize>) {
        for &id in touched {
            let Some(topic) = self.channels.get(id) else {
                continue;
            };
            for member in &topic.members {
                let state = &mut self.states[member.slot];
                if state.turn != self.turn || state.sources < 2 || state.is_behind {
                    continue;
                }
                let session = &mut self.sessions[member.slot];
                if !state.is_gathered {
                    state.is_gathered = true;
                    session.turn.topics.clear();
                    gathered.push(member.slot);
                }
                session.turn.topics.push(id);
            }
        }
    }

    /// Sends a topic's messages to all members that get nothing else.
    fn offer_batch(&mut self, id: TopicId, actions: &mut Actions<'_>) {
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        // Members do not change meanwhile; they are put back below.
        let members = std::mem::take(&mut topic.members);
        let (bytes, entries) = (topic.turn.bytes.clone(), topic.turn.entries.len());
        let pushes = if members
            .iter()
            .any(|member| self.states[member.slot].speaks_version_3)
        {
            topic.turn.pushes()
        } else {
            Bytes::new()
        };
        let mut refused = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let state = self.states[member.slot];
            if state.is_behind {
                refused.push((index, None));
                continue;
            }
            if state.turn == self.turn && state.sources > 1 {
                continue;
            }
            let data = if state.speaks_version_3 { &pushes } else { &bytes };
            let taken = actions.offer(self.sessions[member.slot].id, data);
            if taken < data.len() {
                refused.push((index, Some(taken)));
            }
        }
        self.statistics.deliveries += entries as u64 * members.len() as u64;
        if let Some(topic) = self.channels.get_mut(id) {
            topic.members = members;
        }
        for (index, taken) in refused {
            self.batch_refused(id, index, taken, actions);
        }
    }

    /// A member did not take all of a topic's batch, or is behind anyway.
    fn batch_refused(&mut self, id: TopicId, index: usize, taken: Option<usize>, actions: &Actions<'_>) {
        let Some(topic) = self.channels.get(id) else {
            return;
        };
        let slot = topic.members[index].slot;
        let entries = &topic.turn.entries;
        let Some(taken) = taken else {
            let waits = topic.members[index].waits;
            if entries.iter().any(|entry| waits & bit(entry.action) == 0) {
                self.wait_from(slot, id, index, 0);
            }
            return;
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
        self.wait_from(slot, id, index, first);
        self.fell_behind(slot, actions);
    }

    /// A client waits for all messages of this turn from this entry on.
    fn wait_from(&mut self, slot: usize, id: TopicId, member: usize, first: usize) {
        let count = self.channels.get(id).map_or(0, |topic| topic.turn.entries.len());
        for index in first..count {
            self.wait_for(slot, id, member, index);
        }
    }

    /// A client waits for one message of this turn.
    fn wait_for(&mut self, slot: usize, id: TopicId, member: usize, index: usize) {
        let (Some(topic), Some(session)) = (self.channels.get_mut(id), self.sessions.get_mut(slot)) else {
            return;
        };
        let entry = topic.turn.entries[index].clone();
        let outgoing = &mut session.outgoing;
        if entry.action == Action::Latest {
            // A pattern has many channels, and one bit does not tell which waits.
            let waits = &mut topic.members[member].waits;
            let key = (id, entry.channel.clone());
            if *waits & bit(Action::Latest) != 0 || outgoing.latest.contains_key(&key) {
                return;
            }
            if topic.kind != Kind::Pattern {
                *waits |= bit(Action::Latest);
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
        if topic.members[member].waits & bit(entry.action) != 0 {
            return;
        }
        topic.members[member].waits |= bit(entry.action);
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

    /// Sends what one client gets from several sources, in order.
    fn offer_parts(&mut self, slot: usize, actions: &mut Actions<'_>) {
        let parts = self.parts_in_order(slot);
        let is_behind = self.states[slot].is_behind;
        let taken = if is_behind {
            0
        } else {
            let scratch = std::mem::take(&mut self.scratch);
            let taken = actions.offer(self.sessions[slot].id, &scratch);
            self.scratch = scratch;
            taken
        };
        let all_bytes = parts.last().map_or(0, |part| part.end);
        if taken < all_bytes {
            self.parts_refused(slot, &parts, taken);
            self.fell_behind(slot, actions);
        }
        let session = &mut self.sessions[slot];
        session.turn.bytes.clear();
        session.turn.marks.clear();
        if session.turn.bytes.capacity() > KEPT_REPLY_BYTES {
            session.turn.bytes = Vec::new();
        }
        if session.is_closing && !self.states[slot].is_behind {
            actions.close(session.id);
        }
    }

    /// Puts what a client gets into the scratch buffer. Topics of a client that
    /// is behind are left out, since their messages wait in logs.
    fn parts_in_order(&mut self, slot: usize) -> Vec<Part> {
        let session = &self.sessions[slot];
        let mut parts = Vec::with_capacity(session.turn.marks.len());
        let mut start = 0;
        for &(sequence, end) in &session.turn.marks {
            let source = Source::Reply { start, end };
            parts.push(Part {
                sequence,
                end: 0,
                source,
            });
            start = end;
        }
        for &topic in &session.turn.topics {
            let entries = self
                .channels
                .get(topic)
                .map_or(&[][..], |topic| &topic.turn.entries);
            parts.extend(entries.iter().enumerate().map(|(index, entry)| Part {
                sequence: entry.sequence,
                end: 0,
                source: Source::Entry { topic, index },
            }));
        }
        parts.sort_unstable_by_key(|part| part.sequence);
        self.scratch.clear();
        for part in &mut parts {
            match part.source {
                Source::Reply { start, end } => {
                    self.scratch.extend_from_slice(&session.turn.bytes[start..end])
                }
                Source::Entry { topic, index } => {
                    if let Some(topic) = self.channels.get(topic) {
                        let begin = self.scratch.len();
                        let (from, to) = (topic.turn.start(index), topic.turn.entries[index].end);
                        self.scratch.extend_from_slice(&topic.turn.bytes[from..to]);
                        if session.sent_version == Version::Resp3 {
                            self.scratch[begin] = PUSH;
                        }
                    }
                }
            }
            part.end = self.scratch.len();
        }
        parts
    }

    /// Keeps what a client did not take of its parts.
    fn parts_refused(&mut self, slot: usize, parts: &[Part], taken: usize) {
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
    fn keep_for_readers(&mut self, id: TopicId, actions: &Actions<'_>) {
        let mark_bytes = self.settings.high_water_mark_bytes;
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        let entries = std::mem::take(&mut topic.turn.entries);
        let mut start = 0;
        for entry in &entries {
            let range = start..entry.end;
            start = entry.end;
            if entry.action == Action::Latest {
                if let Some(latest) = topic.latest.get_mut(&entry.channel) {
                    latest.count += 1;
                    // A copy, so that one value does not keep a whole turn.
                    latest.bytes = self.memory.share(topic.turn.bytes[range].to_vec());
                }
                continue;
            }
            let Some(logs) = &mut topic.logs else { continue };
            let log = &mut logs[entry.action as usize];
            if log.has_readers() {
                self.patrol.kept_bytes += range.len();
                log.push(Message {
                    sequence: entry.sequence,
                    channel: entry.channel.clone(),
                    bytes: topic.turn.bytes.slice(range),
                });
            }
        }
        if let Some(logs) = &mut topic.logs {
            logs.iter_mut().for_each(crate::backpressure::Backlog::trim);
            logs[Action::DropOldest as usize].cut(mark_bytes, actions.now());
        }
        topic.turn.entries = entries;
        topic.turn.clear();
        self.channels.remove_if_unused(id);
    }

    /// Gives the lists of a turn back, so that the next needs no memory.
    fn reuse(&mut self, mut touched: Vec<TopicId>, mut talking: Vec<usize>) {
        touched.clear();
        talking.clear();
        self.touched = touched;
        self.talking = talking;
    }
}

/// Memory that a client keeps for the replies of a turn, in bytes.
const KEPT_REPLY_BYTES: usize = 4096;

/// The bit of an action in [`Member::waits`](super::channels::Member::waits).
pub(super) const fn bit(action: Action) -> u8 {
    1 << action as u8
}

/// Entries of the turn in front of `index` with the same action that `counts`
/// accepts.
fn earlier(topic: &Topic, index: usize, counts: impl Fn(&super::channels::TurnEntry) -> bool) -> u64 {
    let entries = &topic.turn.entries;
    let action = entries[index].action;
    let before = entries[..index].iter();
    before
        .filter(|entry| entry.action == action && counts(entry))
        .count() as u64
}
