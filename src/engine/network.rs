//! What an engine asks of the world: a network, its streams, and the state of
//! the peer at the far end.
//!
//! Owns the traits that the kernel and the simulation implement. Refuses to
//! know either of them.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::client_table::ClientId;
use super::file::FileSource;
use crate::limits::{Limits, SMALLEST_READ_BYTES};

/// The source of connections: the kernel, or a simulation.
pub trait Network {
    /// One connection.
    type Stream: Stream;

    /// Takes the next connection that waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if no connection waits; otherwise those of accept(2).
    fn accept(&mut self) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Registers `stream` for edge-triggered events, *readable* and *writable*,
    /// under this id. Called once for each stream.
    ///
    /// # Errors
    ///
    /// Those of epoll_ctl(2).
    fn register(&mut self, stream: &mut Self::Stream, id: ClientId) -> io::Result<()>;

    /// Begins a connection to `address`, and does not wait for it.
    ///
    /// # Errors
    ///
    /// Those of connect(2), except that the connection is in progress.
    fn connect(&mut self, address: SocketAddr) -> io::Result<Self::Stream>;

    /// Closes the listener. Called once, when the server stops.
    fn stop_listening(&mut self);

    /// Other limits hold for connections that are accepted or opened from now on.
    /// What these limits mean for present ones is said to their streams.
    fn limits_changed(&mut self, limits: &Limits) {
        let _ = limits;
    }

    /// Moves bytes from one connection to another without a copy, at most as
    /// many as `rest` has room for. Bytes that `to` refuses are put into `rest`.
    /// At the mark of urgent data it may find nothing, or the FIN, though there is
    /// more; the engine then reads.
    /// `None` if the network cannot do this; the engine then reads and writes.
    ///
    /// # Errors
    ///
    /// The error of reading `from`; nothing was moved.
    fn splice(
        &mut self,
        from: &mut Self::Stream,
        to: &mut Self::Stream,
        rest: &mut [u8],
    ) -> Option<io::Result<Spliced>> {
        let _ = (from, to, rest);
        None
    }
}

/// The outcome of a [`splice`](Network::splice).
#[derive(Debug)]
pub struct Spliced {
    /// Bytes taken from the first connection; zero is its FIN.
    pub taken_bytes: usize,
    /// How many of these the second connection took, or why it takes none.
    pub sent: io::Result<usize>,
}

/// One connection: reads and writes that never block but answer
/// [`ErrorKind::WouldBlock`](io::ErrorKind::WouldBlock), and the ways to end
/// it. Dropping a stream closes the connection.
pub trait Stream: Read + Write {
    /// The number of this connection in the log: its descriptor.
    fn descriptor(&self) -> i32;

    /// Whether a connection that was begun is made. On `Ok(false)` call again
    /// at the next event.
    ///
    /// # Errors
    ///
    /// The reason why the connection failed.
    fn finish_connect(&mut self) -> io::Result<bool>;

    /// Sends our FIN; reading goes on.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    fn shut_down_write(&mut self) -> io::Result<()>;

    /// Makes the coming close a reset, which also frees the kernel's memory.
    fn reset_on_close(&mut self);

    /// Bounds the time that the kernel repeats our FIN after an orderly close,
    /// if the peer does not acknowledge it.
    fn bound_close(&mut self, time: Duration) {
        let _ = time;
    }

    /// Bounds the time between two retransmissions from now on.
    fn bound_retransmissions(&mut self, longest: Duration) {
        let _ = longest;
    }

    /// Bytes that the kernel holds for the peer: not sent, or not acknowledged.
    fn unacknowledged_bytes(&self) -> u64 {
        u64::from(!self.is_settled())
    }

    /// Sends at most `count` bytes of a file, from `offset` on. Zero says that
    /// the file ends before `offset`.
    ///
    /// # Errors
    ///
    /// Those of reading the file and of writing.
    fn send_file(&mut self, file: &dyn FileSource, offset: u64, count: usize) -> io::Result<usize> {
        let mut buffer = [0; SMALLEST_READ_BYTES];
        let most = count.min(buffer.len());
        let length = file.read_at(offset, &mut buffer[..most])?;
        if length == 0 {
            return Ok(0);
        }
        self.write(&buffer[..length])
    }

    /// Whether the kernel holds no bytes that we sent: the peer has
    /// acknowledged all of them, or the connection is gone.
    fn is_settled(&self) -> bool;

    /// Why the peer takes nothing.
    fn peer_state(&self) -> PeerState;

    /// Takes the error that ended the connection, such as a reset. The engine
    /// asks while it may not read. `None` if there is none, or if only reads
    /// and writes tell.
    fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    /// Our own address of the connection, if it is known.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// Shrinks the kernel's receive buffer (`SO_RCVBUF`) towards `bytes`, as
    /// far as no bytes are lost. The window that was announced to the peer must
    /// still fit: the kernel drops what does not fit, and the peer repeats it
    /// only after 200 ms or more. `read_bytes` will be read next. Answers
    /// whether the buffer now has this size; if not, call again before the next
    /// read.
    fn shrink_receive_buffer(&mut self, bytes: u32, read_bytes: u32) -> bool {
        let _ = (bytes, read_bytes);
        true
    }

    /// Makes sure that our kernel does not drop the ACKs of a peer whose queue
    /// is full, if none came for `silence`. Answers whether the receive buffer
    /// was enlarged for that, by some 128 KiB.
    ///
    /// A kernel that has to drop input (Linux 6.6 and later) withdraws the
    /// window that it announced. From then on it drops every segment behind the
    /// window, and ACKs too, if the peer is past it by less than the unit of
    /// windows. We do not read while the queue is full, so neither side would
    /// ever move again: a client that reads everything would look like a
    /// network that is gone.
    fn check_acknowledgements(&mut self, silence: Duration) -> bool {
        let _ = silence;
        false
    }

    /// Enlarges the kernel's receive buffer to this size; `None` returns it to
    /// the kernel's own sizing.
    fn set_receive_buffer(&mut self, bytes: Option<u32>) {
        let _ = bytes;
    }

    /// Memory that the kernel holds for this connection, in bytes: unread, not
    /// acknowledged, and set aside.
    fn kernel_bytes(&self) -> u64 {
        0
    }

    /// The peer's window, if it is known.
    fn peer_window(&self) -> Option<PeerWindow> {
        None
    }
}

/// Why a connection is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// The peer answers, but its window is closed: the program at the far end
    /// does not read, or too slowly to show it.
    WindowClosed,
    /// The peer has acknowledged nothing for this long: the network or the
    /// machine is gone.
    NetworkGone(Duration),
    /// The window is open and data gets through, but too slowly.
    ReadingSlowly,
    /// The kernel does not tell.
    Unknown,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowClosed => f.write_str("window closed"),
            Self::NetworkGone(since) => write!(f, "network gone for {:.1} s", since.as_secs_f64()),
            Self::ReadingSlowly => f.write_str("peer reads too slowly"),
            Self::Unknown => f.write_str("state of the peer unknown"),
        }
    }
}

/// The window of a peer, and the round trip to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerWindow {
    /// The window that the peer announced last, in bytes (`tcpi_snd_wnd`).
    pub window_bytes: u32,
    /// The shortest round trip so far (`tcpi_min_rtt`).
    pub round_trip: Duration,
    /// The peer has withdrawn the window that it announced: it is closed, with
    /// bytes on their way into it. Their memory exceeded the peer's buffer.
    pub is_withdrawn: bool,
}
