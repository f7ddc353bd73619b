//! What the kernel counts for this process, for the usual `process_*` metrics.
//!
//! Refuses to name them.

use procfs::WithCurrentSystemInfo;
use procfs::process::{LimitValue, Process as Entry};

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
            let per_second = procfs::ticks_per_second() as f64;
            process.cpu_seconds = (stat.utime + stat.stime) as f64 / per_second;
            process.resident_bytes = stat.rss_bytes().get();
            process.virtual_bytes = stat.vsize;
            let booted = procfs::boot_time_secs().unwrap_or(0) as f64;
            process.started_seconds = booted + stat.starttime as f64 / per_second;
        }
        process.open_descriptors = entry.fd_count().unwrap_or(0) as u64;
        if let Ok(limits) = entry.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            process.most_descriptors = most;
        }
        process
    }
}
