//! Clients with work that no further edge will announce, in the order in which
//! they are served.
//!
//! Owns three lines: for clients whose last turn moved little, for newcomers, and
//! for those whose last turn moved much. Every turn serves them in this order, so
//! that the wait of a client with small messages does not grow with the number of
//! those that flood, nor with that of newcomers, who may be about to. Refuses to
//! know what a client is, and how many of each line a turn serves.

use std::collections::VecDeque;

use super::client_table::ClientId;
use crate::limits::HEAVY_TURN_BYTES;

/// Who has work, each client at most once; the caller keeps a mark of that.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    lines: [VecDeque<ClientId>; Line::ALL.len()],
}

/// In which line a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Its last turn that moved anything moved little.
    Light,
    /// It has had no turn that moved anything.
    New,
    /// Its last turn that moved anything moved much.
    Heavy,
}

impl Line {
    /// Every line, in the order in which they are served.
    pub(crate) const ALL: [Self; 3] = [Self::Light, Self::New, Self::Heavy];

    /// The line of a client after a turn that moved so many bytes.
    pub(crate) const fn after_turn(self, moved_bytes: u64) -> Self {
        match moved_bytes {
            0 => self,
            1..HEAVY_TURN_BYTES => Self::Light,
            _ => Self::Heavy,
        }
    }
}

impl ReadyList {
    /// Puts a client at the end of its line.
    pub(crate) fn push(&mut self, id: ClientId, line: Line) {
        self.lines[line as usize].push_back(id);
    }

    /// Takes the first of a line.
    pub(crate) fn pop(&mut self, line: Line) -> Option<ClientId> {
        self.lines[line as usize].pop_front()
    }

    /// How many are in each line.
    pub(crate) fn lengths(&self) -> [usize; Line::ALL.len()] {
        self.lines.each_ref().map(VecDeque::len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.iter().all(VecDeque::is_empty)
    }

    /// Gives back the memory of all but so many places of each line.
    pub(crate) fn shrink_to(&mut self, places: usize) {
        for line in &mut self.lines {
            line.shrink_to(places);
        }
    }
}
