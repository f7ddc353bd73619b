//! The server's sockets as `/proc/net` shows them, and who listens.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process};

use super::processes::MOST_PROCESSES;

/// A table is read in pieces of this size.
const TABLE_BUFFER_BYTES: usize = 64 << 10;

/// The server's side of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerSocket {
    /// The client's port.
    pub(crate) client_port: u16,
    /// Bytes sent and not acknowledged, or not yet sent.
    pub(crate) send_queue: u64,
    /// Bytes that the server has not read.
    pub(crate) receive_queue: u64,
    /// A process has it open.
    pub(crate) held: bool,
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
        let mut sockets = Vec::new();
        for (is_wanted, name) in [(self.tcp, "tcp"), (self.tcp6, "tcp6")] {
            if is_wanted {
                // A process that is gone has no sockets.
                let _ = read_table(&format!("/proc/{}/net/{name}", self.pid), self.port, &mut sockets);
            }
        }
        sockets
    }
}

/// Lines of other ports are only skipped: on a busy machine there are tens of thousands, and to take
/// all of them apart takes longer than the time between two looks.
fn read_table(path: &str, port: u16, sockets: &mut Vec<ServerSocket>) -> io::Result<()> {
    let mut table = BufReader::with_capacity(TABLE_BUFFER_BYTES, File::open(path)?);
    let mut line = String::new();
    while table.read_line(&mut line)? > 0 {
        sockets.extend(server_socket(&line, port));
        line.clear();
    }
    Ok(())
}

/// One line of the table (proc_net_tcp(5)), if it is a connection of this local port.
fn server_socket(line: &str, port: u16) -> Option<ServerSocket> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let port_of = |address: &str| hex(address.rsplit_once(':')?.1);
    let mut fields = line.split_ascii_whitespace().skip(1);
    if port_of(fields.next()?)? != u64::from(port) {
        return None;
    }
    let client_port = u16::try_from(port_of(fields.next()?)?).ok()?;
    let state = TcpState::from_u8(u8::try_from(hex(fields.next()?)?).ok()?)?;
    let (send, receive) = fields.next()?.split_once(':')?;
    let (send, receive) = (hex(send)?, hex(receive)?);
    let inode: u64 = fields.nth(4)?.parse().ok()?;
    if state == TcpState::Listen {
        return None;
    }
    let closing = matches!(state, TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck);
    Some(ServerSocket {
        client_port,
        // The FIN of a close counts as a byte, and is none.
        send_queue: send.saturating_sub(u64::from(closing)),
        receive_queue: receive,
        held: inode != 0,
        // A single byte would be the FIN alone, on its way.
        orphan: closing && inode == 0 && send > 1,
        closed: closing && send > 1,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 5] = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7000 1 0",
        "   1: 0100007F:2328 0100007F:C350 01 00010000:00000020 01:00000014 00000000     0        0 7001 2 0",
        "   2: 0100007F:2328 0100007F:C351 04 00010001:00000000 01:00000014 00000003     0        0 0 2 0",
        "   3: 0100007F:C350 0100007F:2328 01 00000000:00000000 00:00000000 00000000     0        0 7002 1 0",
    ];

    #[test]
    fn a_table_shows_the_servers_side_of_connections_and_nothing_else() {
        let seen: Vec<_> = LINES
            .iter()
            .filter_map(|line| server_socket(line, 9000))
            .collect();
        let [stands, left] = seen.as_slice() else {
            panic!("{seen:?}");
        };
        assert_eq!(
            (stands.client_port, stands.send_queue, stands.receive_queue),
            (50000, 65536, 32)
        );
        assert!(stands.held && !stands.closed && !stands.orphan, "{stands:?}");
        assert_eq!(
            (left.client_port, left.send_queue),
            (50001, 65536),
            "the FIN is no byte"
        );
        assert!(!left.held && left.closed && left.orphan, "{left:?}");
    }

    #[test]
    fn the_kernels_own_table_shows_both_addresses_of_a_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let port = listener.local_addr().unwrap().port();
        let pid = i32::try_from(std::process::id()).unwrap();
        let client_port = client.local_addr().unwrap().port();
        // The ports may have served another connection just before, which waits for its end. And
        // the kernel may leave out a line of a table that changes while it is read.
        let is_seen = |_| {
            let seen = SocketTables::of(pid, port).look();
            seen.iter()
                .any(|socket| socket.held && socket.client_port == client_port)
        };
        assert!((0..20).any(is_seen));
    }
}
