//! The allocator gives free pages back to the system.
//!
//! Owns the unsafe call. Refuses to decide when.

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
