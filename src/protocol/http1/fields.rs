//! The fields of a request: what they say together.
//!
//! Owns the checks of `Host`, of the two ways to announce a body, of `Expect`
//! and of `Connection`. Two fields that could be read in two ways are refused.

use std::borrow::Cow;

use httparse::Header;

use super::refusal::{Refusal, refuse};
use super::response::Status;

/// The fields of one head.
pub(super) struct Fields<'h, 'b>(pub(super) &'h [Header<'b>]);

impl<'b> Fields<'_, 'b> {
    fn all<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + 'n {
        let named = self
            .0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    }

    pub(super) fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// A field as text; several of one name are one list (RFC 9110, 5.3). A
    /// value that is no text is left out.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'b, str>> {
        let mut texts = self.all(name).filter_map(|value| std::str::from_utf8(value).ok());
        let first = texts.next()?;
        Some(texts.fold(Cow::Borrowed(first), |list, next| {
            Cow::Owned(format!("{list}, {next}"))
        }))
    }

    fn tokens(&self, name: &str) -> Vec<String> {
        let list = self.text(name).unwrap_or_default();
        list.split(',')
            .map(|token| token.trim().to_ascii_lowercase())
            .collect()
    }

    pub(super) fn check_host(&self, is_http_10: bool) -> Result<(), Refusal> {
        let mut hosts = self.all("host");
        match (hosts.next(), hosts.next()) {
            (_, Some(_)) => refuse(Status::BadRequest, "there are two Host fields"),
            (None, None) if !is_http_10 => refuse(Status::BadRequest, "HTTP/1.1 needs a Host field"),
            (Some(host), None) if host.iter().any(|byte| b" \t/@?#\\<>\"".contains(byte)) => {
                refuse(Status::BadRequest, "the Host field names no host")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_body(&self, is_http_10: bool) -> Result<(), Refusal> {
        let lengths: Vec<&[u8]> = self.all("content-length").collect();
        let codings: Vec<&[u8]> = self.all("transfer-encoding").collect();
        if lengths.len() > 1 {
            return refuse(Status::BadRequest, "there are two Content-Length fields");
        }
        let length = match lengths.first() {
            None => 0,
            Some(digits)
                if !digits.is_empty() && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit) =>
            {
                digits.iter().fold(0_u64, |number, digit| {
                    number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
                })
            }
            Some(_) => return refuse(Status::BadRequest, "Content-Length is not a number"),
        };
        match codings[..] {
            [] if length == 0 => Ok(()),
            [] => refuse(Status::ContentTooLarge, "this server takes no body"),
            _ if !lengths.is_empty() => refuse(
                Status::BadRequest,
                "Content-Length and Transfer-Encoding contradict each other",
            ),
            _ if is_http_10 => refuse(Status::BadRequest, "HTTP/1.0 has no Transfer-Encoding"),
            [only] if only.eq_ignore_ascii_case(b"chunked") => {
                refuse(Status::ContentTooLarge, "this server takes no body")
            }
            [_] => refuse(Status::NotImplemented, "this transfer coding is not known here"),
            _ => refuse(Status::BadRequest, "there are two Transfer-Encoding fields"),
        }
    }

    pub(super) fn check_expectation(&self, is_http_10: bool) -> Result<(), Refusal> {
        // A body that an expectation announces was refused before.
        let expected = self.tokens("expect");
        let is_met = |one: &String| one.is_empty() || one == "100-continue";
        if is_http_10 || expected.iter().all(is_met) {
            return Ok(());
        }
        refuse(Status::ExpectationFailed, "this server knows 100-continue only")
    }

    pub(super) fn keeps_alive(&self, is_http_10: bool) -> bool {
        let tokens = self.tokens("connection");
        let says = |word: &str| tokens.iter().any(|token| token == word);
        !says("close") && (!is_http_10 || says("keep-alive"))
    }
}
