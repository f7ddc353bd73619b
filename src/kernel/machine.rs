//! The limits of this machine: descriptors and memory.
//!
//! Owns the questions to the system. Refuses to choose limits of a server from
//! the answers, except the default memory budget.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::limits::{MEMORY_BUDGET_FALLBACK_BYTES, MEMORY_BUDGET_SHARE};

/// The number of descriptors that this process may have open.
#[must_use]
pub(crate) fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Raises the soft limit of descriptors to the hard one. Every client needs a
/// descriptor, and the usual soft limit of 1,024 exists for programs that use
/// select(2).
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn raise_descriptor_limit() -> std::io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A share of this machine's memory for all queues together.
pub(crate) fn default_memory_budget() -> usize {
    // The first line reads `MemTotal:       24576000 kB` (proc_meminfo(5)).
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()
    });
    total.map_or(MEMORY_BUDGET_FALLBACK_BYTES, |kib| {
        kib.saturating_mul(1024) / MEMORY_BUDGET_SHARE
    })
}
