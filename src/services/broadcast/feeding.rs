//! What waits for a client goes out once its socket has room.
//!
//! Owns what is done with, and what waits again, after each write. Refuses to
//! hold messages: they stay in the log of their topic until the socket has
//! taken them.

use std::time::Instant;

use super::Broadcast;
use super::channels::TopicId;
use super::items::Item;
use super::session::{Begun, Cursor, Pending};
use crate::Actions;
use crate::backpressure::{Action, ChannelName};
use crate::limits::TURN_BUDGET_BYTES;
use crate::protocol::resp::Version;
use crate::protocol::resp::reply::PUSH;

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
            topic.members.has_all(member, cursor.action);
        }
        self.channels.remove_if_unused(cursor.topic);
    }

    fn latest_is_sent(&mut self, slot: usize, id: TopicId, channel: ChannelName) {
        let Some(topic) = self.channels.get_mut(id) else {
            return;
        };
        let session = &mut self.sessions[slot];
        if let Some(&member) = session.topics[topic.kind as usize].get(&id) {
            topic.has_value(member);
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

    /// A client has taken everything.
    fn caught_up(&mut self, slot: usize, actions: &mut Actions<'_>) {
        self.states[slot].is_behind = false;
        self.tell_episode(slot, actions);
        let session = &self.sessions[slot];
        if session.is_closing {
            actions.close(session.id);
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
