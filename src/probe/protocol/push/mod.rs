//! The push way: say something once, and then the server sends by itself.
//!
//! Pure. What comes is counted. It is verified where the prober itself publishes numbered lines;
//! else only the server knows what must come.

pub(crate) mod numbers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::probe::error::ProbeError;
use crate::probe::printable::keep_first_words;
use crate::probe::protocol::{
    Conversation, Conversations, Corruption, FirstExchange, Protocol, Publishing, Traits, Wire,
};
use numbers::{NumberReader, NumberedLine};

/// Every client says something once, and then the server sends by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Push {
    /// What every client sends once; may be empty.
    pub send: Vec<u8>,
    /// What one more connection sends repeatedly, if any.
    pub publishing: Option<Publishing>,
}

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
        let line = self
            .publishing
            .as_ref()
            .map(|publishing| NumberedLine::new(&publishing.line));
        let listeners = Listeners {
            greeting: self.send.as_slice().into(),
            numbers: line.as_ref().and_then(NumberReader::of),
            highest: Arc::default(),
        };
        server.exchange(listeners.healthy(0, 0).any_mut(), "its greeting")?;
        Ok(Box::new(listeners))
    }

    fn publishing(&self) -> Option<Publishing> {
        self.publishing.clone()
    }
}

/// What every client says, and what they hear.
#[derive(Debug)]
struct Listeners {
    greeting: Arc<[u8]>,
    /// One that has read nothing yet, where lines have numbers.
    numbers: Option<NumberReader>,
    /// The highest number that any client has received.
    highest: Arc<AtomicU64>,
}

impl Conversations for Listeners {
    fn healthy(&self, _: u64, _: usize) -> Wire {
        Wire::other(PushConversation {
            greeting: Arc::clone(&self.greeting),
            received: 0,
            first_words: Vec::new(),
            numbers: self.numbers.clone(),
            highest: Arc::clone(&self.highest),
            due: None,
        })
    }
}

/// One client that listens.
#[derive(Debug)]
struct PushConversation {
    greeting: Arc<[u8]>,
    received: u64,
    first_words: Vec<u8>,
    numbers: Option<NumberReader>,
    highest: Arc<AtomicU64>,
    /// The number up to which everything must come.
    due: Option<u64>,
}

impl PushConversation {
    fn greeting_bytes(&self) -> u64 {
        self.greeting.len() as u64
    }

    fn last_number(&self) -> Option<u64> {
        self.numbers.as_ref().and_then(NumberReader::last)
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
        keep_first_words(&mut self.first_words, bytes);
        if let Some(numbers) = &mut self.numbers {
            numbers.read(bytes).map_err(|why| Corruption {
                at: self.received,
                why,
            })?;
            let last = numbers.last().unwrap_or(0);
            self.highest.fetch_max(last, Ordering::Relaxed);
        }
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

    /// Only of one that was given something to catch up with can anybody tell.
    fn all_answered(&self, _: u64) -> Option<bool> {
        Some(self.last_number()? >= self.due?)
    }

    /// Whatever it got, more would have come.
    fn owes(&self, _: u64) -> Option<bool> {
        None
    }

    fn is_verified(&self) -> bool {
        self.last_number().is_some()
    }

    fn catch_up(&mut self) {
        self.due = Some(self.highest.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(greeting: &[u8], line: Option<&[u8]>) -> Listeners {
        Listeners {
            greeting: greeting.into(),
            numbers: line.and_then(|line| NumberReader::of(&NumberedLine::new(line))),
            highest: Arc::default(),
        }
    }

    #[test]
    fn the_greeting_is_sent_once_in_any_cutting() {
        let wire = listeners(b"hello", None).healthy(0, 0);
        let mut buffer = [0; 3];
        wire.fill(0, &mut buffer);
        assert_eq!(&buffer, b"hel");
        wire.fill(3, &mut buffer[..2]);
        assert_eq!(&buffer[..2], b"lo");
    }

    #[test]
    fn a_client_has_caught_up_once_it_has_what_others_had_when_it_began_to() {
        let listeners = listeners(b"", Some(b"{seq}"));
        let (mut quick, mut slow) = (listeners.healthy(0, 0), listeners.healthy(1, 0));
        let message = |number: u64| format!("{{{number:012}}}").into_bytes();
        assert!(!quick.is_verified());
        (1..=5).for_each(|number| assert_eq!(quick.receive(&message(number)), Ok(1)));
        assert!(quick.is_verified());
        slow.receive(&message(1)).unwrap();
        assert_eq!(slow.all_answered(0), None);
        slow.any_mut().catch_up();
        for number in 2..=5 {
            assert_eq!(slow.all_answered(0), Some(false));
            slow.receive(&message(number)).unwrap();
        }
        assert_eq!(slow.all_answered(0), Some(true));
        let lost = slow.receive(&message(8)).unwrap_err();
        assert_eq!(lost.why, "message 8 came after message 5: 2 were lost");
    }

    #[test]
    fn without_numbers_nobody_can_tell_what_must_come() {
        let mut wire = listeners(b"", Some(b"hello")).healthy(0, 0);
        wire.receive(b"hello").unwrap();
        wire.any_mut().catch_up();
        assert!(!wire.is_verified());
        assert_eq!((wire.all_answered(0), wire.owes(0)), (None, None));
    }
}
