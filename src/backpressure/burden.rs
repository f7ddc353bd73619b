//! How much a client costs all others: bytes that wait for it, and for how long.
//!
//! Owns the order in which clients go when memory runs out. Bytes x seconds tell
//! a client that keeps memory from one that only uses it: a long frame that comes
//! at once weighs less than a short one that never ends. Refuses to know who the
//! clients are.

use std::time::{Duration, Instant};

/// What waits for one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burden {
    /// Bytes in its queue.
    pub queued_bytes: usize,
    /// For how long its queue has not been empty.
    pub queued_for: Duration,
    /// Bytes that its service holds, such as an unfinished frame.
    pub held_bytes: usize,
    /// For how long its service has held them.
    pub held_for: Duration,
}

impl Burden {
    /// What waits, by the instants at which it began to.
    #[must_use]
    pub fn new(
        (queued_bytes, queued_since): (usize, Option<Instant>),
        (held_bytes, held_since): (usize, Option<Instant>),
        now: Instant,
    ) -> Self {
        let age = |since: Option<Instant>| {
            since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        Self {
            queued_bytes,
            queued_for: age(queued_since),
            held_bytes,
            held_for: age(held_since),
        }
    }

    /// The client with the largest goes first: by bytes x time, and among those
    /// that have just come by bytes.
    #[must_use]
    pub fn weight(&self) -> (u128, usize) {
        let part = |bytes: usize, time: Duration| bytes as u128 * time.as_nanos();
        let byte_time =
            part(self.queued_bytes, self.queued_for).saturating_add(part(self.held_bytes, self.held_for));
        (byte_time, self.queued_bytes + self.held_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn unfinished(held_bytes: usize, milliseconds: u64) -> Burden {
        Burden {
            held_bytes,
            held_for: Duration::from_millis(milliseconds),
            ..Burden::default()
        }
    }

    #[test]
    fn a_short_frame_that_never_ends_weighs_more_than_a_long_one_that_just_came() {
        assert!(unfinished(1000, 31_000).weight() > unfinished(MIB, 20).weight());
        assert!(unfinished(MIB, 31_000).weight() > unfinished(1000, 31_000).weight());
    }

    #[test]
    fn queued_bytes_weigh_as_much_as_held_ones() {
        let queued = Burden {
            queued_bytes: 1000,
            queued_for: Duration::from_secs(3),
            ..Burden::default()
        };
        assert_eq!(queued.weight(), unfinished(1000, 3000).weight());
        let both = Burden {
            held_bytes: 500,
            held_for: Duration::from_secs(1),
            ..queued
        };
        assert!(both.weight() > queued.weight());
    }

    #[test]
    fn among_those_that_have_just_come_the_most_bytes_weigh_most() {
        assert!(unfinished(2, 0).weight() > unfinished(1, 0).weight());
        assert!(unfinished(1, 1).weight() > unfinished(MIB, 0).weight());
    }

    #[test]
    fn ages_are_those_of_the_instants_at_which_the_bytes_began_to_wait() {
        #[expect(
            clippy::disallowed_methods,
            reason = "an instant can only be had from the clock"
        )]
        let now = Instant::now() + Duration::from_secs(60);
        let since = |seconds| Some(now - Duration::from_secs(seconds));
        let burden = Burden::new((7, since(2)), (9, since(5)), now);
        assert_eq!((burden.queued_bytes, burden.queued_for.as_secs()), (7, 2));
        assert_eq!((burden.held_bytes, burden.held_for.as_secs()), (9, 5));
        assert_eq!(Burden::new((0, None), (0, None), now), Burden::default());
    }
}
