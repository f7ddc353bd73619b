//! The server's process and its sockets as `/proc` shows them, where it runs on this machine.
//!
//! A thread of its own looks some four times a second, so that reading a long
//! table of sockets never makes the prober's clients wait. Where the server
//! runs elsewhere there is no monitor, and findings that need one say so.

mod processes;
mod sockets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use procfs::process::Process;

use crate::kernel::threads;
use crate::probe::clients::fullness::ServerQueues;
use crate::probe::driver::clock;
use crate::probe::error::ProbeError;
use crate::probe::printable::printable;
use crate::probe::report::measurement::ServerSeen;
use crate::probe::watcher::Phase;
pub(crate) use sockets::{ServerSocket, SocketTables};

use processes::{Work, is_tcp_short_of_memory, resident_bytes, with_children};
use sockets::listeners;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the last look may take.
const LAST_LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// Between two questions whether to give it up.
const GLANCE: Duration = Duration::from_millis(20);

/// Looks at the server until it is told to finish.
pub(crate) struct ServerMonitor {
    commands: Sender<Command>,
    shared: Arc<Mutex<Shared>>,
    thread: JoinHandle<()>,
    /// The sockets of slow clients at the last look, by the client's port.
    sockets: HashMap<u16, ServerSocket>,
    /// When that look was taken.
    collected_at: Option<Instant>,
    tables: SocketTables,
    send_queue_peak: u64,
    receive_queue_peak: u64,
}

enum Command {
    Begin(Phase),
    LookLast(Sender<()>),
}

#[derive(Default)]
struct Shared {
    seen: ServerSeen,
    sockets: Vec<ServerSocket>,
    /// When the look at them began.
    looked_at: Option<Instant>,
    rss_now: u64,
    /// The phase that has begun for the looker.
    phase: Option<Phase>,
}

/// Refuses the id of a process that is not there to be looked at.
pub(crate) fn check_pid(asked: Option<i32>) -> Result<(), ProbeError> {
    match asked.filter(|pid| *pid <= 0 || Process::new(*pid).and_then(|process| process.stat()).is_err()) {
        Some(pid) => Err(ProbeError::Field {
            field: "pid",
            problem: format!("{pid} is no process on this machine"),
        }),
        None => Ok(()),
    }
}

impl ServerMonitor {
    /// Finds the server's processes and begins to look; `None` where it does
    /// not run on this machine, or is not ours to look at.
    pub(crate) fn of(address: SocketAddr, asked: Option<i32>) -> Option<Self> {
        let (pids, tables) = match asked {
            Some(pid) => (vec![pid], SocketTables::of(pid, address.port())),
            None => listeners(address)?,
        };
        let pid = *pids.first()?;
        let name = Process::new(pid).ok()?.stat().ok()?.comm;
        let shared = Arc::new(Mutex::new(Shared::default()));
        {
            let mut shared = lock(&shared);
            shared.seen.name = printable(&name);
            shared.seen.pids.clone_from(&pids);
        }
        let (commands, receiver) = channel();
        let looker = Sampler {
            tables,
            roots: pids,
            phase: None,
            phase_began: None,
            shared: Arc::clone(&shared),
        };
        let thread = threads::spawn("server monitor", move || looker.run(&receiver)).ok()?;
        Some(Self {
            commands,
            shared,
            thread,
            sockets: HashMap::new(),
            collected_at: None,
            tables,
            send_queue_peak: 0,
            receive_queue_peak: 0,
        })
    }

    /// The tables of `/proc` that show the server's sockets.
    pub(crate) fn tables(&self) -> SocketTables {
        self.tables
    }

    /// What the last look found, for another thread to read.
    pub(crate) fn last_look(&self) -> LastLook {
        LastLook(Arc::clone(&self.shared))
    }

    /// Tells which phase begins, so that memory and processor time are told
    /// apart by phase. It has begun once [`has_begun`](Self::has_begun) says so:
    /// what the server does until then still belongs to the phase before.
    pub(crate) fn begin_phase(&self, phase: Phase) {
        let _ = self.commands.send(Command::Begin(phase));
    }

    /// Whether the first look of this phase has been taken.
    pub(crate) fn has_begun(&self, phase: Phase) -> bool {
        lock(&self.shared).phase == Some(phase)
    }

    /// Looks once more, now; returns when that is done, after a second, or when `is_given_up`.
    pub(crate) fn look_last(&mut self, is_given_up: impl Fn() -> bool) {
        let (done, wait) = channel();
        if self.commands.send(Command::LookLast(done)).is_err() {
            return;
        }
        let until = clock::now() + LAST_LOOK_PATIENCE;
        while wait.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) {
            if is_given_up() || clock::now() >= until {
                return;
            }
        }
    }

    /// Takes over what the last look found about the connections of these clients.
    pub(crate) fn collect(&mut self, client_ports: &[u16]) {
        {
            let shared = lock(&self.shared);
            self.collected_at = shared.looked_at;
            self.sockets = shared
                .sockets
                .iter()
                .map(|socket| (socket.client_port, *socket))
                .collect();
        }
        let ours = || client_ports.iter().filter_map(|port| self.sockets.get(port));
        let sending: u64 = ours().map(|socket| socket.send_queue).sum();
        let receiving: u64 = ours().map(|socket| socket.receive_queue).sum();
        self.send_queue_peak = self.send_queue_peak.max(sending);
        self.receive_queue_peak = self.receive_queue_peak.max(receiving);
    }

    /// What the server's kernel still holds for the client with this port, where the server
    /// has let go of its connection.
    pub(crate) fn orphan_bytes(&self, client_port: u16) -> Option<u64> {
        let socket = self.sockets.get(&client_port).filter(|socket| socket.orphan)?;
        Some(socket.send_queue)
    }

    /// The same from the moment at which the server closed its side, though it may linger.
    pub(crate) fn closed_bytes(&self, client_port: u16) -> Option<u64> {
        let socket = self.sockets.get(&client_port).filter(|socket| socket.closed)?;
        Some(socket.send_queue)
    }

    /// When the last look was taken, if a process of the server's machine had the connection of the
    /// client with this port open then.
    pub(crate) fn held_at(&self, client_port: u16) -> Option<Instant> {
        let held = self.sockets.get(&client_port).is_some_and(|socket| socket.held);
        self.collected_at.filter(|_| held)
    }

    /// What the server's kernel holds for the client with this port, at the last look.
    pub(crate) fn queues(&self, client_port: u16) -> Option<ServerQueues> {
        let socket = self.sockets.get(&client_port)?;
        Some(ServerQueues {
            send: socket.send_queue,
            receive: socket.receive_queue,
        })
    }

    /// The server's resident memory at the last look, in bytes.
    pub(crate) fn rss_bytes(&self) -> Option<u64> {
        Some(lock(&self.shared).rss_now).filter(|bytes| *bytes > 0)
    }

    /// Stops looking and returns what was seen; a look that goes on is waited for only if `whole`.
    pub(crate) fn finish(self, whole: bool) -> ServerSeen {
        drop(self.commands);
        if whole {
            let _ = self.thread.join();
        }
        let mut seen = lock(&self.shared).seen.clone();
        seen.kernel_send_queue_peak_bytes = self.send_queue_peak;
        seen.kernel_receive_queue_peak_bytes = self.receive_queue_peak;
        seen
    }
}

/// What the monitor's last look found.
pub(crate) struct LastLook(Arc<Mutex<Shared>>);

impl LastLook {
    /// The server's side of the connection of the client with this port.
    pub(crate) fn socket(&self, client_port: u16) -> Option<ServerSocket> {
        let shared = lock(&self.0);
        shared
            .sockets
            .iter()
            .find(|socket| socket.client_port == client_port)
            .copied()
    }
}

/// Numbers stay numbers even after a panic elsewhere.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own state.
struct Sampler {
    tables: SocketTables,
    roots: Vec<i32>,
    phase: Option<Phase>,
    phase_began: Option<(Instant, Work)>,
    shared: Arc<Mutex<Shared>>,
}

impl Sampler {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(LOOK_EVERY) {
                Ok(Command::Begin(phase)) => {
                    self.look();
                    self.phase = Some(phase);
                    self.phase_began = None;
                    self.look();
                    lock(&self.shared).phase = self.phase;
                }
                Ok(Command::LookLast(done)) => {
                    self.look();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        let processes = with_children(&self.roots);
        let rss = processes.iter().filter_map(resident_bytes).sum();
        let work = Work::of(&processes);
        // While healthy clients are alone nobody asks about sockets, and a look costs milliseconds.
        let has_slow = matches!(self.phase, Some(Phase::During | Phase::After));
        let looked_at = clock::now();
        let sockets = if has_slow { self.tables.look() } else { Vec::new() };
        let at = clock::now();
        let (began, work_then) = *self.phase_began.get_or_insert((at, work));
        let elapsed = at.saturating_duration_since(began).as_secs_f64();
        let percent = (work.server - work_then.server).max(0.0) / elapsed.max(1e-9) * 100.0;
        let others = work.others_percent_since(work_then);
        let mut shared = lock(&self.shared);
        shared.rss_now = rss;
        shared.sockets = sockets;
        shared.looked_at = Some(looked_at);
        let seen = &mut shared.seen;
        seen.tcp_memory_pressure |= has_slow && is_tcp_short_of_memory();
        match self.phase {
            Some(Phase::During) => {
                seen.cpu_during_percent = percent;
                seen.others_during_percent = others;
                seen.rss_peak_bytes = seen.rss_peak_bytes.max(rss);
            }
            Some(Phase::After) => {
                seen.cpu_after_percent = percent;
                seen.others_after_percent = others;
            }
            _ => {
                seen.cpu_before_percent = percent;
                seen.others_before_percent = others;
                seen.rss_before_bytes = rss;
                seen.rss_peak_bytes = rss;
            }
        }
        seen.rss_after_bytes = rss;
    }
}
