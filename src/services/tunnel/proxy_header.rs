//! The header that tells an upstream the client's address (PROXY protocol of
//! HAProxy, versions 1 and 2).
//!
//! Owns the choice of address family. The `ppp` crate writes the bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// A binary header.
    V2,
}

/// Encodes the header for a client at `peer` that connected to our `local`. If
/// either is unknown, the header says only that there is a client.
///
/// # Errors
///
/// None is known: the header is built in bounded memory of its own.
pub(super) fn encode(
    version: ProxyProtocol,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
) -> io::Result<Vec<u8>> {
    let addresses = peer.zip(local).map(|(peer, local)| one_family(peer, local));
    match version {
        ProxyProtocol::V1 => {
            let addresses = addresses.map_or(v1::Addresses::Unknown, Into::into);
            Ok(addresses.to_string().into_bytes())
        }
        ProxyProtocol::V2 => {
            let (command, addresses) = match addresses {
                Some(known) => (v2::Command::Proxy, v2::Addresses::from(known)),
                None => (v2::Command::Local, v2::Addresses::Unspecified),
            };
            let protocol = v2::Protocol::Stream;
            v2::Builder::with_addresses(v2::Version::Two | command, protocol, addresses).build()
        }
    }
}

/// A listener on `::` sees IPv4 clients at mapped IPv6 addresses. Upstreams
/// know them as IPv4, and the header allows no mixture.
fn one_family(peer: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let (peer, local) = (plain(peer), plain(local));
    if peer.is_ipv4() == local.is_ipv4() {
        (peer, local)
    } else {
        (mapped(peer), mapped(local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: ProxyProtocol, peer: &str, local: &str) -> Vec<u8> {
        let address = |typed: &str| Some(typed.parse().unwrap());
        encode(version, address(peer), address(local)).unwrap()
    }

    #[test]
    fn version_1_is_the_line_of_the_specification() {
        assert_eq!(
            header(ProxyProtocol::V1, "192.168.0.1:56324", "192.168.0.11:443"),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        assert_eq!(
            header(ProxyProtocol::V1, "[2001:db8::1]:56324", "[::1]:443"),
            b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n"
        );
    }

    #[test]
    fn version_2_is_the_signature_the_family_the_length_and_the_addresses() {
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        expected.extend([0x21, 0x11, 0, 12]);
        expected.extend([192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb]);
        assert_eq!(
            header(ProxyProtocol::V2, "192.168.0.1:56324", "192.168.0.11:443"),
            expected
        );
        let v6 = header(ProxyProtocol::V2, "[::1]:1", "[::1]:2");
        assert_eq!((v6[13], v6[15], v6.len()), (0x21, 36, 16 + 36));
    }

    #[test]
    fn an_ipv4_client_of_a_listener_for_both_families_is_told_as_ipv4() {
        assert_eq!(
            header(ProxyProtocol::V1, "[::ffff:10.0.0.1]:5", "[::ffff:10.0.0.2]:6"),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 5 6\r\n"
        );
        assert_eq!(
            header(ProxyProtocol::V1, "10.0.0.1:5", "[2001:db8::2]:6"),
            b"PROXY TCP6 ::ffff:10.0.0.1 2001:db8::2 5 6\r\n"
        );
    }

    #[test]
    fn a_client_of_unknown_address_is_told_as_unknown_and_not_made_up() {
        assert_eq!(
            encode(ProxyProtocol::V1, None, None).unwrap(),
            b"PROXY UNKNOWN\r\n"
        );
        let v2 = encode(ProxyProtocol::V2, None, None).unwrap();
        assert_eq!(v2[12..], [0x20, 0x01, 0, 0]);
    }
}
