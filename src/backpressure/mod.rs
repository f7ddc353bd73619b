//! How much may wait for a client, for how long, and which rule it breaks.
//!
//! Pure: no sockets, files, log or clock. Bytes, lengths and instants come in
//! as arguments; answers and reasons come out.

pub mod action;
pub mod arrival;
pub mod backlog;
pub mod burden;
pub mod pipe;
pub mod rules;
pub mod send_queue;
pub(crate) mod small_list;
pub(crate) mod spread;

pub use action::Action;
pub use arrival::Arrival;
pub use backlog::{Backlog, ChannelName, Lost, Message};
pub use burden::Burden;
pub use pipe::{Flow, Pipe};
pub use rules::{Clocks, SlowReason};
pub use send_queue::{Answer, SendQueue, Sent};
