//! The addresses of the upstream: which to try, in which order.
//!
//! Owns the addresses of the latest look-up, the one that worked last, and
//! those that lead back to this tunnel. Refuses to connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Debug, Default)]
pub(super) struct Addresses {
    known: Vec<SocketAddr>,
    /// The one that worked last.
    worked: Option<SocketAddr>,
    /// Those of `known` on which this very tunnel listens.
    own: Vec<SocketAddr>,
}

impl Addresses {
    pub(super) fn new(known: Vec<SocketAddr>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// Takes what a look-up found, and says whether any address is new or
    /// gone. Name servers rotate the order to spread load; that is no change.
    pub(super) fn replace(&mut self, mut found: Vec<SocketAddr>) -> bool {
        found.dedup();
        let is_same = found.len() == self.known.len() && found.iter().all(|new| self.known.contains(new));
        if is_same || found.is_empty() {
            return false;
        }
        self.own.retain(|own| found.contains(own));
        self.known = found;
        true
    }

    pub(super) const fn set_worked(&mut self, address: SocketAddr) {
        self.worked = Some(address);
    }

    /// Notes that this tunnel accepts connections at `local`. Answers the
    /// upstream's address that is the same, unless that was known before.
    pub(super) fn note_own(&mut self, local: SocketAddr) -> Option<SocketAddr> {
        let same = self.known.iter().find(|&&known| leads_to(known, local))?;
        if self.own.contains(same) {
            return None;
        }
        self.own.push(*same);
        Some(*same)
    }

    /// Whether a connection to `address` would come back to this tunnel.
    pub(super) fn is_own(&self, address: SocketAddr) -> bool {
        self.own.contains(&address)
    }

    /// Whether `address` is one of them.
    pub(super) fn is_known(&self, address: SocketAddr) -> bool {
        self.known.contains(&address)
    }

    /// Whether one of them is on this host.
    pub(super) fn is_host(&self, host: IpAddr) -> bool {
        let canonical = |known: &SocketAddr| known.ip().to_canonical();
        self.known
            .iter()
            .any(|known| canonical(known) == host.to_canonical())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The addresses that lead back to this tunnel, if all of them do.
    pub(super) fn all_own(&self) -> Option<&[SocketAddr]> {
        (!self.own.is_empty() && self.own.len() == self.known.len()).then_some(&self.own)
    }

    /// The order in which to try them: the one that worked last, then the
    /// families in turn (RFC 8305, section 4), so that a family without a
    /// route costs one head start and not one for each address.
    pub(super) fn in_order(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let usable = self.known.iter().copied().filter(|known| !self.is_own(*known));
        let mut usable: Vec<_> = usable.collect();
        if let Some(index) = usable.iter().position(|known| Some(*known) == self.worked) {
            usable.rotate_left(index);
        }
        let first_is_ipv4 = usable.first().is_some_and(SocketAddr::is_ipv4);
        let (same, other): (Vec<_>, Vec<_>) = usable
            .into_iter()
            .partition(|address| address.is_ipv4() == first_is_ipv4);
        let (mut same, mut other) = (same.into_iter(), other.into_iter());
        std::iter::from_fn(move || {
            let next = same.next().or_else(|| other.next());
            std::mem::swap(&mut same, &mut other);
            next
        })
    }

    /// All of them, with commas between.
    pub(super) fn list(&self) -> String {
        let each: Vec<_> = self.known.iter().map(SocketAddr::to_string).collect();
        each.join(", ")
    }
}

/// Whether a connection to `target` arrives at `local`, an address of ours: an
/// IPv4 address may be told as a mapped IPv6 one, and a connection to `0.0.0.0`
/// or `::` goes to this machine.
fn leads_to(target: SocketAddr, local: SocketAddr) -> bool {
    let target_ip = match target.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    target.port() == local.port() && target_ip == local.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(typed: &[&str]) -> Vec<SocketAddr> {
        typed.iter().map(|typed| typed.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_one_that_worked_comes_first() {
        let mut known = Addresses::new(addresses(&[
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "1.1.1.1:1",
            "2.2.2.2:1",
        ]));
        let order = |known: &Addresses| known.in_order().collect::<Vec<_>>();
        assert_eq!(
            order(&known),
            addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"])
        );
        known.set_worked(addresses(&["2.2.2.2:1"])[0]);
        assert_eq!(
            order(&known),
            addresses(&["2.2.2.2:1", "[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
    }

    #[test]
    fn another_order_is_no_change_and_another_address_is() {
        let mut known = Addresses::new(addresses(&["1.1.1.1:1", "2.2.2.2:1"]));
        assert!(!known.replace(addresses(&["2.2.2.2:1", "1.1.1.1:1"])));
        assert!(!known.replace(Vec::new()), "the old ones are better than none");
        assert!(known.replace(addresses(&["3.3.3.3:1"])));
        assert_eq!(known.list(), "3.3.3.3:1");
    }

    #[test]
    fn an_address_that_leads_back_is_known_by_any_of_its_spellings() {
        for (target, local) in [
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("127.0.0.1:9", "[::ffff:127.0.0.1]:9"),
            ("[::ffff:127.0.0.1]:9", "127.0.0.1:9"),
            ("0.0.0.0:9", "127.0.0.1:9"),
            ("[::]:9", "[::1]:9"),
            ("127.0.0.2:9", "127.0.0.2:9"),
        ] {
            let mut known = Addresses::new(addresses(&[target]));
            assert!(
                known.note_own(local.parse().unwrap()).is_some(),
                "{target} {local}"
            );
            assert_eq!(known.all_own(), Some(&addresses(&[target])[..]));
            assert_eq!(known.in_order().count(), 0);
        }
    }

    #[test]
    fn another_port_or_host_does_not_lead_back() {
        for (target, local) in [
            ("127.0.0.1:9", "127.0.0.1:10"),
            ("10.0.0.1:9", "127.0.0.1:9"),
            ("127.0.0.2:9", "127.0.0.1:9"),
            ("[::1]:9", "127.0.0.1:9"),
        ] {
            let mut known = Addresses::new(addresses(&[target]));
            assert_eq!(known.note_own(local.parse().unwrap()), None, "{target} {local}");
            assert_eq!(known.in_order().count(), 1);
        }
    }

    #[test]
    fn of_several_addresses_only_those_that_lead_back_are_left_out() {
        let mut known = Addresses::new(addresses(&["1.1.1.1:1", "2.2.2.2:1"]));
        assert!(known.note_own(addresses(&["1.1.1.1:1"])[0]).is_some());
        assert!(
            known.note_own(addresses(&["1.1.1.1:1"])[0]).is_none(),
            "said once"
        );
        assert_eq!(known.all_own(), None);
        assert_eq!(known.in_order().collect::<Vec<_>>(), addresses(&["2.2.2.2:1"]));
    }
}
