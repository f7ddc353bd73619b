//! One client over any stream.
//!
//! Owns the stream, the send queue, the clocks, the edges, and the states of
//! the client. Refuses to know other clients, the service and the kernel: what
//! it does to its stream goes through [`Stream`], so that the same code runs
//! on sockets and in a simulation.

pub(super) mod readiness;
pub(super) mod receive_buffer;

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Instant;

use self::readiness::Readiness;
use self::receive_buffer::ReceiveBuffer;
use super::client_table::ClientId;
use super::network::{PeerWindow, Stream};
use super::ready_list::Place;
use super::timers::Timer;
use crate::backpressure::small_list::SmallList;
use crate::backpressure::{Answer, Clocks, Flow, Pipe, SendQueue, Sent, SlowReason};
use crate::limits::reopening_window_bytes;
use crate::log_limit::LogLimit;

/// Most pieces of a queue that one write offers to the socket.
const SLICES_PER_WRITE: usize = 32;

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The connection that we asked for is not made yet.
    Connecting,
    /// Data may flow both ways.
    Open,
    /// The service is done with the client: input is read and dropped, and the
    /// client goes once everything sent was acknowledged.
    Closing(Ending),
    /// The client is marked as closed; the sweep takes it out of the table.
    Closed,
}

/// What the peer of a closing client may see at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The service has said its last word: FIN.
    Complete,
    /// The stop of the server closed the client. If it sends anything more,
    /// the reply to that is missing, and the stream is truncated.
    IfNothingElseCame,
    /// Something meant for the client was lost: only a reset may end its
    /// stream.
    Truncated,
}

/// What comes from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Flowing,
    /// The service wants no more of it for now.
    Paused,
    /// The client has sent its FIN, and it was read.
    Ended,
}

/// What is done for the answer under way that is sent from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// There is no such answer.
    None,
    /// Its next bytes go out as soon as the socket has room.
    Sending,
    /// Its next bytes are being fetched from a disk.
    Waiting,
}

#[derive(Debug)]
pub(super) struct Client<S> {
    pub(super) stream: S,
    pub(super) peer: SocketAddr,
    pub(super) queue: SendQueue,
    pub(super) clocks: Clocks,
    /// Where its bytes go without asking the service.
    pub(super) pipe: Pipe<ClientId>,
    /// The clients whose pipes lead here.
    pub(super) sources: SmallList<ClientId>,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// The longest that the queue has been, in bytes, up to 4 GiB.
    pub(super) peak_bytes: u32,
    /// The largest window that its peer was seen to announce.
    pub(super) largest_window_bytes: u32,
    /// Bytes that the service holds for it, such as an unfinished frame.
    pub(super) held_bytes: usize,
    pub(super) upstream_of: UpstreamOf,
    /// Since when we wait for the peer: to accept our connection, or to
    /// acknowledge the last bytes sent.
    pub(super) awaiting_since: Option<Instant>,
    pub(super) readiness: Readiness,
    pub(super) phase: Phase,
    pub(super) input: Input,
    pub(super) place: Place,
    pub(super) file: FileState,
    /// It has one of the seats of its address.
    pub(super) is_counted: bool,
    /// The engine watches whether the peer acknowledges what it is sent.
    pub(super) is_watched: bool,
    /// Its peer was seen to withdraw its window.
    pub(super) has_withdrawn_window: bool,
    /// Our FIN was sent.
    pub(super) fin_sent: bool,
    /// It is looked at from time to time, as it is half-closed.
    pub(super) half_closed_watched: bool,
    /// The service hears when the socket takes bytes.
    pub(super) calls_when_writable: bool,
    /// The last read brought so much that more is worth splicing.
    pub(super) is_bulk: bool,
    pub(super) receive_buffer: ReceiveBuffer,
    pub(super) blocked_log: LogLimit,
}

/// The descriptor of the client that an upstream was opened for, or none, in
/// four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpstreamOf(i32);

impl UpstreamOf {
    /// No descriptor is negative.
    pub(super) const NO_CLIENT: Self = Self(-1);

    pub(super) const fn of(descriptor: i32) -> Self {
        Self(descriptor)
    }

    pub(super) const fn descriptor(self) -> Option<i32> {
        if self.0 < 0 { None } else { Some(self.0) }
    }
}

impl<S> Client<S> {
    pub(super) fn is_upstream(&self) -> bool {
        self.upstream_of != UpstreamOf::NO_CLIENT
    }
}

impl<S: Stream> Client<S> {
    pub(super) fn new(stream: S, peer: SocketAddr, high_water_mark_bytes: usize) -> Self {
        Self {
            stream,
            peer,
            queue: SendQueue::new(high_water_mark_bytes),
            clocks: Clocks::default(),
            pipe: Pipe::default(),
            sources: SmallList::Empty,
            received_bytes: 0,
            sent_bytes: 0,
            peak_bytes: 0,
            largest_window_bytes: 0,
            held_bytes: 0,
            upstream_of: UpstreamOf::NO_CLIENT,
            awaiting_since: None,
            readiness: Readiness::NEW,
            phase: Phase::Open,
            input: Input::Flowing,
            place: Place::NEW,
            file: FileState::None,
            is_counted: false,
            is_watched: false,
            has_withdrawn_window: false,
            fin_sent: false,
            half_closed_watched: false,
            calls_when_writable: false,
            is_bulk: false,
            receive_buffer: ReceiveBuffer::default(),
            blocked_log: LogLimit::default(),
        }
    }

    /// Whether the client may be read now, edges aside.
    pub(super) fn wants_read(&self) -> bool {
        if self.phase == Phase::Open {
            self.input == Input::Flowing && self.pipe.flow() == Flow::Read
        } else {
            self.is_open() && self.input != Input::Ended
        }
    }

    /// Whether there is something to do that no edge will announce.
    pub(super) fn has_work(&self) -> bool {
        let wants_to_write = self.has_output() || self.calls_when_writable && self.accepts_writes();
        let can_write = self.readiness.is_writable() && wants_to_write;
        let can_read = self.readiness.is_readable() && self.wants_read();
        // While it connects, only an event can bring it on.
        (can_write || can_read) && self.is_open()
    }

    /// Whether there is something that its socket can take.
    pub(super) fn has_output(&self) -> bool {
        !self.queue.is_empty() || self.file == FileState::Sending
    }

    /// Whether everything for it has gone to its socket.
    pub(super) fn is_sent(&self) -> bool {
        self.queue.is_empty() && self.file == FileState::None
    }

    /// The window of its peer, if it is known. The largest is remembered.
    pub(super) fn look_at_window(&mut self) -> Option<PeerWindow> {
        let peer = self.stream.peer_window()?;
        self.largest_window_bytes = self.largest_window_bytes.max(peer.window_bytes);
        self.has_withdrawn_window |= peer.is_withdrawn;
        Some(peer)
    }

    /// The window that a reader must open again, in bytes.
    pub(super) const fn reopening_window_bytes(&self) -> u32 {
        reopening_window_bytes(self.largest_window_bytes, self.has_withdrawn_window)
    }

    /// Bytes that its peer has acknowledged.
    pub(super) fn acknowledged_bytes(&self) -> u64 {
        self.sent_bytes.saturating_sub(self.stream.unacknowledged_bytes())
    }

    /// Whether the connection is made and not closed.
    const fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Connecting | Phase::Closed)
    }

    /// Whether input may wait to be read. Behind the client's FIN there is
    /// none, though every later event still says *readable*.
    pub(super) fn may_have_unread(&self) -> bool {
        self.input != Input::Ended && self.readiness.is_readable()
    }

    pub(super) const fn accepts_writes(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Connecting) && !self.queue.is_ended()
    }

    /// Reads once, into `buffer`. `Ok(None)` says that nothing is there now,
    /// `Ok(Some(0))` that the peer has sent its FIN.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let result = self.stream.read(buffer);
        self.after_read(result, buffer.len())
    }

    /// Updates the client after a read. Fewer bytes than `short_below` mean
    /// that nothing is left.
    #[inline(always)]
    pub(super) fn after_read(
        &mut self,
        result: io::Result<usize>,
        short_below: usize,
    ) -> io::Result<Option<usize>> {
        match result {
            Ok(0) => {
                self.input = Input::Ended;
                self.readiness.read_ended();
                Ok(Some(0))
            }
            Ok(count) => {
                self.received_bytes += count as u64;
                if count < short_below {
                    self.readiness.read_short();
                }
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readiness.read_refused();
                Ok(None)
            }
            // The edge stands, so the next turn tries again.
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Offers `data` to the socket, and answers how much of it the socket
    /// took. Queued bytes go first, so with a queue nothing is tried.
    pub(super) fn write_directly(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.queue.is_empty() || !self.readiness.is_writable() || data.is_empty() {
            return Ok(0);
        }
        let result = self.stream.write(data);
        self.after_write(result, data.len())
    }

    /// Puts bytes into the queue, by `put`.
    pub(super) fn enqueue(&mut self, put: impl FnOnce(&mut SendQueue) -> Answer) -> Answer {
        let answer = put(&mut self.queue);
        let length_bytes = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        self.peak_bytes = self.peak_bytes.max(length_bytes);
        answer
    }

    /// Writes from the queue, once.
    pub(super) fn write_queue(&mut self) -> io::Result<Sent> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let filled = self.queue.fill_slices(&mut slices);
        let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
        let result = match &slices[..filled] {
            [only] => self.stream.write(only),
            several => self.stream.write_vectored(several),
        };
        let count = self.after_write(result, offered)?;
        Ok(self.queue.sent(count))
    }

    /// Updates the client after a write that offered so many bytes. Answers
    /// how many the socket took.
    pub(super) fn after_write(&mut self, result: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match result {
            Ok(count) => {
                if count < offered {
                    self.readiness.write_refused();
                }
                self.sent_bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readiness.write_refused();
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Since when the clock of this timer has been running, if it is.
    pub(super) fn since(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::Slow(_) if self.is_upstream() => None,
            Timer::SlowUpstream(_) if !self.is_upstream() => None,
            Timer::Slow(reason) | Timer::SlowUpstream(reason) => self.clocks.since(reason),
            Timer::AckCheck => self.clocks.since(SlowReason::WriteTimeout),
            Timer::ConnectTimeout if self.phase == Phase::Connecting => self.awaiting_since,
            Timer::CloseTimeout if self.phase != Phase::Connecting => self.awaiting_since,
            Timer::ConnectTimeout | Timer::CloseTimeout => None,
            // These have one entry at a time.
            Timer::Progress | Timer::Idle | Timer::HalfClosed => None,
        }
    }

    pub(super) fn name(&self) -> ClientName {
        ClientName {
            descriptor: self.stream.descriptor(),
            upstream_of: self.upstream_of.descriptor(),
        }
    }
}

/// The name of a client in the log: `client 12`, or `upstream 13 of client
/// 12`. The numbers are descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientName {
    descriptor: i32,
    upstream_of: Option<i32>,
}

impl ClientName {
    /// The name of a client with this descriptor.
    #[cfg(test)]
    pub(super) const fn of_client(descriptor: i32) -> Self {
        Self {
            descriptor,
            upstream_of: None,
        }
    }

    /// The number of the client, or of the one that this upstream is for.
    pub(super) fn client_number(self) -> i32 {
        self.upstream_of.unwrap_or(self.descriptor)
    }

    /// The number of the upstream, if it is one.
    pub(super) fn upstream_number(self) -> Option<i32> {
        self.upstream_of.map(|_| self.descriptor)
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upstream_of {
            None => write!(f, "client {}", self.descriptor),
            Some(client) => write!(f, "upstream {} of client {client}", self.descriptor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelStream;

    #[test]
    fn an_idle_client_takes_little_memory() {
        // A socket of mio's is larger in a build with debug assertions.
        let state_bytes = size_of::<Client<KernelStream>>() - size_of::<KernelStream>();
        assert!(state_bytes <= 232, "{state_bytes}");
        let queue = SendQueue::new(64 * 1024);
        assert_eq!(queue.pinned_bytes(), 0, "nothing waits, and nothing is owned");
    }
}
