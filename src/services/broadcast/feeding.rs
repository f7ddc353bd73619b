//! What waits for a client goes out once its socket has room.
//!
//! Owns the order of what waits, where gaps are told, and what happens to it
//! at the end. Refuses to hold messages: they stay in the log of their topic
//! until the socket has taken them.

use std::collections::btree_map::Entry;
use std::time::Instant;

use bytes::Bytes;
use log::info;

use super::channels::TopicId;
use super::delivering::bit;
use super::session::{Begun, Cursor, Episode, Pending};
use super::{Broadcast, LOST_CHANNEL};
use crate::Actions;
use crate::backpressure::{Action, ChannelName, Lost};
use crate::limits::TURN_BUDGET_BYTES;
use crate::protocol::resp::Version;
use crate::protocol::resp::reply::{MessageKind, PUSH, encode_message};

/// Most bytes that one write offers, but for a longer message.
const WRITE_BYTES: usize = 64 * 1024;

/// One thing that is offered to a socket.
#[derive(Debug)]
struct Item {
    /// Where it goes if the socket refuses it.
    sequence: u64,
    pending: Pending,
    /// Where it ends in the scratch buffer.
    end: usize,
    begun: Begun,
    /// What the client has lost in front of it.
    lost: Option<(Lost, Action)>,
}

/// One reading of a log. A client that has left a topic and come back reads
/// its log twice: up to where it left, and from where it came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    topic: TopicId,
    action: Action,
    until: u64,
}

impl Reading {
    const fn of(cursor: &Cursor) -> Self {
        Self {
            topic: cursor.topic,
            action: cursor.action,
            until: cursor.until,
        }
    }
}

impl Broadcast {
    /// Sends what waits for a client, as far as its socket takes it now.
    pub(super) fn feed(&mut self, slot: usize, actions: &mut Actions<'_>) {
        self.keep_mark(slot, actions.now());
        let mut sent_bytes = 0;
        while sent_bytes < TURN_BUDGET_BYTES {
            let Some((offered, taken)) = self.feed_once(slot, actions) else {
                break;
            };
            sent_bytes += taken;
            if taken < offered {
                break;
            }
        }
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let id = session.id;
        let is_behind = session.outgoing.is_behind();
        if is_behind && sent_bytes >= TURN_BUDGET_BYTES {
            actions.call_when_writable(id);
        }
        self.took(slot, sent_bytes, actions);
        if !is_behind {
            self.caught_up(slot, actions);
        }
    }

    /// Offers one write. Answers how much was offered and taken; `None` if
    /// nothing waits.
    fn feed_once(&mut self, slot: usize, actions: &mut Actions<'_>) -> Option<(usize, usize)> {
        let session = self.sessions.get_mut(slot)?;
        if let Some(begun) = session.outgoing.begun.take() {
            return Some(self.feed_begun(slot, begun, actions));
        }
        if session.outgoing.pending.is_empty() {
            return None;
        }
        self.scratch.clear();
        let items = self.take_items(slot);
        let scratch = std::mem::take(&mut self.scratch);
        let taken = if scratch.is_empty() {
            0
        } else {
            actions.offer(self.sessions[slot].id, &scratch)
        };
        self.scratch = scratch;
        self.settle(slot, items, taken, actions.now());
        Some((self.scratch.len(), taken))
    }

    fn feed_begun(&mut self, slot: usize, mut begun: Begun, actions: &mut Actions<'_>) -> (usize, usize) {
        let session = &mut self.sessions[slot];
        let offered = begun.bytes.len();
        let taken = actions.offer(session.id, &begun.bytes);
        if begun.action.is_none() {
            session.outgoing.reply_bytes -= taken;
            self.reply_bytes -= taken;
        }
        if taken < offered {
            begun.bytes = begun.bytes.slice(taken..);
            session.outgoing.begun = Some(begun);
        }
        (offered, taken)
    }

    /// Takes what comes next into the scratch buffer, up to one write.
    fn take_items(&mut self, slot: usize) -> Vec<Item> {
        let mut items = Vec::new();
        while self.scratch.len() < WRITE_BYTES {
            let Some((sequence, pending)) = self.sessions[slot].outgoing.pending.pop_first() else {
                break;
            };
            if matches!(pending, Pending::Version(_)) && !items.is_empty() {
                // What is in front of it may be refused, and wait again.
                self.sessions[slot].outgoing.pending.insert(sequence, pending);
                break;
            }
            self.take_item(slot, sequence, pending, &mut items);
        }
        items
    }

    fn take_item(&mut self, slot: usize, sequence: u64, pending: Pending, items: &mut Vec<Item>) {
        let (bytes, lost, action) = match &pending {
            Pending::Log(cursor) => return self.take_from_log(slot, sequence, *cursor, items),
            Pending::Reply(bytes) => (bytes.clone(), None, None),
            Pending::Message(bytes, lost, action) => {
                let lost = (!lost.is_empty()).then(|| (lost.clone(), *action));
                (bytes.clone(), lost, Some(*action))
            }
            Pending::Gap(lost, action) => (Bytes::new(), Some((lost.clone(), *action)), Some(*action)),
            Pending::Version(version) => {
                self.sessions[slot].sent_version = *version;
                return;
            }
            Pending::Latest {
                topic,
                channel,
                since,
            } => {
                let latest = self
                    .channels
                    .get(*topic)
                    .and_then(|topic| topic.latest.get(channel));
                let Some(latest) = latest else { return };
                let lost = missed(channel, latest.count - since - 1, self.behind_since(slot));
                (latest.bytes.clone(), lost, Some(Action::Latest))
            }
        };
        self.push_item(slot, sequence, pending, Begun { bytes, action }, lost, items);
    }

    /// Takes messages of one log, until another source has the next.
    fn take_from_log(&mut self, slot: usize, mut sequence: u64, mut cursor: Cursor, items: &mut Vec<Item>) {
        loop {
            let Some(log) = self
                .channels
                .get(cursor.topic)
                .and_then(|topic| topic.log_if_any(cursor.action))
            else {
                return;
            };
            let lost = log.lost(cursor.position);
            let lost = (!lost.is_empty()).then_some((lost, cursor.action));
            let found = log
                .at(cursor.position)
                .filter(|(position, _)| *position < cursor.until);
            let Some((position, message)) = found else {
                // The client left the topic, and all in front of that was lost.
                let nothing = Begun {
                    bytes: Bytes::new(),
                    action: Some(cursor.action),
                };
                return self.push_item(slot, sequence, Pending::Log(cursor), nothing, lost, items);
            };
            let bytes = message.bytes.clone();
            let begun = Begun {
                bytes,
                action: Some(cursor.action),
            };
            let next = log.at(position + 1).filter(|(next, _)| *next < cursor.until);
            let next = next.map(|(_, message)| message.sequence);
            self.push_item(slot, sequence, Pending::Log(cursor), begun, lost, items);
            let Some(next) = next else { return };
            (sequence, cursor.position) = (next, position + 1);
            let pending = &mut self.sessions[slot].outgoing.pending;
            let another_is_next = pending.first_key_value().is_some_and(|(&first, _)| first < next);
            if another_is_next || self.scratch.len() >= WRITE_BYTES {
                pending.insert(next, Pending::Log(cursor));
                return;
            }
        }
    }

    /// Puts one thing into the scratch buffer, with what is told in front.
    fn push_item(
        &mut self,
        slot: usize,
        sequence: u64,
        pending: Pending,
        begun: Begun,
        lost: Option<(Lost, Action)>,
        items: &mut Vec<Item>,
    ) {
        let session = &self.sessions[slot];
        let begin = self.scratch.len();
        let mut begun = begun;
        if let Some((lost, _)) = lost.as_ref().filter(|_| session.hears_gaps) {
            let mut told = Vec::new();
            encode_gap(&mut told, lost, session.sent_version);
            // Told and message are one thing: either both are sent, or both
            // wait, so that a gap is told once.
            told.extend_from_slice(&begun.bytes);
            let at = told.len() - begun.bytes.len();
            self.scratch.extend_from_slice(&told);
            if session.sent_version == Version::Resp3 && begun.action.is_some() && !begun.bytes.is_empty() {
                self.scratch[begin + at] = PUSH;
                told[at] = PUSH;
            }
            begun.bytes = told.into();
        } else {
            self.scratch.extend_from_slice(&begun.bytes);
            let is_message = begun.action.is_some() && !begun.bytes.is_empty();
            if is_message && session.sent_version == Version::Resp3 {
                self.scratch[begin] = PUSH;
            }
        }
        items.push(Item {
            sequence,
            pending,
            end: self.scratch.len(),
            begun,
            lost,
        });
    }

    /// The socket took so many bytes of the items: those are done with, the
    /// others wait again.
    fn settle(&mut self, slot: usize, items: Vec<Item>, taken: usize, now: Instant) {
        let mut start = 0;
        let mut put_back: Vec<Reading> = Vec::new();
        for item in items {
            let is_sent = item.end <= taken;
            if !is_sent && start >= taken {
                self.put_back(slot, item, &mut put_back);
                continue;
            }
            if !is_sent {
                self.sessions[slot].outgoing.begun = Some(Begun {
                    bytes: item.begun.bytes.slice(taken - start..),
                    action: item.begun.action,
                });
            }
            self.account_reply(slot, &item, taken.min(item.end) - start);
            start = item.end;
            if let Some((lost, action)) = &item.lost {
                self.count_lost(slot, lost, *action, now);
            }
            self.done_with(slot, item);
        }
    }

    fn account_reply(&mut self, slot: usize, item: &Item, sent: usize) {
        if item.begun.action.is_none() {
            self.sessions[slot].outgoing.reply_bytes -= sent;
            self.reply_bytes -= sent;
        }
    }

    fn put_back(&mut self, slot: usize, item: Item, put_back: &mut Vec<Reading>) {
        let pending = &mut self.sessions[slot].outgoing.pending;
        if let Pending::Log(cursor) = &item.pending {
            // The first of a log that is put back stands for all behind it.
            let reading = Reading::of(cursor);
            if put_back.contains(&reading) {
                return;
            }
            put_back.push(reading);
            let is_later =
                |other: &Pending| matches!(other, Pending::Log(other) if Reading::of(other) == reading);
            let later = pending.range(item.sequence..).find(|(_, other)| is_later(other));
            if let Some(later) = later.map(|(&sequence, _)| sequence) {
                pending.remove(&later);
            }
        }
        pending.insert(item.sequence, item.pending);
    }

    /// A thing was sent, or begun to be.
    fn done_with(&mut self, slot: usize, item: Item) {
        match item.pending {
            Pending::Log(cursor) => self.move_on(slot, cursor),
            Pending::Latest { topic, channel, .. } => self.latest_is_sent(slot, topic, channel),
            _ => {}
        }
    }

    /// A reader has the message at its position.
    fn move_on(&mut self, slot: usize, cursor: Cursor) {
        let Some(topic) = self.channels.get_mut(cursor.topic) else {
            return;
        };
        let kind = topic.kind;
        let log = topic.log(cursor.action);
        let next = log
            .at(cursor.position)
            .map_or(cursor.until, |(position, _)| position + 1);
        if log.at(next).is_some() && next < cursor.until {
            log.advance(cursor.position, next);
            return;
        }
        log.leave(cursor.position);
        if cursor.until == u64::MAX
            && let Some(&member) = self.sessions[slot].topics[kind as usize].get(&cursor.topic)
        {
            topic.members[member].waits &= !bit(cursor.action);
        }
        self.channels.remove_if_unused(cursor.topic);
    }

    fn latest_is_sent(&mut self, slot: usize, id: TopicId, channel: ChannelName) {
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        let session = &mut self.sessions[slot];
        if let Some(&member) = session.topics[topic.kind as usize].get(&id) {
            topic.members[member].waits &= !bit(Action::Latest);
        }
        if let Some(latest) = topic.latest.get_mut(&channel) {
            latest.readers -= 1;
            if latest.readers == 0 {
                topic.latest.remove(&channel);
            }
        }
        session.outgoing.latest.remove(&(id, channel));
        self.channels.remove_if_unused(id);
    }

    /// Counts messages that a client did not get.
    pub(super) fn count_lost(&mut self, slot: usize, lost: &Lost, action: Action, now: Instant) {
        let count = lost.count();
        self.statistics.lost_messages += count;
        let outgoing = &mut self.sessions[slot].outgoing;
        outgoing.lost += count;
        let since = lost.since.unwrap_or(now);
        let episode = outgoing.episode.get_or_insert(Episode {
            since,
            lost: 0,
            action,
        });
        episode.lost += count;
    }

    /// Leaves a gap in what waits for a client, next to one that is there.
    pub(super) fn leave_gap(&mut self, slot: usize, sequence: u64, lost: Lost, action: Action) {
        let pending = &mut self.sessions[slot].outgoing.pending;
        if let Some((_, Pending::Gap(before, _))) = pending.range_mut(..sequence).next_back() {
            before.merge(&lost);
            return;
        }
        match pending.entry(sequence) {
            Entry::Vacant(place) => {
                place.insert(Pending::Gap(lost, action));
            }
            Entry::Occupied(mut place) => {
                if let Pending::Gap(there, _) = place.get_mut() {
                    there.merge(&lost);
                }
            }
        }
    }

    fn behind_since(&self, slot: usize) -> Option<Instant> {
        self.sessions.get(slot)?.outgoing.clocks.behind_since
    }

    /// A client has taken everything.
    fn caught_up(&mut self, slot: usize, actions: &mut Actions<'_>) {
        self.states[slot].is_behind = false;
        self.tell_episode(slot, actions);
        let session = &self.sessions[slot];
        if session.is_closing {
            actions.close(session.id);
        }
    }

    /// Logs what a client has lost since it began to lose.
    pub(super) fn tell_episode(&mut self, slot: usize, actions: &Actions<'_>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if let Some(episode) = session.outgoing.episode.take() {
            let seconds = actions
                .now()
                .saturating_duration_since(episode.since)
                .as_secs_f64();
            let (name, lost, action) = (&session.descriptor, episode.lost, episode.action);
            info!(
                "client {name} lost {lost} messages in {seconds:.3} s ({action}) ({})",
                session.peer
            );
        }
    }

    /// Hands everything that waits to the engine, which sends it while it
    /// stops.
    pub(super) fn hand_over(&mut self, slot: usize, actions: &mut Actions<'_>) {
        let id = self.sessions[slot].id;
        actions.hold(id, 0);
        if let Some(begun) = self.sessions[slot].outgoing.begun.take() {
            actions.send_shared(id, &begun.bytes);
        }
        while !self.sessions[slot].outgoing.pending.is_empty() {
            self.scratch.clear();
            let items = self.take_items(slot);
            let all = self.scratch.len();
            for item in &items {
                // By reference, as many wait for the same message.
                let is_push =
                    self.sessions[slot].sent_version == Version::Resp3 && item.begun.action.is_some();
                if is_push && !item.begun.bytes.is_empty() {
                    actions.send(id, &[PUSH]);
                    actions.send_shared(id, &item.begun.bytes.slice(1..));
                } else {
                    actions.send_shared(id, &item.begun.bytes);
                }
            }
            self.settle(slot, items, all, actions.now());
        }
        self.states[slot].is_behind = false;
        self.tell_episode(slot, actions);
    }
}

fn missed(channel: &ChannelName, count: u64, since: Option<Instant>) -> Option<(Lost, Action)> {
    let mut lost = Lost {
        since,
        ..Lost::default()
    };
    if count > 0 {
        lost.by_channel.insert(channel.clone(), count);
    }
    (count > 0).then_some((lost, Action::Latest))
}

/// One message for each channel with a gap: its name, and how many.
fn encode_gap(bytes: &mut Vec<u8>, lost: &Lost, version: Version) {
    for (channel, count) in &lost.by_channel {
        let begin = bytes.len();
        let payload = [channel, &b" "[..], count.to_string().as_bytes()].concat();
        encode_message(bytes, MessageKind::Channel, LOST_CHANNEL, &payload);
        if version == Version::Resp3 {
            bytes[begin] = PUSH;
        }
    }
}
