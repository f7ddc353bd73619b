//! HTTP/1: one request again and again on a kept connection, every answer checked.
//!
//! Pure. Owns the request and what the first answer teaches; `answers` takes the
//! answers apart.

mod answers;

use std::sync::Arc;

use crate::probe::error::ProbeError;
use crate::probe::protocol::http::answers::{Answers, Reference};
use crate::probe::protocol::{
    Conversation, Conversations, Corruption, FirstExchange, Protocol, Traits, Wire,
};

/// Requests that a slow client has on the way at once, whatever the length of
/// an answer: nginx closes a kept connection after 1,000.
const MOST_SLOW_REQUESTS: u64 = 900;

const TRAITS: Traits = Traits {
    name: "http",
    echoes: false,
    verifies: true,
    talks: true,
    head_bytes: 0,
};

/// A request is sent again and again on a kept connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The target of the request, such as `/large.bin`.
    pub path: String,
    /// The value of the `Host` field.
    pub host: String,
}

impl Http {
    /// GET of `path`.
    #[must_use]
    pub fn get(path: impl Into<String>, host: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            host: host.into(),
        }
    }

    fn request(&self) -> Vec<u8> {
        let Self { path, host } = self;
        let agent = concat!("highwater-probe/", env!("CARGO_PKG_VERSION"));
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n").into()
    }
}

impl Protocol for Http {
    fn traits(&self) -> &Traits {
        &TRAITS
    }

    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError> {
        let request = self.request();
        let mut first = HttpConversation {
            request: request.into(),
            answer_bytes: 0,
            asks_once: false,
            answers: Answers::learning(),
        };
        let line = format!("GET {}", self.path);
        server
            .exchange(&mut first, &line)
            .map_err(|error| error.about(&line))?;
        let received = first.answers.received();
        let learned = first.answers.learned();
        Ok(Box::new(Requests {
            request: first.request,
            answer_bytes: received,
            asks_once: learned.closes,
            reference: Arc::new(learned),
        }))
    }
}

/// What the clients of one probe share.
#[derive(Debug)]
struct Requests {
    request: Arc<[u8]>,
    /// Length of the first answer, head included.
    answer_bytes: u64,
    /// The server closes after each answer.
    asks_once: bool,
    reference: Arc<Reference>,
}

impl Conversations for Requests {
    fn healthy(&self, _: u64, _: usize) -> Wire {
        Wire::other(HttpConversation {
            request: Arc::clone(&self.request),
            answer_bytes: self.answer_bytes,
            asks_once: self.asks_once,
            answers: Answers::like(Arc::clone(&self.reference)),
        })
    }
}

/// One client's requests and how far their answers are.
#[derive(Debug)]
struct HttpConversation {
    request: Arc<[u8]>,
    answer_bytes: u64,
    asks_once: bool,
    answers: Answers,
}

impl HttpConversation {
    fn request_bytes(&self) -> u64 {
        self.request.len() as u64
    }
}

impl Conversation for HttpConversation {
    fn due_after(&self, position: u64) -> u64 {
        position + self.request_bytes()
    }

    fn fill(&self, position: u64, buffer: &mut [u8]) {
        repeat(&self.request, position, buffer);
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        self.answers.receive(bytes)
    }

    fn received(&self) -> u64 {
        self.answers.received()
    }

    /// Requests enough for `offer` bytes of answers.
    fn send_limit(&self, offer: u64) -> u64 {
        let most = if self.asks_once { 1 } else { MOST_SLOW_REQUESTS };
        let requests = offer.div_ceil(self.answer_bytes.max(1)).clamp(1, most);
        (self.answers.whole() + requests) * self.request_bytes()
    }

    fn answer_bytes(&self, sent: u64) -> Option<u64> {
        let requests = sent / self.request_bytes();
        let missing = requests.saturating_sub(self.answers.whole());
        Some(self.answers.whole_bytes() + missing * self.answer_bytes)
    }

    fn all_answered(&self, sent: u64) -> Option<bool> {
        Some(self.answers.whole() == sent / self.request_bytes() && self.answers.is_between())
    }

    fn end_of_stream(&mut self) -> u64 {
        self.answers.end_of_stream()
    }

    fn is_closed_in_order(&self) -> bool {
        self.answers.is_closed_in_order()
    }
}

/// Fills `buffer` with an endless repetition of `message`, which is not empty, from `position` on.
pub(crate) fn repeat(message: &[u8], position: u64, buffer: &mut [u8]) {
    let mut offset = (position % message.len() as u64) as usize;
    let mut rest = buffer;
    while !rest.is_empty() {
        let len = rest.len().min(message.len() - offset);
        let (part, later) = rest.split_at_mut(len);
        part.copy_from_slice(&message[offset..offset + len]);
        rest = later;
        offset = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(answer_bytes: u64) -> HttpConversation {
        HttpConversation {
            request: Http::get("/", "example.org").request().into(),
            answer_bytes,
            asks_once: false,
            answers: Answers::learning(),
        }
    }

    #[test]
    fn the_request_repeats_without_a_seam() {
        let http = conversation(1);
        let len = http.request_bytes() as usize;
        let mut two = vec![0; 2 * len];
        http.fill(0, &mut two);
        assert_eq!(two[..len], two[len..]);
        let mut part = vec![0; len];
        http.fill(7, &mut part);
        assert_eq!(part, two[7..len + 7]);
    }

    #[test]
    fn slow_clients_ask_for_what_fills_the_kernel() {
        let http = conversation(1 << 20);
        assert_eq!(http.send_limit(16 << 20), 16 * http.request_bytes());
        let http = conversation(1 << 30);
        assert_eq!(http.send_limit(16 << 20), http.request_bytes());
        let once = HttpConversation {
            asks_once: true,
            ..conversation(1 << 10)
        };
        assert_eq!(once.send_limit(16 << 20), once.request_bytes());
    }
}
