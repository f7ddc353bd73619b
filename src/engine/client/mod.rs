//! One client over any stream.
//!
//! Owns the stream, the send queue, the clocks, the edges, and how far the
//! client has come between connecting and gone. Refuses to know the other
//! clients, the service and the kernel: what it does to its stream goes
//! through [`Stream`], so that the same code runs on sockets and in a
//! simulation.

pub(crate) mod readiness;
pub(crate) mod receive_buffer;

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Instant;

use self::readiness::Readiness;
use self::receive_buffer::ReceiveBuffer;
use super::client_table::ClientId;
use super::network::Stream;
use super::ready_list::Lane;
use super::timers::Timer;
use crate::backpressure::small_list::SmallList;
use crate::backpressure::{Clocks, Flow, Pipe, SendQueue, Sent};

/// Most pieces of a queue that one write offers to the socket.
const SLICES_PER_WRITE: usize = 32;

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The connection that we asked for is not there yet.
    Connecting,
    /// Data may flow both ways.
    Open,
    /// The service is done with it: input is read and thrown away, and the
    /// client goes once everything sent has arrived.
    Closing,
    /// Closed in all but name; it is swept at the end of the turn.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    pub(crate) peer: SocketAddr,
    pub(crate) queue: SendQueue,
    pub(crate) clocks: Clocks,
    /// Where what it sends goes without asking the service.
    pub(crate) pipe: Pipe<ClientId>,
    /// Whose pipes end here.
    pub(crate) sources: SmallList<ClientId>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// The longest that its queue has been, in bytes; more than four thousand
    /// million count as that.
    pub(crate) peak_bytes: u32,
    /// Bytes that the service holds for it, such as an unfinished frame.
    pub(crate) held_bytes: usize,
    /// The client for whose sake this connection was made.
    pub(crate) upstream_of: UpstreamOf,
    /// Since when we wait for the peer: to take the connection that we asked
    /// for, or the last of what was sent.
    pub(crate) awaiting_since: Option<Instant>,
    pub(crate) readiness: Readiness,
    pub(crate) phase: Phase,
    /// The service does not want to hear from it for now.
    pub(crate) paused: bool,
    /// It is on the ready list.
    pub(crate) listed: bool,
    /// Where on that list it goes.
    pub(crate) lane: Lane,
    /// It has sent its end.
    pub(crate) read_ended: bool,
    /// Our end was announced to it.
    pub(crate) fin_sent: bool,
    /// The stop of the server closed it, in the middle of its stream.
    pub(crate) stopped: bool,
    /// Something meant for it was thrown away: its end must be a reset.
    pub(crate) cut: bool,
    /// The last read brought much.
    pub(crate) is_bulk: bool,
    pub(crate) receive_buffer: ReceiveBuffer,
    pub(crate) blocked: BlockedLog,
}

/// The descriptor of a client, or nobody's, in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamOf(i32);

impl UpstreamOf {
    /// No descriptor is negative.
    pub(crate) const NO_CLIENT: Self = Self(-1);

    pub(crate) const fn of(descriptor: i32) -> Self {
        Self(descriptor)
    }

    pub(crate) const fn descriptor(self) -> Option<i32> {
        if self.0 < 0 { None } else { Some(self.0) }
    }
}

/// When this client was last said to be blocked, and how often since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BlockedLog {
    pub(crate) last_s: Option<std::num::NonZeroU32>,
    pub(crate) since: u32,
}

impl<S: Stream> Client<S> {
    pub(crate) fn new(stream: S, peer: SocketAddr, high_water_mark_bytes: usize) -> Self {
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
            held_bytes: 0,
            upstream_of: UpstreamOf::NO_CLIENT,
            awaiting_since: None,
            readiness: Readiness::NEW,
            phase: Phase::Open,
            paused: false,
            listed: false,
            lane: Lane::New,
            read_ended: false,
            fin_sent: false,
            stopped: false,
            cut: false,
            is_bulk: false,
            receive_buffer: ReceiveBuffer::default(),
            blocked: BlockedLog::default(),
        }
    }

    /// Whether it may be read now, edges aside.
    pub(crate) fn wants_read(&self) -> bool {
        match self.phase {
            Phase::Open => !self.read_ended && !self.paused && self.pipe.flow() == Flow::Read,
            Phase::Closing => !self.read_ended,
            Phase::Connecting | Phase::Closed => false,
        }
    }

    /// Whether there is something to do for it that no further edge will
    /// announce.
    pub(crate) fn has_work(&self) -> bool {
        let can_write = self.readiness.is_writable() && !self.queue.is_empty();
        let can_read = self.readiness.is_readable() && self.wants_read();
        // While it connects, only an event can bring it on.
        let is_open = matches!(self.phase, Phase::Open | Phase::Closing);
        (can_write || can_read) && is_open
    }

    /// Whether something that it sent may wait to be read. Behind its end
    /// there is nothing, though every later event still says *readable*.
    pub(crate) const fn may_have_unread(&self) -> bool {
        !self.read_ended && self.readiness.is_readable()
    }

    pub(crate) const fn accepts_writes(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Connecting) && !self.queue.is_ended()
    }

    /// Reads once, into `buffer`. `Ok(None)` says that nothing is there now,
    /// `Ok(Some(0))` that the peer has ended.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let result = self.stream.read(buffer);
        self.after_read(result, buffer.len())
    }

    /// Notes what a read led to. Fewer bytes than `short_below` mean that
    /// nothing is left.
    pub(crate) fn after_read(
        &mut self,
        result: io::Result<usize>,
        short_below: usize,
    ) -> io::Result<Option<usize>> {
        match result {
            Ok(0) => {
                self.read_ended = true;
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

    /// Tries the socket before anything is queued, and answers how much of
    /// `data` it took. What already waits goes first, so with a queue nothing
    /// is tried.
    pub(crate) fn write_directly(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.queue.is_empty() || !self.readiness.is_writable() || data.is_empty() {
            return Ok(0);
        }
        let result = self.stream.write(data);
        self.after_write(result, data.len())
    }

    /// Writes from the queue, once.
    pub(crate) fn write_queue(&mut self) -> io::Result<Sent> {
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

    /// Notes what a write led to that offered so many bytes.
    pub(crate) fn after_write(&mut self, result: io::Result<usize>, offered: usize) -> io::Result<usize> {
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

    /// Since when this delay is running for the client, if it is.
    pub(crate) fn since(&self, delay: Timer) -> Option<Instant> {
        match delay {
            Timer::AckCheck | Timer::WriteTimeout => self.clocks.over_limit_since(),
            Timer::DrainTimeout => self.clocks.waiting_since(),
            Timer::ConnectTimeout if self.phase == Phase::Connecting => self.awaiting_since,
            Timer::CloseTimeout if self.phase != Phase::Connecting => self.awaiting_since,
            Timer::ConnectTimeout | Timer::CloseTimeout => None,
        }
    }

    pub(crate) fn name(&self) -> ClientName {
        ClientName {
            descriptor: self.stream.descriptor(),
            upstream_of: self.upstream_of.descriptor(),
        }
    }
}

/// How the log calls a client: `client 12`, or `upstream 13 of client 12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientName {
    descriptor: i32,
    upstream_of: Option<i32>,
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
