//! PROXY headers that simulated clients begin with, and the seats of the
//! addresses in them.
//!
//! Owns a second implementation of the headers, which writes them. Refuses to
//! parse.

use std::net::SocketAddr;

use fastrand::Rng;
use highwater::ClientId;

use super::plan::Kind;
use super::world::{World, address};

/// What the header of a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// The client comes from this address.
    Names(SocketAddr),
    /// The balancer speaks for itself.
    OfBalancer,
    /// It breaks the protocol, which is certain at its last byte.
    Wrong,
}

/// The first number of an address that stands in headers only.
const FIRST_NAMED: usize = 0xfe_0000;

/// The header of a client, drawn from a generator of its own.
pub(crate) fn header(seed: u64, number: usize, addresses: Option<usize>) -> (Vec<u8>, Header) {
    let mut rng = Rng::with_seed(seed ^ 0x9906 ^ (number as u64).wrapping_mul(0x9e37_79b9));
    let named = address(FIRST_NAMED + addresses.map_or(number, |addresses| rng.usize(..addresses)));
    match rng.u8(..8) {
        0 => (b"PROXY TCP4 1.2.3.4\r\n".to_vec(), Header::Wrong),
        1 => (b"PROXY UNKNOWN\r\n".to_vec(), Header::OfBalancer),
        2..4 => (binary(named, rng.usize(..300)), Header::Names(named)),
        _ => {
            let line = format!("PROXY TCP4 {} 192.0.2.1 {} 443\r\n", named.ip(), named.port());
            (line.into_bytes(), Header::Names(named))
        }
    }
}

/// A header of version 2 with a TLV of so many bytes (type 0x04: to be skipped).
fn binary(client: SocketAddr, padding: usize) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let length = u16::try_from(12 + 3 + padding).unwrap_or(0);
    header.extend_from_slice(&length.to_be_bytes());
    if let SocketAddr::V4(client) = client {
        header.extend_from_slice(&client.ip().octets());
    }
    header.extend_from_slice(&[192, 0, 2, 1]);
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&443_u16.to_be_bytes());
    header.push(0x04);
    header.extend_from_slice(&u16::try_from(padding).unwrap_or(0).to_be_bytes());
    header.resize(header.len() + padding, 0);
    header
}

impl World {
    /// Where the peer of a link comes from.
    pub(crate) fn peer_address(&self, number: usize) -> SocketAddr {
        address(
            self.plan
                .peer_addresses
                .map_or(number, |addresses| number % addresses),
        )
    }

    /// The address whose seat a client has, once it is known.
    pub(crate) fn seat_address(&self, number: usize) -> Option<SocketAddr> {
        let link = &self.links[number];
        if link.is_upstream || link.id.is_none() {
            return None;
        }
        let is_unannounced = self
            .model
            .ledgers
            .get(number)
            .is_some_and(|ledger| ledger.unannounced);
        match link.header {
            Some(Header::Names(named)) if !is_unannounced => Some(named),
            Some(_) if is_unannounced => None,
            _ => Some(self.peer_address(number)),
        }
    }

    /// Clients with a seat of this address. `counts` is asked with whether a
    /// client has to be closed: its seat may be free already.
    pub(crate) fn seats_of(&self, address: SocketAddr, counts: impl Fn(bool) -> bool) -> usize {
        let alive = self.model.alive().iter();
        let has_seat = |&&number: &&usize| {
            self.seat_address(number) == Some(address) && counts(!self.model.ledgers[number].is_alive())
        };
        alive.filter(has_seat).count()
    }

    /// The upstream of an introduced client is there: what came behind the header
    /// goes to it.
    pub(crate) fn join(&mut self, upstream: ClientId) {
        if let Some(number) = self.link_of(upstream)
            && self.links[number].is_upstream
            && let Some(client) = self.links[number].partner
        {
            self.model.may_move(client);
            if self.links[client].header.is_some() {
                self.model.join(client, number);
            }
        }
    }

    /// After a turn no address has more clients than it may have.
    pub(crate) fn check_seats(&mut self) {
        let Some(most) = self.plan.limits.max_clients_per_address else {
            return;
        };
        if self.plan.kind == Kind::Meddler {
            return;
        }
        for at in 0..self.model.alive().len() {
            let number = self.model.alive()[at];
            let Some(address) = self.seat_address(number) else {
                continue;
            };
            let clients = self.seats_of(address, |departed| !departed);
            if clients > most {
                self.model.accuse(|| {
                    format!("link {number}: {clients} clients of {address} are served, at most {most}")
                });
            }
        }
    }
}
