//! Sockets of the kernel: a listener, its connections, and the options that
//! bound what the kernel holds for each.
//!
//! Owns everything that only Linux can answer. Refuses to decide: when to
//! accept, read, write or close is the turn's affair.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::client::Stream;
use super::client_table::ClientId;
use super::engine::Network;
use super::peer_state::{PeerState, TcpFacts};
use super::tcp_info;
use crate::limits::{BACKLOG_CONNECTIONS, Limits};

/// The kernel's TCP, with one listener.
pub struct KernelNetwork {
    listener: Option<TcpListener>,
    registry: Registry,
    unsent_bytes: usize,
}

impl KernelNetwork {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The address is taken, foreign or forbidden.
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
        socket.set_tcp_nodelay(true)?;
        bound_unsent(SockRef::from(&socket), limits.unsent_bytes)?;
        if limits.receive_buffer_bytes > 0 {
            socket.set_recv_buffer_size(limits.receive_buffer_bytes)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG_CONNECTIONS)?;
        let mut listener = TcpListener::from_std(socket.into());
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener: Some(listener),
            registry,
            unsent_bytes: limits.unsent_bytes,
        })
    }

    /// The address that is listened on, with the port that was taken.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Some(listener) => listener.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn bound_unsent(socket: SockRef<'_>, unsent_bytes: usize) -> io::Result<()> {
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
        Ok((KernelStream { stream }, peer))
    }

    fn register(&mut self, stream: &mut KernelStream, id: ClientId) -> io::Result<()> {
        let both = Interest::READABLE.add(Interest::WRITABLE);
        self.registry
            .register(&mut stream.stream, mio::Token(id.to_token()), both)
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<KernelStream> {
        let stream = TcpStream::connect(address)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_nodelay(true)?;
        bound_unsent(socket, self.unsent_bytes)?;
        Ok(KernelStream { stream })
    }

    fn stop_listening(&mut self) {
        self.listener = None;
    }
}

/// One connection of the kernel's TCP.
#[derive(Debug)]
pub struct KernelStream {
    stream: TcpStream,
}

impl Read for KernelStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for KernelStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.stream.write(data)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for KernelStream {
    fn descriptor(&self) -> i32 {
        self.stream.as_raw_fd()
    }

    fn finish_connect(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            // With nobody listening on a local port from the range of outgoing
            // ones, the kernel may give a connection that very port, and
            // connect it to itself.
            Ok(peer) if self.stream.local_addr().is_ok_and(|local| local == peer) => {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn shut_down_write(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    fn reset_on_close(&mut self) {
        // This cannot fail on a socket; if it did, a plain close would follow.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn bound_close(&mut self, time: Duration) {
        // The end itself may be lost, and the kernel would repeat it for a
        // minute and more. Where this is not to be had, it does.
        let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(time));
    }

    fn is_settled(&self) -> bool {
        let socket = self.stream.as_fd();
        // After a reset the kernel's count stands still, so ask for the state.
        matches!(tcp_info::unacknowledged_bytes(socket), Ok(0)) || tcp_info::is_closed(socket)
    }

    fn peer_state(&self) -> PeerState {
        match tcp_info::read(self.stream.as_fd()) {
            Ok(info) => PeerState::read(&info),
            Err(_) => PeerState::Unknown,
        }
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.stream.take_error().ok().flatten()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    fn clamp_receive_buffer(&mut self, _clamped: bool) {}
}

impl From<TcpFacts> for PeerState {
    fn from(facts: TcpFacts) -> Self {
        Self::read(&facts)
    }
}
