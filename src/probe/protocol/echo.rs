//! The echo way: every byte comes back, in order, and nothing else.

use std::cmp::Ordering;

use crate::probe::error::ProbeError;
use crate::probe::protocol::pattern::Pattern;
use crate::probe::protocol::{
    Conversation, Conversations, Corruption, FIRST_CLIENT, FirstExchange, Protocol, Traits, Wire,
};

/// The server returns every byte; all of them are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo;

const TRAITS: Traits = Traits {
    name: "echo",
    echoes: true,
    verifies: true,
    talks: true,
    fills: true,
    head_bytes: 0,
};

impl Protocol for Echo {
    fn traits(&self) -> &Traits {
        &TRAITS
    }

    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError> {
        let bytes = server.message_bytes();
        server.exchange(
            self.healthy(FIRST_CLIENT, bytes).any_mut(),
            &format!("{bytes} bytes"),
        )?;
        Ok(Box::new(*self))
    }
}

impl Conversations for Echo {
    fn healthy(&self, client: u64, message_bytes: usize) -> Wire {
        Wire::Echo(EchoConversation::new(Pattern::new(client), message_bytes as u64))
    }
}

/// One client's stream and how much of it came back.
#[derive(Debug)]
pub struct EchoConversation {
    pattern: Pattern,
    message_bytes: u64,
    received: u64,
    /// Bytes still missing of the message that is coming back.
    missing: u64,
}

impl EchoConversation {
    /// `message_bytes` only says what counts as one message; it is above 0.
    pub(crate) fn new(pattern: Pattern, message_bytes: u64) -> Self {
        Self {
            pattern,
            message_bytes,
            received: 0,
            missing: message_bytes,
        }
    }

    #[cold]
    fn corruption(&self, offset: usize) -> Corruption {
        let at = self.received + offset as u64;
        Corruption {
            at,
            why: format!("byte {at} came back changed, lost or doubled"),
        }
    }
}

impl Conversation for EchoConversation {
    #[inline(always)]
    fn due_after(&self, position: u64) -> u64 {
        position + self.message_bytes
    }

    #[inline(always)]
    fn fill(&self, position: u64, buffer: &mut [u8]) {
        self.pattern.fill(position, buffer);
    }

    fn received(&self) -> u64 {
        self.received
    }

    #[inline(always)]
    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        if let Some(offset) = self.pattern.first_difference(self.received, bytes) {
            return Err(self.corruption(offset));
        }
        let left = bytes.len() as u64;
        self.received += left;
        // The division, which costs as much as all the rest, is for more than one message.
        match left.cmp(&self.missing) {
            Ordering::Less => {
                self.missing -= left;
                Ok(0)
            }
            Ordering::Equal => {
                self.missing = self.message_bytes;
                Ok(1)
            }
            Ordering::Greater => {
                let more = left - self.missing;
                self.missing = self.message_bytes - more % self.message_bytes;
                Ok(1 + more / self.message_bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_whatever_the_chunks() {
        for message in [1u64, 3, 64] {
            for chunk in 1..=200usize {
                let mut wire = EchoConversation::new(Pattern::new(1), message);
                let mut stream = vec![0; 1000];
                wire.fill(0, &mut stream);
                let completed: u64 = stream.chunks(chunk).map(|part| wire.receive(part).unwrap()).sum();
                assert_eq!(completed, 1000 / message, "{message} {chunk}");
                assert_eq!(wire.received(), 1000);
            }
        }
    }

    #[test]
    fn a_lost_byte_is_named_by_its_position() {
        let mut wire = EchoConversation::new(Pattern::new(1), 64);
        let mut stream = vec![0; 128];
        wire.fill(0, &mut stream);
        wire.receive(&stream[..50]).unwrap();
        let corruption = wire.receive(&stream[51..]).unwrap_err();
        assert!(corruption.at >= 50 && corruption.at < 53, "{corruption:?}");
    }
}
