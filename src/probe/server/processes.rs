//! Memory and processor time of the server's processes, and what the rest of the machine does.

use procfs::process::Process;

/// The unit of processor time in `/proc` (USER_HZ), which is the same whatever the kernel's own
/// rate is. Asking for it ends the prober under valgrind.
const TICKS_PER_SECOND: f64 = 100.0;
/// Processes of one server that are looked at.
pub(super) const MOST_PROCESSES: usize = 256;

/// Processor time used so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// By the server's processes.
    pub(super) server: f64,
    /// By this process.
    prober: f64,
    /// By all programs and the kernel, and by other guests of the same host.
    all: f64,
    /// The time that all processors had.
    time: f64,
}

impl Work {
    pub(super) fn of(server: &[Process]) -> Self {
        let prober = Process::myself();
        let (all, time) = machine_seconds().unwrap_or((0.0, 0.0));
        Self {
            server: server.iter().filter_map(processor_seconds).sum(),
            prober: prober.ok().as_ref().and_then(processor_seconds).unwrap_or(0.0),
            all,
            time,
        }
    }

    /// What neither the server nor the prober used since then, in percent of all processors.
    pub(super) fn others_percent_since(self, then: Self) -> f64 {
        let ours = self.server - then.server + self.prober - then.prober;
        let others = (self.all - then.all - ours).max(0.0);
        others / (self.time - then.time).max(1e-2) * 100.0
    }
}

/// What all processors together worked, and what time they had (`/proc/stat`, proc_stat(5)).
fn machine_seconds() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user already.
    let [user, nice, system, idle, waiting, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
    let work = user + nice + system + irq + softirq + steal;
    Some((seconds(work), seconds(work + idle + waiting)))
}

/// Whether TCP's memory is above the mark from which the kernel drops what it holds (tcp(7), `tcp_mem`).
pub(super) fn is_tcp_short_of_memory() -> bool {
    let used = || {
        let text = std::fs::read_to_string("/proc/net/sockstat").ok()?;
        let tcp = text.lines().find_map(|line| line.strip_prefix("TCP: "))?;
        let mut words = tcp.split_whitespace().skip_while(|word| *word != "mem");
        words.nth(1)?.parse::<u64>().ok()
    };
    let pressure = || {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    matches!((used(), pressure()), (Some(used), Some(pressure)) if used > pressure)
}

/// Resident memory without the pages of files and of shared memory: a server that maps the file
/// that it sends holds nothing for its clients.
pub(super) fn resident_bytes(process: &Process) -> Option<u64> {
    let kibibytes = process.status().ok()?.rssanon?;
    Some(kibibytes * 1024)
}

fn processor_seconds(process: &Process) -> Option<f64> {
    let stat = process.stat().ok()?;
    Some((stat.utime + stat.stime) as f64 / TICKS_PER_SECOND)
}

/// The processes and their children, so that a process per connection counts too.
pub(super) fn with_children(roots: &[i32]) -> Vec<Process> {
    let mut pids: Vec<i32> = roots.to_vec();
    let mut next = 0;
    while next < pids.len() && pids.len() < MOST_PROCESSES {
        let children = Process::new(pids[next])
            .and_then(|process| process.task_main_thread())
            .and_then(|task| task.children());
        for child in children.unwrap_or_default() {
            let child = i32::try_from(child).unwrap_or(0);
            if child > 0 && !pids.contains(&child) {
                pids.push(child);
            }
        }
        next += 1;
    }
    pids.into_iter()
        .filter_map(|pid| Process::new(pid).ok())
        .collect()
}
