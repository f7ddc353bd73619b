//! The engine: one turn over any network.
//!
//! Owns everything that happens to clients between two waits. Refuses mio,
//! sockets, the real clock and threads: the kernel and the simulation stand
//! behind the same [`Network`] and [`Stream`].

mod acceptor;
mod client;
mod client_table;
mod clock;
mod core;
mod journal;
mod network;
mod ready_list;
mod service;
mod timers;
pub mod turn;

pub use client::Name;
pub use client::readiness::Event;
pub use client_table::ClientId;
pub use clock::Clock;
pub use journal::Counters;
pub use network::{Network, PeerState, PeerWindow, Spliced, Stream};
pub use service::{Actions, Service};
