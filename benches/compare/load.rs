//! The clients of a comparison, all driven by one thread.
//!
//! Owns the poll, the turn and the slice: a stretch of time in which the clients
//! are busy, from the first message sent to the last answer received. What a
//! client does is in `ping`, `bulk` and `connect`; `backend` is the far end of a
//! tunnel and `stalled` the clients that do harm.

mod backend;
mod bulk;
mod connect;
mod ping;
mod stalled;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll, Registry, Token};

use crate::clock::now;
use backend::Backend;
use stalled::Stalled;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Send messages of this size, with so many in flight, and wait for the echo.
    Ping {
        /// Bytes of a message.
        size: usize,
        /// Messages under way at any moment, for each client.
        in_flight: usize,
    },
    /// Send as much as the socket takes; every byte that comes back is verified.
    Bulk {
        /// Bytes of a frame's payload, or none for a plain stream.
        frame: Option<usize>,
    },
    /// Connect, one echo of this size, close.
    Connect {
        /// Bytes of the message.
        size: usize,
    },
}

/// What a slice came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slice {
    /// Messages answered; bytes for bulk; connections for connect.
    pub(crate) done: u64,
    /// From the first message sent to the last answer received.
    pub(crate) elapsed: Duration,
}

/// One kind of clients.
trait Clients {
    /// Opens all of them.
    fn open(&mut self, registry: &Registry, server: SocketAddr) -> Result<(), String>;
    /// Makes every client busy.
    fn start(&mut self, registry: &Registry) -> Result<(), String>;
    /// Something happened to one client.
    fn ready(&mut self, index: usize, registry: &Registry) -> Result<(), String>;
    /// Goes on with clients that need no event; true when there are more of them.
    fn go_on(&mut self) -> Result<bool, String>;
    /// Nothing new is to be sent from now on.
    fn stop(&mut self);
    /// Nothing is to be read from now on, for ever.
    fn stop_reading(&mut self) -> Result<(), String> {
        Err("these clients cannot send without reading".into())
    }
    /// True when everything sent has been answered.
    fn is_quiet(&self) -> bool;
    /// What was done since the last call.
    fn take_done(&mut self) -> u64;
    /// Time from sending to answer, in nanoseconds.
    fn latency(&self) -> Option<&Histogram<u64>>;
}

/// Who a token belongs to is in its upper half.
const KIND_SHIFT: u32 = 32;
const CLIENT: usize = 0;
const BACKEND: usize = 1;
const STALLED: usize = 2;

/// A token for the `index`-th socket of a kind.
fn token(kind: usize, index: usize) -> Token {
    Token(kind << KIND_SHIFT | index)
}

const EVENTS_A_WAIT: usize = 1024;

/// How long a turn waits at most, so that the end of a slice is not missed.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// How long answers may be outstanding after the end of a slice.
const LONGEST_DRAIN: Duration = Duration::from_secs(20);

/// Longer waits are recorded as this one.
const LONGEST_LATENCY_NANOSECONDS: u64 = 60_000_000_000;

/// How long stalled clients make no progress until they count as full.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// How long clients that were busy go on sending when they read no more.
const STALL_FOR: Duration = Duration::from_secs(2);

/// How long filling may take at most.
const LONGEST_FILL: Duration = Duration::from_secs(40);

/// All clients of one server.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    clients: Box<dyn Clients>,
    backend: Backend,
    stalled: Stalled,
}

impl Load {
    /// Prepares `count` clients, none of them connected yet.
    pub(crate) fn new(work: Work, count: usize) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("no poll for the clients: {error}"))?;
        let backend = Backend::new(poll.registry())?;
        let clients: Box<dyn Clients> = match work {
            Work::Ping { size, in_flight } => Box::new(ping::Pings::new(count, size, in_flight)?),
            Work::Bulk { frame } => Box::new(bulk::Bulks::new(count, frame)),
            Work::Connect { size } => Box::new(connect::Connects::new(count, size)?),
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_A_WAIT),
            clients,
            backend,
            stalled: Stalled::default(),
        })
    }

    /// Where a tunnel should lead.
    pub(crate) fn backend_address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// Connects all clients to `server`.
    pub(crate) fn open(&mut self, server: SocketAddr) -> Result<(), String> {
        self.stalled.set_server(server);
        self.clients.open(self.poll.registry(), server)
    }

    /// Keeps the clients busy for `length`, then waits for the last answers.
    pub(crate) fn slice(&mut self, length: Duration) -> Result<Slice, String> {
        let begin = now();
        self.clients.start(self.poll.registry())?;
        let mut stopped = false;
        loop {
            self.turn(LONGEST_WAIT)?;
            let elapsed = now() - begin;
            if !stopped && elapsed >= length {
                self.clients.stop();
                stopped = true;
            }
            if stopped && self.clients.is_quiet() {
                return Ok(Slice {
                    done: self.clients.take_done(),
                    elapsed,
                });
            }
            if elapsed >= length + LONGEST_DRAIN {
                return Err(format!(
                    "answers are still missing {} s after the end of a slice",
                    LONGEST_DRAIN.as_secs()
                ));
            }
        }
    }

    /// Adds `count` clients that send and never read, and runs until they are
    /// full. Answers how many bytes they sent.
    pub(crate) fn stall(&mut self, count: usize) -> Result<u64, String> {
        self.stalled.open(self.poll.registry(), count)?;
        let begin = now();
        let (mut sent, mut progress) = (0, begin);
        loop {
            self.turn(LONGEST_WAIT)?;
            let time = now();
            if self.stalled.sent() != sent {
                (sent, progress) = (self.stalled.sent(), time);
            }
            if time - progress >= FULL_AFTER || time - begin >= LONGEST_FILL {
                return Ok(sent);
            }
        }
    }

    /// Waits until every stalled client was disconnected, or `length` has passed.
    /// Answers how many were.
    pub(crate) fn watch(&mut self, length: Duration) -> Result<usize, String> {
        let begin = now();
        while self.stalled.gone() < self.stalled.count() && now() - begin < length {
            self.turn(LONGEST_WAIT)?;
        }
        Ok(self.stalled.gone())
    }

    /// Lets the clients go on sending while they read no more, until they are full.
    pub(crate) fn stop_reading(&mut self) -> Result<(), String> {
        self.clients.stop_reading()?;
        let begin = now();
        self.clients.start(self.poll.registry())?;
        while now() - begin < STALL_FOR {
            self.turn(LONGEST_WAIT)?;
        }
        Ok(())
    }

    /// Latencies so far.
    pub(crate) fn latency(&self) -> Option<&Histogram<u64>> {
        self.clients.latency()
    }

    fn turn(&mut self, longest: Duration) -> Result<(), String> {
        let more = self.clients.go_on()? | self.backend.go_on();
        let wait = if more { Duration::ZERO } else { longest };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(format!("cannot wait for the clients: {error}"));
            }
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0 & ((1 << KIND_SHIFT) - 1);
            match event.token().0 >> KIND_SHIFT {
                CLIENT => self.clients.ready(index, self.poll.registry())?,
                BACKEND => self.backend.ready(index, self.poll.registry()),
                _ => self.stalled.ready(index, is_over(event)),
            }
        }
        Ok(())
    }
}

fn is_over(event: &Event) -> bool {
    event.is_error() || event.is_read_closed() || event.is_write_closed()
}

/// A connected socket that does not block.
fn connect(server: SocketAddr) -> Result<TcpStream, String> {
    let fail = |error| format!("cannot connect to {server}: {error}");
    let stream = std::net::TcpStream::connect(server).map_err(fail)?;
    stream.set_nodelay(true).map_err(fail)?;
    stream.set_nonblocking(true).map_err(fail)?;
    Ok(TcpStream::from_std(stream))
}

/// True for the answer that means: not now.
fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// An empty record of latencies, to three digits.
fn latencies() -> Result<Histogram<u64>, String> {
    Histogram::new_with_max(LONGEST_LATENCY_NANOSECONDS, 3).map_err(|error| format!("no histogram: {error}"))
}

/// Records the time since `sent`.
fn record(latency: &mut Histogram<u64>, sent: Instant, time: Instant) {
    let nanoseconds = u64::try_from((time - sent).as_nanos()).unwrap_or(u64::MAX);
    latency.saturating_record(nanoseconds);
}
