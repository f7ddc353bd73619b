//! What clients of a probe do, over any stream.
//!
//! Each is told when something is ready and what time it is. Nobody here waits or owns a poll.

pub(crate) mod fullness;
pub(crate) mod healthy;
pub(crate) mod moment;
pub(crate) mod opening;
pub(crate) mod outstanding;
pub(crate) mod pace;
pub(crate) mod publisher;
pub(crate) mod quiet;
pub(crate) mod slow;
pub(crate) mod tally;
