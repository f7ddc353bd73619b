//! What the kernel says: of a connection, of a process, of its memory.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::process::Pid;

/// The states of a connection, as /proc/net/tcp numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Established,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    /// Any other, which a connection that was made does not come back to.
    Other(u8),
}

/// One end of a connection, as the kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    /// Bytes sent and not yet acknowledged.
    pub(crate) send_queue_bytes: usize,
    /// Bytes received and not yet read.
    pub(crate) receive_queue_bytes: usize,
    /// The number of its socket; `None` before it is accepted, and once no
    /// process has it open any more.
    pub(crate) inode: Option<u64>,
}

/// The end of the connection between these two that belongs to `local`;
/// `None` if the kernel has nothing left of it.
pub(crate) fn connection(local: SocketAddr, remote: SocketAddr) -> Option<Connection> {
    connections(local, Some(remote)).pop()
}

/// All connections of a listener that the kernel still knows. The kernel walks
/// all its sockets for an answer, so ask this rather than for each.
pub(crate) fn connections_of(local: SocketAddr) -> Vec<Connection> {
    connections(local, None)
}

fn connections(local: SocketAddr, remote: Option<SocketAddr>) -> Vec<Connection> {
    const LISTEN: u8 = 10;
    let local = in_hex(local);
    let remote = remote.map(in_hex);
    // Connections of a dual-stack listener stand in tcp6 also for IPv4.
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|text| text.lines().skip(1));
    let parsed = lines.filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != local {
            return None;
        }
        let peer = words.next()?;
        if remote.as_ref().is_some_and(|remote| peer != remote) {
            return None;
        }
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        let (send, receive) = words.next()?.split_once(':')?;
        (state != LISTEN).then_some(Connection {
            state: State::from(state),
            send_queue_bytes: usize::from_str_radix(send, 16).ok()?,
            receive_queue_bytes: usize::from_str_radix(receive, 16).ok()?,
            inode: words.nth(4)?.parse().ok().filter(|&number| number != 0),
        })
    });
    parsed.collect()
}

impl From<u8> for State {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Established,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            other => Self::Other(other),
        }
    }
}

/// An address as /proc/net/tcp writes it: 32-bit words in the order of this
/// machine's memory.
fn in_hex(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ip: String = octets
        .chunks_exact(4)
        .map(|word| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .collect();
    format!("{ip}:{:04X}", address.port())
}

/// Memory of all TCP sockets of this machine, in bytes (/proc/net/sockstat
/// counts pages of 4 KiB).
pub(crate) fn tcp_memory_bytes() -> usize {
    sockstat("mem") * 4096
}

/// Connections that no process owns any more but that the kernel still works
/// on, of the whole machine.
pub(crate) fn orphans() -> usize {
    sockstat("orphan")
}

/// Connections from or to this port that are neither established, nor listen,
/// nor rest in TIME-WAIT: what a process has closed and the kernel still works
/// on.
pub(crate) fn half_dead(port: u16) -> usize {
    const AT_REST: [&str; 3] = ["01", "06", "0A"];
    let port = format!(":{port:04X}");
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = text.lines().skip(1).filter(|line| {
        let words: Vec<_> = line.split_whitespace().take(4).collect();
        (words[1].ends_with(&port) || words[2].ends_with(&port)) && !AT_REST.contains(&words[3])
    });
    ours.count()
}

fn sockstat(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let mut words = line.split_whitespace();
    words.find(|&word| word == name).unwrap();
    words.next().unwrap().parse().unwrap()
}

/// Processor time used so far by all threads of a process. The kernel counts
/// it in hundredths of a second (proc_pid_stat(5)).
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let hundredths: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(10 * hundredths)
}

/// Memory in use by a process, in bytes.
pub(crate) fn resident_bytes(pid: Pid) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// The numbers of the descriptors that a process has open.
pub(crate) fn descriptor_numbers(pid: Pid) -> Vec<usize> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether this process has the socket of that number open.
pub(crate) fn has_socket_open(inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    // Another thread may close what was listed before it is looked at.
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.as_os_str() == name.as_str())
}

/// Descriptors that a process has open.
pub(crate) fn descriptors(pid: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
