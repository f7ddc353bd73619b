//! Clients with work that no further edge will announce, in the order in which
//! they are served.
//!
//! Owns two lines: one for clients whose last turn moved little, one for those
//! whose last turn moved much. The first goes first in every turn, so that the
//! wait of a client with small messages does not grow with the number of those
//! that flood; the second is never passed over wholly, so that nobody starves.
//! Refuses to know what a client is.

use std::collections::VecDeque;

use super::client_table::ClientId;
use crate::limits::HEAVY_TURN_BYTES;

/// Who has work, each client at most once; the caller keeps a mark of that.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    light: VecDeque<ClientId>,
    heavy: VecDeque<ClientId>,
}

/// In which of the two lines a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Its last turn that moved anything moved little.
    Light,
    /// Its last turn that moved anything moved much, or it has had none: of
    /// thousands that have just connected each may be about to flood.
    Heavy,
}

impl Line {
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
        self.line_mut(line).push_back(id);
    }

    /// Takes the first of a line.
    pub(crate) fn pop(&mut self, line: Line) -> Option<ClientId> {
        self.line_mut(line).pop_front()
    }

    /// Clients in a line.
    pub(crate) fn len(&self, line: Line) -> usize {
        match line {
            Line::Light => self.light.len(),
            Line::Heavy => self.heavy.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.light.is_empty() && self.heavy.is_empty()
    }

    /// Gives back the memory of all but so many places.
    pub(crate) fn shrink_to(&mut self, places: usize) {
        self.light.shrink_to(places);
        self.heavy.shrink_to(places);
    }

    const fn line_mut(&mut self, line: Line) -> &mut VecDeque<ClientId> {
        match line {
            Line::Light => &mut self.light,
            Line::Heavy => &mut self.heavy,
        }
    }
}
