//! The head of a request: its first line and its fields.
//!
//! Owns the limits of a head, and which heads are refused. Every shape by
//! which two programs could disagree on where a request ends is refused.
//! Refuses to read bodies: a server of files wants none.

use std::borrow::Cow;

use httparse::{Error, Header, Status as Parsed};

use super::fields::Fields;
use super::limits::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS, MAX_TARGET_BYTES};
use super::refusal::{Refusal, refuse};
use super::response::Status;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The file.
    Get,
    /// The head of the answer to `GET`, without the file.
    Head,
    /// Which methods there are.
    Options,
    /// A method of HTTP that changes things; answered with 405.
    Other,
}

/// One request, borrowed from the bytes that it came in.
#[derive(Debug)]
pub struct Request<'b> {
    /// What is asked for.
    pub method: Method,
    /// The first line as it came, for the log.
    pub line: &'b [u8],
    /// The target as it came, still encoded.
    pub target: &'b str,
    /// The connection stays open behind the answer.
    pub keeps_alive: bool,
    /// The client speaks HTTP/1.0.
    pub is_http_10: bool,
    /// `Range`.
    pub range: Option<Cow<'b, str>>,
    /// `If-Range`.
    pub if_range: Option<Cow<'b, str>>,
    /// `If-Match`.
    pub if_match: Option<Cow<'b, str>>,
    /// `If-None-Match`.
    pub if_none_match: Option<Cow<'b, str>>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<Cow<'b, str>>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<Cow<'b, str>>,
    /// `Accept-Encoding`.
    pub accept_encoding: Option<Cow<'b, str>>,
    /// `Host`.
    pub host: Option<Cow<'b, str>>,
    /// `Accept`.
    pub accept: Option<Cow<'b, str>>,
    /// `Authorization`.
    pub authorization: Option<&'b [u8]>,
    /// `Referer`, for the log.
    pub referer: Option<&'b [u8]>,
    /// `User-Agent`, for the log.
    pub user_agent: Option<&'b [u8]>,
}

/// Where the head at the beginning of `bytes` ends, its empty line included.
/// Empty lines in front of a request belong to its head (RFC 9112, 2.2).
/// `searched` bytes are known to hold no end.
#[must_use]
pub fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let first = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    // An end may begin up to three bytes before what is new.
    let mut at = first.max(searched.saturating_sub(3));
    while let Some(offset) = bytes[at..].iter().position(|&byte| byte == b'\n') {
        let newline = at + offset;
        match &bytes[newline + 1..] {
            [b'\n', ..] => return Some(newline + 2),
            [b'\r', b'\n', ..] => return Some(newline + 3),
            _ => at = newline + 1,
        }
    }
    None
}

/// Whether a head that has not ended yet is too long already.
///
/// # Errors
///
/// It is: the answer says which limit it broke.
pub fn check_unfinished(bytes: &[u8]) -> Result<(), Refusal> {
    let first = bytes.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    if first.is_some_and(|byte| !byte.is_ascii_graphic()) {
        // TLS, most often: its end of a head would never come.
        return refuse(Status::BadRequest, "this is no HTTP/1.1");
    }
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or(bytes);
    if line.len() > MAX_TARGET_BYTES + 64 {
        return refuse(Status::UriTooLong, "the target is longer than 8 KiB");
    }
    if bytes.len() >= MAX_HEAD_BYTES {
        return refuse(Status::FieldsTooLarge, "the head is longer than 16 KiB");
    }
    Ok(())
}

impl<'b> Request<'b> {
    /// Parses a whole head, which ends at the end of `head`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and the status that says so.
    pub fn parse(head: &'b [u8]) -> Result<Self, Refusal> {
        if head.len() > MAX_HEAD_BYTES {
            return refuse(Status::FieldsTooLarge, "the head is longer than 16 KiB");
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEAD_FIELDS];
        let (method, target, minor, fields) = match has_later_minor(first_line(head)) {
            true => take_apart_as_http_11(head, &mut fields)?,
            false => take_apart(head, &mut fields)?,
        };
        if target.len() > MAX_TARGET_BYTES {
            return refuse(Status::UriTooLong, "the target is longer than 8 KiB");
        }
        let method = method_of(method)?;
        let fields = Fields(fields);
        let is_http_10 = minor == 0;
        fields.check_host(is_http_10)?;
        fields.check_body(is_http_10)?;
        fields.check_expectation(is_http_10)?;
        Ok(Self {
            method,
            line: first_line(head),
            target,
            keeps_alive: fields.keeps_alive(is_http_10),
            is_http_10,
            range: fields.text("range"),
            if_range: fields.text("if-range"),
            if_match: fields.text("if-match"),
            if_none_match: fields.text("if-none-match"),
            if_modified_since: fields.text("if-modified-since"),
            if_unmodified_since: fields.text("if-unmodified-since"),
            accept_encoding: fields.text("accept-encoding"),
            host: fields.text("host"),
            accept: fields.text("accept"),
            authorization: fields.first("authorization"),
            referer: fields.first("referer"),
            user_agent: fields.first("user-agent"),
        })
    }
}

/// Method, target, minor version and fields of a whole head.
type Parts<'h, 'b> = (&'b str, &'b str, u8, &'h [Header<'b>]);

const ENDS_EARLY: &str = "the head ends too early";

fn take_apart<'h, 'b>(head: &'b [u8], fields: &'h mut [Header<'b>]) -> Result<Parts<'h, 'b>, Refusal> {
    let mut parsed = httparse::Request::new(fields);
    match parsed.parse(head) {
        Ok(Parsed::Complete(length)) if length == head.len() => {}
        Ok(_) => return refuse(Status::BadRequest, ENDS_EARLY),
        Err(error) => return Err(refusal_of(error, head)),
    }
    match (parsed.method, parsed.path, parsed.version) {
        (Some(method), Some(target), Some(minor)) => Ok((method, target, minor, parsed.headers)),
        _ => refuse(Status::BadRequest, "the first line is incomplete"),
    }
}

/// Whether a first line names a minor version of HTTP/1 that came after 1.1.
fn has_later_minor(line: &[u8]) -> bool {
    matches!(
        line,
        [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']
    )
}

/// A head of a later minor version counts as one of the highest that is known
/// (RFC 9110, section 2.5). The parser knows no later one, so it is shown the
/// first line with another version.
fn take_apart_as_http_11<'h, 'b>(
    head: &'b [u8],
    fields: &'h mut [Header<'b>],
) -> Result<Parts<'h, 'b>, Refusal> {
    let line = first_line(head);
    let mut shown = line[..line.len() - 1].to_vec();
    shown.extend_from_slice(b"1\r\n\r\n");
    let (method, target, minor, _) = take_apart(&shown, &mut [])?;
    let (method, target) = (method.len(), target.len());
    // One blank stands between the words of a line that the parser takes.
    let Ok(words) = std::str::from_utf8(line) else {
        return refuse(Status::BadRequest, "the head has a byte that no head may have");
    };
    let words = (&words[..method], &words[method + 1..method + 1 + target]);
    let starts_at = head.windows(line.len()).position(|part| part == line);
    let behind = &head[starts_at.unwrap_or(0) + line.len()..];
    let behind = behind.strip_prefix(b"\r").unwrap_or(behind);
    let behind = behind.strip_prefix(b"\n").unwrap_or(behind);
    match httparse::parse_headers(behind, fields) {
        Ok(Parsed::Complete((length, fields))) if length == behind.len() => {
            Ok((words.0, words.1, minor, fields))
        }
        Ok(_) => refuse(Status::BadRequest, ENDS_EARLY),
        Err(error) => Err(refusal_of(error, head)),
    }
}

/// The first line that is not empty, without its end.
#[must_use]
pub fn first_line(head: &[u8]) -> &[u8] {
    let mut lines = head.split(|&byte| byte == b'\n');
    let line = lines
        .find(|line| !matches!(line, [] | [b'\r']))
        .unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether the third of three words is a version of HTTP.
fn names_version(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

fn method_of(name: &str) -> Result<Method, Refusal> {
    match name {
        "GET" => Ok(Method::Get),
        "HEAD" => Ok(Method::Head),
        "OPTIONS" => Ok(Method::Options),
        "POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "CONNECT" => Ok(Method::Other),
        _ => refuse(Status::NotImplemented, "this method is not known here"),
    }
}

fn refusal_of(error: Error, head: &[u8]) -> Refusal {
    let (status, why) = match error {
        Error::TooManyHeaders => (Status::FieldsTooLarge, "the head has more than 100 fields"),
        // The parser calls any last word a version.
        Error::Version if names_version(first_line(head)) => (
            Status::VersionNotSupported,
            "this server speaks HTTP/1.1 and HTTP/1.0",
        ),
        Error::Version => (Status::BadRequest, "the first line names no version of HTTP"),
        Error::HeaderName => (
            Status::BadRequest,
            "a field has a bad name, a space before its colon, or goes on in a second line",
        ),
        Error::HeaderValue => (Status::BadRequest, "a field has a byte that no value may have"),
        Error::NewLine => (Status::BadRequest, "a line ends with CR alone"),
        Error::Status | Error::Token => (Status::BadRequest, "the head has a byte that no head may have"),
    };
    Refusal { status, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request<'_>, Refusal> {
        assert_eq!(head_end(head.as_bytes(), 0), Some(head.len()), "{head:?}");
        Request::parse(head.as_bytes())
    }

    fn status(head: &str) -> u16 {
        parse(head).map_or_else(|refusal| refusal.status.code(), |_| 200)
    }

    #[test]
    fn a_request_as_browsers_send_it_is_taken_apart() {
        let request = parse(
            "GET /a%20b?x HTTP/1.1\r\nHost: here\r\nRange: bytes=0-1\r\nIf-None-Match: \"a\"\r\n\
             if-none-match: \"b\"\r\nUser-Agent: some/1\r\n\r\n",
        )
        .unwrap();
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.target, "/a%20b?x");
        assert_eq!(request.line, b"GET /a%20b?x HTTP/1.1");
        assert_eq!(request.range.as_deref(), Some("bytes=0-1"));
        assert_eq!(request.if_none_match.as_deref(), Some("\"a\", \"b\""));
        assert_eq!(request.user_agent, Some(&b"some/1"[..]));
        assert!(request.keeps_alive && !request.is_http_10);
    }

    #[test]
    fn the_connection_stays_as_version_and_field_say() {
        let keeps = |head: &str| parse(head).unwrap().keeps_alive;
        assert!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n"));
        assert!(!keeps(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n"
        ));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\nConnection: keep-alive, close\n\n"));
    }

    #[test]
    fn every_shape_that_could_hide_a_second_request_is_refused() {
        let with = |fields: &str| status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        assert_eq!(with("Content-Length: 0"), 200, "no body is fine");
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 1"), 400);
        assert_eq!(with("Content-Length: 0\r\nContent-Length: 5"), 400);
        assert_eq!(with("Content-Length: 0, 0"), 400);
        assert_eq!(with("Content-Length: +1"), 400);
        assert_eq!(with("Content-Length: 0x1"), 400);
        assert_eq!(with("Content-Length:"), 400);
        assert_eq!(with("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400);
        assert_eq!(with("Content-Length : 1"), 400, "a space before the colon");
        assert_eq!(with("X: a\r\n b"), 400, "a line that goes on");
        assert_eq!(with("X: a\rb"), 400, "CR alone");
        assert_eq!(with("X: a\0b"), 400);
        assert_eq!(with("X\tY: a"), 400);
        assert_eq!(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            400
        );
        assert_eq!(with("Transfer-Encoding: \x0bchunked"), 400);
        assert_eq!(with("Transfer-Encoding: gzip"), 501);
        assert_eq!(
            status("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            400
        );
    }

    #[test]
    fn a_body_is_refused_and_so_is_an_unknown_expectation() {
        let with = |fields: &str| status(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        assert_eq!(with("Content-Length: 5"), 413);
        assert_eq!(
            with("Content-Length: 18446744073709551617"),
            400,
            "more than a number holds"
        );
        assert_eq!(with("Transfer-Encoding: chunked"), 413);
        assert_eq!(with("Expect: 100-continue\r\nContent-Length: 5"), 413);
        assert_eq!(with("Expect: 100-continue"), 200);
        assert_eq!(with("Expect: a pony"), 417);
    }

    #[test]
    fn methods_versions_and_hosts_are_told_apart() {
        assert_eq!(
            parse("POST / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().method,
            Method::Other
        );
        assert_eq!(status("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
        assert_eq!(status("get / HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
        assert_eq!(status("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
        assert_eq!(status("GET /\r\n\r\n"), 400);
        assert_eq!(status("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / http/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.11\r\nHost: a\r\n\r\n"), 400);
        let hello = check_unfinished(b"\x16\x03\x01\x02\0");
        assert_eq!(hello.unwrap_err().status, Status::BadRequest, "TLS");
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400, "no host");
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 200, "empty is allowed");
    }

    #[test]
    fn a_later_minor_version_counts_as_the_highest_known() {
        for version in ["1.2", "1.9"] {
            let head = format!("\r\nGET /a HTTP/{version}\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n");
            let request = parse(&head).unwrap();
            assert_eq!((request.method, request.target), (Method::Get, "/a"));
            assert_eq!(request.range.as_deref(), Some("bytes=0-1"));
            assert!(request.keeps_alive && !request.is_http_10);
            assert_eq!(request.line, format!("GET /a HTTP/{version}").as_bytes());
        }
        assert_eq!(status("GET / HTTP/1.2\r\n\r\n"), 400, "no host");
        assert_eq!(status("GET  / HTTP/1.2\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET /\x01 HTTP/1.2\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.2\r\nHost : a\r\n\r\n"), 400);
        assert_eq!(
            status("GET / HTTP/1.2\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
            413
        );
        assert_eq!(status("BREW / HTTP/1.2\r\nHost: a\r\n\r\n"), 501);
        assert_eq!(status("GET / HTTP/0.9\r\nHost: a\r\n\r\n"), 505);
    }

    #[test]
    fn the_limits_of_a_head_may_be_reached_and_not_exceeded() {
        let fields = |count: usize| "X: y\r\n".repeat(count);
        let with = |count| status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count)));
        assert_eq!(with(MAX_HEAD_FIELDS - 1), 200);
        assert_eq!(with(MAX_HEAD_FIELDS), 431);
        let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(bytes - 1));
        assert_eq!(status(&target(MAX_TARGET_BYTES)), 200);
        assert_eq!(status(&target(MAX_TARGET_BYTES + 1)), 414);
        assert_eq!(
            check_unfinished(&[b'a'; MAX_HEAD_BYTES])
                .unwrap_err()
                .status
                .code(),
            414
        );
        let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
        long.resize(MAX_HEAD_BYTES - 1, b'x');
        assert_eq!(check_unfinished(&long), Ok(()));
        long.push(b'x');
        assert_eq!(check_unfinished(&long).unwrap_err().status.code(), 431);
    }

    #[test]
    fn an_end_is_found_wherever_the_pieces_of_a_head_were_cut() {
        let head = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        for cut in 0..head.len() {
            let early = head_end(&head[..cut], 0);
            assert_eq!(early.is_some(), cut >= 29, "{cut}");
            if early.is_none() {
                assert_eq!(head_end(head, cut), Some(29), "{cut}");
            }
        }
        assert_eq!(head_end(b"\r\n\r\n\r\n", 0), None, "empty lines are no head");
    }
}
