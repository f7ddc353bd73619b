//! The server that a tunnel leads to: a host and a port.
//!
//! Owns the parsing of `HOST:PORT` and the look-up of the host's addresses.
//! Refuses to decide when to look up: a look-up may take long, so the event
//! loop must never do it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::limits::MAX_ADDRESSES;

/// A host, by name or address, and a port.
///
/// ```
/// use highwater::services::Target;
///
/// let target: Target = "[::1]:6379".parse()?;
/// assert_eq!(target.to_string(), "[::1]:6379");
/// let refused = "redis".parse::<Target>().unwrap_err();
/// assert!(refused.to_string().contains("the port is missing"));
/// # Ok::<(), highwater::services::TargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Target {
    /// The address, if the host is given as one and no look-up is needed.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }

    /// Looks up the addresses of the host, at most
    /// [`MAX_ADDRESSES`](crate::limits::MAX_ADDRESSES). This may take many
    /// seconds.
    ///
    /// # Errors
    ///
    /// The name is unknown, or nobody could be asked.
    pub fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs()?;
        let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(typed: &str) -> Result<Self, TargetError> {
        let refuse = |reason| {
            Err(TargetError {
                typed: typed.to_owned(),
                reason,
            })
        };
        if let Some(meant) = out_of_url(typed) {
            return refuse(Reason::Url(meant));
        }
        let Some((host, port)) = typed.rsplit_once(':') else {
            return refuse(Reason::PortMissing);
        };
        let Some(port) = port.parse().ok().filter(|&port: &u16| port > 0) else {
            return refuse(Reason::PortRange);
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            Some(_) => return refuse(Reason::NotIpv6),
            None if host.contains(':') => return refuse(Reason::NoBrackets),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return refuse(Reason::NoHost);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Ports that a URL may leave out.
const DEFAULT_PORTS: [(&str, u16); 10] = [
    ("amqp", 5672),
    ("ftp", 21),
    ("http", 80),
    ("https", 443),
    ("mysql", 3306),
    ("nats", 4222),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
    ("ssh", 22),
];

/// What to type for a URL, or for an address with a path behind it.
fn out_of_url(typed: &str) -> Option<String> {
    let (scheme, rest) = match typed.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None if typed.contains('/') => ("", typed),
        None => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let known = DEFAULT_PORTS
        .iter()
        .find(|(name, _)| scheme.eq_ignore_ascii_case(name));
    Some(match known {
        _ if host.is_empty() => "HOST:PORT".to_owned(),
        _ if has_port => host.to_owned(),
        Some((_, port)) => format!("{host}:{port}"),
        None => format!("{host}:PORT"),
    })
}

/// A text that is no [`Target`]. Its message says what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError {
    typed: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    PortMissing,
    PortRange,
    NotIpv6,
    NoBrackets,
    NoHost,
    /// A URL, and the target that it means.
    Url(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = &self.typed;
        let why = match &self.reason {
            Reason::PortMissing => "the port is missing",
            Reason::PortRange => "the port must be a number from 1 to 65535",
            Reason::NotIpv6 => "an IPv6 address belongs between the brackets",
            Reason::NoBrackets => "an IPv6 address needs brackets",
            Reason::NoHost => "the host is missing or has a space or a slash in it",
            Reason::Url(meant) => {
                return write!(f, "`{typed}` is a URL, not HOST:PORT: write {meant}");
            }
        };
        let example = "write for example redis:6379, 127.0.0.1:80 or [::1]:80";
        write!(f, "`{typed}` is not HOST:PORT: {why}; {example}")
    }
}

impl std::error::Error for TargetError {}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_families_are_read_and_written_alike() {
        for typed in ["redis:6379", "127.0.0.1:80", "[::1]:65535", "a.b.example:1"] {
            let target: Target = typed.parse().unwrap();
            assert_eq!(target.to_string(), typed);
        }
    }

    #[test]
    fn only_an_address_needs_no_look_up() {
        let address = |typed: &str| typed.parse::<Target>().unwrap().address();
        assert_eq!(address("127.0.0.1:80"), Some(([127, 0, 0, 1], 80).into()));
        assert!(address("[::1]:80").unwrap().is_ipv6());
        assert_eq!(address("localhost:80"), None);
    }

    #[test]
    fn what_is_not_a_target_is_refused_with_its_own_text_and_an_example() {
        for typed in [
            "",
            "redis",
            "redis:",
            "redis:0",
            "redis:65536",
            ":80",
            "::1:80",
            "[::1:80",
            "[redis]:80",
            "two words:80",
            "redis:http",
        ] {
            let refusal = typed.parse::<Target>().unwrap_err().to_string();
            assert!(refusal.contains(&format!("`{typed}`")), "{refusal}");
            assert!(refusal.contains("redis:6379"), "{refusal}");
        }
    }

    #[test]
    fn a_url_is_refused_with_what_to_write_in_its_place() {
        for (typed, meant) in [
            ("redis://h:1", "write h:1"),
            ("http://h:80/x", "write h:80"),
            ("http://web", "write web:80"),
            ("HTTPS://web/a?b", "write web:443"),
            ("postgres://me:secret@[::1]/db", "write [::1]:5432"),
            ("gopher://old", "write old:PORT"),
            ("web:80/x", "write web:80"),
            ("http://", "write HOST:PORT"),
        ] {
            let refusal = typed.parse::<Target>().unwrap_err().to_string();
            assert!(refusal.ends_with(meant), "{refusal}");
        }
    }

    #[test]
    fn localhost_is_found_and_a_name_that_cannot_be_is_not() {
        let look_up = |typed: &str| typed.parse::<Target>().unwrap().look_up();
        let found = look_up("localhost:80").unwrap();
        assert!(
            found.iter().all(|address| address.ip().is_loopback()),
            "{found:?}"
        );
        // RFC 6761 section 6.4 reserves this name to mean nothing.
        assert!(look_up("nowhere.invalid:80").is_err());
    }
}
