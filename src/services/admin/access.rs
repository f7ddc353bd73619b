//! Who may ask: a request for this server by its address, with the token.
//!
//! Owns both rules. Refuses to say what is answered.

use std::net::IpAddr;

use super::answer::Failure;
use crate::protocol::http1::{Request, Status};

/// Paths that hold nothing about the server and that browsers and balancers
/// fetch without a token.
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/page.js", "/page.css"];

pub(super) struct Access {
    token: Option<Vec<u8>>,
}

impl Access {
    pub(super) const fn new(token: Option<Vec<u8>>) -> Self {
        Self { token }
    }

    /// # Errors
    ///
    /// The request names another host, or has no valid token.
    pub(super) fn check(&self, request: &Request<'_>) -> Result<(), Failure> {
        if request.host.as_deref().is_some_and(|host| !is_own(host)) {
            return Err(Failure::new(
                Status::Forbidden,
                "ask by an address or by localhost: names of others may lead here by DNS rebinding",
            ));
        }
        let path = request.target.split('?').next().unwrap_or_default();
        let Some(token) = self.token.as_deref().filter(|_| !OPEN.contains(&path)) else {
            return Ok(());
        };
        match request.authorization.and_then(bearer) {
            Some(given) if is_equal(given, token) => Ok(()),
            _ => Err(Failure::new(
                Status::Unauthorized,
                "send the field Authorization: Bearer TOKEN",
            )),
        }
    }
}

/// Whether a `Host` is an address or localhost, with or without a port.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match inner {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => name.eq_ignore_ascii_case("localhost") || matches!(name.parse(), Ok(IpAddr::V4(_))),
    }
}

fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Compares in a time that depends on the length only: how far a guess is right
/// cannot be measured.
fn is_equal(given: &[u8], token: &[u8]) -> bool {
    let differs = given
        .iter()
        .zip(token)
        .fold(0, |bits, (one, other)| bits | (one ^ other));
    std::hint::black_box(differs) == 0 && given.len() == token.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9001",
            "10.1.2.3:80",
            "localhost",
            "LOCALHOST:9001",
            "[::1]",
            "[::1]:9001",
        ] {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "example.org:9001",
            "localhost.example.org",
            "127.0.0.1.nip.io:9001",
            "::1",
            "[::1",
            "[127.0.0.1]",
            ":80",
        ] {
            assert!(!is_own(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_equal_as_a_whole_or_not_at_all() {
        assert!(is_equal(b"secret", b"secret"));
        for wrong in [&b""[..], b"secre", b"secrets", b"Secret", b"secreT"] {
            assert!(!is_equal(wrong, b"secret"));
        }
        assert_eq!(bearer(b"Bearer  secret "), Some(&b"secret"[..]));
        assert_eq!(bearer(b"bearer secret"), Some(&b"secret"[..]));
        assert_eq!(bearer(b"Basic secret"), None);
        assert_eq!(bearer(b"Bear"), None);
    }
}
