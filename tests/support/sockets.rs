//! Clients: sockets with the buffers that a test wants, and the usual things
//! done with them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
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
    try_connect_with(address, buffers).unwrap()
}

/// As [`connect_with`], where the server may refuse the client: the reset may
/// arrive before the call to connect returns, which then fails.
pub(crate) fn try_connect_with(address: SocketAddr, buffers: Buffers) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    if let Some(bytes) = buffers.receive {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    if let Some(bytes) = buffers.send {
        socket.set_send_buffer_size(bytes).unwrap();
    }
    socket.set_tcp_nodelay(true).unwrap();
    socket.connect(&address.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// Whether the server resets a client that connects now, without a byte.
pub(crate) fn is_refused(address: SocketAddr) -> bool {
    match try_connect_with(address, Buffers::default()) {
        Ok(mut client) => read_to_end(&mut client) == (Vec::new(), End::Reset),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
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

/// Sends the test pattern until `stop`, and then the end. Answers how much was
/// sent, however the connection ended.
pub(crate) fn send_until(stream: &TcpStream, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    let mut sender = stream.try_clone().unwrap();
    thread::spawn(move || {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            match sender.write(&pattern_at(sent, 64 * 1024)) {
                Ok(count) => sent += count,
                Err(_) => return sent,
            }
        }
        // It may have been reset meanwhile.
        let _ = sender.shutdown(Shutdown::Write);
        sent
    })
}

/// A reader that counts what it reads, and demands that it is the test pattern.
pub(crate) struct PatternReader {
    stream: TcpStream,
    piece: Vec<u8>,
    pub(crate) count: usize,
}

impl PatternReader {
    pub(crate) fn new(stream: &TcpStream) -> Self {
        Self {
            stream: stream.try_clone().unwrap(),
            piece: vec![0; 256 * 1024],
            count: 0,
        }
    }

    /// Reads once, at most so many bytes; 0 at the end.
    fn read(&mut self, most: usize) -> io::Result<usize> {
        let most = most.min(self.piece.len());
        let got = self.stream.read(&mut self.piece[..most])?;
        assert!(
            self.piece[..got] == pattern_at(self.count, got),
            "other bytes behind the first {}",
            self.count
        );
        self.count += got;
        Ok(got)
    }

    /// Reads as fast as it can for so long.
    pub(crate) fn read_fast(&mut self, time: Duration) -> io::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time && self.read(usize::MAX)? > 0 {}
        Ok(())
    }

    /// Reads at a steady rate for so long.
    pub(crate) fn read_slowly(&mut self, bytes_per_s: usize, time: Duration) -> io::Result<()> {
        const STEPS_PER_S: u32 = 20;
        let (began, before) = (Instant::now(), self.count);
        while began.elapsed() < time {
            let due = (bytes_per_s as f64 * began.elapsed().as_secs_f64()) as usize;
            match due.saturating_sub(self.count - before) {
                0 => thread::sleep(Duration::from_secs(1) / STEPS_PER_S),
                behind => {
                    if self.read(behind)? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads to the end, which must be in order.
    pub(crate) fn read_rest(&mut self) -> io::Result<()> {
        while self.read(usize::MAX)? > 0 {}
        Ok(())
    }
}
