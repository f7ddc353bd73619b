//! One client's side of a protocol: what it sends, and whether what comes back is right.
//!
//! Pure: bytes out, bytes in. Owns the choice between the protocols; each has
//! its own file. Knows neither sockets nor time.

use crate::probe::protocol::echo::EchoWire;
use crate::probe::protocol::framed::FramedWire;
use crate::probe::protocol::http::HttpWire;
use crate::probe::protocol::push::PushWire;

/// What came back is not what must come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// Offset in what this client received, in bytes.
    pub(crate) at: u64,
    /// In words, for the report.
    pub(crate) why: String,
}

/// A conversation with one server. What sends and receives in the rarer ways is kept out of
/// line, so that the few instructions of an echo are not a call away.
#[derive(Debug)]
pub(crate) enum Wire {
    /// Every byte comes back.
    Echo(EchoWire),
    /// Every frame comes back.
    Framed(FramedWire),
    /// Every request is answered.
    Http(Box<HttpWire>),
    /// The server sends by itself.
    Push(PushWire),
}

impl Wire {
    /// Up to which position is to be sent when one more message is due after `position`.
    #[inline(always)]
    pub(crate) fn due_after(&self, position: u64) -> u64 {
        match self {
            Self::Echo(wire) => position + wire.message_bytes(),
            Self::Framed(wire) => position + wire.message_bytes(),
            Self::Http(wire) => position + wire.message_bytes(),
            Self::Push(wire) => wire.greeting_bytes(),
        }
    }

    /// Fills `buffer` with what is sent at `position` and after it.
    #[inline(always)]
    pub(crate) fn fill(&self, position: u64, buffer: &mut [u8]) {
        match self {
            Self::Echo(wire) => wire.fill(position, buffer),
            Self::Framed(wire) => wire.fill(position, buffer),
            Self::Http(wire) => wire.fill(position, buffer),
            Self::Push(wire) => wire.fill(position, buffer),
        }
    }

    /// Takes what the server sent next; returns how many answers it completes.
    #[inline(always)]
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        match self {
            Self::Echo(wire) => wire.receive(bytes),
            Self::Framed(wire) => wire.receive(bytes),
            Self::Http(wire) => wire.receive(bytes),
            Self::Push(wire) => wire.receive(bytes),
        }
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        match self {
            Self::Echo(wire) => wire.received(),
            Self::Framed(wire) => wire.received(),
            Self::Http(wire) => wire.received(),
            Self::Push(wire) => wire.received(),
        }
    }

    /// Up to which position a slow client may send when it offers at most
    /// `offer` bytes (of answers) that it has not read.
    pub(crate) fn send_limit(&self, offer: u64) -> u64 {
        match self {
            Self::Echo(_) | Self::Framed(_) => self.received() + offer,
            Self::Http(wire) => wire.send_limit(offer),
            Self::Push(wire) => wire.greeting_bytes(),
        }
    }

    /// Whether the server sends no more than it was sent, so that its not
    /// reading any more shows that it has filled up.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(self, Self::Echo(_) | Self::Framed(_))
    }

    /// Whether what comes back can be told right from wrong.
    pub(crate) fn is_verifiable(&self) -> bool {
        !matches!(self, Self::Push(_))
    }

    /// Whether all that must come back for `sent` bytes has; `None` where
    /// nobody can tell.
    pub(crate) fn all_answered(&self, sent: u64) -> Option<bool> {
        match self {
            Self::Echo(_) | Self::Framed(_) => Some(self.received() == sent),
            Self::Http(wire) => Some(wire.all_answered(sent)),
            Self::Push(_) => None,
        }
    }

    /// Whether the server announced that it would close here, as HTTP servers
    /// do after so many requests, so that connecting again is what clients do.
    pub(crate) fn is_closed_in_order(&self) -> bool {
        match self {
            Self::Http(wire) => wire.is_closed_in_order(),
            _ => false,
        }
    }
}
