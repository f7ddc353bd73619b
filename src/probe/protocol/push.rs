//! The push way: say something once, and then the server sends by itself.
//!
//! Pure. What comes is counted, not verified, since only the server knows it.

use std::sync::Arc;

use crate::probe::error::ProbeError;
use crate::probe::protocol::{
    Conversation, Conversations, Corruption, FirstExchange, Protocol, Publishing, Traits, Wire,
};

/// Every client says something once, and then the server sends by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Push {
    /// What every client sends once; may be empty.
    pub send: Vec<u8>,
    /// What one more connection sends repeatedly, if any.
    pub publishing: Option<Publishing>,
}

/// How much of what came is kept to be shown.
const FIRST_WORDS_BYTES: usize = 200;

const TRAITS: Traits = Traits {
    name: "push",
    echoes: false,
    verifies: false,
    talks: false,
    fills: true,
    head_bytes: 0,
};

impl Protocol for Push {
    fn traits(&self) -> &Traits {
        &TRAITS
    }

    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError> {
        let greetings = Greetings(self.send.as_slice().into());
        server.exchange(greetings.healthy(0, 0).any_mut(), "its greeting")?;
        Ok(Box::new(greetings))
    }

    fn publishing(&self) -> Option<Publishing> {
        self.publishing.clone()
    }
}

/// What every client says.
#[derive(Debug)]
struct Greetings(Arc<[u8]>);

impl Conversations for Greetings {
    fn healthy(&self, _: u64, _: usize) -> Wire {
        Wire::other(PushConversation {
            greeting: Arc::clone(&self.0),
            received: 0,
            first_words: Vec::new(),
        })
    }
}

/// One client that listens.
#[derive(Debug)]
struct PushConversation {
    greeting: Arc<[u8]>,
    received: u64,
    first_words: Vec<u8>,
}

impl PushConversation {
    fn greeting_bytes(&self) -> u64 {
        self.greeting.len() as u64
    }
}

impl Conversation for PushConversation {
    fn due_after(&self, _: u64) -> u64 {
        self.greeting_bytes()
    }

    fn fill(&self, position: u64, buffer: &mut [u8]) {
        let from = position.min(self.greeting_bytes()) as usize;
        let len = buffer.len().min(self.greeting.len() - from);
        buffer[..len].copy_from_slice(&self.greeting[from..from + len]);
    }

    /// Every arrival counts as one answer, so that the waits are the silences between arrivals.
    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        self.received += bytes.len() as u64;
        let room = FIRST_WORDS_BYTES - self.first_words.len();
        self.first_words
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(1)
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn send_limit(&self, _: u64) -> u64 {
        self.greeting_bytes()
    }

    fn answer_bytes(&self, _: u64) -> Option<u64> {
        None
    }

    fn first_words(&self) -> &[u8] {
        &self.first_words
    }

    fn all_answered(&self, _: u64) -> Option<bool> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_sent_once_in_any_cutting() {
        let wire = Greetings(b"hello"[..].into()).healthy(0, 0);
        let mut buffer = [0; 3];
        wire.fill(0, &mut buffer);
        assert_eq!(&buffer, b"hel");
        wire.fill(3, &mut buffer[..2]);
        assert_eq!(&buffer[..2], b"lo");
    }
}
