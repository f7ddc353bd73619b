//! The http way: one GET again and again on a kept connection, every answer checked.
//!
//! Pure. Takes the heads apart with httparse; an answer that is not a success,
//! whose length is not known, or whose body differs from the first one is wrong.

use std::sync::Arc;

use crate::probe::protocol::wire::Corruption;

/// A response head larger than this is refused: four times what servers send in the worst case (16 KiB).
pub(crate) const LARGEST_HEAD_BYTES: usize = 64 << 10;
/// How much of the first body is kept to compare the others with; what lies behind is only counted.
pub(crate) const MOST_REFERENCE_BYTES: usize = 64 << 20;
/// Header fields of one response.
const MOST_FIELDS: usize = 100;
/// Requests that a slow client has on the way at once, whatever the length of
/// an answer: nginx closes a kept connection after 1,000.
const MOST_SLOW_REQUESTS: u64 = 900;

/// What every client of one probe shares.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpShared {
    /// The request.
    pub(crate) request: Arc<[u8]>,
    /// Length of a whole answer, head included; 0 while not known.
    pub(crate) answer_bytes: u64,
    /// What every body must be; `None` where bodies differ by themselves.
    pub(crate) body: Option<Arc<Body>>,
}

/// A body to compare others with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    /// Its length.
    pub(crate) length: u64,
    /// Its beginning, up to [`MOST_REFERENCE_BYTES`].
    pub(crate) bytes: Vec<u8>,
}

impl HttpShared {
    /// What asks for `path` of `host`.
    pub(crate) fn new(host: &str, path: &str) -> Self {
        let agent = concat!("highwater-probe/", env!("CARGO_PKG_VERSION"));
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n");
        Self {
            request: request.into_bytes().into(),
            ..Self::default()
        }
    }
}

/// One client's requests and how far their answers are.
#[derive(Debug)]
pub(crate) struct HttpWire {
    shared: HttpShared,
    received: u64,
    answers: u64,
    state: State,
    /// Bytes of the body so far.
    body_at: u64,
    /// The body so far, where it is to become the reference.
    learned: Option<Vec<u8>>,
    closing: bool,
}

#[derive(Debug)]
enum State {
    Head(Vec<u8>),
    Body { left: u64 },
    ChunkHead(Vec<u8>),
    Chunk { left: u64 },
    ChunkEnd { left: u8 },
    Trailer(Vec<u8>),
}

impl HttpWire {
    pub(crate) fn new(shared: HttpShared) -> Self {
        Self {
            shared,
            received: 0,
            answers: 0,
            state: State::Head(Vec::new()),
            body_at: 0,
            learned: None,
            closing: false,
        }
    }

    /// The same, but it keeps the body of the answer that comes.
    pub(crate) fn learning(shared: HttpShared) -> Self {
        let mut wire = Self::new(shared);
        wire.learned = Some(Vec::new());
        wire
    }

    /// The body learned.
    pub(crate) fn into_body(self) -> Body {
        Body {
            length: self.body_at,
            bytes: self.learned.unwrap_or_default(),
        }
    }

    pub(crate) fn message_bytes(&self) -> u64 {
        self.shared.request.len() as u64
    }

    #[inline(never)]
    pub(crate) fn fill(&self, position: u64, buffer: &mut [u8]) {
        let request = &self.shared.request;
        let mut offset = (position % request.len() as u64) as usize;
        let mut rest = buffer;
        while !rest.is_empty() {
            let len = rest.len().min(request.len() - offset);
            let (part, later) = rest.split_at_mut(len);
            part.copy_from_slice(&request[offset..offset + len]);
            rest = later;
            offset = 0;
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the server said that it closes the connection, and all of its answers came.
    pub(crate) fn is_closed_in_order(&self) -> bool {
        self.closing && matches!(&self.state, State::Head(head) if head.is_empty())
    }

    pub(crate) fn all_answered(&self, sent: u64) -> bool {
        self.answers * self.message_bytes() == sent
            && matches!(&self.state, State::Head(head) if head.is_empty())
    }

    /// Requests enough for `offer` bytes of answers.
    pub(crate) fn send_limit(&self, offer: u64) -> u64 {
        let requests = offer
            .div_ceil(self.shared.answer_bytes.max(1))
            .clamp(1, MOST_SLOW_REQUESTS);
        (self.answers + requests) * self.message_bytes()
    }

    #[inline(never)]
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        let before = self.answers;
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(rest)?;
            self.received += used as u64;
            rest = &rest[used..];
        }
        Ok(self.answers - before)
    }

    /// Takes some of the bytes, at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Corruption> {
        match &mut self.state {
            State::Head(_) => self.head(bytes),
            State::Body { left } => {
                let len = (*left).min(bytes.len() as u64) as usize;
                *left -= len as u64;
                let is_last = *left == 0;
                self.body(&bytes[..len])?;
                if is_last {
                    self.answered()?;
                }
                Ok(len)
            }
            State::ChunkHead(line) => match take_line(line, bytes) {
                (used, false) => self.short_line(used),
                (used, true) => {
                    let left = chunk_length(line).ok_or_else(|| self.wrong("a chunk has no length"))?;
                    self.state = if left == 0 {
                        State::Trailer(Vec::new())
                    } else {
                        State::Chunk { left }
                    };
                    Ok(used)
                }
            },
            State::Chunk { left } => {
                let len = (*left).min(bytes.len() as u64) as usize;
                *left -= len as u64;
                if *left == 0 {
                    self.state = State::ChunkEnd { left: 2 };
                }
                self.body(&bytes[..len])?;
                Ok(len)
            }
            State::ChunkEnd { left } => {
                *left -= 1;
                if *left == 0 {
                    self.state = State::ChunkHead(Vec::new());
                }
                Ok(1)
            }
            State::Trailer(line) => match take_line(line, bytes) {
                (used, false) => self.short_line(used),
                (used, true) => {
                    if line == b"\r\n" || line == b"\n" {
                        self.answered()?;
                    } else {
                        line.clear();
                    }
                    Ok(used)
                }
            },
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, Corruption> {
        let State::Head(head) = &mut self.state else {
            return Ok(0);
        };
        let before = head.len();
        head.extend_from_slice(&bytes[..bytes.len().min(LARGEST_HEAD_BYTES - before)]);
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(head);
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if head.len() < LARGEST_HEAD_BYTES => {
                return Ok(head.len() - before);
            }
            Ok(httparse::Status::Partial) => {
                return Err(self.wrong("a response head is larger than 64 KiB"));
            }
            Err(error) => {
                let why = format!("no HTTP response ({error})");
                return Err(self.wrong(&why));
            }
        };
        let meaning = Meaning::of(&response);
        self.closing |= meaning.closes;
        self.begin_body(&meaning)?;
        Ok(length - before)
    }

    fn begin_body(&mut self, meaning: &Meaning) -> Result<(), Corruption> {
        if !(200..300).contains(&meaning.status) {
            let why = format!("{} {}", meaning.status, meaning.reason);
            return Err(self.wrong(&format!("status {}", why.trim_end())));
        }
        self.body_at = 0;
        if let Some(learned) = &mut self.learned {
            learned.clear();
        }
        self.state = match (meaning.is_chunked, meaning.length) {
            (true, _) => State::ChunkHead(Vec::new()),
            (false, Some(0)) => return self.answered(),
            (false, Some(left)) => State::Body { left },
            (false, None) => {
                return Err(self.wrong("a response without Content-Length, whose end cannot be told"));
            }
        };
        Ok(())
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Corruption> {
        if let Some(body) = &self.shared.body {
            let from = (self.body_at.min(body.bytes.len() as u64)) as usize;
            let len = bytes.len().min(body.bytes.len() - from);
            let is_same = body.bytes[from..from + len] == bytes[..len];
            if !is_same || self.body_at + bytes.len() as u64 > body.length {
                return Err(self.wrong("a body that differs from the first one"));
            }
        }
        if let Some(learned) = &mut self.learned {
            let len = bytes.len().min(MOST_REFERENCE_BYTES - learned.len());
            learned.extend_from_slice(&bytes[..len]);
        }
        self.body_at += bytes.len() as u64;
        Ok(())
    }

    fn answered(&mut self) -> Result<(), Corruption> {
        if self
            .shared
            .body
            .as_ref()
            .is_some_and(|body| body.length != self.body_at)
        {
            return Err(self.wrong("a body shorter than the first one"));
        }
        self.answers += 1;
        self.state = State::Head(Vec::new());
        Ok(())
    }

    fn short_line(&self, used: usize) -> Result<usize, Corruption> {
        match &self.state {
            State::ChunkHead(line) | State::Trailer(line) if line.len() >= LARGEST_HEAD_BYTES => {
                Err(self.wrong("a line of a chunked body is larger than 64 KiB"))
            }
            _ => Ok(used),
        }
    }

    fn wrong(&self, why: &str) -> Corruption {
        Corruption {
            at: self.received,
            why: why.to_owned(),
        }
    }
}

/// What of a response head matters here.
struct Meaning {
    status: u16,
    reason: String,
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
}

impl Meaning {
    fn of(response: &httparse::Response<'_, '_>) -> Self {
        let field = |name: &str| {
            let found = response
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name));
            found.map(|field| String::from_utf8_lossy(field.value).trim().to_ascii_lowercase())
        };
        let connection = field("connection").unwrap_or_default();
        Self {
            status: response.code.unwrap_or(0),
            reason: response.reason.unwrap_or("").to_owned(),
            length: field("content-length").and_then(|value| value.parse().ok()),
            is_chunked: field("transfer-encoding").is_some_and(|value| value.ends_with("chunked")),
            closes: connection.contains("close")
                || (response.version == Some(0) && !connection.contains("keep-alive")),
        }
    }
}

/// Moves bytes up to the end of a line; returns how many, and whether the line is whole.
fn take_line(line: &mut Vec<u8>, bytes: &[u8]) -> (usize, bool) {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let used = end.map_or(bytes.len(), |at| at + 1);
    line.extend_from_slice(&bytes[..used]);
    (used, end.is_some())
}

fn chunk_length(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.split(';').next()?.trim();
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n";

    fn shared() -> HttpShared {
        let mut shared = HttpShared::new("example.org", "/");
        shared.body = Some(Arc::new(Body {
            length: 5,
            bytes: b"hello".to_vec(),
        }));
        shared
    }

    #[test]
    fn answers_are_counted_in_any_cutting() {
        let stream = [PLAIN, CHUNKED, PLAIN].concat();
        for chunk in 1..=stream.len() {
            let mut wire = HttpWire::new(shared());
            let parts = stream.as_bytes().chunks(chunk);
            let answers: u64 = parts.map(|part| wire.receive(part).unwrap()).sum();
            assert_eq!((answers, wire.received()), (3, stream.len() as u64), "{chunk}");
            assert!(wire.all_answered(3 * wire.message_bytes()));
            assert!(!wire.is_closed_in_order());
        }
    }

    #[test]
    fn the_request_repeats_without_a_seam() {
        let wire = HttpWire::new(shared());
        let len = wire.message_bytes() as usize;
        let mut two = vec![0; 2 * len];
        wire.fill(0, &mut two);
        assert_eq!(two[..len], two[len..]);
        let mut part = vec![0; len];
        wire.fill(7, &mut part);
        assert_eq!(part, two[7..len + 7]);
    }

    #[test]
    fn what_is_not_a_right_answer_is_refused_and_named() {
        for (bad, word) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                "503",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhullo", "differs"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!", "differs"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", "shorter"),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "Content-Length"),
            ("220 smtp ready\r\n", "no HTTP"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "chunk",
            ),
        ] {
            let refusal = HttpWire::new(shared()).receive(bad.as_bytes()).unwrap_err();
            assert!(refusal.why.contains(word), "{bad}: {refusal:?}");
        }
        let endless = "HTTP/1.1 200 OK\r\nA: ".to_owned() + &"x".repeat(LARGEST_HEAD_BYTES);
        assert!(HttpWire::new(shared()).receive(endless.as_bytes()).is_err());
    }

    #[test]
    fn a_server_that_says_it_closes_is_believed_at_the_end_of_its_answer() {
        let mut wire = HttpWire::new(shared());
        let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        wire.receive(&closing.as_bytes()[..closing.len() - 1]).unwrap();
        assert!(!wire.is_closed_in_order());
        wire.receive(b"o").unwrap();
        assert!(wire.is_closed_in_order());
    }

    #[test]
    fn slow_clients_ask_for_what_fills_the_kernel() {
        let mut shared = shared();
        shared.answer_bytes = 1 << 20;
        let wire = HttpWire::new(shared.clone());
        assert_eq!(wire.send_limit(16 << 20), 16 * wire.message_bytes());
        shared.answer_bytes = 1 << 30;
        let wire = HttpWire::new(shared);
        assert_eq!(wire.send_limit(16 << 20), wire.message_bytes());
    }
}
