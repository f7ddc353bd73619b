//! The engine: one turn over any network.
//!
//! Owns everything that happens to clients between two waits. Refuses mio,
//! sockets, the real clock and threads: the kernel and the simulation stand
//! behind the same [`Network`] and [`Stream`].

mod accepting;
mod acceptor;
mod actions;
mod address_counts;
mod client;
mod client_map;
mod client_table;
mod clock;
mod closing;
mod commands;
mod connecting;
mod core;
mod counters;
mod departures;
mod file;
mod file_sends;
mod held;
mod histogram;
mod holding;
mod idling;
mod inspecting;
mod journal;
mod judging;
mod late_timers;
mod network;
mod newcomers;
mod piping;
mod reading;
mod ready_list;
mod refusals;
mod reloading;
mod report;
mod sending_files;
mod service;
mod shadow;
mod shadowing;
mod silence;
mod stopping;
mod timers;
mod turn;
mod watch;
mod window;
mod writing;

pub use actions::{Actions, Slowness};
pub use client::ClientName;
pub use client::readiness::Event;
pub use client_map::ClientMap;
pub use client_table::ClientId;
pub use clock::Clock;
pub use core::Engine;
pub use counters::Counters;
pub use file::{FilePart, FileSource, Prepared};
pub use histogram::{BOUNDS_SECONDS, Histogram};
pub use network::{Network, PeerState, PeerWindow, Spliced, Stream};
pub use report::{ClientList, ClientReport, Question, Reply, Report, Snapshot};
pub use service::{Measure, MeasureKind, Service};
pub use shadow::{Ending as ShadowOutcome, ShadowEnding, ShadowReport};
pub use turn::Next;
