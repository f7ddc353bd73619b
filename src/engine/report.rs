//! What an operator may ask of a running server, and the answers.
//!
//! Plain values: refuses to gather them, and to write text.

use std::net::SocketAddr;
use std::time::Duration;

use super::client::ClientName;
use super::counters::Counters;
use super::histogram::Histogram;
use super::service::Measure;
use super::shadow::ShadowReport;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The numbers of the whole server.
    Snapshot,
    /// Every client that is there, and at most so many of those that have left
    /// for each reason, the last ones first.
    Clients {
        /// Most clients for each reason.
        most_gone: usize,
    },
}

/// The numbers of a server at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// What happened so far.
    pub counters: Counters,
    /// Bytes written to all clients, those that are connected included.
    pub sent_bytes: u64,
    /// Clients that are connected, without upstreams.
    pub clients: usize,
    /// Upstreams that are connected.
    pub upstreams: usize,
    /// Most clients at a time.
    pub max_clients: usize,
    /// The sum of all queues and of what services hold.
    pub queued_bytes: usize,
    /// What that sum may be.
    pub memory_budget_bytes: usize,
    /// What the kernel holds for all connections, as of this answer.
    pub kernel_bytes: u64,
    /// How often a client came over the limit.
    pub over_limit_episodes: u64,
    /// How long clients were over the limit.
    pub over_limit: Histogram,
    /// How late the loop was.
    pub loop_lag: Histogram,
    /// What the service counts itself.
    pub measures: Vec<Measure>,
    /// The server is stopping.
    pub is_stopping: bool,
}

/// One client, as far as an operator may want to know it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientReport {
    /// Its name in the log.
    pub name: ClientName,
    /// The peer.
    pub address: SocketAddr,
    /// How long it has been, or was, connected.
    pub age: Duration,
    /// Bytes that wait for it, those that its service holds included.
    pub queued_bytes: usize,
    /// The longest that its queue was.
    pub peak_bytes: usize,
    /// How long it has been over the limit.
    pub over_limit: Option<Duration>,
    /// Bytes read from it.
    pub received_bytes: u64,
    /// Bytes that its socket has taken.
    pub sent_bytes: u64,
    /// The largest window of its peer that was seen.
    pub largest_window_bytes: u32,
    /// What it is doing, in a word or a few.
    pub state: String,
    /// Why it is gone.
    pub reason: Option<&'static str>,
}

/// The clients of a server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClientList {
    /// What shadow mode has seen, if it is on.
    pub shadow: Option<ShadowReport>,
    /// Those that are connected, upstreams included.
    pub live: Vec<ClientReport>,
    /// Those that have left: for each reason the last ones first.
    pub gone: Vec<(&'static str, Vec<ClientReport>)>,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub enum Report {
    /// The numbers.
    Snapshot(Box<Snapshot>),
    /// The clients.
    Clients(Box<ClientList>),
}

/// Takes the answer, on the thread of the event loop: it must not wait.
pub type Reply = Box<dyn FnOnce(Report) + Send>;
