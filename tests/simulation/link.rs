//! One connection: the kernel's buffers and edges, and the peer's part.
//!
//! Owns what is where on its way. Refuses to move anything by itself.

use std::collections::VecDeque;
use std::time::Duration;

use highwater::ClientId;
use highwater::engine::Event;

use super::content::Content;
use super::introduction::Header;

/// How a peer behaves, for the time being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Fast,
    Trickling,
    Stalled,
}

/// Where a connection that the engine asked for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connecting {
    Made,
    Pending,
    Refused,
}

/// One connection, with the kernel's part and the peer's part.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: Option<ClientId>,
    pub(crate) is_upstream: bool,
    /// The other side of a tunnel, once both are there.
    pub(crate) partner: Option<usize>,
    /// The client that the engine connects this upstream for.
    pub(crate) upstream_of: Option<usize>,
    pub(crate) content: Content,
    /// What stands in front of its stream, and how many bytes of it.
    pub(crate) header: Option<Header>,
    pub(crate) header_bytes: u64,
    pub(crate) connecting: Connecting,
    // From the peer to the engine.
    pub(crate) sent: u64,
    pub(crate) read: u64,
    pub(crate) left_to_send: u64,
    /// The mark of urgent data in what the peer sent, at which a read stops.
    pub(crate) urgent_at: Option<u64>,
    pub(crate) peer_ended: bool,
    pub(crate) end_read: bool,
    pub(crate) reset: bool,
    pub(crate) reset_told: bool,
    /// The peer has closed both ways: data that reaches it is answered with
    /// a reset.
    pub(crate) peer_gone: bool,
    // From the engine to the peer.
    pub(crate) taken: u64,
    pub(crate) arrived: u64,
    pub(crate) peer_read: u64,
    pub(crate) refused: bool,
    pub(crate) ended: bool,
    pub(crate) end_arrived: bool,
    /// What a service that says its own said, as places in the pattern.
    pub(crate) told: VecDeque<(usize, usize)>,
    // Edges that no event has carried yet.
    pub(crate) edge_in: bool,
    pub(crate) edge_out: bool,
    pub(crate) queued: bool,
    pub(crate) reading: Reading,
    /// The kernel refused to watch it.
    pub(crate) unregistered: bool,
    /// Links that had given up their seat when this one connected.
    pub(crate) given_up_before: Vec<usize>,
    /// The longest time between two retransmissions; `None` until it is accepted.
    pub(crate) longest_retransmission: Option<Duration>,
    pub(crate) close_is_reset: bool,
    pub(crate) closed: bool,
    pub(crate) said_closed: bool,
    /// It was closed because it was too slow.
    pub(crate) was_slow: bool,
    pub(crate) read_in_turn: usize,
    /// The last turn in which a read found nothing left.
    pub(crate) dry_turn: u64,
    /// An event said that a short read may not be the last, and none was
    /// refused since.
    pub(crate) read_on: bool,
    /// The last turn in which a read was interrupted, and so told nothing.
    pub(crate) interrupted_turn: u64,
    /// The last turn in which a write was tried.
    pub(crate) tried_turn: u64,
}

impl Link {
    pub(crate) const fn waiting(&self) -> u64 {
        self.sent - self.read
    }

    pub(crate) const fn unread(&self) -> bool {
        self.waiting() > 0 || (self.peer_ended && !self.end_read) || (self.reset && !self.reset_told)
    }

    pub(crate) const fn in_kernel(&self) -> u64 {
        self.taken - self.arrived
    }

    /// Whether nothing is under way in this turn, in neither direction, so
    /// that the engine could know it.
    pub(crate) const fn is_quiet(&self, turn: u64) -> bool {
        self.is_settled() && !self.unread() && !self.read_on && self.interrupted_turn != turn
    }

    pub(crate) const fn is_settled(&self) -> bool {
        self.reset || (self.in_kernel() == 0 && (!self.ended || self.end_arrived))
    }
}

/// What one event says: only what is new, or all that holds.
pub(crate) fn event(link: &Link, sparse: bool) -> Event {
    let at_end =
        link.peer_ended || link.reset || link.connecting == Connecting::Refused || link.urgent_at.is_some();
    if sparse {
        Event {
            readable: link.edge_in,
            writable: link.edge_out,
            read_again: link.edge_in && at_end,
        }
    } else {
        Event {
            readable: link.waiting() > 0 || at_end,
            writable: link.edge_out || (link.connecting == Connecting::Made && !link.refused),
            read_again: at_end,
        }
    }
}
