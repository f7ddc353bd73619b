//! A TCP server toolkit in which no slow client can hurt the others.
//!
//! A slow client reads more slowly than its server writes. It can block the
//! server, fill its memory, or hold its resources for ever. Here each client
//! has a bounded queue; a full queue pauses whatever feeds it; and a client
//! whose queue stays full for longer than a grace is disconnected, with a
//! reset, while all others go on.
//!
//! # Where to start
//!
//! To write a server: [`Service`] and [`Actions`].
//! This one sends everybody what anybody says, and is safe from slow clients
//! without a line about them:
//!
//! ```no_run
//! use std::collections::BTreeSet;
//! use highwater::{Actions, ClientId, CloseReason, EventLoop, Limits, ServerError, Service};
//!
//! #[derive(Default)]
//! struct Chat(BTreeSet<ClientId>);
//!
//! impl Service for Chat {
//!     fn connected(&mut self, client: ClientId, _: &mut Actions<'_>) {
//!         self.0.insert(client);
//!     }
//!     fn received(&mut self, _: ClientId, data: &[u8], actions: &mut Actions<'_>) {
//!         for &listener in &self.0 {
//!             actions.send(listener, data);
//!         }
//!     }
//!     fn closed(&mut self, client: ClientId, _: &CloseReason, _: &mut Actions<'_>) {
//!         self.0.remove(&client);
//!     }
//! }
//!
//! # fn main() -> Result<(), ServerError> {
//! EventLoop::listen(([127, 0, 0, 1], 9001).into(), Limits::default(), Chat::default())?.run()?;
//! # Ok(())
//! # }
//! ```
//!
//! To understand backpressure: [`backpressure`], which is pure; then
//! `ARCHITECTURE.md` for the path of one byte through the rest.
//!
//! To test a server, any server: `probe` (feature `probe`).
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | none | the engine, [`services::Echo`] and [`services::FramedEcho`] |
//! | `tunnel` | `services::Tunnel` |
//! | `serve` | `services::Files`: files over HTTP |
//! | `admin` | `services::Admin`: metrics, clients and a page about a running server |
//! | `probe` | `probe`: is a server safe from slow clients? |
//! | `plot` | the timeline of a probe as a picture |
//! | `cli` (default) | the `highwater` command |
//!
//! # Who may import whom
//!
//! [`backpressure`] and [`protocol`] know no socket, file, log or clock.
//! [`engine`] takes one turn over any network; sockets stand behind it.
//! [`services`] and `probe` use what a user of this crate can use.

pub mod backpressure;
pub mod engine;
mod error;
mod event_loop;
mod kernel;
pub mod limits;
mod log_limit;
#[cfg(feature = "probe")]
pub mod probe;
pub mod protocol;
pub mod services;
pub mod units;

pub use backpressure::{Answer, SlowReason};
pub use engine::{
    Actions, ClientId, ClientList, ClientMap, ClientName, ClientReport, Counters, FilePart, FileSource,
    Histogram, Measure, MeasureKind, Prepared, Question, Report, Service, ShadowEnding, ShadowOutcome,
    ShadowReport, Slowness, Snapshot,
};
pub use error::{CloseReason, ConnectError, LateFrame, Operation, ServerError};
pub use event_loop::{EventLoop, Remote};
pub use kernel::code_pages::release_code_pages;
pub use kernel::machine::raise_descriptor_limit;
pub use limits::{Limits, LimitsError};

#[cfg(test)]
mod test_time;
