//! All clients of one event loop, found by ids that become stale.
//!
//! Owns the slab and the generations. A slot is reused as soon as its client
//! has left, even within one batch of events; the id of the former client then
//! finds nobody. Refuses to know what a client is.

use slab::Slab;

/// Names one client while it is connected. Afterwards the id is stale, and
/// finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    index: u32,
    generation: u32,
}

impl ClientId {
    /// The id as one number, for a registration with the kernel.
    #[must_use]
    pub const fn to_token(self) -> usize {
        (self.generation as usize) << 32 | self.index as usize
    }

    /// The id that [`to_token`](Self::to_token) made into `token`.
    #[must_use]
    pub const fn from_token(token: usize) -> Self {
        Self {
            index: token as u32,
            generation: (token >> 32) as u32,
        }
    }

    /// The place of the client in the table of all: a small number, which
    /// others had before and will have later.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.index as usize
    }

    /// Whether the client was inserted at or after `generation`. Wraps: after
    /// 2^31 insertions an old client looks new.
    pub(super) const fn is_since(self, generation: u32) -> bool {
        self.generation.wrapping_sub(generation) < GENERATIONS / 2
    }
}

/// A slab in which each slot has the generation of its client.
#[derive(Debug)]
pub(super) struct ClientTable<C> {
    slots: Slab<Slot<C>>,
    next_generation: u32,
}

#[derive(Debug)]
struct Slot<C> {
    generation: u32,
    client: C,
}

/// Generations stay below this, so that the highest tokens are free for the
/// listener and the waker.
const GENERATIONS: u32 = u32::MAX - 1;

impl<C> ClientTable<C> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Slab::new(),
            next_generation: 0,
        }
    }

    /// Inserts a client. `None` if 2^32 clients are in the table.
    pub(super) fn insert(&mut self, client: C) -> Option<ClientId> {
        let entry = self.slots.vacant_entry();
        let index = u32::try_from(entry.key()).ok()?;
        let generation = self.next_generation;
        entry.insert(Slot { generation, client });
        self.next_generation = (generation + 1) % GENERATIONS;
        Some(ClientId { index, generation })
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&C> {
        let slot = self.slots.get(id.index as usize)?;
        (slot.generation == id.generation).then_some(&slot.client)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut C> {
        let slot = self.slots.get_mut(id.index as usize)?;
        (slot.generation == id.generation).then_some(&mut slot.client)
    }

    /// Two clients at once; `None` unless both exist and differ.
    pub(super) fn get_two_mut(&mut self, one: ClientId, other: ClientId) -> Option<(&mut C, &mut C)> {
        if one.index == other.index {
            return None;
        }
        let (first, second) = self.slots.get2_mut(one.index as usize, other.index as usize)?;
        let both = first.generation == one.generation && second.generation == other.generation;
        both.then_some((&mut first.client, &mut second.client))
    }

    pub(super) fn remove(&mut self, id: ClientId) -> Option<C> {
        self.get(id)?;
        Some(self.slots.remove(id.index as usize).client)
    }

    /// The generation of the next client.
    pub(super) const fn next_generation(&self) -> u32 {
        self.next_generation
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, &C)> {
        self.slots.iter().map(|(index, slot)| {
            let id = ClientId {
                index: index as u32,
                generation: slot.generation,
            };
            (id, &slot.client)
        })
    }

    /// How many slots there are, those without a client included.
    pub(super) fn slots(&self) -> usize {
        self.slots.capacity()
    }

    /// The client of a slot.
    pub(super) fn at_slot(&self, slot: usize) -> Option<(ClientId, &C)> {
        let found = self.slots.get(slot)?;
        let id = ClientId {
            index: u32::try_from(slot).ok()?,
            generation: found.generation,
        };
        Some((id, &found.client))
    }

    /// Gives the memory of vacated slots at the end back to the allocator.
    pub(super) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nobody_even_when_its_slot_is_taken_again() {
        let mut table = ClientTable::new();
        let first = table.insert("first").unwrap();
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second").unwrap();
        assert_eq!(first.index, second.index, "the slot is used again");
        assert_eq!(table.get(first), None);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        let third = table.insert("third").unwrap();
        assert_eq!(table.get_two_mut(first, third), None);
        assert_eq!(table.get_two_mut(third, third), None);
        assert!(table.get_two_mut(second, third).is_some());
        assert_eq!(table.get(second), Some(&"second"));
    }

    #[test]
    fn who_came_since_is_told_from_who_was_there_also_when_the_numbers_begin_anew() {
        let mut table = ClientTable::new();
        table.next_generation = GENERATIONS - 2;
        let before = table.insert(()).unwrap();
        let since = table.next_generation();
        let after: Vec<_> = (0..3).map(|_| table.insert(()).unwrap()).collect();
        assert!(after[2].generation < before.generation);
        assert!(!before.is_since(since));
        assert!(after.iter().all(|id| id.is_since(since)));
    }

    #[test]
    fn a_token_names_its_client_and_the_highest_tokens_name_nobody() {
        let mut table = ClientTable::new();
        table.next_generation = GENERATIONS - 1;
        let last = table.insert(()).unwrap();
        let wrapped = table.insert(()).unwrap();
        assert_eq!(ClientId::from_token(last.to_token()), last);
        assert_eq!(wrapped.generation, 0);
        for token in [usize::MAX, usize::MAX - 1, usize::MAX - 2] {
            assert_eq!(table.get(ClientId::from_token(token)), None);
        }
    }
}
