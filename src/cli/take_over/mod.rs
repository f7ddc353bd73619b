//! `--take-over PATH`: a server gets its listening sockets from the one that
//! runs, which stops accepting once the new one accepts. No connection is lost.
//!
//! Owns the words that the two exchange. Refuses to stop anybody: the
//! [`Stopper`](super::stopper::Stopper) does.
//!
//! ```text
//! successor                                predecessor
//!     ── highwater take-over 1 ──────────▶
//!     ◀── sockets 1, one name a line ─────   with the descriptors (SCM_RIGHTS)
//!   starts on these sockets
//!     ── accepting ──────────────────────▶
//!     ◀── yours ──────────────────────────   and stops accepting
//! ```
//!
//! At any place the predecessor may answer `refused: WHY`. Each line is one
//! packet of a Unix socket (SOCK_SEQPACKET), so it arrives whole or not at all.

mod callers;
mod channel;
mod offer;
mod predecessor;

pub(crate) use offer::Offer;
pub(crate) use predecessor::{Predecessor, find};

/// What the successor says first; the number is the version of these words.
const REQUEST: &str = "highwater take-over 1";
/// Before the names of the sockets, one a line, in the order of the
/// descriptors.
const SOCKETS: &str = "sockets 1";
/// The successor accepts.
const ACCEPTING: &str = "accepting";
/// The predecessor leaves the sockets to the successor.
const YOURS: &str = "yours";
/// Before the reason why the predecessor goes on.
const REFUSED: &str = "refused: ";
