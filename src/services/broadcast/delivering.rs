//! The end of a turn: each client gets all that the turn has for it, in one
//! write.
//!
//! Owns the order in which messages and replies of a turn go out. What sockets
//! refuse begins to wait in `keeping`.

use bytes::Bytes;

use super::channels::TopicId;
use super::{Broadcast, SlotState};
use crate::Actions;
use crate::protocol::resp::Version;
use crate::protocol::resp::reply::PUSH;

/// A part of what one client gets in this turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) sequence: u64,
    pub(super) end: usize,
    pub(super) source: Source,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
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
            // With one topic only clients that send commands have two sources.
            if touched.len() == 1 {
                continue;
            }
            for (_, member) in topic.members.awake() {
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
            for (_, member) in topic.members.awake() {
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

    /// Sends a topic's messages to all members that get nothing else. Those
    /// that sleep are not even looked at.
    fn offer_batch(&mut self, id: TopicId, actions: &mut Actions<'_>) {
        // Those that fall asleep below have taken a part of the turn.
        self.give_places(id);
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        // Members do not change meanwhile; they are put back below.
        let members = std::mem::take(&mut topic.members);
        let topic = &*topic;
        let mut pushes: Option<Bytes> = None;
        let mut refused = Vec::new();
        for (place, member) in members.awake() {
            let state = self.states[member.slot];
            if state.is_behind {
                refused.push((place, None));
                continue;
            }
            if state.turn == self.turn && state.sources > 1 {
                continue;
            }
            let data = match state.speaks_version_3 {
                true => pushes.get_or_insert_with(|| topic.turn.pushes()),
                false => &topic.turn.bytes,
            };
            let taken = actions.offer(member.id, data);
            if taken < data.len() {
                refused.push((place, Some(taken)));
            }
        }
        self.statistics.deliveries += topic.turn.entries.len() as u64 * members.len() as u64;
        if let Some(topic) = self.channels.get_mut(id) {
            topic.members = members;
        }
        for (place, taken) in refused {
            self.batch_refused(id, place, taken, actions);
        }
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
