//! Healthy clients alone, as a load generator: connections stay open, slices of load come when asked for.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use crate::kernel::timer::Ticker;
use crate::probe::clients::healthy::{BUFFER_BYTES, HealthyClient, Turn};
use crate::probe::clients::moment::Moment;
use crate::probe::clients::tally::Tally;
use crate::probe::driver::clock::{self, MessageClock};
use crate::probe::driver::preflight;
use crate::probe::driver::socket::{self, Buffers, CONNECTING_AT_ONCE, DirectStream};
use crate::probe::error::ProbeError;
use crate::probe::kind::Disconnect;
use crate::probe::protocol::echo::Echo;
use crate::probe::protocol::framed::Framed;
use crate::probe::protocol::{Conversations, Wire};

/// No client has this number.
const END_OF_SLICE: Token = Token(usize::MAX);
/// Events fetched at once.
const EVENTS_PER_POLL: usize = 1024;
/// How long connecting may take in all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last answers of a slice are waited for.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Clients that ping-pong: each sends messages, waits for their answers, and verifies every byte.
pub struct Load {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    clients: Vec<HealthyClient<DirectStream>>,
    more: Vec<usize>,
    epoch: Instant,
    /// Of one client, at most.
    bytes_on_the_way: usize,
}

/// What one slice of load came to.
#[derive(Debug, Clone)]
pub struct LoadSlice {
    /// Answers completed in the slice, all of them verified.
    pub messages: u64,
    /// Bytes received in the slice.
    pub bytes: u64,
    /// Its length, by which the answers are divided.
    pub elapsed: Duration,
    /// Waits in nanoseconds, those of the last answers included.
    pub waits: Histogram<u64>,
    /// Clients that the server ended, or answered wrongly, or left without an
    /// answer, by the end of the slice; those that ended stay out of the next ones.
    pub lost: Vec<LostClient>,
    /// The same counts with the answers that came after the end of the slice.
    pub to_last_answer: LoadCounts,
}

/// A client that did not get what it was owed. In words by its `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostClient {
    /// Its number among the clients of the load, from 0.
    pub index: usize,
    /// None where the connection still stands.
    pub end: Option<Disconnect>,
    /// What came back wrongly, where something did.
    pub corruption: Option<String>,
    /// Bytes of messages that were due, that the socket took, and that came back.
    pub due_bytes: u64,
    /// As above.
    pub sent_bytes: u64,
    /// As above.
    pub received_bytes: u64,
}

impl fmt::Display for LostClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            index,
            due_bytes,
            sent_bytes,
            received_bytes,
            ..
        } = self;
        write!(f, "client {index} ")?;
        match (&self.corruption, self.end) {
            (Some(why), _) => write!(f, "was answered wrongly: {why}"),
            (None, Some(Disconnect::Reset)) => write!(f, "was reset"),
            (None, Some(_)) => write!(f, "was closed"),
            (None, None) => write!(f, "was left without an answer for {DRAIN_PATIENCE:?}"),
        }?;
        write!(
            f,
            ", when {received_bytes} of {sent_bytes} bytes sent and {due_bytes} due had come back"
        )
    }
}

/// What came, and in which time.
#[derive(Debug, Clone, Copy)]
pub struct LoadCounts {
    /// Answers completed, all of them verified.
    pub messages: u64,
    /// Bytes received.
    pub bytes: u64,
    /// From the start of the slice to the last of them.
    pub elapsed: Duration,
}

impl Load {
    /// Connects `clients` clients to an echo server; each keeps `pipeline`
    /// messages of `size` bytes on the way, in frames if `framed`.
    ///
    /// # Errors
    ///
    /// When a connection cannot be made, or descriptors are short.
    pub fn connect(
        address: SocketAddr,
        clients: usize,
        size: usize,
        pipeline: u32,
        framed: bool,
    ) -> Result<Self, ProbeError> {
        let numbers = [
            ("clients", clients),
            ("size", size),
            ("pipeline", pipeline as usize),
        ];
        if let Some((field, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
            let problem = "must be above 0".into();
            return Err(ProbeError::Field { field, problem });
        }
        let protocol: &dyn Conversations = if framed { &Framed } else { &Echo };
        preflight::ensure_descriptors(clients)?;
        let mut load = Self {
            poll: Poll::new().map_err(ProbeError::system("make an epoll"))?,
            events: Events::with_capacity(EVENTS_PER_POLL),
            buffer: vec![0; BUFFER_BYTES],
            clients: Vec::with_capacity(clients),
            more: Vec::new(),
            epoch: clock::now(),
            bytes_on_the_way: size.saturating_mul(pipeline as usize),
        };
        let deadline = clock::now() + CONNECT_PATIENCE;
        while load.clients.len() < clients {
            let batch = CONNECTING_AT_ONCE.min(clients - load.clients.len());
            load.connect_batch(address, batch, deadline, |index| {
                (protocol.healthy(index as u64, size), pipeline)
            })?;
        }
        Ok(load)
    }

    fn connect_batch(
        &mut self,
        address: SocketAddr,
        batch: usize,
        deadline: Instant,
        wire: impl Fn(usize) -> (Wire, u32),
    ) -> Result<(), ProbeError> {
        let buffers = Buffers::of_healthy(self.bytes_on_the_way);
        for _ in 0..batch {
            let index = self.clients.len();
            let mut stream = socket::start_connecting(address, buffers)
                .map_err(|source| ProbeError::Unreachable { address, source })?;
            socket::watch(self.poll.registry(), &mut stream, index)?;
            let (wire, pipeline) = wire(index);
            self.clients
                .push(HealthyClient::new(DirectStream::new(stream), wire, pipeline));
        }
        let mut missing = batch;
        while missing > 0 {
            let now = clock::now();
            if now >= deadline {
                return Err(ProbeError::Unreachable {
                    address,
                    source: io::ErrorKind::TimedOut.into(),
                });
            }
            self.wait(Some(deadline - now))?;
            for event in self
                .events
                .iter()
                .filter(|event| event.is_writable() || event.is_error())
            {
                let stream = self.clients[event.token().0].stream_mut();
                if let Ok(Some(source)) = stream.take_error() {
                    return Err(ProbeError::Unreachable { address, source });
                }
                missing -= usize::from(stream.peer_addr().is_ok()).min(missing);
            }
        }
        Ok(())
    }

    /// Loads the server for `time`, then waits until all answers are in, so
    /// that the connections are silent between slices.
    ///
    /// # Errors
    ///
    /// Only when the poll itself fails.
    pub fn run_for(&mut self, time: Duration) -> Result<LoadSlice, ProbeError> {
        let mut tally = Tally::default();
        let started = clock::now();
        let begun = self.moment(started);
        tally.begin_phase(begun);
        for index in 0..self.clients.len() {
            let turn = self.clients[index].start(begun, &mut self.buffer);
            self.follow(index, turn);
        }
        let end = Ticker::start(self.poll.registry(), END_OF_SLICE, time)
            .map_err(ProbeError::system("start a timer"))?;
        while !self.turn(None, true, &mut tally)? {}
        drop(end);
        let mut now = clock::now();
        tally.end_phase(self.moment(now));
        let elapsed = now - started;
        let patience = now + DRAIN_PATIENCE;
        while now < patience && !self.clients.iter().all(HealthyClient::is_idle) {
            self.turn(Some(patience - now), false, &mut tally)?;
            now = clock::now();
        }
        let all = tally.take_slice().counts;
        let to_last_answer = LoadCounts {
            messages: all.messages,
            bytes: all.bytes,
            elapsed: now - started,
        };
        Ok(self.slice(&tally, elapsed, to_last_answer))
    }

    fn slice(&self, tally: &Tally, elapsed: Duration, to_last_answer: LoadCounts) -> LoadSlice {
        let phase = &tally.phases()[0];
        let lost = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.end().is_some() || !client.is_idle())
            .map(|(index, client)| LostClient {
                index,
                end: client.end(),
                corruption: client.corruption().map(|corruption| corruption.why.clone()),
                due_bytes: client.due_bytes(),
                sent_bytes: client.sent_bytes(),
                received_bytes: client.received_bytes(),
            })
            .collect();
        LoadSlice {
            messages: phase.counts.messages,
            bytes: phase.counts.bytes,
            elapsed,
            waits: phase.waits.clone(),
            lost,
            to_last_answer,
        }
    }

    /// Waits for events, at most so long, and serves them. Whether the end of
    /// the slice was among them.
    fn turn(&mut self, wait: Option<Duration>, go_on: bool, tally: &mut Tally) -> Result<bool, ProbeError> {
        self.wait(if self.more.is_empty() {
            wait
        } else {
            Some(Duration::ZERO)
        })?;
        let mut is_over = false;
        let more = std::mem::take(&mut self.more);
        let mut clock = MessageClock::new(self.epoch);
        for event in &self.events {
            let index = event.token().0;
            let Some(client) = self.clients.get_mut(index) else {
                is_over = true;
                continue;
            };
            let turn = if event.is_readable() {
                let closed = event.is_read_closed() || event.is_error();
                client.readable(clock.tick(), closed, go_on, &mut self.buffer, tally)
            } else {
                client.writable(&mut self.buffer)
            };
            if turn == Turn::More {
                self.more.push(index);
            }
        }
        for index in more {
            clock.forget();
            let turn = self.clients[index].readable(clock.tick(), false, go_on, &mut self.buffer, tally);
            self.follow(index, turn);
        }
        Ok(is_over)
    }

    fn wait(&mut self, time: Option<Duration>) -> Result<(), ProbeError> {
        match self.poll.poll(&mut self.events, time) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(ProbeError::system("wait for events")(error))
            }
            _ => Ok(()),
        }
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment::of(at, self.epoch)
    }

    fn follow(&mut self, index: usize, turn: Turn) {
        if turn == Turn::More {
            self.more.push(index);
        }
    }
}
