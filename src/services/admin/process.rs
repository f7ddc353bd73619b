//! What the kernel counts for this process, for the usual `process_*` metrics.
//!
//! Refuses to name them.

use std::fs::read_to_string;

use procfs::process::{LimitValue, Process as Entry};

/// The unit of times in `/proc` (USER_HZ), which is the same whatever the kernel's
/// own rate is. Asking for it, or for the page size, ends the server under valgrind.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process now; 0 where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_descriptors: u64,
    pub(super) most_descriptors: u64,
    pub(super) started_seconds: f64,
}

impl Process {
    /// Reads `/proc/self`.
    pub(super) fn now() -> Self {
        let Ok(entry) = Entry::myself() else {
            return Self::default();
        };
        let mut process = Self::default();
        if let Ok(stat) = entry.stat() {
            process.cpu_seconds = (stat.utime + stat.stime) as f64 / TICKS_PER_SECOND;
            process.virtual_bytes = stat.vsize;
            let since_boot = stat.starttime as f64 / TICKS_PER_SECOND;
            process.started_seconds = boot_seconds().unwrap_or(0) as f64 + since_boot;
        }
        let kibibytes = entry.status().ok().and_then(|status| status.vmrss);
        process.resident_bytes = kibibytes.unwrap_or(0) * 1024;
        process.open_descriptors = entry.fd_count().unwrap_or(0) as u64;
        if let Ok(limits) = entry.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            process.most_descriptors = most;
        }
        process
    }
}

/// When the machine was booted, in seconds since 1970 (`btime`, proc_stat(5)).
fn boot_seconds() -> Option<u64> {
    let text = read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}
