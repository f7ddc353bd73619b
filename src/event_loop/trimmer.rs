//! When freed memory is given back to the system.
//!
//! Owns that decision. glibc keeps freed memory for later use: 313 MB after
//! 5,000 slow clients have gone. Giving all of it back takes 25 ms in which
//! nobody is served, so a large amount goes back in parts. Refuses to call the
//! allocator.

use std::time::Instant;

use crate::limits::{TRIM_AFTER_FREED_BYTES, TRIM_AT_ONCE_BYTES, TRIM_INTERVAL};

/// How much all queues held since memory was last given back.
#[derive(Debug)]
pub(crate) struct Trimmer {
    most_bytes: usize,
    freed_bytes: usize,
    last: Instant,
}

impl Trimmer {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            most_bytes: 0,
            freed_bytes: 0,
            last: now,
        }
    }

    /// Takes in how many bytes all queues hold now. Memory that one queue frees
    /// and another takes again is not free.
    pub(crate) fn queued_now(&mut self, bytes: usize) {
        self.most_bytes = self.most_bytes.max(bytes);
        self.freed_bytes = self.most_bytes - bytes;
    }

    /// The instant from which memory should be given back, if enough is free.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.freed_bytes {
            TRIM_AT_ONCE_BYTES.. => Some(self.last),
            TRIM_AFTER_FREED_BYTES.. => Some(self.last + TRIM_INTERVAL),
            _ => None,
        }
    }

    /// Whether to give memory back now. If so, call
    /// [`trim`](crate::kernel::allocator::trim).
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due().is_some_and(|due| now >= due);
        if due {
            self.most_bytes -= self.freed_bytes;
            self.freed_bytes = 0;
            self.last = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    #[test]
    fn memory_is_given_back_after_much_was_freed_and_not_too_often() {
        let t0 = start();
        let mut trimmer = Trimmer::new(t0);
        trimmer.queued_now(2 * TRIM_AFTER_FREED_BYTES);
        trimmer.queued_now(TRIM_AFTER_FREED_BYTES + 1);
        assert_eq!(trimmer.due(), None);
        trimmer.queued_now(TRIM_AFTER_FREED_BYTES);
        assert_eq!(trimmer.due(), Some(t0 + TRIM_INTERVAL));
        assert!(!trimmer.take_due(t0));
        assert!(trimmer.take_due(t0 + TRIM_INTERVAL));
        trimmer.queued_now(1);
        assert!(
            !trimmer.take_due(t0 + 2 * TRIM_INTERVAL),
            "little was freed since"
        );
    }

    #[test]
    fn very_much_is_given_back_in_parts_without_waiting() {
        let t0 = start();
        let mut trimmer = Trimmer::new(t0);
        let mut queued = 10 * TRIM_AT_ONCE_BYTES;
        trimmer.queued_now(queued);
        let mut parts = 0;
        while queued > 0 {
            queued -= TRIM_AT_ONCE_BYTES / 4;
            trimmer.queued_now(queued);
            parts += usize::from(trimmer.take_due(t0));
        }
        assert_eq!(parts, 10);
    }

    #[test]
    fn what_is_taken_again_at_once_is_never_given_back() {
        let t0 = start();
        let mut trimmer = Trimmer::new(t0);
        let several = 1000 * TRIM_AT_ONCE_BYTES;
        for queued in [several, several - TRIM_AFTER_FREED_BYTES / 2].repeat(1000) {
            trimmer.queued_now(queued);
            assert_eq!(trimmer.due(), None);
        }
    }
}
