//! One socket of the kernel's TCP as the engine's stream.
//!
//! Owns the system calls on one connection. Refuses to decide when to make
//! them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;

use super::tcp_info;
use crate::engine::{FileSource, PeerState, PeerWindow, Stream};
use crate::limits::READ_BUFFER_BYTES;

/// The largest segment, that of the loopback. A peer sends a segment only when
/// all of it fits the window, so nothing is on its way in a smaller window.
const LARGEST_SEGMENT_BYTES: u32 = 64 * 1024;

/// One connection of the kernel's TCP.
#[derive(Debug)]
pub(crate) struct KernelStream {
    pub(super) stream: TcpStream,
}

impl KernelStream {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self { stream }
    }
}

impl Read for KernelStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Straight to the kernel: in libc each call is a place where a thread
        // may be cancelled, which costs 60 instructions.
        Ok(rustix::net::recv(&self.stream, buffer, RecvFlags::empty())?.0)
    }
}

impl Write for KernelStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.stream, data, SendFlags::NOSIGNAL)?)
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
            // If nobody listens on a local port of the ephemeral range, the
            // kernel may give that very port to the connection, and connect it
            // to itself.
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
        // This does not fail on a socket; if it did, a plain close would follow.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn bound_close(&mut self, time: Duration) {
        // The FIN may be lost, and the kernel would repeat it for more than a
        // minute. If this option fails, the kernel does that.
        let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(time));
    }

    fn bound_retransmissions(&mut self, longest: Duration) {
        // Before Linux 6.15 there is no such option, and never was a bound.
        let _ = tcp_info::set_longest_retransmission(self.stream.as_fd(), longest);
    }

    fn unacknowledged_bytes(&self) -> u64 {
        tcp_info::unacknowledged_bytes(&self.stream).unwrap_or(0)
    }

    fn send_file(&mut self, file: &dyn FileSource, offset: u64, count: usize) -> io::Result<usize> {
        if let Some(descriptor) = file.descriptor() {
            let mut offset = offset;
            return Ok(rustix::fs::sendfile(
                &self.stream,
                descriptor,
                Some(&mut offset),
                count,
            )?);
        }
        let mut buffer = vec![0; count.min(READ_BUFFER_BYTES)];
        match file.read_at(offset, &mut buffer)? {
            0 => Ok(0),
            length => self.write(&buffer[..length]),
        }
    }

    fn is_settled(&self) -> bool {
        let socket = self.stream.as_fd();
        // After a reset the kernel's count stands still, so the state decides.
        matches!(tcp_info::unacknowledged_bytes(socket), Ok(0)) || tcp_info::is_closed(socket)
    }

    fn peer_state(&self) -> PeerState {
        match tcp_info::read(self.stream.as_fd()) {
            Ok(facts) => facts.peer_state(),
            Err(_) => PeerState::Unknown,
        }
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.stream.take_error().ok().flatten()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    fn shrink_receive_buffer(&mut self, bytes: u32, read_bytes: u32) -> bool {
        let needed_bytes = match tcp_info::receive_memory(self.stream.as_fd()) {
            Ok(memory) => {
                let stays_bytes = memory.held_bytes.saturating_sub(read_bytes);
                let is_closed = memory.announced_bytes < LARGEST_SEGMENT_BYTES;
                stays_bytes + if is_closed { 0 } else { memory.announced_bytes }
            }
            // Without an answer memory is bounded, at the price of a pause.
            Err(_) => 0,
        };
        // The kernel doubles the size that it is given, and returns the double.
        let socket = SockRef::from(&self.stream);
        let present_bytes = socket.recv_buffer_size().unwrap_or(usize::MAX);
        let needed_bytes = needed_bytes.min(u32::try_from(present_bytes).unwrap_or(u32::MAX));
        let size = bytes.max(needed_bytes / 2);
        // A failure costs memory or speed, no correctness.
        let _ = socket.set_recv_buffer_size(size as usize);
        size == bytes
    }

    fn check_acknowledgements(&mut self, silence: Duration) -> bool {
        let socket = self.stream.as_fd();
        if !tcp_info::read(socket).is_ok_and(|facts| facts.lacks_ack_for(silence)) {
            return false;
        }
        match tcp_info::receive_memory(socket) {
            // With nothing to read, the window is open and ACKs come in.
            Ok(memory) if memory.held_bytes > 0 => {
                self.set_receive_buffer(Some(memory.held_bytes / 2 + LARGEST_SEGMENT_BYTES));
                true
            }
            _ => false,
        }
    }

    fn set_receive_buffer(&mut self, bytes: Option<u32>) {
        // A failure costs memory or speed, no correctness.
        let _ = match bytes {
            Some(bytes) => SockRef::from(&self.stream).set_recv_buffer_size(bytes as usize),
            None => tcp_info::unlock_receive_buffer(self.stream.as_fd()),
        };
    }

    fn kernel_bytes(&self) -> u64 {
        tcp_info::kernel_bytes(self.stream.as_fd()).unwrap_or(0)
    }

    fn peer_window(&self) -> Option<PeerWindow> {
        tcp_info::peer_window(self.stream.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Protocol, Socket, Type};

    /// A connection from outside, and its peer.
    fn connection() -> (KernelStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        for socket in [&peer, &ours] {
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        (KernelStream::new(TcpStream::from_std(ours)), peer)
    }

    #[test]
    fn a_buffer_shrinks_over_several_reads_as_the_peer_uses_up_what_it_was_promised() {
        const LARGE: u32 = 256 * 1024;
        const SMALL: u32 = 64 * 1024;
        let (mut stream, mut peer) = connection();
        stream.set_receive_buffer(Some(LARGE));
        let mut buffer = vec![0; SMALL as usize];
        // A window grows with what comes in.
        let flow = |stream: &mut KernelStream, peer: &mut std::net::TcpStream, buffer: &mut [u8]| {
            let _ = stream.read(buffer);
            while peer.write(&[7; 16 * 1024]).is_ok() {}
        };
        for _ in 0..200 {
            flow(&mut stream, &mut peer, &mut buffer);
        }
        assert!(
            !stream.shrink_receive_buffer(SMALL, 0),
            "a full buffer cannot shrink at once"
        );
        let is_shrunk = (0..200).any(|_| {
            let is_shrunk = stream.shrink_receive_buffer(SMALL, SMALL);
            flow(&mut stream, &mut peer, &mut buffer);
            is_shrunk
        });
        assert!(is_shrunk);
    }

    /// Waits until this holds, for ten seconds at most.
    fn eventually(mut holds: impl FnMut() -> bool) -> bool {
        (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            holds()
        })
    }

    #[test]
    fn a_peer_whose_acknowledgements_a_full_buffer_keeps_out_is_heard_again() {
        let (mut stream, mut peer) = connection();
        let dropped = |stream: &KernelStream| tcp_info::dropped_segments(stream.stream.as_fd()) > 0;
        let settled = |stream: &KernelStream| stream.is_settled();
        let gone = |stream: &KernelStream| matches!(stream.peer_state(), PeerState::NetworkGone(_));
        stream.set_receive_buffer(Some(256 * 1024));
        for _ in 0..2 {
            peer.write_all(&[7; 16 * 1024]).unwrap();
        }
        assert!(eventually(
            || tcp_info::receive_memory(stream.stream.as_fd()).is_ok_and(|memory| memory.held_bytes > 0)
        ));
        // What was promised fits no longer: sooner or later a segment is
        // thrown away, and that one is all that is on its way.
        stream.set_receive_buffer(Some(1));
        assert!(eventually(|| peer.write(&[7; 53]).is_err() || dropped(&stream)));
        stream.write_all(&[8; 57]).unwrap();
        assert!(eventually(|| peer.read_exact(&mut [0; 57]).is_ok()));
        // On a kernel without this trouble they are acknowledged at once.
        assert!(eventually(|| settled(&stream) || gone(&stream)));
        stream.check_acknowledgements(Duration::ZERO);
        assert!(eventually(|| settled(&stream)), "{}", stream.peer_state());
    }

    #[test]
    fn a_connection_that_the_kernel_joined_to_itself_counts_as_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any_port.into()).unwrap();
        socket.connect(&socket.local_addr().unwrap()).unwrap();
        let mut itself = KernelStream {
            stream: TcpStream::from_std(socket.into()),
        };
        let refusal = itself.finish_connect().unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::ConnectionRefused);
    }
}
