//! What is kept beside the table of clients, for some or all of them.
//!
//! Owns one value for each client, at the slot of the client: a look-up costs
//! no hashing, and a place hardly more than the value. The id of a client that
//! is gone finds nothing. Refuses to know what is kept.

use super::client_table::ClientId;

/// Places of an empty map that are kept.
const KEPT_PLACES: usize = 1024;

/// Values by client, for services that keep one for nearly every client.
///
/// ```
/// use highwater::{ClientId, ClientMap};
///
/// let (first, second) = (ClientId::from_token(7), ClientId::from_token(8));
/// let mut lines = ClientMap::default();
/// lines.insert(first, 1);
/// if let Some(count) = lines.get_mut(first) {
///     *count += 1;
/// }
/// assert_eq!((lines.get(first), lines.get(second)), (Some(&2), None));
/// assert_eq!(lines.remove(first), Some(2));
/// ```
#[derive(Debug)]
pub struct ClientMap<T> {
    slots: Vec<Option<(ClientId, T)>>,
    count: usize,
}

impl<T> Default for ClientMap<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            count: 0,
        }
    }
}

impl<T> ClientMap<T> {
    /// Keeps a value for a client, in the place of any other in its slot.
    pub fn insert(&mut self, client: ClientId, value: T) {
        if self.slots.len() <= client.slot() {
            self.slots.resize_with(client.slot() + 1, || None);
        }
        if self.slots[client.slot()].replace((client, value)).is_none() {
            self.count += 1;
        }
    }

    /// What is kept for a client.
    #[must_use]
    pub fn get(&self, client: ClientId) -> Option<&T> {
        let (owner, value) = self.slots.get(client.slot())?.as_ref()?;
        (*owner == client).then_some(value)
    }

    /// What is kept for a client, to change it.
    pub fn get_mut(&mut self, client: ClientId) -> Option<&mut T> {
        let (owner, value) = self.slots.get_mut(client.slot())?.as_mut()?;
        (*owner == client).then_some(value)
    }

    /// Keeps nothing more for a client.
    pub fn remove(&mut self, client: ClientId) -> Option<T> {
        let slot = self.slots.get_mut(client.slot())?;
        let (_, value) = slot.take_if(|(owner, _)| *owner == client)?;
        self.count -= 1;
        // A crowd that was here once leaves no large map behind.
        if self.count == 0 && self.slots.capacity() > KEPT_PLACES {
            self.slots = Vec::new();
        }
        Some(value)
    }

    /// All clients and what is kept for them, to change it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ClientId, &mut T)> {
        let taken = self.slots.iter_mut().flatten();
        taken.map(|(client, value)| (*client, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_finds_its_own_value_and_never_that_of_another_in_the_same_slot() {
        let mut map = ClientMap::default();
        let (old, new) = (ClientId::from_token(2), ClientId::from_token(1 << 32 | 2));
        map.insert(old, 'a');
        assert_eq!((map.get(old), map.get(new)), (Some(&'a'), None));
        assert_eq!(map.remove(new), None);
        assert_eq!(map.remove(old), Some('a'));
        map.insert(new, 'b');
        assert_eq!((map.get(old), map.get(new)), (None, Some(&'b')));
        assert_eq!(map.get_mut(old), None);
        assert_eq!(
            map.iter_mut().map(|(client, _)| client).collect::<Vec<_>>(),
            [new]
        );
    }
}
