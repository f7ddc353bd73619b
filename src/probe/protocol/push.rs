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

const TRAITS: Traits = Traits {
    name: "push",
    echoes: false,
    verifies: false,
    talks: false,
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
        })
    }
}

/// One client that listens.
#[derive(Debug)]
struct PushConversation {
    greeting: Arc<[u8]>,
    received: u64,
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
        Ok(1)
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn send_limit(&self, _: u64) -> u64 {
        self.greeting_bytes()
    }

    fn all_answered(&self, _: u64) -> Option<bool> {
        None
    }
}

/// Reads a line as people type it: `\r`, `\n`, `\t`, `\0`, `\\`, and `\xHH` for any byte.
///
/// # Errors
///
/// One sentence that names the escape that is none.
pub(crate) fn unescape(typed: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(typed.len());
    let mut rest = typed.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.next();
        bytes.push(match escape {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                byte.ok_or_else(|| {
                    format!("`\\x{digits}` is not an escape: write two hex digits, such as \\x0a")
                })?
            }
            other => {
                let other = other.map_or(String::new(), String::from);
                return Err(format!(
                    "`\\{other}` is not an escape: there are \\r \\n \\t \\0 \\\\ and \\xHH"
                ));
            }
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_others_refused_by_name() {
        assert_eq!(unescape("SUB a\\r\\n").unwrap(), b"SUB a\r\n");
        assert_eq!(
            unescape("\\x00\\xff\\\\\\t\\0é").unwrap(),
            b"\x00\xff\\\t\0\xc3\xa9"
        );
        for bad in ["\\", "\\q", "\\x1", "\\x+1", "\\xzz"] {
            assert!(unescape(bad).unwrap_err().contains("not an escape"), "{bad}");
        }
    }

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
