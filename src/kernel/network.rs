//! The kernel's TCP as the engine's network: a listener, and the options that
//! bound what the kernel holds for each connection.
//!
//! Owns the listener and the registration of events. Refuses to decide when to
//! accept, read, write or close: the engine does.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::splice_pipe::SplicePipe;
use super::stream::KernelStream;
use super::tcp_info;
use crate::engine::{ClientId, Network, Spliced};
use crate::limits::{
    BACKLOG_CONNECTIONS, KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, LONGEST_RETRANSMISSION,
    Limits,
};

/// The kernel's TCP, with one listener.
pub(crate) struct KernelNetwork {
    listener: Option<TcpListener>,
    registry: Registry,
    unsent_bytes: usize,
    /// Opened at the first splice.
    pipe: Option<SplicePipe>,
}

impl KernelNetwork {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The port is taken, the address is not of this machine, or the process
    /// may not use the port.
    pub(crate) fn listen(
        registry: Registry,
        token: mio::Token,
        address: SocketAddr,
        limits: &Limits,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit these when they are set before listen.
        set_options(SockRef::from(&socket), limits.unsent_bytes)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG_CONNECTIONS)?;
        let mut listener = TcpListener::from_std(socket.into());
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener: Some(listener),
            registry,
            unsent_bytes: limits.unsent_bytes,
            pipe: None,
        })
    }

    /// The address of the listener, with the port that was taken.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Some(listener) => listener.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Sets the options of all connections, accepted and opened.
fn set_options(socket: SockRef<'_>, unsent_bytes: usize) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    // Before Linux 6.15 the kernel has no such option, and an outage of little
    // more than 3 s then lasts 6.2 s for the sender.
    let _ = tcp_info::set_longest_retransmission(socket.as_fd(), LONGEST_RETRANSMISSION);
    match u32::try_from(unsent_bytes) {
        Ok(bytes) if bytes > 0 => socket.set_tcp_notsent_lowat(bytes),
        _ => Ok(()),
    }
}

impl Network for KernelNetwork {
    type Stream = KernelStream;

    fn accept(&mut self) -> io::Result<(KernelStream, SocketAddr)> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        let (stream, peer) = listener.accept()?;
        Ok((KernelStream::new(stream), peer))
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
        set_options(SockRef::from(&stream), self.unsent_bytes)?;
        Ok(KernelStream::new(stream))
    }

    fn stop_listening(&mut self) {
        self.listener = None;
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
    use std::time::Duration;

    fn network() -> (mio::Poll, KernelNetwork) {
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let address = ([127, 0, 0, 1], 0).into();
        let network = KernelNetwork::listen(registry, mio::Token(0), address, &Limits::default());
        (poll, network.unwrap())
    }

    #[test]
    fn accepted_and_opened_connections_have_the_same_options() {
        let (mut poll, mut network) = network();
        let ours = network.connect(network.local_addr().unwrap()).unwrap();
        poll.poll(&mut mio::Events::with_capacity(1), Some(Duration::from_secs(10)))
            .unwrap();
        let (theirs, _) = network.accept().unwrap();
        for stream in [&ours.stream, &theirs.stream] {
            let socket = SockRef::from(stream);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
            let unsent = socket.tcp_notsent_lowat().unwrap();
            assert_eq!(unsent as usize, Limits::default().unsent_bytes);
        }
    }
}
