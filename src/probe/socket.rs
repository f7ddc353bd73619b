//! Making the prober's own sockets: non-blocking, with the buffers that each kind of client needs.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

/// Kernel buffers of one client, in bytes as asked of the kernel (which doubles
/// them, socket(7)); `None` leaves the kernel's own tuning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Buffers {
    /// SO_RCVBUF.
    pub(crate) receive: Option<usize>,
    /// SO_SNDBUF.
    pub(crate) send: Option<usize>,
}

/// Starts connecting; a writable event with no error pending says that it worked.
pub(crate) fn start_connecting(address: SocketAddr, buffers: Buffers) -> io::Result<TcpStream> {
    let socket = open(address, buffers)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Connects, waiting for at most `patience`; the stream does not block.
pub(crate) fn connect(
    address: SocketAddr,
    buffers: Buffers,
    patience: Duration,
) -> io::Result<std::net::TcpStream> {
    let socket = open(address, buffers)?;
    socket.connect_timeout(&address.into(), patience)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn open(address: SocketAddr, buffers: Buffers) -> io::Result<Socket> {
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
