//! How much may wait for a client, and for how long.
//!
//! Pure: no sockets, no files, no log and no clock in here. Bytes, lengths and
//! instants come in as arguments; answers, verdicts and deadlines come out.

pub mod pipe;
pub mod rules;
pub mod send_queue;
pub(crate) mod small_list;

pub use pipe::{Flow, Pipe};
pub use rules::{Clocks, SlowReason};
pub use send_queue::{Answer, SendQueue, Sent};
