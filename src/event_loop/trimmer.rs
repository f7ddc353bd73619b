//! Giving memory back: freed queues to the system, not only to the allocator.
//!
//! Owns when that is worth its time. glibc keeps freed memory for later use;
//! after 5,000 slow clients have gone that is 313 MB which nobody will need.
//! Nobody is served meanwhile, for 25 ms if all of it goes at once, so much of
//! it goes in several parts.

use std::time::Instant;

use crate::limits::{TRIM_AFTER_FREED_BYTES, TRIM_AT_ONCE_BYTES, TRIM_INTERVAL};

/// Remembers how much all queues held since memory was last given back.
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

    /// Notes how much all queues hold. What one frees and another takes again
    /// is not free.
    pub(crate) fn queued_now(&mut self, bytes: usize) {
        self.most_bytes = self.most_bytes.max(bytes);
        self.freed_bytes = self.most_bytes - bytes;
    }

    /// When memory is to be given back, if there is enough of it.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.freed_bytes {
            TRIM_AT_ONCE_BYTES.. => Some(self.last),
            TRIM_AFTER_FREED_BYTES.. => Some(self.last + TRIM_INTERVAL),
            _ => None,
        }
    }

    /// Whether to give memory back now. The caller then calls
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

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

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
