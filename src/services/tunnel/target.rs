//! Where a tunnel leads: a host and a port.
//!
//! Owns the parsing of `HOST:PORT` and the look-up of the host's addresses.
//! Refuses to say when to look up: that may take long, so the event loop must
//! never do it.

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
/// assert!("redis".parse::<Target>().unwrap_err().contains("redis:6379"));
/// # Ok::<(), String>(())
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
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let refuse = |why: &str| {
            Err(format!(
                "`{typed}` is not HOST:PORT: {why}; write for example redis:6379, 127.0.0.1:80 or [::1]:80"
            ))
        };
        let Some((host, port)) = typed.rsplit_once(':') else {
            return refuse("the port is missing");
        };
        let Some(port) = port.parse().ok().filter(|&port: &u16| port > 0) else {
            return refuse("the port must be a number from 1 to 65535");
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            Some(_) => return refuse("an IPv6 address belongs between the brackets"),
            None if host.contains(':') => return refuse("an IPv6 address needs brackets"),
            None => host,
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return refuse("the host is missing or has a space in it");
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

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
            let refusal = typed.parse::<Target>().unwrap_err();
            assert!(refusal.contains(&format!("`{typed}`")), "{refusal}");
            assert!(refusal.contains("redis:6379"), "{refusal}");
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
