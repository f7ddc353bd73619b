//! The limits of this machine, and of the container around the process:
//! descriptors and memory.
//!
//! Owns the questions to the system. Refuses to choose limits of a server from
//! the answers.

use std::fs::read_to_string;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::cgroup;

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

/// The memory that this process may use, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) bytes: u64,
    /// The file with the limit of a control group; `None` for the machine.
    pub(crate) limited_by: Option<PathBuf>,
}

/// The memory of the machine, or of the smallest control group on the way from
/// that of this process up. `None` if the system does not tell.
pub(crate) fn memory() -> Option<Memory> {
    let machine = read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(parse_total_memory);
    let mountinfo = read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = cgroup::limit_files(&mountinfo, &groups)
        .into_iter()
        .filter_map(|file| {
            let bytes = cgroup::parse_limit(&read_to_string(&file).ok()?)?;
            Some(Memory {
                bytes,
                limited_by: Some(file),
            })
        });
    let machine = machine.map(|bytes| Memory {
        bytes,
        limited_by: None,
    });
    // The first of several that are equal, so the machine before its groups.
    machine
        .into_iter()
        .chain(limits)
        .min_by_key(|memory| memory.bytes)
}

/// Bytes that all TCP sockets of the machine may take.
pub(crate) fn tcp_memory_bytes() -> Option<u64> {
    let text = read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?;
    Some(parse_tcp_memory_pages(&text)?.saturating_mul(page_bytes()))
}

#[expect(
    unsafe_code,
    reason = "rustix reads the size from a place that is not there under valgrind, and crashes"
)]
fn page_bytes() -> u64 {
    // SAFETY: sysconf(3) takes a number, and only answers one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// The first line reads `MemTotal:       24576000 kB` (proc_meminfo(5)).
fn parse_total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Three numbers of pages: low, pressure, most (tcp(7)).
fn parse_tcp_memory_pages(text: &str) -> Option<u64> {
    text.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read_as_proc_tells_it() {
        let meminfo = "MemTotal:       24684148 kB\nMemFree:         6000000 kB\n";
        assert_eq!(parse_total_memory(meminfo), Some(24_684_148 * 1024));
        assert_eq!(parse_total_memory("MemFree: 1 kB\n"), None);
        assert_eq!(parse_tcp_memory_pages("287901\t383868\t575802\n"), Some(575_802));
        assert_eq!(parse_tcp_memory_pages(""), None);
    }

    #[test]
    fn this_machine_has_memory_and_no_group_has_more() {
        let memory = memory().unwrap();
        assert!(memory.bytes > 1 << 20);
        assert!(memory.bytes < 1 << 60, "a group without a limit is no limit");
    }
}
