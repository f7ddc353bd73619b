//! The ways to make a server send: what a client says, and whether what comes back is right.
//!
//! Pure: bytes out, bytes in. Owns the traits [`Protocol`], [`Conversations`] and
//! [`Conversation`]; each protocol has its own file. Knows neither sockets nor time.

pub(crate) mod echo;
pub(crate) mod framed;
pub(crate) mod http;
pub(crate) mod pattern;
pub(crate) mod push;
pub(crate) mod resp;

use std::fmt::Debug;

use crate::probe::error::ProbeError;
use crate::probe::protocol::echo::EchoConversation;

/// One way to make a server send. Implement it to probe a protocol of your own:
/// one conversation for each client says what it sends and checks what it receives.
pub trait Protocol: Debug + Send + Sync {
    /// What is the same for every conversation.
    fn traits(&self) -> &Traits;

    /// Finds out with one client or more whether the server speaks this protocol, and
    /// what the clients of the probe must know of it, such as the body of a document.
    ///
    /// # Errors
    ///
    /// What `server` returned, or [`ProbeError::WrongAnswer`].
    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError>;

    /// What one more connection sends repeatedly so that the server has something to push.
    fn publishing(&self) -> Option<Publishing> {
        None
    }
}

/// What does not change from one conversation to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// The name in the report.
    pub name: &'static str,
    /// The server sends exactly as many bytes as it was sent, so that a server which stops
    /// reading has stopped sending.
    pub echoes: bool,
    /// What the server sends can be told right from wrong.
    pub verifies: bool,
    /// A client may go on sending messages without reading answers.
    pub talks: bool,
    /// Answers can be made to fill up a client that does not read.
    pub fills: bool,
    /// Bytes of a message beside its payload.
    pub head_bytes: u64,
}

/// Connections to the server before the probe begins.
pub trait FirstExchange {
    /// Bytes of payload of a healthy client's message.
    fn message_bytes(&self) -> usize;

    /// The error that the server answered in this wrong way.
    fn wrong_answer(&self, why: String) -> ProbeError;

    /// Connects, sends one message of the conversation, and reads until it is answered.
    /// A conversation that cannot tell ([`Conversation::all_answered`] is `None`) is only
    /// given a moment in which the server may refuse it.
    ///
    /// # Errors
    ///
    /// When no connection can be made, or the answer is wrong, late or missing. `message`
    /// is what the error calls the message that was sent.
    fn exchange(&mut self, conversation: &mut dyn Conversation, message: &str) -> Result<(), ProbeError>;
}

/// Makes the conversation of each client.
pub trait Conversations: Debug + Send + Sync {
    /// That of a healthy client, which sends messages of `message_bytes` of payload where
    /// the protocol lets it choose. `client` is a number that no other client has.
    fn healthy(&self, client: u64, message_bytes: usize) -> Wire;

    /// That of a slow client: few messages should bring many bytes.
    fn slow(&self, client: u64, message_bytes: usize) -> Wire {
        self.healthy(client, message_bytes)
    }
}

/// One client's side: what it sends, and whether what comes back is right. A position is
/// the number of bytes sent before it on this connection.
pub trait Conversation: Debug + Send {
    /// Position of the end of the next message after `position`.
    fn due_after(&self, position: u64) -> u64;

    /// Fills `buffer` with what is sent at `position` and after it.
    fn fill(&self, position: u64, buffer: &mut [u8]);

    /// Takes what the server sent next; returns how many answers it completes.
    ///
    /// # Errors
    ///
    /// A byte that must not come here.
    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption>;

    /// Bytes received so far.
    fn received(&self) -> u64;

    /// Up to which position a slow client may send when it offers at most `offer`
    /// bytes (of answers) that it has not read.
    fn send_limit(&self, offer: u64) -> u64 {
        self.received() + offer
    }

    /// Whether all that must come back for `sent` bytes has; `None` where nobody can tell.
    /// For a message that was not sent whole nothing must come back.
    fn all_answered(&self, sent: u64) -> Option<bool> {
        Some(self.received() == sent)
    }

    /// How many bytes of answers `sent` bytes lead to, as far as that is known now; `None` where
    /// nobody can tell.
    fn answer_bytes(&self, sent: u64) -> Option<u64> {
        Some(sent)
    }

    /// Whether a stream that ends here lacks something: a part of an answer, or the answers to
    /// whole messages, unless the server closed in order. `None` where nobody can tell.
    fn owes(&self, sent: u64) -> Option<bool> {
        if self.is_closed_in_order() {
            return Some(false);
        }
        self.all_answered(sent).map(|all| !all)
    }

    /// Whether what came so far was told right from wrong, where the protocol as such cannot
    /// ([`Traits::verifies`]).
    fn is_verified(&self) -> bool {
        false
    }

    /// The client begins to read all that waits for it: what was sent to others up to now must come.
    fn catch_up(&mut self) {}

    /// The beginning of what came, where nobody can verify it; people may know what it says.
    fn first_words(&self) -> &[u8] {
        &[]
    }

    /// The server reset the stream here, which completes no answer.
    fn reset(&mut self) {}

    /// The server ended the stream here; returns how many answers that completes.
    fn end_of_stream(&mut self) -> u64 {
        0
    }

    /// Whether the server announced that it closes here, or has closed behind a whole answer,
    /// so that connecting again is what clients do.
    fn is_closed_in_order(&self) -> bool {
        false
    }
}

/// The number of the client of the first exchange; no other client has it.
pub const FIRST_CLIENT: u64 = u64::MAX - 1;

/// What one more connection sends repeatedly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publishing {
    /// Sent once, before all else, such as a login; may be empty.
    pub greeting: Vec<u8>,
    /// Sent again and again; not empty. `{seq}` in it, once, becomes the line's number as
    /// `{000000000017}`, and then what clients receive is verified: gaps, order, and the bytes behind it.
    pub line: Vec<u8>,
    /// How much of it in a second, in bytes.
    pub bytes_per_second: u64,
}

/// What came back is not what must come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// Offset in what this client received, in bytes.
    pub at: u64,
    /// In words, for the report.
    pub why: String,
}

/// The conversation of one client. An echo is a variant of its own and is inlined, as its
/// few instructions must not be a call away; all others are behind a trait object.
#[derive(Debug)]
pub enum Wire {
    /// Every byte comes back.
    Echo(EchoConversation),
    /// Any other protocol.
    Other(Box<dyn Conversation>),
}

impl Wire {
    /// A conversation of any kind.
    pub fn other(conversation: impl Conversation + 'static) -> Self {
        Self::Other(Box::new(conversation))
    }

    fn any(&self) -> &dyn Conversation {
        match self {
            Self::Echo(echo) => echo,
            Self::Other(other) => &**other,
        }
    }

    pub(crate) fn any_mut(&mut self) -> &mut dyn Conversation {
        match self {
            Self::Echo(echo) => echo,
            Self::Other(other) => &mut **other,
        }
    }

    #[inline(always)]
    pub(crate) fn due_after(&self, position: u64) -> u64 {
        match self {
            Self::Echo(echo) => echo.due_after(position),
            Self::Other(other) => other.due_after(position),
        }
    }

    #[inline(always)]
    pub(crate) fn fill(&self, position: u64, buffer: &mut [u8]) {
        match self {
            Self::Echo(echo) => echo.fill(position, buffer),
            Self::Other(other) => other.fill(position, buffer),
        }
    }

    #[inline(always)]
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        match self {
            Self::Echo(echo) => echo.receive(bytes),
            Self::Other(other) => other.receive(bytes),
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.any().received()
    }

    pub(crate) fn send_limit(&self, offer: u64) -> u64 {
        self.any().send_limit(offer)
    }

    pub(crate) fn all_answered(&self, sent: u64) -> Option<bool> {
        self.any().all_answered(sent)
    }

    pub(crate) fn answer_bytes(&self, sent: u64) -> Option<u64> {
        self.any().answer_bytes(sent)
    }

    pub(crate) fn owes(&self, sent: u64) -> Option<bool> {
        self.any().owes(sent)
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.any().is_verified()
    }

    pub(crate) fn first_words(&self) -> &[u8] {
        self.any().first_words()
    }

    /// See [`Conversation::is_closed_in_order`]; an echo never is, and is not asked.
    #[inline(always)]
    pub(crate) fn is_closed_in_order(&self) -> bool {
        match self {
            Self::Echo(_) => false,
            Self::Other(other) => other.is_closed_in_order(),
        }
    }
}
