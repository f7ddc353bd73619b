//! The server's process and its sockets as `/proc` shows them, where it runs on this machine.
//!
//! A thread of its own looks some four times a second, so that reading a long
//! table of sockets never makes the prober's clients wait. Where the server
//! runs elsewhere there is no monitor, and findings that need one say so.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process};

use crate::kernel::threads;
use crate::probe::clients::fullness::ServerQueues;
use crate::probe::driver::clock;
use crate::probe::printable::printable;
use crate::probe::report::measurement::ServerSeen;
use crate::probe::watcher::Phase;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Processes of one server that are looked at.
const MOST_PROCESSES: usize = 256;

/// Looks at the server until it is told to finish.
pub(crate) struct ServerMonitor {
    commands: Sender<Command>,
    shared: Arc<Mutex<Shared>>,
    thread: JoinHandle<()>,
    /// The sockets of slow clients at the last look, by the client's port.
    sockets: HashMap<u16, ServerSocket>,
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
    rss_now: u64,
    /// The phase that has begun for the looker.
    phase: Option<Phase>,
}

/// The server's side of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerSocket {
    /// The client's port.
    pub(crate) client_port: u16,
    /// Bytes sent and not acknowledged, or not yet sent.
    pub(crate) send_queue: u64,
    /// Bytes that the server has not read.
    pub(crate) receive_queue: u64,
    /// It belongs to no process any more, and still has something to send.
    pub(crate) orphan: bool,
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
            tables,
            send_queue_peak: 0,
            receive_queue_peak: 0,
        })
    }

    /// Where the server's sockets are to be seen.
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

    /// Looks once more, now; returns when that is done (or after a second, if it cannot be).
    pub(crate) fn look_last(&mut self) {
        let (done, wait) = channel();
        if self.commands.send(Command::LookLast(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(1));
        }
    }

    /// Takes over what the last look found about the connections of these clients.
    pub(crate) fn collect(&mut self, client_ports: &[u16]) {
        {
            let shared = lock(&self.shared);
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

    /// Stops looking and returns what was seen.
    pub(crate) fn finish(self) -> ServerSeen {
        drop(self.commands);
        let _ = self.thread.join();
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
        let sockets = if has_slow { self.tables.look() } else { Vec::new() };
        let at = clock::now();
        let (began, work_then) = *self.phase_began.get_or_insert((at, work));
        let elapsed = at.saturating_duration_since(began).as_secs_f64();
        let percent = (work.server - work_then.server).max(0.0) / elapsed.max(1e-9) * 100.0;
        let others = work.others_percent_since(work_then);
        let mut shared = lock(&self.shared);
        shared.rss_now = rss;
        shared.sockets = sockets;
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

/// Processor time used so far, in seconds.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// By the server's processes.
    server: f64,
    /// By this process.
    prober: f64,
    /// By all programs and the kernel, and by other guests of the same host.
    all: f64,
    /// The time that all processors had.
    time: f64,
}

impl Work {
    fn of(server: &[Process]) -> Self {
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
    fn others_percent_since(self, then: Self) -> f64 {
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
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let work = user + nice + system + irq + softirq + steal;
    Some((seconds(work), seconds(work + idle + waiting)))
}

/// Whether TCP's memory is above the mark from which the kernel drops what it holds (tcp(7), `tcp_mem`).
fn is_tcp_short_of_memory() -> bool {
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

/// The tables of a network namespace in which the server's sockets are. The
/// kernel walks its whole hash table for one look (some 7 ms on a machine with
/// little memory), so a table that cannot hold them is left alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketTables {
    pid: i32,
    port: u16,
    tcp: bool,
    tcp6: bool,
}

impl SocketTables {
    /// Those in which the process's namespace has a listener for this port; both when there is none.
    pub(crate) fn of(pid: i32, port: u16) -> Self {
        let both = Self {
            pid,
            port,
            tcp: true,
            tcp6: true,
        };
        let Ok(process) = Process::new(pid) else {
            return both;
        };
        let listens = |table: Vec<TcpNetEntry>| {
            table
                .iter()
                .any(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port)
        };
        let tcp = process.tcp().is_ok_and(listens);
        let tcp6 = process.tcp6().is_ok_and(listens);
        if tcp || tcp6 {
            Self { tcp, tcp6, ..both }
        } else {
            both
        }
    }

    /// The server's side of every connection to its port.
    pub(crate) fn look(self) -> Vec<ServerSocket> {
        let Ok(process) = Process::new(self.pid) else {
            return Vec::new();
        };
        let tcp = self.tcp.then(|| process.tcp().unwrap_or_default());
        let tcp6 = self.tcp6.then(|| process.tcp6().unwrap_or_default());
        let entries = tcp.into_iter().chain(tcp6).flatten();
        entries
            .filter(|entry| entry.local_address.port() == self.port && entry.state != TcpState::Listen)
            .map(|entry| server_socket(&entry))
            .collect()
    }
}

fn server_socket(entry: &TcpNetEntry) -> ServerSocket {
    let closing = matches!(
        entry.state,
        TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck
    );
    ServerSocket {
        client_port: entry.remote_address.port(),
        send_queue: u64::from(entry.tx_queue),
        receive_queue: u64::from(entry.rx_queue),
        // A single byte would be the FIN alone, on its way.
        orphan: closing && entry.inode == 0 && entry.tx_queue > 1,
    }
}

fn resident_bytes(process: &Process) -> Option<u64> {
    process
        .statm()
        .ok()
        .map(|statm| statm.resident * procfs::page_size())
}

fn processor_seconds(process: &Process) -> Option<f64> {
    let stat = process.stat().ok()?;
    Some((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// The processes and their children, so that a process per connection counts too.
fn with_children(roots: &[i32]) -> Vec<Process> {
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

/// The processes that hold a listening socket for this address on this
/// machine, and the table in which its connections are.
fn listeners(address: SocketAddr) -> Option<(Vec<i32>, SocketTables)> {
    // An address that can be bound is one of our own.
    UdpSocket::bind((address.ip(), 0)).ok()?;
    let listening = |table: procfs::ProcResult<Vec<TcpNetEntry>>| -> Vec<u64> {
        let entries = table.unwrap_or_default().into_iter();
        entries
            .filter(|entry| entry.state == TcpState::Listen && serves(entry.local_address, address))
            .map(|entry| entry.inode)
            .collect()
    };
    // One table where one will do, as each costs milliseconds. An IPv4 address that has a
    // listener of its own never comes to one of IPv6.
    let inodes = listening(procfs::net::tcp());
    let tcp = !inodes.is_empty();
    let inodes = if tcp {
        inodes
    } else {
        listening(procfs::net::tcp6())
    };
    if inodes.is_empty() {
        return None;
    }
    let mut pids: Vec<i32> = procfs::process::all_processes()
        .ok()?
        .flatten()
        .filter(|process| holds_one_of(process, &inodes))
        .map(|process| process.pid)
        .take(MOST_PROCESSES)
        .collect();
    pids.sort_unstable();
    let tables = SocketTables {
        pid: *pids.first()?,
        port: address.port(),
        tcp,
        tcp6: !tcp,
    };
    Some((pids, tables))
}

fn serves(listening: SocketAddr, address: SocketAddr) -> bool {
    let canonical = |ip: IpAddr| ip.to_canonical();
    listening.port() == address.port()
        && (listening.ip().is_unspecified() || canonical(listening.ip()) == canonical(address.ip()))
}

fn holds_one_of(process: &Process, inodes: &[u64]) -> bool {
    let Ok(descriptors) = process.fd() else {
        return false;
    };
    descriptors
        .flatten()
        .any(|descriptor| matches!(descriptor.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
}
