//! Answers under way: what is left of each, and when its client last took some.
//!
//! Owns the parts that are not sent yet. Refuses to send them: that is
//! `sending_files.rs`.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::client_table::ClientId;
use super::file::FilePart;

/// What is left of the answers under way.
#[derive(Debug, Default)]
pub(super) struct FileSends {
    pub(super) answers: HashMap<ClientId, VecDeque<FilePart>>,
    pub(super) watches: HashMap<ClientId, Watch>,
}

/// When a client last acknowledged something.
#[derive(Debug)]
pub(super) struct Watch {
    /// When its timer was armed last.
    pub(super) armed: Instant,
    pub(super) progress: Instant,
    /// The peer had not acknowledged everything at the last look.
    pub(super) is_owed: bool,
    pub(super) acknowledged_bytes: u64,
}

impl FileSends {
    /// The client is closed.
    pub(super) fn forget(&mut self, id: ClientId) {
        self.answers.remove(&id);
        self.watches.remove(&id);
    }

    /// Whether the timer that was armed at `start` is the last one.
    pub(super) fn is_watch(&self, id: ClientId, start: Instant) -> bool {
        self.watches.get(&id).is_some_and(|watch| watch.armed == start)
    }
}
