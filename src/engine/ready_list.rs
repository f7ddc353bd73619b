//! Clients with work that no further edge will announce, in the order in which
//! they are served.
//!
//! Owns three lanes: for clients whose last turn moved little, for newcomers, and
//! for those whose last turn moved much. Every turn serves them in this order, so
//! that the wait of a client with small messages does not grow with the number of
//! those that flood, nor with that of newcomers, who may be about to. Refuses to
//! know what a client is, and how many of each lane a turn serves.

use std::collections::VecDeque;

use super::client_table::ClientId;
use crate::limits::HEAVY_TURN_BYTES;

/// Who has work, each client at most once; the caller keeps a mark of that.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    lanes: [VecDeque<ClientId>; Lane::ALL.len()],
}

/// In which lane a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Its last turn that moved anything moved little.
    Interactive,
    /// It has had no turn that moved anything.
    New,
    /// Its last turn that moved anything moved much.
    Bulk,
}

impl Lane {
    /// Every lane, in the order in which they are served.
    pub(crate) const ALL: [Self; 3] = [Self::Interactive, Self::New, Self::Bulk];

    /// The lane of a client after a turn that moved so many bytes.
    pub(crate) const fn after_turn(self, moved_bytes: u64) -> Self {
        match moved_bytes {
            0 => self,
            1..HEAVY_TURN_BYTES => Self::Interactive,
            _ => Self::Bulk,
        }
    }
}

impl ReadyList {
    /// Puts a client at the end of its lane.
    pub(crate) fn push(&mut self, id: ClientId, lane: Lane) {
        self.lanes[lane as usize].push_back(id);
    }

    /// Takes the first of a lane.
    pub(crate) fn pop(&mut self, lane: Lane) -> Option<ClientId> {
        self.lanes[lane as usize].pop_front()
    }

    /// How many are in each lane.
    pub(crate) fn lengths(&self) -> [usize; Lane::ALL.len()] {
        self.lanes.each_ref().map(VecDeque::len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Gives back the memory of all but so many places of each lane.
    pub(crate) fn shrink_to(&mut self, places: usize) {
        for lane in &mut self.lanes {
            lane.shrink_to(places);
        }
    }
}
