//! One client's side of a protocol: what it sends, and whether what comes back is right.
//!
//! Pure: bytes out, bytes in. Owns the choice between the protocols; each has
//! its own file. Knows neither sockets nor time.

use super::echo::EchoWire;
use super::framed::FramedWire;

/// What came back is not what must come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// Offset in what this client received, in bytes.
    pub(crate) at: u64,
    /// In words, for the report.
    pub(crate) why: String,
}

/// A conversation with one server.
#[derive(Debug)]
pub(crate) enum Wire {
    /// Every byte comes back.
    Echo(EchoWire),
    /// Every frame comes back.
    Framed(FramedWire),
}

impl Wire {
    /// The length of one message to the server, in bytes.
    pub(crate) fn message_bytes(&self) -> u64 {
        match self {
            Self::Echo(wire) => wire.message_bytes(),
            Self::Framed(wire) => wire.message_bytes(),
        }
    }

    /// Fills `buffer` with what is sent at `position` and after it.
    pub(crate) fn fill(&self, position: u64, buffer: &mut [u8]) {
        match self {
            Self::Echo(wire) => wire.fill(position, buffer),
            Self::Framed(wire) => wire.fill(position, buffer),
        }
    }

    /// Takes what the server sent next; returns how many answers it completes.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        match self {
            Self::Echo(wire) => wire.receive(bytes),
            Self::Framed(wire) => wire.receive(bytes),
        }
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        match self {
            Self::Echo(wire) => wire.received(),
            Self::Framed(wire) => wire.received(),
        }
    }

    /// Up to which position a slow client may send when it offers at most
    /// `offer` bytes (of answers) that it has not read.
    pub(crate) fn send_limit(&self, offer: u64) -> u64 {
        self.received() + offer
    }

    /// Whether what comes back can be told right from wrong.
    pub(crate) fn is_verifiable(&self) -> bool {
        match self {
            Self::Echo(_) | Self::Framed(_) => true,
        }
    }

    /// Whether all that must come back for `sent` bytes has; `None` where
    /// nobody can tell.
    pub(crate) fn all_answered(&self, sent: u64) -> Option<bool> {
        Some(self.received() == sent)
    }
}
