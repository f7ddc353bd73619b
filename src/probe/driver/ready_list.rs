//! Clients with more to do that no further edge will announce.
//!
//! Pure. Owns their order, first come, first served, each on the list at most once.

use std::collections::VecDeque;

/// Clients of one list that are served between two polls, 64 KiB each, so that those of the
/// other do not wait for long: some 1 ms.
const TURNS_BETWEEN_POLLS: usize = 8;

/// Clients by their index.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    order: VecDeque<usize>,
    /// Whether a client is in `order`.
    is_listed: Vec<bool>,
}

impl ReadyList {
    /// Puts a client at the end, unless it is on the list.
    pub(crate) fn push(&mut self, index: usize) {
        if self.is_listed.len() <= index {
            self.is_listed.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.is_listed[index], true) {
            self.order.push_back(index);
        }
    }

    /// Takes the first off the list.
    pub(crate) fn pop(&mut self) -> Option<usize> {
        let index = self.order.pop_front()?;
        self.is_listed[index] = false;
        Some(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// How many of them have a turn before the next poll.
    pub(crate) fn turns(&self) -> usize {
        self.len().min(TURNS_BETWEEN_POLLS)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_listed_once_and_comes_back_after_the_others() {
        let mut list = ReadyList::default();
        for index in [7, 2, 7, 7, 2] {
            list.push(index);
        }
        assert_eq!(list.len(), 2);
        assert_eq!(list.pop(), Some(7));
        list.push(7);
        assert_eq!([list.pop(), list.pop(), list.pop()], [Some(2), Some(7), None]);
        assert!(list.is_empty());
    }
}
