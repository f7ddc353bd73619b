//! Clients with work that no edge will announce, in the order in which they
//! are served.
//!
//! Owns four lanes: clients whose last turn moved little, those whose last turn
//! moved more, newcomers, and clients whose last turn moved much. Every turn
//! serves them in this order. The wait of a client with small messages therefore
//! grows neither with the number of those with larger ones nor with that of
//! newcomers, who may become such.
//! Refuses to know what a client is, and how many of each lane a turn serves.

use std::collections::VecDeque;

use super::client_table::ClientId;
use crate::limits::{BULK_TURN_BYTES, MODERATE_TURN_BYTES};

/// In which lane a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Its last turn that moved anything moved little.
    Interactive,
    /// That turn moved more, which takes longer than a small message, and less
    /// than bulk.
    Moderate,
    /// It has had no turn that moved anything.
    New,
    /// Its last turn that moved anything moved much.
    Bulk,
}

impl Lane {
    /// Every lane, in the order in which they are served.
    pub(super) const ALL: [Self; 4] = [Self::Interactive, Self::Moderate, Self::New, Self::Bulk];
}

/// A client's place on the ready list, kept with the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    lane: Lane,
    listed: bool,
}

impl Place {
    /// The place of a client that has just come.
    pub(super) const NEW: Self = Self {
        lane: Lane::New,
        listed: false,
    };

    /// The client was taken off the list.
    pub(super) const fn taken_off(&mut self) {
        self.listed = false;
    }

    /// Chooses the lane after a turn that moved so many bytes.
    pub(super) const fn after_turn(&mut self, moved_bytes: u64) {
        match moved_bytes {
            0 => {}
            1..MODERATE_TURN_BYTES => self.lane = Lane::Interactive,
            MODERATE_TURN_BYTES..BULK_TURN_BYTES => self.lane = Lane::Moderate,
            _ => self.lane = Lane::Bulk,
        }
    }
}

/// Who has work, each client at most once.
#[derive(Debug, Default)]
pub(super) struct ReadyList {
    lanes: [VecDeque<ClientId>; Lane::ALL.len()],
}

/// Places in each lane that are kept when memory is given back.
const PLACES_KEPT: usize = 64;

impl ReadyList {
    /// Puts a client at the end of its lane, unless it is on the list.
    pub(super) fn list(&mut self, id: ClientId, place: &mut Place) {
        if !place.listed {
            place.listed = true;
            self.lanes[place.lane as usize].push_back(id);
        }
    }

    /// Takes the first of a lane. Its place must hear of that
    /// ([`Place::taken_off`]).
    pub(super) fn pop(&mut self, lane: Lane) -> Option<ClientId> {
        self.lanes[lane as usize].pop_front()
    }

    /// How many clients are in each lane.
    pub(super) fn lengths(&self) -> [usize; Lane::ALL.len()] {
        self.lanes.each_ref().map(VecDeque::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Gives back the memory of places that nobody uses.
    pub(super) fn shrink(&mut self) {
        for lane in &mut self.lanes {
            lane.shrink_to(PLACES_KEPT);
        }
    }
}
