//! The server's sockets as `/proc/net` shows them, and who listens.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process};

use super::processes::MOST_PROCESSES;

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
    /// The server closed its side of it, and its kernel still has something to send.
    pub(crate) closed: bool,
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
        // The FIN of a close counts as a byte, and is none.
        send_queue: u64::from(entry.tx_queue).saturating_sub(u64::from(closing)),
        receive_queue: u64::from(entry.rx_queue),
        // A single byte would be the FIN alone, on its way.
        orphan: closing && entry.inode == 0 && entry.tx_queue > 1,
        closed: closing && entry.tx_queue > 1,
    }
}

/// The processes that hold a listening socket for this address on this
/// machine, and the table in which its connections are.
pub(super) fn listeners(address: SocketAddr) -> Option<(Vec<i32>, SocketTables)> {
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
