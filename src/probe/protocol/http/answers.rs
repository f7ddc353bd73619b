//! The answers of an HTTP server, taken apart as they come.
//!
//! Pure. Heads are parsed by httparse. Owns what is an answer, where it ends, and
//! whether its body is the one that its validator promises.

use std::sync::Arc;

use crate::probe::protocol::Corruption;
use crate::probe::protocol::http::meaning::Meaning;

/// A response head larger than this is refused: four times what servers send in the worst case (16 KiB).
pub(crate) const LARGEST_HEAD_BYTES: usize = 64 << 10;
/// How much of the first body is kept to compare the others with; what lies behind is only counted.
const MOST_REFERENCE_BYTES: usize = 64 << 20;
/// Header fields of one response.
const MOST_FIELDS: usize = 512;

/// What of a request decides how its answers are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Answers have heads only.
    pub(crate) is_head: bool,
    /// The statuses that are right; none: those that say what there is.
    pub(crate) statuses: Vec<u16>,
}

/// What the first answer was.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// Its status; 0 while there is none.
    pub(crate) status: u16,
    /// Where it redirects to.
    pub(crate) location: Option<String>,
    /// The server closes after such an answer.
    pub(crate) closes: bool,
    /// What was asked.
    pub(crate) asked: Asked,
    /// Its strong entity tag or digest: an answer with the same one has the same body.
    validator: Option<String>,
    /// Length of its body.
    length: u64,
    /// The body's beginning, up to [`MOST_REFERENCE_BYTES`].
    bytes: Vec<u8>,
}

/// One connection's answers.
#[derive(Debug)]
pub(crate) struct Answers {
    reference: Arc<Reference>,
    /// The answer so far, where it is to become the reference.
    learned: Option<Reference>,
    received: u64,
    whole: u64,
    /// Bytes received when the last answer was whole.
    whole_bytes: u64,
    state: State,
    /// Bytes of the body so far.
    body_at: u64,
    /// The body has the validator of the reference.
    is_compared: bool,
    /// The server said that it closes, or did.
    closing: bool,
}

#[derive(Debug)]
enum State {
    Head(Vec<u8>),
    Body { left: u64 },
    ToTheEnd,
    ChunkHead(Vec<u8>),
    Chunk { left: u64 },
    ChunkEnd { left: u8 },
    Trailer(Vec<u8>),
}

impl Answers {
    /// Answers of which the last becomes the reference.
    pub(crate) fn learning(asked: Asked) -> Self {
        let reference = Reference {
            asked,
            ..Reference::default()
        };
        Self {
            learned: Some(Reference::default()),
            ..Self::like(Arc::new(reference))
        }
    }

    /// Answers that must be like this one.
    pub(crate) fn like(reference: Arc<Reference>) -> Self {
        Self {
            reference,
            learned: None,
            received: 0,
            whole: 0,
            whole_bytes: 0,
            state: State::Head(Vec::new()),
            body_at: 0,
            is_compared: false,
            closing: false,
        }
    }

    /// The last answer, as a reference for others.
    pub(crate) fn learned(self) -> Reference {
        Reference {
            length: self.body_at,
            closes: self.closing,
            asked: self.reference.asked.clone(),
            ..self.learned.unwrap_or_default()
        }
    }

    /// Bytes received.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whole answers.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    /// Bytes of whole answers.
    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// Whether no answer has begun that is not whole.
    pub(crate) fn is_between(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.iter().all(|byte| matches!(byte, b'\r' | b'\n')))
    }

    /// Whether the server said that it closes here, or closed behind a whole answer.
    pub(crate) fn is_closed_in_order(&self) -> bool {
        self.closing && self.is_between()
    }

    /// The stream is over; returns how many answers that completes.
    pub(crate) fn end_of_stream(&mut self) -> u64 {
        let completed = u64::from(matches!(self.state, State::ToTheEnd));
        if completed > 0 {
            self.whole += 1;
            self.state = State::Head(Vec::new());
        }
        self.closing |= self.whole > 0;
        completed
    }

    /// The stream was reset: a body that lasts to the end of the stream stays unfinished.
    pub(crate) fn reset(&mut self) {
        self.closing |= self.whole > 0;
    }

    /// Takes the next bytes; returns how many answers they complete.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        let before = self.whole;
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(rest)?;
            self.received += used as u64;
            if self.is_between() {
                self.whole_bytes = self.received;
            }
            rest = &rest[used..];
        }
        Ok(self.whole - before)
    }

    /// Takes some of the bytes, at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Corruption> {
        match &mut self.state {
            State::Head(_) => self.head(bytes),
            State::ToTheEnd => self.body(bytes).map(|()| bytes.len()),
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
                // An LF alone ends a chunk too, as servers of old send it.
                *left -= 1;
                if *left == 0 || bytes[0] == b'\n' {
                    self.state = State::ChunkHead(Vec::new());
                }
                Ok(1)
            }
            State::ChunkHead(_) | State::Trailer(_) => self.line(bytes),
        }
    }

    /// Takes bytes of a line of a chunked body, or of its trailer.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, Corruption> {
        let (State::ChunkHead(line) | State::Trailer(line)) = &mut self.state else {
            return Ok(0);
        };
        let (used, is_whole) = take_line(line, bytes);
        if !is_whole {
            if line.len() >= LARGEST_HEAD_BYTES {
                return Err(self.wrong("a line of more than 64 KiB in a chunked body"));
            }
            return Ok(used);
        }
        let line = std::mem::take(line);
        if matches!(self.state, State::ChunkHead(_)) {
            let left = chunk_length(&line).ok_or_else(|| self.wrong("a chunk without a length"))?;
            self.state = if left == 0 {
                State::Trailer(Vec::new())
            } else {
                State::Chunk { left }
            };
        } else if line == b"\r\n" || line == b"\n" {
            self.answered()?;
        }
        Ok(used)
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
                return Err(self.wrong("a response head of more than 64 KiB"));
            }
            Err(error) => {
                let why = format!("no HTTP response ({error})");
                return Err(self.wrong(&why));
            }
        };
        let meaning = Meaning::of(&response);
        self.begin_body(meaning)?;
        Ok(length - before)
    }

    fn begin_body(&mut self, meaning: Meaning) -> Result<(), Corruption> {
        if (100..200).contains(&meaning.status) {
            // An interim answer; the one that counts is still to come (RFC 9110, section 15.2).
            self.state = State::Head(Vec::new());
            return Ok(());
        }
        if !self.is_expected(meaning.status) {
            let why = format!("{} {}", meaning.status, meaning.reason);
            return Err(self.wrong(&format!("status {}", why.trim_end())));
        }
        self.closing |= meaning.closes;
        self.body_at = 0;
        self.is_compared = meaning.validator.is_some() && meaning.validator == self.reference.validator;
        let has_no_body = self.reference.asked.is_head || matches!(meaning.status, 204 | 304);
        self.state = match (meaning.is_chunked, meaning.length) {
            _ if has_no_body => State::Body { left: 0 },
            (true, _) => State::ChunkHead(Vec::new()),
            (false, Ok(Some(left))) => State::Body { left },
            (false, Ok(None)) => State::ToTheEnd,
            (false, Err(why)) => return Err(self.wrong(&why)),
        };
        if matches!(self.state, State::ToTheEnd) {
            self.closing = true;
        }
        if let Some(learned) = &mut self.learned {
            *learned = Reference {
                status: meaning.status,
                location: meaning.location,
                validator: meaning.validator,
                ..Reference::default()
            };
        }
        match self.state {
            State::Body { left: 0 } => self.answered(),
            _ => Ok(()),
        }
    }

    /// The first answer may be any that says what there is; the others must be like it.
    fn is_expected(&self, status: u16) -> bool {
        let asked = &self.reference.asked.statuses;
        match self.reference.status {
            _ if !asked.is_empty() => asked.contains(&status),
            0 => (200..=399).contains(&status) || status == 401,
            first => status == first || (200..300).contains(&status) && (200..300).contains(&first),
        }
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Corruption> {
        if self.is_compared {
            let body = &self.reference;
            let from = (self.body_at.min(body.bytes.len() as u64)) as usize;
            let len = bytes.len().min(body.bytes.len() - from);
            let is_same = body.bytes[from..from + len] == bytes[..len];
            if !is_same || self.body_at + bytes.len() as u64 > body.length {
                return Err(
                    self.wrong("a body that differs from the first one, with the same ETag or digest")
                );
            }
        }
        if let Some(learned) = &mut self.learned
            && learned.validator.is_some()
        {
            let len = bytes.len().min(MOST_REFERENCE_BYTES - learned.bytes.len());
            learned.bytes.extend_from_slice(&bytes[..len]);
        }
        self.body_at += bytes.len() as u64;
        Ok(())
    }

    fn answered(&mut self) -> Result<(), Corruption> {
        if self.is_compared && self.reference.length != self.body_at {
            return Err(self.wrong("a body shorter than the first one, with the same ETag or digest"));
        }
        self.whole += 1;
        self.state = State::Head(Vec::new());
        Ok(())
    }

    fn wrong(&self, why: &str) -> Corruption {
        Corruption {
            at: self.received,
            why: why.to_owned(),
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
    const TAGGED: &str = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n";
    const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";

    fn reference() -> Arc<Reference> {
        let mut first = Answers::learning(Asked::default());
        first.receive(TAGGED.as_bytes()).unwrap();
        Arc::new(first.learned())
    }

    #[test]
    fn answers_are_counted_in_any_cutting() {
        let stream = [TAGGED, CHUNKED, EARLY, PLAIN, "\r\n", EMPTY, PLAIN].concat();
        for chunk in 1..=stream.len() {
            let mut answers = Answers::like(reference());
            let parts = stream.as_bytes().chunks(chunk);
            let whole: u64 = parts.map(|part| answers.receive(part).unwrap()).sum();
            assert_eq!((whole, answers.received()), (5, stream.len() as u64), "{chunk}");
            assert!(answers.is_between() && !answers.is_closed_in_order());
        }
    }

    #[test]
    fn a_body_may_end_with_the_connection() {
        let mut answers = Answers::like(reference());
        let endless = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello";
        assert_eq!(answers.receive(endless.as_bytes()), Ok(0));
        assert!(!answers.is_closed_in_order());
        assert_eq!(answers.end_of_stream(), 1);
        assert!(answers.is_closed_in_order());
    }

    #[test]
    fn an_end_inside_an_answer_or_before_any_is_not_in_order() {
        let mut answers = Answers::like(reference());
        assert_eq!(answers.end_of_stream(), 0);
        assert!(!answers.is_closed_in_order(), "no answer at all");
        answers.receive(PLAIN.as_bytes()).unwrap();
        answers.receive(&PLAIN.as_bytes()[..PLAIN.len() - 1]).unwrap();
        assert_eq!(answers.end_of_stream(), 0);
        assert!(!answers.is_closed_in_order());
        answers.receive(b"o").unwrap();
        assert!(answers.is_closed_in_order());
    }

    #[test]
    fn another_body_is_wrong_only_where_its_tag_or_digest_is_the_same() {
        for (answer, is_wrong) in [
            (TAGGED.replace("hello", "hullo"), true),
            (TAGGED.replace("5\r\n\r\nhello", "4\r\n\r\nhell"), true),
            (TAGGED.replace("5\r\n\r\nhello", "6\r\n\r\nhello!"), true),
            (TAGGED.replace("hello", "hullo").replace("\"a\"", "\"b\""), false),
            (
                TAGGED.replace("hello", "hullo").replace("\"a\"", "W/\"a\""),
                false,
            ),
            (PLAIN.replace("hello", "hullo"), false),
        ] {
            let came = Answers::like(reference()).receive(answer.as_bytes());
            assert_eq!(came.is_err(), is_wrong, "{answer}");
        }
    }

    #[test]
    fn what_is_not_a_right_answer_is_refused_and_named() {
        for (bad, word) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                "503",
            ),
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "302"),
            ("220 smtp ready\r\n", "no HTTP"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "\"-5\""),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                "no length",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                "differ",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "chunk",
            ),
        ] {
            let refusal = Answers::like(reference()).receive(bad.as_bytes()).unwrap_err();
            assert!(refusal.why.contains(word), "{bad}: {refusal:?}");
        }
        let endless = "HTTP/1.1 200 OK\r\nA: ".to_owned() + &"x".repeat(LARGEST_HEAD_BYTES);
        assert!(Answers::like(reference()).receive(endless.as_bytes()).is_err());
    }

    #[test]
    fn a_server_that_says_it_closes_is_believed_at_the_end_of_its_answer() {
        let mut answers = Answers::like(reference());
        let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        answers.receive(&closing.as_bytes()[..closing.len() - 1]).unwrap();
        assert!(!answers.is_closed_in_order());
        answers.receive(b"o").unwrap();
        assert!(answers.is_closed_in_order());
    }
}
