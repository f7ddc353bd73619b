//! RESP, the protocol of Redis: PING for healthy clients, ECHO of 16 KiB for slow ones.
//!
//! Pure. Every byte of every reply is known in advance and verified. An error
//! reply, such as the demand for a login, is quoted.

use crate::probe::error::ProbeError;
use crate::probe::protocol::http::repeat;
use crate::probe::protocol::pattern::Pattern;
use crate::probe::protocol::{
    Conversation, Conversations, Corruption, FIRST_CLIENT, FirstExchange, Protocol, Traits, Wire,
};

/// The server answers PING with +PONG, and ECHO with what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resp;

/// The PING of a healthy client, and its answer.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";
/// Payload of the ECHO of a slow client: some thousand of them fill what kernels hold.
const ECHO_BYTES: usize = 16 << 10;
const ECHO_HEAD: &[u8] = b"*2\r\n$4\r\nECHO\r\n$16384\r\n";
const ECHO_REPLY_HEAD: &[u8] = b"$16384\r\n";
const LINE_END: &[u8] = b"\r\n";
/// How much of an error reply is quoted.
const QUOTED_BYTES: usize = 200;

const TRAITS: Traits = Traits {
    name: "resp",
    echoes: false,
    verifies: true,
    talks: true,
    fills: true,
    head_bytes: 0,
};

impl Protocol for Resp {
    fn traits(&self) -> &Traits {
        &TRAITS
    }

    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError> {
        server.exchange(self.healthy(FIRST_CLIENT, 0).any_mut(), "PING")?;
        Ok(Box::new(*self))
    }
}

impl Conversations for Resp {
    fn healthy(&self, client: u64, _: usize) -> Wire {
        Wire::other(RespConversation::new(client, Command::Ping))
    }

    fn slow(&self, client: u64, _: usize) -> Wire {
        Wire::other(RespConversation::new(client, Command::Echo))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Ping,
    Echo,
}

/// One client's commands, all alike, and how much of their replies came.
#[derive(Debug)]
struct RespConversation {
    command: &'static str,
    request: Vec<u8>,
    reply: Vec<u8>,
    received: u64,
}

impl RespConversation {
    fn new(client: u64, command: Command) -> Self {
        let (command, request, reply) = match command {
            Command::Ping => ("PING", PING.to_vec(), PONG.to_vec()),
            Command::Echo => {
                let mut payload = vec![0; ECHO_BYTES];
                Pattern::new(client).fill(0, &mut payload);
                (
                    "ECHO",
                    [ECHO_HEAD, &payload, LINE_END].concat(),
                    [ECHO_REPLY_HEAD, &payload, LINE_END].concat(),
                )
            }
        };
        Self {
            command,
            request,
            reply,
            received: 0,
        }
    }

    fn wrong(&self, offset: usize, bytes: &[u8]) -> Corruption {
        let at = self.received + offset as u64;
        let is_reply_start = at.is_multiple_of(self.reply.len() as u64);
        let why = if is_reply_start && bytes[offset] == b'-' {
            let error = &bytes[offset..];
            let end = error
                .iter()
                .position(|&byte| byte == b'\r')
                .unwrap_or(error.len());
            let quoted = String::from_utf8_lossy(&error[..end.min(QUOTED_BYTES)]);
            format!("{} was answered with \"{quoted}\"", self.command)
        } else {
            format!("byte {at} of the replies came back changed, lost or doubled")
        };
        Corruption { at, why }
    }
}

impl Conversation for RespConversation {
    fn due_after(&self, position: u64) -> u64 {
        position + self.request.len() as u64
    }

    fn fill(&self, position: u64, buffer: &mut [u8]) {
        repeat(&self.request, position, buffer);
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        let reply_bytes = self.reply.len() as u64;
        let before = self.received / reply_bytes;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = (self.received % reply_bytes) as usize;
            let len = rest.len().min(self.reply.len() - offset);
            let (part, later) = rest.split_at(len);
            let expected = &self.reply[offset..offset + len];
            if part != expected {
                let same = part.iter().zip(expected).take_while(|(a, b)| a == b).count();
                return Err(self.wrong(same, rest));
            }
            self.received += len as u64;
            rest = later;
        }
        Ok(self.received / reply_bytes - before)
    }

    fn received(&self) -> u64 {
        self.received
    }

    /// Commands enough for `offer` bytes of replies.
    fn send_limit(&self, offer: u64) -> u64 {
        let replies = (self.received + offer).div_ceil(self.reply.len() as u64);
        replies * self.request.len() as u64
    }

    fn answer_bytes(&self, sent: u64) -> Option<u64> {
        Some(sent / self.request.len() as u64 * self.reply.len() as u64)
    }

    fn all_answered(&self, sent: u64) -> Option<bool> {
        let (request, reply) = (self.request.len() as u64, self.reply.len() as u64);
        Some(sent / request * reply == self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(conversation: &RespConversation, count: usize) -> Vec<u8> {
        conversation.reply.repeat(count)
    }

    #[test]
    fn replies_are_counted_in_any_cutting() {
        for command in [Command::Ping, Command::Echo] {
            for chunk in [1, 2, 3, 7, 8, 1000, 16 << 10, 40_000] {
                let mut resp = RespConversation::new(5, command);
                let stream = replies(&resp, 3);
                let counted: u64 = stream.chunks(chunk).map(|part| resp.receive(part).unwrap()).sum();
                assert_eq!(counted, 3, "{command:?} {chunk}");
                assert_eq!(resp.all_answered(resp.due_after(0) * 3), Some(true));
                assert_eq!(resp.all_answered(resp.due_after(0) * 4), Some(false));
                assert_eq!(resp.all_answered(resp.due_after(0) * 3 + 1), Some(true));
            }
        }
    }

    #[test]
    fn an_error_is_quoted_and_a_changed_byte_is_named_by_its_position() {
        let mut ping = RespConversation::new(0, Command::Ping);
        let refusal = ping.receive(b"-NOAUTH Authentication required.\r\n").unwrap_err();
        assert_eq!(
            refusal.why,
            "PING was answered with \"-NOAUTH Authentication required.\""
        );
        let mut echo = RespConversation::new(0, Command::Echo);
        let mut stream = replies(&echo, 2);
        stream[20_000] ^= 1;
        let corruption = echo.receive(&stream).unwrap_err();
        assert_eq!(corruption.at, 20_000);
        let mut echo = RespConversation::new(0, Command::Echo);
        let other = RespConversation::new(1, Command::Echo);
        assert!(
            echo.receive(&replies(&other, 1)).is_err(),
            "the reply of another client"
        );
    }

    #[test]
    fn a_slow_client_asks_for_as_many_replies_as_fill_the_kernel() {
        let echo = RespConversation::new(0, Command::Echo);
        let requests = echo.send_limit(16 << 20) / echo.due_after(0);
        assert!((1000..=1024).contains(&requests), "{requests}");
    }
}
