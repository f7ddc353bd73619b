//! The clients of a comparison, all driven by one thread.
//!
//! Owns the slice: a stretch of time in which the clients are busy, from the
//! first message sent to the last answer received. Most clients are those of
//! `highwater probe` (`probing`). `connect`, `crowd` and `flood` have the others,
//! driven by `polled`. `backend` is the far end of a tunnel, `stalled` has the clients
//! that do harm.

mod backend;
mod connect;
mod crowd;
mod flood;
mod polled;
mod probing;
mod socket;
mod stalled;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater::probe::{BULK_MESSAGE_BYTES, BULK_PIPELINE_MESSAGES};

use connect::Connects;
use crowd::Crowd;
use flood::Floods;
use polled::Polled;
use probing::{Exchange, Probing};
use stalled::Stalled;

pub(crate) use socket::Buffers;

/// The work of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Send messages of this size, several in flight, and wait for the echo.
    Ping {
        /// Bytes of a message.
        size: usize,
        /// Messages in flight, for each client.
        in_flight: u32,
    },
    /// Send messages of 64 KiB, or frames; every byte that comes back is verified.
    Bulk {
        /// Bytes of a frame's payload; none for a plain stream.
        frame: Option<usize>,
        /// Messages in flight, for each client.
        in_flight: u32,
    },
    /// Send messages of this size, one in flight, and discard the echo.
    Crowd {
        /// Bytes of a message.
        size: usize,
    },
    /// Connect, one echo of this size, close.
    Connect {
        /// Bytes of the message.
        size: usize,
    },
    /// Saturate the socket, and read everything back until told not to.
    Flood,
}

impl Work {
    /// Whether the ratios swing so much that they need more cycles: bulk with
    /// few bytes in flight, where every pause of the machine stops both sides.
    pub(crate) const fn swings(self) -> bool {
        matches!(self, Self::Bulk { in_flight, .. } if in_flight <= BULK_PIPELINE_MESSAGES)
    }
}

/// The outcome of a slice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slice {
    /// Messages answered; bytes for bulk; connections for connect.
    pub(crate) done: u64,
    /// From the first message sent to the last answer received.
    pub(crate) elapsed: Duration,
}

const EVENTS_A_WAIT: usize = 1024;

/// Longest wait of a turn, so that the end of a slice is not missed.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// Longest time for outstanding answers after the end of a slice.
const LONGEST_DRAIN: Duration = Duration::from_secs(20);

/// Longer waits are recorded as this one.
const LONGEST_LATENCY_NANOSECONDS: u64 = 60_000_000_000;

/// Time without notable progress after which stalled clients count as full.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// Time for which busy clients go on sending once they read no more.
const STALL_FOR: Duration = Duration::from_secs(2);

/// Longest time for filling.
const LONGEST_FILL: Duration = Duration::from_secs(40);

/// All clients of one server.
pub(crate) struct Load {
    clients: Clients,
    stalled: Stalled,
    backend: SocketAddr,
}

enum Clients {
    Probing(Probing),
    Polled(Polled),
}

impl Load {
    /// Prepares `count` clients, none of them connected yet.
    pub(crate) fn new(work: Work, count: usize) -> Result<Self, String> {
        let probing = |exchange| Clients::Probing(Probing::new(count, exchange));
        let clients = match work {
            Work::Ping { size, in_flight } => probing(Exchange {
                size,
                in_flight,
                is_framed: false,
                counts_bytes: false,
            }),
            Work::Bulk { frame, in_flight } => probing(Exchange {
                size: frame.unwrap_or(BULK_MESSAGE_BYTES),
                in_flight,
                is_framed: frame.is_some(),
                counts_bytes: true,
            }),
            Work::Crowd { size } => Clients::Polled(Polled::new(Box::new(Crowd::new(count, size)))?),
            Work::Connect { size } => Clients::Polled(Polled::new(Box::new(Connects::new(count, size)?))?),
            Work::Flood => Clients::Polled(Polled::new(Box::new(Floods::new(count)))?),
        };
        Ok(Self {
            clients,
            stalled: Stalled::new()?,
            backend: backend::start()?,
        })
    }

    /// The address of the far end for a tunnel.
    pub(crate) fn backend_address(&self) -> SocketAddr {
        self.backend
    }

    /// Connects all clients to `server`.
    pub(crate) fn open(&mut self, server: SocketAddr) -> Result<(), String> {
        self.stalled.set_server(server);
        match &mut self.clients {
            Clients::Probing(clients) => clients.open(server),
            Clients::Polled(clients) => clients.open(server),
        }
    }

    /// Keeps the clients busy for `length`, then waits for the last answers.
    pub(crate) fn slice(&mut self, length: Duration) -> Result<Slice, String> {
        match &mut self.clients {
            Clients::Probing(clients) => clients.slice(length),
            Clients::Polled(clients) => clients.slice(length),
        }
    }

    /// Adds `count` clients that send and never read, and runs until they are
    /// full. Answers how many bytes they sent.
    pub(crate) fn stall(&mut self, count: usize, buffers: Buffers, is_eager: bool) -> Result<u64, String> {
        self.stalled.fill(count, buffers, is_eager)
    }

    /// Waits until every stalled client was disconnected, or `longest` has
    /// passed. Answers how many were.
    pub(crate) fn watch(&mut self, longest: Duration) -> Result<usize, String> {
        self.stalled.watch(longest)
    }

    /// Lets the clients go on sending while they read no more, until they are full.
    pub(crate) fn stop_reading(&mut self) -> Result<(), String> {
        match &mut self.clients {
            Clients::Probing(_) => Err("these clients cannot send without reading".into()),
            Clients::Polled(clients) => clients.stop_reading(),
        }
    }

    /// Latencies since the last call.
    pub(crate) fn take_latency(&mut self) -> Option<Histogram<u64>> {
        match &mut self.clients {
            Clients::Probing(clients) => clients.take_latency(),
            Clients::Polled(clients) => clients.take_latency(),
        }
    }
}

/// Whether the error means: not now.
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
