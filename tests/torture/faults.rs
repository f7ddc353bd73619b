//! What is done to the server, and the times at which it was done: nobody
//! owes, or is owed, anything for those.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::server::Server;
use crate::support::{PATIENCE, holds_within};

/// What a fault does to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is stopped; its clocks ought to stand still.
    Stopped,
    /// It accepts nobody; its clocks go on.
    Starved,
}

struct Fault {
    kind: Kind,
    from: Instant,
    to: Option<Instant>,
}

/// The faults so far.
#[derive(Default)]
pub(crate) struct Faults {
    faults: Mutex<Vec<Fault>>,
}

impl Faults {
    /// Stops the server for `time`, then lets it go on.
    pub(crate) fn stop(&self, server: &Server, time: Duration) {
        self.during(Kind::Stopped, || {
            server.signal(Signal::STOP);
            std::thread::sleep(time);
            server.signal(Signal::CONT);
        });
    }

    /// Leaves the server next to no descriptors for `time`, and until it has said
    /// so once: on a busy machine nobody may connect for longer.
    pub(crate) fn starve(&self, server: &Server, time: Duration, descriptors: usize) {
        self.during(Kind::Starved, || {
            server.leave_descriptors(3);
            std::thread::sleep(time);
            holds_within(PATIENCE, || !server.lines_with("cannot accept").is_empty());
            server.set_descriptor_limit(descriptors);
        });
    }

    fn during(&self, kind: Kind, fault: impl FnOnce()) {
        self.faults.lock().unwrap().push(Fault {
            kind,
            from: Instant::now(),
            to: None,
        });
        fault();
        if let Some(fault) = self.faults.lock().unwrap().last_mut() {
            fault.to = Some(Instant::now());
        }
    }

    /// How much of the time from `since` to `now` the server was not stopped:
    /// what may be charged to a client.
    pub(crate) fn awake(&self, since: Instant, now: Instant) -> Duration {
        self.without(|kind| kind == Kind::Stopped, since, now)
    }

    /// How much of it was without any fault: what may be asked of the server.
    pub(crate) fn undisturbed(&self, since: Instant, now: Instant) -> Duration {
        self.without(|_| true, since, now)
    }

    fn without(&self, counts: impl Fn(Kind) -> bool, since: Instant, now: Instant) -> Duration {
        let faults = self.faults.lock().unwrap();
        let taken_off: Duration = faults
            .iter()
            .filter(|fault| counts(fault.kind))
            .map(|fault| {
                let to = fault.to.unwrap_or(now).min(now);
                to.saturating_duration_since(fault.from.max(since))
            })
            .sum();
        now.saturating_duration_since(since).saturating_sub(taken_off)
    }
}

/// The address space of a process, in bytes, as `ulimit -v` counts it.
pub(crate) fn address_space_bytes(pid: Pid) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
