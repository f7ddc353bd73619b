//! The head of an answer.
//!
//! Owns the status lines and how fields are written. Refuses line ends inside
//! values: nothing that a client or a file name says can add a field.

use std::fmt::{self, Write};

/// The statuses that a server of files answers with (RFC 9110, section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the phrase of its row below")]
pub enum Status {
    Ok,
    NoContent,
    PartialContent,
    MovedPermanently,
    NotModified,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    PreconditionFailed,
    ContentTooLarge,
    UriTooLong,
    RangeNotSatisfiable,
    ExpectationFailed,
    FieldsTooLarge,
    InternalError,
    NotImplemented,
    Unavailable,
    VersionNotSupported,
}

impl Status {
    const fn row(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::NoContent => (204, "No Content"),
            Self::PartialContent => (206, "Partial Content"),
            Self::MovedPermanently => (301, "Moved Permanently"),
            Self::NotModified => (304, "Not Modified"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::RequestTimeout => (408, "Request Timeout"),
            Self::PreconditionFailed => (412, "Precondition Failed"),
            Self::ContentTooLarge => (413, "Content Too Large"),
            Self::UriTooLong => (414, "URI Too Long"),
            Self::RangeNotSatisfiable => (416, "Range Not Satisfiable"),
            Self::ExpectationFailed => (417, "Expectation Failed"),
            Self::FieldsTooLarge => (431, "Request Header Fields Too Large"),
            Self::InternalError => (500, "Internal Server Error"),
            Self::NotImplemented => (501, "Not Implemented"),
            Self::Unavailable => (503, "Service Unavailable"),
            Self::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }

    /// The number, such as 404.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.row().0
    }

    /// The phrase, such as `Not Found`.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        self.row().1
    }
}

/// The head of an answer while it is written.
#[derive(Debug)]
pub struct ResponseHead {
    text: String,
}

impl ResponseHead {
    /// Begins with the status line.
    #[must_use]
    pub fn new(status: Status) -> Self {
        let mut text = String::with_capacity(512);
        let (code, phrase) = status.row();
        let _ = write!(text, "HTTP/1.1 {code} {phrase}\r\n");
        Self { text }
    }

    /// Adds a field. Control characters in the value become spaces.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl fmt::Display) -> Self {
        let _ = write!(self.text, "{name}: ");
        let from = self.text.len();
        let _ = write!(self.text, "{value}");
        if self.text[from..].contains(|c: char| c.is_control()) {
            let clean = self.text[from..].replace(|c: char| c.is_control(), " ");
            self.text.truncate(from);
            self.text.push_str(&clean);
        }
        self.text.push_str("\r\n");
        self
    }

    /// Ends the head with its empty line.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.text.push_str("\r\n");
        self.text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_as_clients_read_it() {
        let head = ResponseHead::new(Status::NotFound)
            .field("Content-Length", 3)
            .finish();
        assert_eq!(head, b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n");
    }

    #[test]
    fn no_value_can_add_a_field() {
        let head = ResponseHead::new(Status::MovedPermanently)
            .field("Location", "/a\r\nSet-Cookie: b\n\0")
            .finish();
        let text = String::from_utf8(head).unwrap();
        assert_eq!(text.matches('\n').count(), 3, "{text}");
        assert!(text.contains("Location: /a  Set-Cookie: b  \r\n"), "{text}");
    }
}
