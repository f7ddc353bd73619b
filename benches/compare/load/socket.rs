//! The sockets of clients that are not the prober's.

use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

/// Kernel buffers of a client, in bytes as asked of the kernel; `None` leaves
/// them to the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Buffers {
    send: Option<usize>,
    receive: Option<usize>,
}

impl Buffers {
    /// Buffers of a slow client of `highwater probe`, except for its send
    /// buffer: it receives little, so the bytes that it does not read stay with
    /// the server.
    pub(crate) fn of_slow_client(send: usize) -> Self {
        Self {
            send: Some(send),
            receive: Some(4 * 1024),
        }
    }
}

/// A connected socket that does not block.
pub(super) fn connect(server: SocketAddr, buffers: Buffers) -> Result<TcpStream, String> {
    let fail = |error| format!("cannot connect to {server}: {error}");
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).map_err(fail)?;
    // Before connecting, since the receive buffer decides the window scale.
    if let Some(bytes) = buffers.receive {
        socket.set_recv_buffer_size(bytes).map_err(fail)?;
    }
    if let Some(bytes) = buffers.send {
        socket.set_send_buffer_size(bytes).map_err(fail)?;
    }
    socket.connect(&server.into()).map_err(fail)?;
    socket.set_tcp_nodelay(true).map_err(fail)?;
    socket.set_nonblocking(true).map_err(fail)?;
    Ok(TcpStream::from_std(socket.into()))
}

/// The same, whose events are told by `index`.
pub(super) fn connect_watched(
    server: SocketAddr,
    buffers: Buffers,
    registry: &Registry,
    index: usize,
) -> Result<TcpStream, String> {
    let mut stream = connect(server, buffers)?;
    registry
        .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
        .map_err(|error| format!("cannot watch a client: {error}"))?;
    Ok(stream)
}
