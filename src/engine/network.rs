//! What an engine asks of the world: a network, its streams, and what is known
//! of the peer at the far end.
//!
//! Owns the traits that the kernel and the simulation implement. Refuses to
//! know either of them.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::client_table::ClientId;

/// Where connections come from: the kernel, or a simulation.
pub trait Network {
    /// A connection.
    type Stream: Stream;

    /// Takes the next connection that waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when none waits; others as accept(2) has them.
    fn accept(&mut self) -> io::Result<(Self::Stream, SocketAddr)>;

    /// Asks for events of `stream`, of both kinds and edge-triggered, under
    /// this id. Called once for every stream.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2) has them.
    fn register(&mut self, stream: &mut Self::Stream, id: ClientId) -> io::Result<()>;

    /// Begins a connection.
    ///
    /// # Errors
    ///
    /// The connection could not even be begun.
    fn connect(&mut self, address: SocketAddr) -> io::Result<Self::Stream>;

    /// Accepts nobody any more. Called once, when the server stops.
    fn stop_listening(&mut self);

    /// Moves at most as much as `rest` has room for from one connection to
    /// another, without copying it. What `to` refuses is put into `rest`.
    /// `None` where this cannot be done: read and write then.
    ///
    /// # Errors
    ///
    /// What reading `from` led to; nothing was moved then.
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

/// What moving bytes from one connection to another led to.
#[derive(Debug)]
pub struct Spliced {
    /// Bytes taken from the first; zero is its end.
    pub taken_bytes: usize,
    /// Bytes of these that the second took, or why it takes none any more.
    pub sent: io::Result<usize>,
}

/// What the engine needs of a connection: non-blocking reads and writes that
/// answer [`ErrorKind::WouldBlock`], and the ways to end it. Dropping it
/// closes it.
pub trait Stream: Read + Write {
    /// The number by which the log calls this connection: its descriptor.
    fn descriptor(&self) -> i32;

    /// Whether a connection in the making has been made. `Ok(false)` says not
    /// yet; call again at the next event.
    ///
    /// # Errors
    ///
    /// Why the connection could not be made.
    fn finish_connect(&mut self) -> io::Result<bool>;

    /// Announces the end of what we send; reading goes on.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    fn shut_down_write(&mut self) -> io::Result<()>;

    /// Makes the coming close a reset, which also frees what the kernel holds.
    fn reset_on_close(&mut self);

    /// Has the coming close, an orderly one, give up after this time if the
    /// peer does not acknowledge it. Where a close leaves nothing behind there
    /// is nothing to do.
    fn bound_close(&mut self, time: Duration) {
        let _ = time;
    }

    /// Whether the kernel holds nothing of ours any more: all of it was
    /// acknowledged, or the connection is gone.
    fn is_settled(&self) -> bool;

    /// Why nothing moves.
    fn peer_state(&self) -> PeerState;

    /// The error that the connection ended with, taken out, while nothing of
    /// it is being read: a reset must be noticed also then. `None` where all
    /// is well, or where only reading and writing tell.
    fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    /// Our end of the connection; `None` where that is not known.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// Makes the kernel's receive buffer (`SO_RCVBUF`) smaller, by as much as
    /// nothing is lost by it: what the peer was promised room for must fit,
    /// or it is thrown away as it comes, and sent again only after 200 ms and
    /// more. `read_bytes` will be read next. Answers whether the buffer now
    /// has this size; if not, call again before the next read.
    fn shrink_receive_buffer(&mut self, bytes: u32, read_bytes: u32) -> bool {
        let _ = (bytes, read_bytes);
        true
    }

    /// Makes sure that the kernel hears the acknowledgements of a peer whose
    /// queue is full; none for `silence` is what makes it doubt that. Answers
    /// whether the receive buffer had to grow for it, by some 128 KiB.
    ///
    /// A kernel that had to throw away what came in (Linux 6.6 and later)
    /// withdraws the window that it promised, and from then on turns away
    /// every segment from behind it: acknowledgements too, where the peer is
    /// past it by less than the unit in which windows are told. As we do not
    /// read while the queue is full, neither side would ever move again, and a
    /// client that reads everything would look like a network that is gone.
    fn check_acknowledgements(&mut self, silence: Duration) -> bool {
        let _ = silence;
        false
    }

    /// Gives the kernel's receive buffer this size, larger than it has, or
    /// back to the kernel's own sizing.
    fn set_receive_buffer(&mut self, bytes: Option<u32>) {
        let _ = bytes;
    }

    /// What the peer is ready to take, or `None` where that cannot be told.
    fn peer_window(&self) -> Option<PeerWindow> {
        None
    }
}

/// Why a connection is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// The peer is there and answers, but its window is closed: the program
    /// behind it does not read.
    NotReading,
    /// What we sent is not even acknowledged: the network or the machine is
    /// gone, and has been for this long.
    NetworkGone(Duration),
    /// The window is open and data gets through, only too slowly.
    ReadingSlowly,
    /// The kernel does not tell.
    Unknown,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReading => f.write_str("peer is not reading"),
            Self::NetworkGone(since) => write!(f, "network gone for {:.1} s", since.as_secs_f64()),
            Self::ReadingSlowly => f.write_str("peer reads too slowly"),
            Self::Unknown => f.write_str("state of the peer unknown"),
        }
    }
}

/// What the kernel knows of the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerWindow {
    /// Bytes that the peer's last word allows us to send (`tcpi_snd_wnd`).
    pub window_bytes: u32,
    /// The shortest round trip so far (`tcpi_min_rtt`).
    pub round_trip: Duration,
}
