//! Both sides of a tunnel: the upstream that a test plays itself, and pairs
//! of a client and its connection there.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::server::Server;
use super::sockets::{Buffers, connect_with};
use super::{PATIENCE, holds_within};

/// A server behind a tunnel, played by the test.
pub(crate) struct Upstream {
    listener: TcpListener,
}

impl Upstream {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn listen() -> Self {
        Self::listen_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Buffers::default())
    }

    /// Listens with these buffers for every connection.
    pub(crate) fn listen_with(buffers: Buffers) -> Self {
        Self::listen_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), buffers)
    }

    /// Listens on this address, as a server that comes back does.
    pub(crate) fn listen_on(address: SocketAddr, buffers: Buffers) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        if let Some(bytes) = buffers.receive {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        if let Some(bytes) = buffers.send {
            socket.set_send_buffer_size(bytes).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(4096).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            listener: TcpListener::from(OwnedFd::from(socket)),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Starts `highwater tunnel` to this upstream.
    pub(crate) fn tunnel(&self, options: &[&str]) -> Server {
        let to = self.address().to_string();
        Server::start("tunnel", &[&["--to", to.as_str()], options].concat())
    }

    /// Takes the next connection, which must come.
    pub(crate) fn accept(&self) -> TcpStream {
        self.accept_within(PATIENCE)
            .unwrap_or_else(|| panic!("nobody came to {}", self.address()))
    }

    /// Takes the next connection, if one comes within `time`.
    pub(crate) fn accept_within(&self, time: Duration) -> Option<TcpStream> {
        let mut accepted = None;
        holds_within(time, || {
            match self.listener.accept() {
                Ok((stream, _)) => accepted = Some(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("accepting failed: {error}"),
            }
            accepted.is_some()
        });
        let stream = accepted?;
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Some(stream)
    }
}

/// A client and the connection that the tunnel made for it.
pub(crate) struct Pair {
    pub(crate) client: TcpStream,
    pub(crate) upstream: TcpStream,
}

impl Pair {
    pub(crate) fn through(tunnel: &Server, upstream: &Upstream) -> Self {
        Self::with(tunnel, upstream, Buffers::default())
    }

    /// A pair whose client has these buffers; no other client may be
    /// connecting at the same time.
    pub(crate) fn with(tunnel: &Server, upstream: &Upstream, buffers: Buffers) -> Self {
        let client = connect_with(tunnel.address(), buffers);
        let upstream = upstream.accept();
        Self { client, upstream }
    }
}

/// An upstream that returns every byte, for as many clients as come. It
/// serves as long as the test runs.
pub(crate) fn echo_upstream(buffers: Buffers) -> SocketAddr {
    echo_with(Upstream::listen_with(buffers))
}

/// As [`echo_upstream`], at this address of the machine.
pub(crate) fn echo_upstream_at(ip: IpAddr) -> SocketAddr {
    echo_with(Upstream::listen_on(SocketAddr::new(ip, 0), Buffers::default()))
}

fn echo_with(upstream: Upstream) -> SocketAddr {
    let address = upstream.address();
    upstream.listener.set_nonblocking(false).unwrap();
    thread::spawn(move || {
        for stream in upstream.listener.incoming() {
            let stream = stream.unwrap();
            // A client that is reset ends its own connection and no other.
            thread::spawn(move || {
                let mut reader = &stream;
                let mut writer = &stream;
                if std::io::copy(&mut reader, &mut writer).is_ok() {
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                }
            });
        }
    });
    address
}

/// A server that takes no connection: its backlog is full, and the kernel
/// drops whatever else comes.
pub(crate) struct Silent {
    pub(crate) listener: Socket,
    pub(crate) address: SocketAddr,
    waiting: Vec<Socket>,
}

impl Silent {
    /// Listens, and takes one connection at a time so far.
    pub(crate) fn listen() -> Self {
        Self::listen_at(Ipv4Addr::LOCALHOST.into())
    }

    fn listen_at(ip: IpAddr) -> Self {
        let any_port = SocketAddr::new(ip, 0);
        let listener = Socket::new(Domain::for_address(any_port), Type::STREAM, Some(Protocol::TCP)).unwrap();
        listener.bind(&any_port.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        Self {
            listener,
            address,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn fall_silent(&mut self) {
        let waiting = (0..4).map(|_| {
            let domain = Domain::for_address(self.address);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&self.address.into());
            socket
        });
        self.waiting.extend(waiting);
    }

    pub(crate) fn new() -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    pub(crate) fn at(ip: IpAddr) -> Self {
        let mut silent = Self::listen_at(ip);
        silent.fall_silent();
        silent
    }
}

/// A port on which nobody listens and that no other test is given: those get
/// theirs from the kernel, which hands out none below 32768.
pub(crate) fn port_of_its_own() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 10;
    (0..1_000)
        .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed))
        .find(|&port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
        .expect("one of a thousand ports is free")
}
