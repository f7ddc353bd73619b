//! Clients: sockets with the buffers that a test wants, and the usual things
//! done with them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use super::{PATIENCE, pattern_at};

/// Nothing taken for so long counts as nothing taken any more.
const QUIET: Duration = Duration::from_millis(250);

/// The buffers of a client's socket, in bytes; `None` leaves one to the
/// kernel. The kernel doubles what it is given.
#[derive(Clone, Copy, Default)]
pub(crate) struct Buffers {
    pub(crate) receive: Option<usize>,
    pub(crate) send: Option<usize>,
}

impl Buffers {
    /// Small ones, so that little fits between a client and the queue that
    /// the server keeps for it.
    pub(crate) const SMALL: Self = Self {
        receive: Some(4 * 1024),
        send: Some(16 * 1024),
    };

    /// A receive buffer in which a slow reader's progress is not too coarse
    /// for the server to see.
    pub(crate) const SLOW_READER: Self = Self {
        receive: Some(64 * 1024),
        send: Some(64 * 1024),
    };
}

/// Connects, with bounded reads and writes.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    connect_with(address, Buffers::default())
}

/// Connects from this address of the machine.
pub(crate) fn connect_from(ip: IpAddr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Connects with these buffers, set before the handshake so that the window
/// is scaled for them.
pub(crate) fn connect_with(address: SocketAddr, buffers: Buffers) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    if let Some(bytes) = buffers.receive {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    if let Some(bytes) = buffers.send {
        socket.set_send_buffer_size(bytes).unwrap();
    }
    socket.set_tcp_nodelay(true).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends the test pattern without ever reading, until the other side takes
/// no more; answers how much it took.
pub(crate) fn fill(stream: &mut TcpStream) -> usize {
    fill_up_to(stream, usize::MAX)
}

/// As [`fill`], but no more than `most` bytes.
pub(crate) fn fill_up_to(stream: &mut TcpStream, most: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    let mut progress = Instant::now();
    while taken < most && progress.elapsed() < QUIET {
        let piece = pattern_at(taken, (most - taken).min(64 * 1024));
        match stream.write(&piece) {
            Ok(count) => {
                taken += count;
                progress = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("filling failed after {taken} bytes: {error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    taken
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The end of file: everything has arrived.
    Clean,
    /// `ECONNRESET`.
    Reset,
}

/// Reads to the end, whichever it is.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut data = Vec::new();
    match stream.read_to_end(&mut data) {
        Ok(_) => (data, End::Clean),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (data, End::Reset),
        Err(error) => panic!("reading failed after {} bytes: {error}", data.len()),
    }
}

/// Sends `data` and expects it back.
pub(crate) fn ping(stream: &mut TcpStream, data: &[u8]) -> Duration {
    let began = Instant::now();
    stream.write_all(data).unwrap();
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == data, "other bytes came back");
    began.elapsed()
}

/// Announces the end of what the client sends.
pub(crate) fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Resets the connection, as a client that crashes does.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Cuts a client off: from now on its kernel throws away whatever arrives for
/// it, and so acknowledges nothing, as if the network were gone.
pub(crate) fn cut_off(client: &TcpStream) {
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    SockRef::from(client).attach_filter(&[drop_all]).unwrap();
}

/// Whether the other side has reset this connection; said once. Takes no byte
/// out of it.
pub(crate) fn is_reset(stream: &TcpStream) -> bool {
    matches!(stream.take_error(), Ok(Some(error)) if error.kind() == ErrorKind::ConnectionReset)
}
