//! How many clients each address has, while their number is limited.
//!
//! Owns the counts, and which addresses count as one. Refuses to close anybody,
//! and costs nothing where there is no such limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that name the network of one customer. Anybody who
/// has one address of such a network has all of them.
const IPV6_PREFIX_BITS: u32 = 64;

/// The clients of each address.
#[derive(Debug)]
pub(super) struct AddressCounts {
    most: Option<usize>,
    counts: HashMap<IpAddr, usize>,
}

impl AddressCounts {
    /// At most so many clients for each address; `None` for no limit.
    pub(super) fn new(most: Option<usize>) -> Self {
        Self {
            most,
            counts: HashMap::new(),
        }
    }

    /// Another limit, for clients that come from these addresses. Who is there
    /// stays, also where an address has too many now.
    pub(super) fn limit_changed(&mut self, most: Option<usize>, clients: impl Iterator<Item = IpAddr>) {
        *self = Self::new(most);
        clients.for_each(|address| self.add(address));
    }

    /// Whether this address has as many clients as it may have.
    pub(super) fn is_full(&self, address: IpAddr) -> bool {
        self.most
            .is_some_and(|most| self.counts.get(&shared(address)).copied().unwrap_or(0) >= most)
    }

    /// Counts one more client of this address.
    pub(super) fn add(&mut self, address: IpAddr) {
        if self.most.is_some() {
            *self.counts.entry(shared(address)).or_insert(0) += 1;
        }
    }

    /// Counts one client less.
    pub(super) fn remove(&mut self, address: IpAddr) {
        let address = shared(address);
        if let Some(count) = self.counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&address);
            }
        }
    }
}

/// The address that stands for all that count as one: an IPv4 address also in
/// its IPv6 spelling (`::ffff:10.0.0.1`), and the network of an IPv6 address.
fn shared(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::MAX << (u128::BITS - IPV6_PREFIX_BITS);
            Ipv6Addr::from(u128::from(address) & network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(typed: &str) -> IpAddr {
        typed.parse().unwrap()
    }

    #[test]
    fn an_address_is_full_at_its_limit_and_not_after_one_has_left() {
        let mut counts = AddressCounts::new(Some(2));
        let (full, other) = (address("10.0.0.1"), address("10.0.0.2"));
        counts.add(full);
        assert!(!counts.is_full(full));
        counts.add(full);
        assert!(counts.is_full(full) && !counts.is_full(other));
        counts.remove(full);
        assert!(!counts.is_full(full));
        counts.remove(full);
        assert!(
            counts.counts.is_empty(),
            "an address without clients takes no memory"
        );
    }

    #[test]
    fn both_spellings_of_an_ipv4_address_are_one_and_so_is_an_ipv6_network() {
        for (one, other, is_same) in [
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
        ] {
            let mut counts = AddressCounts::new(Some(1));
            counts.add(address(one));
            assert_eq!(counts.is_full(address(other)), is_same, "{one}, {other}");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut counts = AddressCounts::new(None);
        counts.add(address("10.0.0.1"));
        counts.remove(address("10.0.0.1"));
        assert!(!counts.is_full(address("10.0.0.1")) && counts.counts.is_empty());
    }
}
