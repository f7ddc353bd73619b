//! Giving memory back: freed queues to the system, not only to the allocator.
//!
//! Owns when that is worth its time. glibc keeps freed memory for later use;
//! after 5,000 slow clients have gone that is 313 MB which nobody will need.

use std::time::Instant;

use crate::limits::{TRIM_AFTER_FREED_BYTES, TRIM_INTERVAL};

/// Remembers how much was freed since memory was last given back.
#[derive(Debug)]
pub(crate) struct Trimmer {
    freed_bytes: usize,
    last: Instant,
}

impl Trimmer {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            freed_bytes: 0,
            last: now,
        }
    }

    pub(crate) const fn note_freed(&mut self, bytes: usize) {
        self.freed_bytes = self.freed_bytes.saturating_add(bytes);
    }

    /// When memory is to be given back, if there is enough of it.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.freed_bytes >= TRIM_AFTER_FREED_BYTES).then(|| self.last + TRIM_INTERVAL)
    }

    /// Whether to give memory back now. The caller then calls [`trim`].
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due().is_some_and(|due| now >= due);
        if due {
            self.freed_bytes = 0;
            self.last = now;
        }
        due
    }
}

/// Asks the allocator to give free pages back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe crate offers malloc_trim")]
pub(crate) fn trim() {
    // SAFETY: malloc_trim(3) takes the allocator's own locks and has no
    // precondition.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) const fn trim() {}

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
        trimmer.note_freed(TRIM_AFTER_FREED_BYTES - 1);
        assert_eq!(trimmer.due(), None);
        trimmer.note_freed(1);
        assert_eq!(trimmer.due(), Some(t0 + TRIM_INTERVAL));
        assert!(!trimmer.take_due(t0));
        assert!(trimmer.take_due(t0 + TRIM_INTERVAL));
        assert!(
            !trimmer.take_due(t0 + 2 * TRIM_INTERVAL),
            "nothing was freed since"
        );
    }
}
