//! The kernel's TCP as the engine's network: listeners, and the options that
//! bound what the kernel holds for each connection.
//!
//! Owns the listeners and the registration of events. Refuses to decide when to
//! accept, read, write or close: the engine does.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::splice_pipe::SplicePipe;
use super::stream::KernelStream;
use super::tcp_info;
use crate::engine::{ClientId, Network, Spliced, Stream};
use crate::limits::{BACKLOG_CONNECTIONS, KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, Limits};

/// The kernel's TCP, with its listeners.
pub(crate) struct KernelNetwork {
    listeners: Vec<TcpListener>,
    /// The listener that is asked first, so that none starves another.
    next: usize,
    registry: Registry,
    for_clients: Options,
    for_upstreams: Options,
    /// The listeners, whose options connections inherit, have those of other limits.
    is_reloaded: bool,
    /// Opened at the first splice.
    pipe: Option<SplicePipe>,
}

impl KernelNetwork {
    /// Accepts from `passed`, sockets that listen already, and listens on every
    /// one of `addresses`. With port 0 the kernel chooses the port of the first,
    /// and the others take the same.
    ///
    /// # Errors
    ///
    /// The address that failed. Its port is taken, it is not of this machine,
    /// or the process may not use the port.
    pub(crate) fn listen(
        registry: Registry,
        token: mio::Token,
        passed: Vec<std::net::TcpListener>,
        addresses: &[SocketAddr],
        limits: &Limits,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let mut network = Self {
            listeners: Vec::with_capacity(passed.len() + addresses.len()),
            next: 0,
            registry,
            for_clients: Options::of(limits),
            for_upstreams: Options::of(&limits.for_upstreams()),
            is_reloaded: false,
            pipe: None,
        };
        network.adopt_all(token, passed)?;
        let adopted = network.listeners.len();
        for _ in 1..LISTEN_ATTEMPTS {
            match network.bind_all(token, addresses) {
                // A port that is free at one address may be taken at another.
                Err((address, error))
                    if error.kind() == io::ErrorKind::AddrInUse
                        && address.port() == 0
                        && address != addresses[0] =>
                {
                    network.listeners.truncate(adopted);
                }
                outcome => return outcome.map(|()| network),
            }
        }
        network.bind_all(token, addresses).map(|()| network)
    }

    /// Takes sockets that another program bound, and gives them our options:
    /// connections that it accepted keep theirs.
    fn adopt_all(
        &mut self,
        token: mio::Token,
        passed: Vec<std::net::TcpListener>,
    ) -> Result<(), (SocketAddr, io::Error)> {
        for listener in passed {
            let address = listener
                .local_addr()
                .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
            let listener = self.adopt(token, listener).map_err(|error| (address, error))?;
            self.listeners.push(listener);
        }
        Ok(())
    }

    fn adopt(&self, token: mio::Token, listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        let socket = SockRef::from(&listener);
        self.for_clients.set(SockRef::from(&listener))?;
        // Once more, for the length of the backlog.
        socket.listen(BACKLOG_CONNECTIONS)?;
        let mut listener = TcpListener::from_std(listener);
        self.registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(listener)
    }

    /// The listening sockets once more.
    pub(crate) fn clone_listeners(&self) -> io::Result<Vec<std::net::TcpListener>> {
        let copies = self.listeners.iter().map(|listener| {
            let copy = listener.as_fd().try_clone_to_owned()?;
            Ok(copy.into())
        });
        copies.collect()
    }

    fn bind_all(
        &mut self,
        token: mio::Token,
        addresses: &[SocketAddr],
    ) -> Result<(), (SocketAddr, io::Error)> {
        let has_v4 = addresses.iter().any(SocketAddr::is_ipv4)
            || self
                .local_addrs()
                .is_ok_and(|adopted| adopted.iter().any(SocketAddr::is_ipv4));
        for &address in addresses {
            let mut bound = address;
            if bound.port() == 0
                && let Some(first) = self.listeners.first()
            {
                bound.set_port(first.local_addr().map_err(|error| (address, error))?.port());
            }
            let listener = self
                .bind(token, bound, has_v4)
                .map_err(|error| (address, error))?;
            self.listeners.push(listener);
        }
        Ok(())
    }

    /// Listens on one address. `::` takes clients of IPv4 too, unless they have
    /// a listener of their own.
    fn bind(&self, token: mio::Token, address: SocketAddr, has_v4: bool) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() && has_v4 {
            socket.set_only_v6(true)?;
        }
        // Accepted sockets inherit these when they are set before listen.
        self.for_clients.set(SockRef::from(&socket))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG_CONNECTIONS)?;
        let mut listener = TcpListener::from_std(socket.into());
        self.registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(listener)
    }

    /// The addresses of the listeners, with the port that was taken.
    pub(crate) fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }
}

/// Most ports that are tried where the kernel chooses one for several addresses.
const LISTEN_ATTEMPTS: usize = 16;

/// The options of connections that follow from the limits.
struct Options {
    unsent_bytes: usize,
    longest_retransmission: Duration,
}

impl Options {
    fn of(limits: &Limits) -> Self {
        Self {
            unsent_bytes: limits.unsent_bytes,
            longest_retransmission: limits.longest_retransmission(),
        }
    }

    /// Sets the options of all connections, accepted and opened.
    fn set(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        // An urgent byte (MSG_OOB) is a byte of the stream, at its place in it. Else
        // the kernel takes it out, and nobody ever reads it.
        socket.set_out_of_band_inline(true)?;
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE_AFTER)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_PROBES),
        )?;
        // Before Linux 6.15 the kernel has no such option, and an outage of little
        // more than 3 s then lasts 6.2 s for the sender.
        let _ = tcp_info::set_longest_retransmission(socket.as_fd(), self.longest_retransmission);
        match u32::try_from(self.unsent_bytes) {
            Ok(bytes) if bytes > 0 => socket.set_tcp_notsent_lowat(bytes),
            _ => Ok(()),
        }
    }
}

impl Network for KernelNetwork {
    type Stream = KernelStream;

    fn accept(&mut self) -> io::Result<(KernelStream, SocketAddr)> {
        let count = self.listeners.len();
        for index in (0..count).map(|offset| (self.next + offset) % count) {
            match self.listeners[index].accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    self.next = index + 1;
                    let (stream, peer) = outcome?;
                    let mut stream = KernelStream::new(stream);
                    if self.is_reloaded {
                        stream.bound_retransmissions(self.for_clients.longest_retransmission);
                    }
                    return Ok((stream, peer));
                }
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn register(&mut self, stream: &mut KernelStream, id: ClientId) -> io::Result<()> {
        // A read stops at the mark of urgent data (tcp(7)), so that is an event
        // too.
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.registry
            .register(&mut stream.stream, mio::Token(id.to_token()), all)
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<KernelStream> {
        let stream = TcpStream::connect(address)?;
        self.for_upstreams.set(SockRef::from(&stream))?;
        Ok(KernelStream::new(stream))
    }

    fn stop_listening(&mut self) {
        self.listeners.clear();
    }

    fn limits_changed(&mut self, limits: &Limits) {
        let before = self.for_clients.longest_retransmission;
        self.for_clients.longest_retransmission = limits.longest_retransmission();
        self.for_upstreams.longest_retransmission = limits.for_upstreams().longest_retransmission();
        // Those that wait in the backlog have inherited the options of the listener
        // already, so each is set as it is accepted.
        self.is_reloaded |= self.for_clients.longest_retransmission != before;
    }

    fn splice(
        &mut self,
        from: &mut KernelStream,
        to: &mut KernelStream,
        rest: &mut [u8],
    ) -> Option<io::Result<Spliced>> {
        if self.pipe.is_none() {
            self.pipe = SplicePipe::open().ok();
        }
        let pipe = self.pipe.as_mut()?;
        Some(pipe.carry(from.stream.as_fd(), to.stream.as_fd(), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(addresses: &[SocketAddr]) -> (mio::Poll, KernelNetwork) {
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let network =
            KernelNetwork::listen(registry, mio::Token(0), Vec::new(), addresses, &Limits::default());
        (poll, network.unwrap())
    }

    #[test]
    fn several_listeners_share_a_port_and_none_starves_another() {
        let hosts = [[127, 0, 0, 1], [127, 0, 0, 2]].map(|host| SocketAddr::from((host, 0)));
        let (_poll, mut network) = network(&hosts);
        let addresses = network.local_addrs().unwrap();
        assert_eq!(addresses[0].port(), addresses[1].port());
        let connect = |address| std::net::TcpStream::connect(address).unwrap();
        let _clients = [0, 0, 0, 1].map(|listener: usize| connect(addresses[listener]));
        let mut reached = Vec::new();
        while let Ok((stream, _)) = network.accept() {
            reached.push(stream.stream.local_addr().unwrap());
        }
        assert_eq!(reached.len(), 4);
        assert!(reached[..2].contains(&addresses[1]), "{reached:?}");
    }

    #[test]
    fn a_longer_grace_acts_on_connections_that_are_there_and_on_later_ones() {
        let (mut poll, mut network) = network(&[([127, 0, 0, 1], 0).into()]);
        let address = network.local_addrs().unwrap()[0];
        let mut accept = |network: &mut KernelNetwork| {
            let ours = network.connect(address).unwrap();
            loop {
                poll.poll(&mut mio::Events::with_capacity(1), Some(Duration::from_secs(10)))
                    .unwrap();
                if let Ok((theirs, _)) = network.accept() {
                    return [ours, theirs];
                }
            }
        };
        let longest = |stream: &KernelStream| tcp_info::longest_retransmission_ms(stream.stream.as_fd());
        let [mut upstream, mut client] = accept(&mut network);
        let limits = Limits::default();
        let of_client = Some(limits.longest_retransmission().as_millis() as i32);
        if longest(&client).is_none() {
            return println!("SKIPPED, TCP_RTO_MAX_MS needs Linux 6.15");
        }
        assert_eq!(longest(&client), of_client);
        let longer = Limits {
            grace: Duration::from_secs(60),
            upstream_grace: Duration::from_secs(80),
            ..limits
        };
        network.limits_changed(&longer);
        assert_eq!(longest(&client), of_client, "it is told itself");
        client.bound_retransmissions(longer.longest_retransmission());
        upstream.bound_retransmissions(longer.for_upstreams().longest_retransmission());
        let later = accept(&mut network);
        for [upstream, client] in [[upstream, client], later] {
            assert_eq!(longest(&client), Some(7_500));
            assert_eq!(longest(&upstream), Some(10_000));
        }
    }

    #[test]
    fn accepted_and_opened_connections_have_the_same_options() {
        let (mut poll, mut network) = network(&[([127, 0, 0, 1], 0).into()]);
        let ours = network.connect(network.local_addrs().unwrap()[0]).unwrap();
        poll.poll(&mut mio::Events::with_capacity(1), Some(Duration::from_secs(10)))
            .unwrap();
        let (theirs, _) = network.accept().unwrap();
        for stream in [&ours.stream, &theirs.stream] {
            let socket = SockRef::from(stream);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.out_of_band_inline().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
            let unsent = socket.tcp_notsent_lowat().unwrap();
            assert_eq!(unsent as usize, Limits::default().unsent_bytes);
        }
    }
}
