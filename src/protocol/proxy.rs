//! The PROXY protocol of HAProxy, as it is received: where a header ends, and
//! which client it names.
//!
//! Owns the bound of a header, the checksum, and which headers name nobody.
//! Refuses to decide who may send one. The addresses are parsed by the `ppp`
//! crate. Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::fmt;
use std::net::SocketAddr;

use crc::{CRC_32_ISCSI, Crc};
use ppp::{v1, v2};

/// Longest header that is taken, in bytes, signature and TLVs included.
pub const MAX_HEADER_BYTES: usize = 4096;

/// Longest header of version 1, CR and LF included (section 2.1).
const MAX_LINE_BYTES: usize = 107;

/// Bytes of a header of version 2 before its addresses.
const FIXED_BYTES: usize = 16;

/// The type of the TLV with the checksum of a header (`PP2_TYPE_CRC32C`).
const TLV_CRC32C: u8 = 0x03;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its length in bytes. The stream of the client begins behind it.
    pub length_bytes: usize,
    /// The client, and the address that it connected to. `None` if the sender
    /// of the header speaks for itself: `LOCAL`, `UNKNOWN`, and addresses that
    /// are not of TCP.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Bytes that are no header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// The stream does not begin with a header.
    Missing,
    /// The header is longer than allowed.
    TooLong {
        /// Its length in bytes, or that of what came so far.
        length_bytes: usize,
        /// The most that is allowed.
        most_bytes: usize,
    },
    /// The header breaks the protocol; the sentence says how.
    Malformed(String),
    /// The checksum in the header is not that of the header.
    Checksum {
        /// The checksum in the header.
        told: u32,
        /// The one that would be right.
        right: u32,
    },
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no PROXY header at the start of the stream"),
            Self::TooLong {
                length_bytes,
                most_bytes,
            } => write!(
                f,
                "PROXY header of {length_bytes} bytes, at most {most_bytes} are allowed"
            ),
            Self::Malformed(why) => write!(f, "malformed PROXY header: {why}"),
            Self::Checksum { told, right } => {
                write!(
                    f,
                    "PROXY header with the checksum {told:08x}, {right:08x} is right"
                )
            }
        }
    }
}

impl std::error::Error for ProxyHeaderError {}

/// Looks for a header of either version at the start of a stream. `Ok(None)`
/// says that more bytes are needed; they never exceed [`MAX_HEADER_BYTES`].
///
/// # Errors
///
/// What is there is no header, and more bytes would not make it one.
pub fn parse(stream: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let begins_with = |prefix: &[u8]| {
        let length = prefix.len().min(stream.len());
        stream[..length] == prefix[..length]
    };
    if begins_with(v2::PROTOCOL_PREFIX) {
        parse_binary(stream)
    } else if begins_with(b"PROXY ") {
        parse_line(stream)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

fn parse_line(stream: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let bounded = &stream[..stream.len().min(MAX_LINE_BYTES)];
    let Some(end) = bounded.windows(2).position(|pair| pair == b"\r\n") else {
        if stream.len() < MAX_LINE_BYTES {
            return Ok(None);
        }
        return Err(ProxyHeaderError::TooLong {
            length_bytes: stream.len(),
            most_bytes: MAX_LINE_BYTES,
        });
    };
    let length_bytes = end + 2;
    let is_unknown = bounded
        .strip_prefix(b"PROXY UNKNOWN")
        .is_some_and(|rest| matches!(rest.first(), Some(b' ' | b'\r')));
    let addresses = if is_unknown {
        None
    } else {
        let header = v1::Header::try_from(&bounded[..length_bytes]);
        let header = header.map_err(|error| ProxyHeaderError::Malformed(error.to_string()))?;
        match header.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(ip) => Some(pair_of_ipv4(&ip)),
            v1::Addresses::Tcp6(ip) => Some(pair_of_ipv6(&ip)),
        }
    };
    Ok(Some(ProxyHeader {
        length_bytes,
        addresses,
    }))
}

fn parse_binary(stream: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(fixed) = stream.get(..FIXED_BYTES) else {
        return Ok(None);
    };
    let length_bytes = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length_bytes > MAX_HEADER_BYTES {
        return Err(ProxyHeaderError::TooLong {
            length_bytes,
            most_bytes: MAX_HEADER_BYTES,
        });
    }
    let Some(header) = stream.get(..length_bytes) else {
        return Ok(None);
    };
    // The addresses of LOCAL mean nothing, whatever their family and length.
    let is_local = fixed[12] == 0x20;
    let addresses = if is_local {
        None
    } else {
        let parsed = v2::Header::try_from(header);
        let parsed = parsed.map_err(|error| ProxyHeaderError::Malformed(error.to_string()))?;
        check_tlvs(header, header.len() - parsed.tlv_bytes().len())?;
        let is_stream = parsed.protocol == v2::Protocol::Stream;
        match parsed.addresses {
            v2::Addresses::IPv4(ip) if is_stream => Some(pair_of_ipv4(&ip)),
            v2::Addresses::IPv6(ip) if is_stream => Some(pair_of_ipv6(&ip)),
            _ => None,
        }
    };
    Ok(Some(ProxyHeader {
        length_bytes,
        addresses,
    }))
}

/// Walks over the TLVs of a header, which begin at `at`, and checks the one
/// with the checksum (section 2.2.3).
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), ProxyHeaderError> {
    while at < header.len() {
        let cut = || ProxyHeaderError::Malformed(format!("the TLV at byte {at} is cut off"));
        let &[kind, high, low] = header.get(at..at + 3).ok_or_else(cut)? else {
            return Err(cut());
        };
        let value_bytes = usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(at + 3..at + 3 + value_bytes).ok_or_else(cut)?;
        if kind == TLV_CRC32C {
            let &[a, b, c, d] = value else {
                let why = format!("a checksum of {value_bytes} bytes, not 4");
                return Err(ProxyHeaderError::Malformed(why));
            };
            let told = u32::from_be_bytes([a, b, c, d]);
            let right = checksum(header, at + 3);
            if told != right {
                return Err(ProxyHeaderError::Checksum { told, right });
            }
        }
        at += 3 + value_bytes;
    }
    Ok(())
}

/// CRC32C of a header, with the checksum's own four bytes at `at` as zero.
fn checksum(header: &[u8], at: usize) -> u32 {
    let crc = Crc::<u32>::new(&CRC_32_ISCSI);
    let mut digest = crc.digest();
    digest.update(&header[..at]);
    digest.update(&[0; 4]);
    digest.update(&header[at + 4..]);
    digest.finalize()
}

fn pair_of_ipv4(ip: &ppp::v2::IPv4) -> (SocketAddr, SocketAddr) {
    (
        (ip.source_address, ip.source_port).into(),
        (ip.destination_address, ip.destination_port).into(),
    )
}

fn pair_of_ipv6(ip: &ppp::v2::IPv6) -> (SocketAddr, SocketAddr) {
    (
        (ip.source_address, ip.source_port).into(),
        (ip.destination_address, ip.destination_port).into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(client: &str, local: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((client.parse().unwrap(), local.parse().unwrap()))
    }

    /// A header of version 2 with this command, family and body.
    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    const IPV4: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x15, 0xb3, 0x01, 0xbb];

    /// Parses it whole, byte by byte, and with the stream behind it.
    fn whole(header: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(None), "{end} bytes of {header:?}");
        }
        let with_stream = [header, b"GET /"].concat();
        for stream in [header, &with_stream] {
            let parsed = parse(stream).unwrap().unwrap();
            assert_eq!(parsed.length_bytes, header.len());
        }
        parse(header).unwrap().unwrap().addresses
    }

    #[test]
    fn both_versions_and_families_name_the_client_and_where_it_went() {
        let ipv4 = pair("203.0.113.9:5555", "192.0.2.1:443");
        assert_eq!(whole(b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n"), ipv4);
        assert_eq!(whole(&binary(1, 0x11, &IPV4)), ipv4);
        let ipv6 = pair("[2001:db8::1]:5", "[::1]:6");
        assert_eq!(whole(b"PROXY TCP6 2001:db8::1 ::1 5 6\r\n"), ipv6);
        let mut body = "2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets()
            .to_vec();
        body.extend(std::net::Ipv6Addr::LOCALHOST.octets());
        body.extend([0, 5, 0, 6]);
        assert_eq!(whole(&binary(1, 0x21, &body)), ipv6);
    }

    #[test]
    fn who_speaks_for_itself_names_nobody() {
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(whole(b"PROXY UNKNOWN ffff::1 ffff::2 1 2 whatever\r\n"), None);
        assert_eq!(whole(&binary(0, 0x00, &[])), None, "LOCAL");
        assert_eq!(whole(&binary(0, 0x11, &[1])), None, "LOCAL, with anything behind");
        assert_eq!(whole(&binary(1, 0x00, &[])), None, "UNSPEC");
        assert_eq!(whole(&binary(1, 0x31, &[0; 216])), None, "UNIX");
        assert_eq!(whole(&binary(1, 0x12, &IPV4)), None, "a datagram");
    }

    #[test]
    fn tlvs_are_skipped_and_a_checksum_among_them_is_checked() {
        let mut body = IPV4.to_vec();
        body.extend([0x02, 0, 3, b'w', b'e', b'b']);
        assert!(whole(&binary(1, 0x11, &body)).is_some());
        let at = FIXED_BYTES + body.len() + 3;
        body.extend([TLV_CRC32C, 0, 4, 0, 0, 0, 0, 0x04, 0, 1, 0]);
        let mut header = binary(1, 0x11, &body);
        let right = checksum(&header, at);
        header[at..at + 4].copy_from_slice(&right.to_be_bytes());
        assert!(whole(&header).is_some());
        header[at + 3] ^= 1;
        let wrong = ProxyHeaderError::Checksum {
            told: right ^ 1,
            right,
        };
        assert_eq!(parse(&header), Err(wrong));
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(checksum(&[0; 32], 10), 0x8a91_36aa);
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_that_is_certain() {
        let malformed = |stream: &[u8]| matches!(parse(stream), Err(ProxyHeaderError::Malformed(_)));
        assert_eq!(parse(b"GET / HTTP/1.0"), Err(ProxyHeaderError::Missing));
        assert_eq!(parse(b"PROXX"), Err(ProxyHeaderError::Missing));
        assert_eq!(parse(&[0x0d, 0x0a, 0x0d, 0x0b]), Err(ProxyHeaderError::Missing));
        assert!(malformed(b"PROXY TCP4 203.0.113.9 192.0.2.1 5555\r\n"));
        assert!(malformed(b"PROXY TCP4 ::1 ::2 1 2\r\n"));
        assert!(malformed(b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 99999\r\n"));
        assert!(malformed(&binary(1, 0x11, &IPV4[..11])));
        assert!(malformed(&binary(1, 0x51, &IPV4)));
        assert!(malformed(&binary(1, 0x11, &[&IPV4[..], &[1, 0, 9, 0]].concat())));
    }

    #[test]
    fn a_header_that_is_too_long_is_refused_before_it_is_there() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        assert!(matches!(
            parse(&endless),
            Err(ProxyHeaderError::TooLong { most_bytes: 107, .. })
        ));
        let mut header = binary(1, 0x11, &IPV4);
        header[14..16].copy_from_slice(&4081u16.to_be_bytes());
        let too_long = ProxyHeaderError::TooLong {
            length_bytes: 4097,
            most_bytes: 4096,
        };
        assert_eq!(parse(&header[..16]), Err(too_long));
        header[14..16].copy_from_slice(&4080u16.to_be_bytes());
        assert_eq!(parse(&header), Ok(None));
    }
}
