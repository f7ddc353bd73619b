//! Making the prober's own sockets: non-blocking, with the buffers that each kind of client needs.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::probe::clients::opening::{Greet, Opening};
use crate::probe::error::ProbeError;
use crate::probe::plan::Plan;

/// Clients of one kind that connect at once; below any usual listen backlog.
pub(crate) const CONNECTING_AT_ONCE: usize = 64;

/// Kernel buffers of one client, in bytes as asked of the kernel (which doubles
/// them, socket(7)); `None` leaves the kernel's own tuning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Buffers {
    /// SO_RCVBUF.
    pub(crate) receive: Option<usize>,
    /// SO_SNDBUF.
    pub(crate) send: Option<usize>,
}

/// The receive buffer of healthy clients that never have more than [`FEW_BYTES_ON_THE_WAY`]: with a
/// window that may still grow, Linux computes a new one after every read (0.4 % of a message's cost).
const PING_PONG_BUFFER_BYTES: usize = 64 << 10;
/// A quarter of that buffer, so that a window is never what a healthy client waits for.
const FEW_BYTES_ON_THE_WAY: usize = 16 << 10;

impl Buffers {
    /// Those of a healthy client to which at most so much is on its way: a size of their own
    /// only where that is little; else the kernel tunes them.
    pub(crate) fn of_healthy(bytes_on_the_way: usize) -> Self {
        Self {
            receive: (bytes_on_the_way <= FEW_BYTES_ON_THE_WAY).then_some(PING_PONG_BUFFER_BYTES),
            send: None,
        }
    }
}

/// Starts connecting; a writable event with no error pending says that it worked.
pub(crate) fn start_connecting(address: SocketAddr, buffers: Buffers) -> io::Result<TcpStream> {
    let socket = make(address, buffers)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Lets the poll tell of all that happens to `stream`, under this number.
pub(crate) fn watch(registry: &Registry, stream: &mut TcpStream, number: usize) -> Result<(), ProbeError> {
    registry
        .register(stream, Token(number), Interest::READABLE | Interest::WRITABLE)
        .map_err(ProbeError::system("watch a socket"))
}

/// The stream of a client that the driver watches.
pub(crate) trait ClientStream: Greet + Send + Sized + 'static {
    /// A stream over this connection, which has begun to be made.
    fn over(tcp: TcpStream, plan: &Plan) -> Self;

    /// The connection.
    fn tcp(&self) -> &TcpStream;
}

impl Greet for DirectStream {}

impl ClientStream for DirectStream {
    fn over(tcp: TcpStream, _: &Plan) -> Self {
        Self::new(tcp)
    }

    fn tcp(&self) -> &TcpStream {
        &self.0
    }
}

/// What became of a connection that is being made.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Another event will tell.
    NotYet,
    /// It stands, and these bytes came behind the last step before the protocol.
    Stands(Vec<u8>),
    /// It was refused, or ended before the protocol.
    Failed,
}

/// Goes on with a connection that is being made: the connection itself, then the steps before the
/// protocol.
pub(crate) fn open<S: ClientStream>(
    stream: &mut S,
    opening: &mut Option<Box<Opening>>,
    event: &Event,
) -> Opened {
    if event.is_error() || stream.tcp().peer_addr().is_err() {
        let is_over = event.is_error() || event.is_write_closed();
        return if is_over { Opened::Failed } else { Opened::NotYet };
    }
    let driven = opening.as_mut().map_or(Ok(true), |opening| opening.drive(stream));
    match driven {
        Ok(true) => Opened::Stands(
            opening
                .take()
                .map_or_else(Vec::new, |opening| opening.into_rest()),
        ),
        Ok(false) if event.is_write_closed() => Opened::Failed,
        Ok(false) => Opened::NotYet,
        Err(_) => Opened::Failed,
    }
}

/// Connects, waiting for at most `patience`; the stream does not block.
pub(crate) fn connect(
    address: SocketAddr,
    buffers: Buffers,
    patience: Duration,
) -> io::Result<std::net::TcpStream> {
    let socket = make(address, buffers)?;
    socket.connect_timeout(&address.into(), patience)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn make(address: SocketAddr, buffers: Buffers) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Before connecting: the receive buffer decides which window scale is offered.
    if let Some(bytes) = buffers.receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = buffers.send {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// A stream that asks the kernel directly. The C library's `recv` and `send` are
/// points of cancellation, and in a process with threads they pay for that with
/// atomic operations, as much as all our own work for a message of 64 bytes.
#[derive(Debug)]
pub(crate) struct DirectStream(TcpStream);

impl DirectStream {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl Deref for DirectStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl DerefMut for DirectStream {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}

impl Read for DirectStream {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.0, buffer, RecvFlags::empty())?.0)
    }
}

impl Write for DirectStream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
