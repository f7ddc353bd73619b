//! What a client gets next of all that waits for it, ready for one write.
//!
//! Owns the order of what waits, and puts what is told of a gap in front of the
//! message behind it. Refuses to write.

use std::time::Instant;

use bytes::Bytes;

use super::Broadcast;
use super::gaps::{encode_gap, missed};
use super::session::{Begun, Cursor, Pending};
use crate::backpressure::{Action, Lost};
use crate::protocol::resp::Version;
use crate::protocol::resp::reply::PUSH;

/// Most bytes that one write offers, but for a longer message.
const WRITE_BYTES: usize = 64 * 1024;

/// One thing that is offered to a socket.
#[derive(Debug)]
pub(super) struct Item {
    /// Where it goes if the socket refuses it.
    pub(super) sequence: u64,
    pub(super) pending: Pending,
    /// Where it ends in the scratch buffer.
    pub(super) end: usize,
    pub(super) begun: Begun,
    /// What the client has lost in front of it.
    pub(super) lost: Option<(Lost, Action)>,
}

impl Broadcast {
    /// Takes what comes next into the scratch buffer, up to one write.
    pub(super) fn take_items(&mut self, slot: usize) -> Vec<Item> {
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
                let latest = self.channels.latest(*topic, channel);
                let Some(latest) = latest else { return };
                let lost = missed(channel, latest.count - since - 1, self.behind_since(slot));
                (latest.bytes.clone(), lost, Some(Action::Latest))
            }
        };
        self.push_item(slot, sequence, pending, Begun { bytes, action }, lost, items);
    }

    /// Takes messages of one log, until another source has the next.
    fn take_from_log(&mut self, slot: usize, sequence: u64, mut cursor: Cursor, items: &mut Vec<Item>) {
        let before = items.len();
        loop {
            let topic = self.channels.get(cursor.topic);
            let Some(log) = topic.and_then(|topic| topic.log_if_any(cursor.action)) else {
                return;
            };
            let action = Some(cursor.action);
            let next = log
                .at(cursor.position)
                .filter(|(position, _)| *position < cursor.until);
            let lost = log.lost(cursor.position);
            let lost = (!lost.is_empty()).then_some((lost, cursor.action));
            let Some((position, message)) = next else {
                if items.len() == before {
                    // The client left the topic, and all in front of that was lost.
                    let bytes = Bytes::new();
                    let nothing = Begun { bytes, action };
                    self.push_item(slot, sequence, Pending::Log(cursor), nothing, lost, items);
                }
                return;
            };
            // Where the log was cut, its next message may be a later one.
            let pending = &mut self.sessions[slot].outgoing.pending;
            let another_is_next =
                (pending.first_key_value()).is_some_and(|(&first, _)| first < message.sequence);
            if another_is_next || self.scratch.len() >= WRITE_BYTES {
                pending.insert(message.sequence, Pending::Log(cursor));
                return;
            }
            let (place, bytes) = (message.sequence, message.bytes.clone());
            let begun = Begun { bytes, action };
            self.push_item(slot, place, Pending::Log(cursor), begun, lost, items);
            cursor.position = position + 1;
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

    fn behind_since(&self, slot: usize) -> Option<Instant> {
        self.sessions.get(slot)?.outgoing.clocks.behind_since
    }
}
