//! The subscribers of one topic, and which of them are asleep.
//!
//! A member sleeps exactly while messages of the topic wait for it: what is
//! published then waits with the others, and nobody has to look at the member.
//! Owns one bit for each, so that a turn passes over 64 sleepers at once.
//! Refuses to know what waits.

use crate::ClientId;
use crate::backpressure::Action;

/// One subscriber of a topic.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: usize,
    pub(super) id: ClientId,
    /// The actions under which it has a position in a log of this topic, one
    /// bit each.
    waits: u8,
    /// Channels of a pattern whose newest value waits for it.
    values: usize,
}

/// All subscribers of a topic. A place is stable until a member is removed.
#[derive(Debug, Default)]
pub(super) struct Members {
    list: Vec<Member>,
    /// One bit for each place.
    asleep: Vec<u64>,
    sleepers: usize,
    /// Members that wait under each action.
    waiting: [usize; Action::ALL.len()],
}

const WORD_BITS: usize = 64;

impl Members {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The client in this place.
    pub(super) fn slot(&self, place: usize) -> usize {
        self.list[place].slot
    }

    /// Members that sleep.
    pub(super) const fn sleepers(&self) -> usize {
        self.sleepers
    }

    /// Members that wait under this action.
    pub(super) const fn waiting(&self, action: Action) -> usize {
        self.waiting[action as usize]
    }

    /// Adds a member that is awake, and answers its place.
    pub(super) fn add(&mut self, slot: usize, id: ClientId) -> usize {
        self.list.push(Member {
            slot,
            id,
            waits: 0,
            values: 0,
        });
        self.asleep.resize(self.list.len().div_ceil(WORD_BITS), 0);
        self.list.len() - 1
    }

    /// Removes a member. Answers the bits under which it waited, and who has
    /// its place now.
    pub(super) fn remove(&mut self, place: usize) -> (u8, Option<usize>) {
        let last = self.list.len() - 1;
        let last_sleeps = last != place && self.sleeps(last);
        self.wake(place);
        self.wake(last);
        let member = self.list.swap_remove(place);
        for action in Action::ALL {
            self.waiting[action as usize] -= usize::from(member.waits & bit(action) != 0);
        }
        let moved = self.list.get(place).map(|moved| moved.slot);
        if last_sleeps {
            self.sleep(place);
        }
        self.asleep.truncate(self.list.len().div_ceil(WORD_BITS));
        (member.waits, moved)
    }

    pub(super) fn waits(&self, place: usize, action: Action) -> bool {
        self.list[place].waits & bit(action) != 0
    }

    /// A member waits under this action from now on, and sleeps.
    pub(super) fn begin_to_wait(&mut self, place: usize, action: Action) {
        if !self.waits(place, action) {
            self.list[place].waits |= bit(action);
            self.waiting[action as usize] += 1;
        }
        self.sleep(place);
    }

    /// A member has all messages of this action.
    pub(super) fn has_all(&mut self, place: usize, action: Action) {
        if self.waits(place, action) {
            self.list[place].waits &= !bit(action);
            self.waiting[action as usize] -= 1;
        }
        self.wake_if_free(place);
    }

    /// The newest value of one more channel of a pattern waits for a member.
    pub(super) fn begin_to_wait_for_value(&mut self, place: usize) {
        self.list[place].values += 1;
        self.sleep(place);
    }

    /// A member has the newest value of a channel of a pattern.
    pub(super) fn has_value(&mut self, place: usize) {
        let values = &mut self.list[place].values;
        *values = values.saturating_sub(1);
        self.wake_if_free(place);
    }

    fn wake_if_free(&mut self, place: usize) {
        let member = &self.list[place];
        if member.waits == 0 && member.values == 0 {
            self.wake(place);
        }
    }

    fn sleep(&mut self, place: usize) {
        if !self.sleeps(place) {
            self.asleep[place / WORD_BITS] |= 1 << (place % WORD_BITS);
            self.sleepers += 1;
        }
    }

    fn wake(&mut self, place: usize) {
        if self.sleeps(place) {
            self.asleep[place / WORD_BITS] &= !(1 << (place % WORD_BITS));
            self.sleepers -= 1;
        }
    }

    fn sleeps(&self, place: usize) -> bool {
        self.asleep[place / WORD_BITS] & (1 << (place % WORD_BITS)) != 0
    }

    /// Places and members that are awake.
    pub(super) fn awake(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.places(|word| !word)
    }

    /// Places and members that sleep.
    pub(super) fn asleep(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.places(|word| word)
    }

    fn places(&self, wanted: impl Fn(u64) -> u64) -> impl Iterator<Item = (usize, &Member)> {
        self.asleep.iter().enumerate().flat_map(move |(index, &word)| {
            let mut left = wanted(word);
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let place = index * WORD_BITS + left.trailing_zeros() as usize;
                left &= left - 1;
                self.list.get(place).map(|member| (place, member))
            })
        })
    }
}

/// The bit of an action among those under which a member waits.
pub(super) const fn bit(action: Action) -> u8 {
    1 << action as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_are_passed_over_and_keep_their_state_when_others_leave() {
        let id = ClientId::from_token(7);
        let mut members = Members::default();
        for slot in 0..130 {
            assert_eq!(members.add(slot, id), slot);
        }
        members.begin_to_wait(129, Action::Latest);
        members.begin_to_wait(5, Action::Pause);
        members.begin_to_wait(5, Action::Disconnect);
        members.begin_to_wait_for_value(5);
        members.has_all(5, Action::Disconnect);
        let slots = |members: &Members| {
            members
                .asleep()
                .map(|(_, member)| member.slot)
                .collect::<Vec<_>>()
        };
        assert_eq!(slots(&members), [5, 129]);
        assert_eq!((members.sleepers(), members.awake().count()), (2, 128));
        assert_eq!(members.remove(5), (bit(Action::Pause), Some(129)));
        assert!(members.waits(5, Action::Latest), "the last took its place");
        assert_eq!(slots(&members), [129]);
        assert_eq!(
            (members.waiting(Action::Pause), members.waiting(Action::Latest)),
            (0, 1)
        );
        members.has_all(5, Action::Latest);
        assert_eq!((members.sleepers(), members.len()), (0, 129));
        assert_eq!(members.remove(128), (0, None));
        assert_eq!(members.awake().count(), 128);
    }
}
