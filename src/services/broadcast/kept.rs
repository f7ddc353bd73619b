//! What began to wait since the start, and how much may still before somebody
//! can reach a limit.
//!
//! Owns the two sums: bytes that count to the limit, and bytes that may be
//! dropped. Refuses to know for whom they wait.

use crate::backpressure::Action;

/// Bytes that ever began to wait, by what they count to. Nobody owes more than
/// what was added since it owed nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) counted_bytes: u64,
    pub(super) droppable_bytes: u64,
}

impl Kept {
    pub(super) const NOTHING: Self = Self {
        counted_bytes: 0,
        droppable_bytes: 0,
    };
    pub(super) const FAR: Self = Self {
        counted_bytes: u64::MAX,
        droppable_bytes: u64::MAX,
    };

    pub(super) const fn add(&mut self, action: Action, bytes: usize) {
        if action.drops() {
            self.droppable_bytes += bytes as u64;
        } else {
            self.counted_bytes += bytes as u64;
        }
    }

    /// What will have been kept once so much more is.
    pub(super) const fn with(self, room: Room) -> Self {
        Self {
            counted_bytes: self.counted_bytes.saturating_add(room.counted_bytes as u64),
            droppable_bytes: self.droppable_bytes.saturating_add(room.droppable_bytes as u64),
        }
    }

    pub(super) const fn reaches(self, look: Self) -> bool {
        self.counted_bytes >= look.counted_bytes || self.droppable_bytes >= look.droppable_bytes
    }

    pub(super) fn least(self, other: Self) -> Self {
        Self {
            counted_bytes: self.counted_bytes.min(other.counted_bytes),
            droppable_bytes: self.droppable_bytes.min(other.droppable_bytes),
        }
    }
}

/// Bytes of each kind that may be published before a client can reach another
/// limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) counted_bytes: usize,
    pub(super) droppable_bytes: usize,
}
