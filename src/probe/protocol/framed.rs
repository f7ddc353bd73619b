//! The framed way: frames of one size, 4-byte big-endian length first, come back whole.

use crate::probe::error::ProbeError;
use crate::probe::protocol::pattern::Pattern;
use crate::probe::protocol::{
    Conversation, Conversations, Corruption, FIRST_CLIENT, FirstExchange, Protocol, Traits, Wire,
};

/// The server returns whole frames; every byte is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed;

/// Length of the head of a frame.
const HEAD_BYTES: u64 = 4;
/// Payload of the frames that slow clients send: large, so that filling up
/// does not cost the server a million small frames.
const SLOW_FRAME_BYTES: usize = 16 << 10;

const TRAITS: Traits = Traits {
    name: "framed",
    echoes: true,
    verifies: true,
    talks: true,
    fills: true,
    head_bytes: HEAD_BYTES,
};

impl Protocol for Framed {
    fn traits(&self) -> &Traits {
        &TRAITS
    }

    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError> {
        let mut wire = self.healthy(FIRST_CLIENT, server.message_bytes());
        let message = format!("{} bytes", wire.due_after(0));
        server.exchange(wire.any_mut(), &message)?;
        Ok(Box::new(*self))
    }
}

impl Conversations for Framed {
    fn healthy(&self, client: u64, message_bytes: usize) -> Wire {
        let payload_bytes = u32::try_from(message_bytes).unwrap_or(u32::MAX);
        Wire::other(FramedConversation::new(Pattern::new(client), payload_bytes))
    }

    fn slow(&self, client: u64, message_bytes: usize) -> Wire {
        self.healthy(client, message_bytes.max(SLOW_FRAME_BYTES))
    }
}

/// One client's stream of frames and how much of it came back.
#[derive(Debug)]
struct FramedConversation {
    pattern: Pattern,
    payload_bytes: u32,
    received: u64,
}

impl FramedConversation {
    /// Frames of `payload_bytes`, which may be 0.
    fn new(pattern: Pattern, payload_bytes: u32) -> Self {
        Self {
            pattern,
            payload_bytes,
            received: 0,
        }
    }

    fn message_bytes(&self) -> u64 {
        HEAD_BYTES + u64::from(self.payload_bytes)
    }

    fn corruption(&self, offset: usize, what: &str) -> Corruption {
        let at = self.received + offset as u64;
        Corruption {
            at,
            why: format!("{what} came back changed, lost or doubled at byte {at}"),
        }
    }
}

impl Conversation for FramedConversation {
    fn due_after(&self, position: u64) -> u64 {
        position + self.message_bytes()
    }

    /// The payload is the pattern at its place in the whole stream; the heads lie over it.
    fn fill(&self, position: u64, buffer: &mut [u8]) {
        self.pattern.fill(position, buffer);
        let frame_bytes = self.message_bytes();
        let head = self.payload_bytes.to_be_bytes();
        let mut frame_at = position - position % frame_bytes;
        let end = position + buffer.len() as u64;
        while frame_at < end {
            for (at, byte) in (frame_at..).zip(head) {
                if at >= position && at < end {
                    buffer[(at - position) as usize] = byte;
                }
            }
            frame_at += frame_bytes;
        }
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn answer_bytes(&self, sent: u64) -> Option<u64> {
        Some(sent - sent % self.message_bytes())
    }

    /// A server may return a frame only when it is whole.
    fn all_answered(&self, sent: u64) -> Option<bool> {
        Some(self.received >= sent - sent % self.message_bytes())
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        let frame_bytes = self.message_bytes();
        let before = self.received / frame_bytes;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = self.received % frame_bytes;
            let part_end = if offset < HEAD_BYTES {
                HEAD_BYTES
            } else {
                frame_bytes
            };
            let part = (part_end - offset).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at(part);
            if offset < HEAD_BYTES {
                let head = self.payload_bytes.to_be_bytes();
                if now != &head[offset as usize..offset as usize + part] {
                    return Err(self.corruption(0, "the length of a frame"));
                }
            } else if let Some(offset) = self.pattern.first_difference(self.received, now) {
                return Err(self.corruption(offset, "the payload of a frame"));
            }
            self.received += part as u64;
            rest = later;
        }
        Ok(self.received / frame_bytes - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(wire: &FramedConversation, position: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        wire.fill(position, &mut bytes);
        bytes
    }

    #[test]
    fn frames_are_made_and_recognised_in_any_cutting() {
        for payload in [0u32, 1, 5, 64] {
            let wire = FramedConversation::new(Pattern::new(2), payload);
            let frame = wire.message_bytes() as usize;
            let whole = stream(&wire, 0, 7 * frame);
            assert_eq!(whole[..4], payload.to_be_bytes());
            assert_eq!(whole[frame..frame + 4], payload.to_be_bytes());
            for chunk in 1..whole.len() {
                let mut wire = FramedConversation::new(Pattern::new(2), payload);
                let completed: u64 = whole
                    .chunks(chunk)
                    .enumerate()
                    .map(|(index, part)| {
                        assert_eq!(stream(&wire, (index * chunk) as u64, part.len()), part);
                        wire.receive(part).unwrap()
                    })
                    .sum();
                assert_eq!(completed, 7);
            }
        }
    }

    #[test]
    fn a_changed_head_and_a_changed_payload_are_told_apart() {
        let mut wire = FramedConversation::new(Pattern::new(2), 10);
        let mut bytes = stream(&wire, 0, 28);
        bytes[17] ^= 1;
        let corruption = wire.receive(&bytes).unwrap_err();
        assert!(corruption.why.contains("length"), "{corruption:?}");
        let mut wire = FramedConversation::new(Pattern::new(2), 10);
        bytes[17] ^= 1;
        bytes[20] ^= 1;
        let corruption = wire.receive(&bytes).unwrap_err();
        assert_eq!(corruption.at, 20);
        assert!(corruption.why.contains("payload"), "{corruption:?}");
    }
}
