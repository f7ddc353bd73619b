//! Which destinations hold one source back.
//!
//! Owns the rule of Node's `pipe`: a source is read while no destination waits
//! for drain; of several destinations the slowest sets the pace. Refuses to
//! move bytes: the caller reads, writes, and reports the answers.

use super::send_queue::Answer;
use super::small_list::SmallList;

/// Whether a source may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    Read,
    /// Read no more until the destinations that wait for drain have drained.
    Hold,
}

/// The destinations of one source. `D` names a destination.
///
/// ```
/// use highwater::backpressure::{Answer, Flow, Pipe};
///
/// let mut pipe = Pipe::default();
/// pipe.add('a');
/// pipe.add('b');
/// assert_eq!(pipe.answered('a', Answer::Pause), Flow::Hold);
/// assert_eq!(pipe.answered('b', Answer::Pause), Flow::Hold);
/// assert_eq!(pipe.drained('a'), Flow::Hold); // b sets the pace
/// assert_eq!(pipe.drained('b'), Flow::Read);
/// ```
#[derive(Clone, Debug)]
pub struct Pipe<D> {
    destinations: SmallList<Destination<D>>,
}

#[derive(Clone, Copy, Debug)]
struct Destination<D> {
    name: D,
    awaits_drain: bool,
}

impl<D> Default for Pipe<D> {
    fn default() -> Self {
        Self {
            destinations: SmallList::Empty,
        }
    }
}

impl<D: Copy + Eq> Pipe<D> {
    /// Adds a destination; one that is already there stays as it is. If it
    /// waits for drain already, report that by [`answered`](Self::answered): as
    /// in Node, it then holds the source from the start. Destinations that hold
    /// the source go on holding it, where Node 20 would forget them and read
    /// on.
    pub fn add(&mut self, name: D) {
        if self.contains(name) {
            return;
        }
        self.destinations.push(Destination {
            name,
            awaits_drain: false,
        });
    }

    /// Removes a destination, and its hold on the source. Answers whether the
    /// source may be read now.
    pub fn remove(&mut self, name: D) -> Flow {
        self.destinations.retain(|destination| destination.name != name);
        self.flow()
    }

    /// Reports the answer of a write to a destination. *Continue* does not end
    /// an earlier *pause*: only drain does.
    pub fn answered(&mut self, name: D, answer: Answer) -> Flow {
        if answer == Answer::Pause
            && let Some(destination) = self.find(name)
        {
            destination.awaits_drain = true;
        }
        self.flow()
    }

    /// Reports that a destination has drained.
    pub fn drained(&mut self, name: D) -> Flow {
        if let Some(destination) = self.find(name) {
            destination.awaits_drain = false;
        }
        self.flow()
    }

    /// Whether the source may be read.
    #[must_use]
    pub fn flow(&self) -> Flow {
        if self
            .destinations
            .as_slice()
            .iter()
            .any(|destination| destination.awaits_drain)
        {
            Flow::Hold
        } else {
            Flow::Read
        }
    }

    /// The only destination, if there is exactly one.
    #[must_use]
    pub fn only(&self) -> Option<D> {
        match self.destinations.as_slice() {
            [only] => Some(only.name),
            _ => None,
        }
    }

    /// Number of destinations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.destinations.as_slice().len()
    }

    /// Whether the source has no destination.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.destinations.as_slice().is_empty()
    }

    /// Whether `name` is a destination.
    #[must_use]
    pub fn contains(&self, name: D) -> bool {
        self.names().any(|there| there == name)
    }

    /// All destinations in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = D> + '_ {
        self.destinations
            .as_slice()
            .iter()
            .map(|destination| destination.name)
    }

    /// The destination at `index`, in the order in which they were added; `None`
    /// past the last.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<D> {
        self.destinations
            .as_slice()
            .get(index)
            .map(|destination| destination.name)
    }

    fn find(&mut self, name: D) -> Option<&mut Destination<D>> {
        self.destinations
            .as_mut_slice()
            .iter_mut()
            .find(|destination| destination.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_holds_the_source_until_that_destination_has_drained() {
        let mut pipe = Pipe::default();
        pipe.add(1);
        assert_eq!(pipe.answered(1, Answer::Continue), Flow::Read);
        assert_eq!(pipe.answered(1, Answer::Pause), Flow::Hold);
        assert_eq!(pipe.answered(1, Answer::Continue), Flow::Hold);
        assert_eq!(pipe.drained(1), Flow::Read);
    }

    #[test]
    fn the_slowest_of_several_destinations_sets_the_pace() {
        let mut pipe = Pipe::default();
        for name in 0..5 {
            pipe.add(name);
            pipe.answered(name, Answer::Pause);
        }
        for name in 0..4 {
            assert_eq!(pipe.drained(name), Flow::Hold);
        }
        assert_eq!(pipe.drained(4), Flow::Read);
    }

    #[test]
    fn removing_the_one_that_holds_lets_the_source_be_read_again() {
        let mut pipe = Pipe::default();
        pipe.add(1);
        pipe.add(2);
        pipe.answered(2, Answer::Pause);
        assert_eq!(pipe.remove(1), Flow::Hold);
        assert_eq!(pipe.remove(2), Flow::Read);
        assert!(pipe.is_empty());
    }

    #[test]
    fn those_that_hold_the_source_still_do_when_another_is_added() {
        let mut pipe = Pipe::default();
        for name in 0..3 {
            pipe.add(name);
            pipe.answered(name, Answer::Pause);
        }
        pipe.add(3);
        for name in 0..2 {
            assert_eq!(pipe.drained(name), Flow::Hold);
        }
        assert_eq!(pipe.drained(2), Flow::Read);
    }

    #[test]
    fn a_destination_is_added_once_and_a_stranger_changes_nothing() {
        let mut pipe = Pipe::default();
        pipe.add(1);
        pipe.add(1);
        assert_eq!(pipe.len(), 1);
        assert_eq!(pipe.answered(9, Answer::Pause), Flow::Read);
        assert_eq!(pipe.drained(9), Flow::Read);
        assert_eq!(pipe.remove(9), Flow::Read);
        assert_eq!(pipe.only(), Some(1));
    }
}
