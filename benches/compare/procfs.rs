//! The kernel's view of a server: time on the core, memory, sockets.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// Resident memory of all the processes, in bytes.
pub(crate) fn resident_bytes(pids: &[u32]) -> u64 {
    let of_one = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    pids.iter().map(of_one).sum()
}

/// Time that all threads of the processes have spent on a core. Exact to the
/// nanosecond while they sleep (proc_pid_schedstat, first field).
pub(crate) fn time_on_core(pids: &[u32]) -> Duration {
    let mut nanoseconds = 0;
    for pid in pids {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let spent = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanoseconds += spent
                .split(' ')
                .next()
                .and_then(|first| first.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    Duration::from_nanos(nanoseconds)
}

/// All processes of a group, its leader first.
pub(crate) fn group(leader: u32) -> Vec<u32> {
    let mut pids = vec![leader];
    let Ok(processes) = fs::read_dir("/proc") else {
        return pids;
    };
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // The name may contain brackets; the fields start behind the last one.
        let group = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse::<u32>().ok());
        if pid != leader && group == Some(leader) {
            pids.push(pid);
        }
    }
    pids
}

/// Kernel memory of the sockets at one port, in bytes: queued in both
/// directions and set aside for them (ss(8), skmem). `side` is `sport` for the
/// sockets that own the port, `dport` for those connected to it.
pub(crate) fn kernel_bytes(side: &str, port: u16) -> Result<u64, String> {
    let output = Command::new("ss")
        .args(["-tmnH", "state", "all", &format!("{side} = :{port}")])
        .output()
        .map_err(|error| format!("cannot run ss: {error}; Debian's package is iproute2"))?;
    Ok(parse_kernel_bytes(&String::from_utf8_lossy(&output.stdout)))
}

/// Adds up received (r), queued to send (w), set aside (f) and backlog (bl).
fn parse_kernel_bytes(listing: &str) -> u64 {
    let fields = listing
        .split("skmem:(")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let mut total: i64 = 0;
    for field in fields.flat_map(|fields| fields.split(',')) {
        let digits = field.find(|c: char| c.is_ascii_digit()).unwrap_or(field.len());
        if matches!(&field[..digits], "r" | "w" | "f" | "bl") {
            let bytes = field[digits..].parse::<u32>().unwrap_or(0);
            // Memory set aside falls below zero at times, and ss(8) prints it
            // without a sign.
            total += i64::from(bytes.cast_signed());
        }
    }
    u64::try_from(total).unwrap_or(0)
}

/// TCP memory of the whole machine, both ends, in bytes.
pub(crate) fn tcp_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .unwrap_or_default();
    let mut words = line.split_whitespace().skip_while(|&word| word != "mem");
    words
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * PAGE_BYTES
}
