//! Balancers: who may send a PROXY header, and headers that are not whole yet.
//!
//! Owns the addresses that are believed, and at most one header for each
//! client. Refuses to parse: `protocol::proxy` does.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Instant;

use crate::ClientId;
use crate::protocol::proxy::MAX_HEADER_BYTES;

/// An address, or all addresses with the same first bits.
///
/// ```
/// use highwater::services::AddressRange;
///
/// let inside: AddressRange = "10.0.0.0/8".parse()?;
/// assert!(inside.contains([10, 1, 2, 3].into()));
/// assert!(!inside.contains([11, 1, 2, 3].into()));
/// # Ok::<(), highwater::services::AddressRangeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// An IPv4 address as the IPv6 address that stands for it.
    first: Ipv6Addr,
    bits: u32,
}

impl AddressRange {
    /// The addresses of this machine for itself.
    pub const LOOPBACK: [Self; 2] = [
        Self {
            first: Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 0),
            bits: 96 + 8,
        },
        Self {
            first: Ipv6Addr::LOCALHOST,
            bits: 128,
        },
    ];

    /// All addresses.
    pub const ANY: Self = Self {
        first: Ipv6Addr::UNSPECIFIED,
        bits: 0,
    };

    /// Whether this address is one of them. An IPv4 address counts as the IPv6
    /// address that stands for it (`::ffff:10.0.0.1`), and the other way round.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = u128::from(mapped(address)) ^ u128::from(self.first);
        differing.leading_zeros() >= self.bits
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, all_bits, skipped_bits) = match IpAddr::from(self.first).to_canonical() {
            // A shorter prefix says more than the addresses of IPv4.
            IpAddr::V4(first) if self.bits >= 96 => (IpAddr::V4(first), 32, 96),
            _ => (IpAddr::V6(self.first), 128, 0),
        };
        match self.bits - skipped_bits {
            bits if bits == all_bits => first.fmt(f),
            bits => write!(f, "{first}/{bits}"),
        }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(typed: &str) -> Result<Self, AddressRangeError> {
        let refuse = || AddressRangeError(typed.to_owned());
        let (address, bits) = match typed.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (typed, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let all_bits = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all_bits), |bits| bits.parse().map_err(|_| refuse()))?;
        if bits > all_bits {
            return Err(refuse());
        }
        Ok(Self {
            first: mapped(address),
            bits: 128 - all_bits + bits,
        })
    }
}

/// A text that is no [`AddressRange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRangeError(String);

impl fmt::Display for AddressRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = &self.0;
        write!(
            f,
            "`{typed}` is not ADDRESS or ADDRESS/BITS; write for example 10.0.0.7, 10.0.0.0/8 or fd00::/8"
        )
    }
}

impl std::error::Error for AddressRangeError {}

/// Who may send a PROXY header, and who still owes one.
#[derive(Debug)]
pub(super) struct Balancers {
    ranges: Vec<AddressRange>,
    /// Lent for each read of a header.
    pub(super) buffer: Box<[u8; MAX_HEADER_BYTES]>,
    /// Clients in order of arrival. An entry may be stale.
    pub(super) due: VecDeque<(ClientId, Instant)>,
}

impl Balancers {
    pub(super) fn new(ranges: Vec<AddressRange>) -> Self {
        Self {
            ranges,
            buffer: Box::new([0; MAX_HEADER_BYTES]),
            due: VecDeque::new(),
        }
    }

    pub(super) fn may_introduce(&self, peer: SocketAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(peer.ip()))
    }
}

/// What a header said of a client, and the bytes that came with it.
#[derive(Debug, Default)]
pub(super) struct Introduced {
    /// The client, and the address that it connected to.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// The beginning of the client's stream.
    pub(super) rest: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        let range: AddressRange = range.parse().unwrap();
        range.contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_has_the_addresses_with_its_first_bits() {
        assert!(contains("10.0.0.0/8", "10.255.255.255"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("10.0.0.7", "10.0.0.7"));
        assert!(!contains("10.0.0.7", "10.0.0.8"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(!contains("fd00::/8", "fe00::1"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "203.0.113.9"));
    }

    #[test]
    fn ipv4_addresses_are_known_in_their_ipv6_spelling_too() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("::ffff:10.0.0.0/104", "10.1.2.3"));
        let is_loopback = |address: &str| {
            let address = address.parse().unwrap();
            AddressRange::LOOPBACK.iter().any(|range| range.contains(address))
        };
        assert!(is_loopback("127.0.0.1") && is_loopback("127.9.9.9") && is_loopback("::1"));
        assert!(is_loopback("::ffff:127.0.0.1"));
        assert!(!is_loopback("128.0.0.1") && !is_loopback("::2"));
    }

    #[test]
    fn a_range_is_written_as_it_is_typed() {
        for typed in ["10.0.0.0/8", "10.0.0.7", "fd00::/8", "::1", "0.0.0.0/0", "::/0"] {
            assert_eq!(typed.parse::<AddressRange>().unwrap().to_string(), typed);
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_an_example() {
        for typed in [
            "",
            "web",
            "10.0.0.0/33",
            "::1/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10/8",
        ] {
            let refusal = typed.parse::<AddressRange>().unwrap_err().to_string();
            assert!(
                refusal.contains(typed) && refusal.contains("10.0.0.0/8"),
                "{refusal}"
            );
        }
    }
}
