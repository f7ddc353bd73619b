//! How much waits for one client.
//!
//! Owns the difference between bytes that count to the limit and those that
//! may be dropped. Refuses to judge.

use super::Broadcast;
use super::session::{Cursor, Pending};
use crate::backpressure::Action;

/// What a client owes its socket, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owed {
    /// Under `disconnect` and `pause`, and replies: what counts to the limit.
    pub(super) counted_bytes: usize,
    pub(super) droppable_bytes: usize,
    /// Messages and replies.
    pub(super) pieces: u64,
}

impl Owed {
    pub(super) const fn bytes(&self) -> usize {
        self.counted_bytes + self.droppable_bytes
    }

    fn add(&mut self, bytes: usize, pieces: u64, action: Option<Action>) {
        if action.is_some_and(Action::drops) {
            self.droppable_bytes += bytes;
        } else {
            self.counted_bytes += bytes;
        }
        self.pieces += pieces;
    }
}

impl Broadcast {
    /// What waits for a client now.
    pub(super) fn owed(&self, slot: usize) -> Owed {
        let mut owed = Owed::default();
        let Some(session) = self.sessions.get(slot) else {
            return owed;
        };
        if let Some(begun) = &session.outgoing.begun {
            owed.add(begun.bytes.len(), 1, begun.action);
        }
        for pending in session.outgoing.pending.values() {
            match pending {
                Pending::Log(cursor) => {
                    let (bytes, messages) = self.owed_in_log(cursor);
                    owed.add(bytes, messages, Some(cursor.action));
                }
                Pending::Latest { topic, channel, .. } => {
                    let latest = self.channels.latest(*topic, channel);
                    owed.add(
                        latest.map_or(0, |latest| latest.bytes.len()),
                        1,
                        Some(Action::Latest),
                    );
                }
                Pending::Reply(bytes) => owed.add(bytes.len(), 1, None),
                Pending::Message(bytes, _, action) => owed.add(bytes.len(), 1, Some(*action)),
                Pending::Gap(..) | Pending::Version(_) => {}
            }
        }
        owed
    }

    pub(super) fn owed_in_log(&self, cursor: &Cursor) -> (usize, u64) {
        let log = self
            .channels
            .get(cursor.topic)
            .and_then(|topic| topic.log_if_any(cursor.action));
        log.map_or((0, 0), |log| {
            (
                log.bytes_between(cursor.position, cursor.until),
                log.messages_between(cursor.position, cursor.until),
            )
        })
    }
}
