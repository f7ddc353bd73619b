//! Encodes what a server says, in both versions of the protocol.
//!
//! Owns the bytes of each type. Refuses to know commands.

use std::io::Write;

/// The version of the protocol that a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// What every client speaks at first.
    #[default]
    Resp2,
    /// Asked for by `HELLO 3`: maps, nulls and pushes have types of their own.
    Resp3,
}

/// Writes replies at the end of a buffer.
#[derive(Debug)]
pub struct Reply<'buffer> {
    bytes: &'buffer mut Vec<u8>,
    version: Version,
}

impl<'buffer> Reply<'buffer> {
    /// Replies in this version, at the end of `bytes`.
    pub const fn new(bytes: &'buffer mut Vec<u8>, version: Version) -> Self {
        Self { bytes, version }
    }

    /// A line such as `+OK`. `text` has no line end.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: a word in capitals, then the sentence. Line ends become blanks.
    pub fn error(&mut self, text: &[u8]) {
        let begin = self.bytes.len() + 1;
        self.line(b'-', text);
        let end = self.bytes.len() - 2;
        for byte in &mut self.bytes[begin..end] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }

    /// A number.
    pub fn integer(&mut self, number: i64) {
        self.header(b':', number);
    }

    /// Bytes of any kind.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.header(b'$', bytes.len() as i64);
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Text that a person may read; `txt` in version 3.
    pub fn verbatim(&mut self, text: &str) {
        match self.version {
            Version::Resp2 => self.bulk(text.as_bytes()),
            Version::Resp3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.bytes.extend_from_slice(b"txt:");
                self.bytes.extend_from_slice(text.as_bytes());
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Nothing.
    pub fn null(&mut self) {
        let null: &[u8] = match self.version {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        };
        self.bytes.extend_from_slice(null);
    }

    /// No array at all, as EXEC answers if a watched key has changed.
    pub fn null_array(&mut self) {
        let null: &[u8] = match self.version {
            Version::Resp2 => b"*-1\r\n",
            Version::Resp3 => b"_\r\n",
        };
        self.bytes.extend_from_slice(null);
    }

    /// The beginning of an array: so many elements follow.
    pub fn array(&mut self, elements: usize) {
        self.header(b'*', elements as i64);
    }

    /// The beginning of a map: so many pairs follow.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', 2 * pairs as i64),
            Version::Resp3 => self.header(b'%', pairs as i64),
        }
    }

    /// The beginning of a push, which is no answer: so many elements follow.
    pub fn push(&mut self, elements: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', elements as i64),
            Version::Resp3 => self.header(b'>', elements as i64),
        }
    }

    fn header(&mut self, kind: u8, number: i64) {
        // Writing to a vector cannot fail.
        let _ = write!(self.bytes, "{}{number}\r\n", char::from(kind));
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// How a message came to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind<'name> {
    /// By the name of its channel.
    Channel,
    /// By this pattern.
    Pattern(&'name [u8]),
    /// By the name of its shard channel.
    Shard,
}

/// Puts a message into `bytes`, in version 2. Version 3 has the same bytes but
/// for the first, which is [`PUSH`]: so a message exists once for both.
pub fn encode_message(bytes: &mut Vec<u8>, kind: MessageKind<'_>, channel: &[u8], payload: &[u8]) {
    let bulk = |bytes: &mut Vec<u8>, part: &[u8]| {
        bytes.push(b'$');
        push_decimal(bytes, part.len());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    };
    match kind {
        MessageKind::Channel => bytes.extend_from_slice(b"*3\r\n$7\r\nmessage\r\n"),
        MessageKind::Shard => bytes.extend_from_slice(b"*3\r\n$8\r\nsmessage\r\n"),
        MessageKind::Pattern(pattern) => {
            bytes.extend_from_slice(b"*4\r\n$8\r\npmessage\r\n");
            bulk(bytes, pattern);
        }
    }
    bulk(bytes, channel);
    bulk(bytes, payload);
}

/// The first byte of a message in version 3.
pub const PUSH: u8 = b'>';

fn push_decimal(bytes: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(version: Version, say: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut bytes = Vec::new();
        say(&mut Reply::new(&mut bytes, version));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_type_has_its_bytes_in_both_versions() {
        use Version::{Resp2, Resp3};
        assert_eq!(said(Resp2, |reply| reply.simple("OK")), "+OK\r\n");
        assert_eq!(said(Resp2, |reply| reply.error(b"ERR a\r\nb")), "-ERR a  b\r\n");
        assert_eq!(said(Resp2, |reply| reply.integer(-3)), ":-3\r\n");
        assert_eq!(said(Resp2, |reply| reply.bulk(b"ab")), "$2\r\nab\r\n");
        assert_eq!(said(Resp2, |reply| reply.map(2)), "*4\r\n");
        assert_eq!(said(Resp3, |reply| reply.map(2)), "%2\r\n");
        assert_eq!(said(Resp2, |reply| reply.null()), "$-1\r\n");
        assert_eq!(said(Resp3, |reply| reply.null()), "_\r\n");
        assert_eq!(said(Resp2, |reply| reply.push(3)), "*3\r\n");
        assert_eq!(said(Resp3, |reply| reply.push(3)), ">3\r\n");
        assert_eq!(said(Resp3, |reply| reply.verbatim("hi")), "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn messages_are_encoded_as_redis_sends_them() {
        let encoded = |kind| {
            let mut bytes = Vec::new();
            encode_message(&mut bytes, kind, b"news", b"hello, world");
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(
            encoded(MessageKind::Channel),
            "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$12\r\nhello, world\r\n"
        );
        assert_eq!(
            encoded(MessageKind::Pattern(b"n*")),
            "*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$12\r\nhello, world\r\n"
        );
        assert!(encoded(MessageKind::Shard).starts_with("*3\r\n$8\r\nsmessage\r\n"));
    }
}
