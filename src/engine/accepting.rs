//! Accepting: new connections become clients, or are refused.
//!
//! Owns the way of a connection into the table of clients, and who has a seat.
//! Refuses to decide whether to accept: the [`acceptor`](super::acceptor) does.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::acceptor::Admission;
use super::actions::Actions;
use super::client::{Client, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::{Network, Stream};
use super::refusals::Full;
use super::service::Service;
use crate::error::CloseReason;
use crate::limits::{ACCEPTS_PER_TURN, EVENTS_PER_TURN};

impl<N: Network, S: Service> Engine<N, S> {
    /// Accepts connections that wait, at most so many in one turn.
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.acceptor.is_due(self.core.now) || self.newcomers.is_full() {
                return;
            }
            self.accept_one();
        }
    }

    /// Accepts the next connection. It is served at once if there is a seat;
    /// else it waits until seats that were given up before it came are free.
    pub(super) fn accept_one(&mut self) {
        let accepted = self.core.network.accept();
        match self.acceptor.judge(accepted, self.core.now) {
            Admission::Newcomer(stream, peer) => {
                if self.newcomers.is_empty() && self.lacking_seats(peer).is_none() {
                    self.begin_serving(stream, peer);
                } else {
                    self.newcomers.push(stream, peer, self.core.now);
                }
            }
            Admission::Nobody => {}
            Admission::Failed => self.core.journal.accept_failed(),
        }
    }

    /// Serves newcomers that waited, as far as seats are free now, and refuses
    /// those that have waited for long enough. `all_served`: every client on the
    /// ready list had its turn.
    pub(super) fn seat_newcomers(&mut self, all_served: bool) {
        let events = std::mem::take(&mut self.events);
        if self.newcomers.is_empty() {
            return;
        }
        // After a full batch of events the kernel may have more of them.
        let all_served = all_served && events < EVENTS_PER_TURN;
        for (newcomer, may_refuse) in self.newcomers.take_all(all_served, self.core.now) {
            match self.lacking_seats(newcomer.peer) {
                None => self.begin_serving(newcomer.stream, newcomer.peer),
                Some(full) if may_refuse => self.refuse(newcomer.stream, newcomer.peer, full),
                Some(_) => self.newcomers.put_back(newcomer),
            }
        }
        // The service may want nothing of them.
        self.sweep();
    }

    /// Serves or refuses all newcomers, because the server stops.
    pub(super) fn seat_newcomers_at_once(&mut self) {
        for (newcomer, _) in self.newcomers.take_all(true, self.core.now) {
            match self.lacking_seats(newcomer.peer) {
                None => self.begin_serving(newcomer.stream, newcomer.peer),
                Some(full) => self.refuse(newcomer.stream, newcomer.peer, full),
            }
        }
    }

    /// Which seats are all taken for a newcomer from this peer.
    fn lacking_seats(&self, peer: SocketAddr) -> Option<Full> {
        if self.core.client_count() >= self.max_clients {
            return Some(Full::Server);
        }
        let is_full = !self.service.introduces_clients() && self.core.addresses.is_full(peer.ip());
        is_full.then_some(Full::Address)
    }

    fn refuse(&mut self, mut stream: N::Stream, peer: SocketAddr, full: Full) {
        self.core.journal.refused(full);
        let refusal = self.service.refusal();
        if !refusal.is_empty() {
            // The socket is new, so it takes a line or never will.
            let _ = stream.write(refusal);
        }
        stream.reset_on_close();
        if let Some(clients) = self.core.refusals.count(full, peer, self.core.now) {
            let hint = match full {
                Full::Server => self.service.refusal_hint(peer, &mut Actions::new(&mut self.core)),
                Full::Address => String::new(),
            };
            self.core.refusals.write(full, clients, &hint);
        }
    }

    fn begin_serving(&mut self, stream: N::Stream, peer: SocketAddr) {
        let mut client = Client::new(stream, peer, self.core.limits.high_water_mark_bytes);
        client.is_counted = !self.service.introduces_clients();
        let is_counted = client.is_counted;
        match self.core.admit(client) {
            Ok(id) => {
                if is_counted {
                    self.core.addresses.add(peer.ip());
                }
                self.core.journal.served();
                self.core.watch_idle(id);
                self.service.connected(id, &mut Actions::new(&mut self.core));
            }
            Err(error) => self.acceptor.fail(&error, self.core.now),
        }
    }
}

impl<N: Network> Core<N> {
    /// Puts a client into the table and registers its socket. A failure ends
    /// this connection and no other.
    pub(super) fn admit(&mut self, client: Client<N::Stream>) -> io::Result<ClientId> {
        let id = self
            .clients
            .insert(client)
            .ok_or_else(|| io::Error::other("the table of clients is full"))?;
        if let Some(client) = self.clients.get_mut(id)
            && let Err(error) = self.network.register(&mut client.stream, id)
        {
            if let Some(mut client) = self.clients.remove(id) {
                client.stream.reset_on_close();
            }
            return Err(error);
        }
        self.journal.admitted(self.clients.len());
        if let Some(watch) = &mut self.watch {
            watch.came(id, self.now);
        }
        Ok(id)
    }

    /// Gives a client its real address, which counts from here on. Closes it,
    /// and answers `false`, if that address has no seat left. One that is marked
    /// as closed for another reason is not counted as refused.
    pub(super) fn set_peer(&mut self, id: ClientId, peer: SocketAddr) -> bool {
        let client = self.clients.get_mut(id);
        let Some(client) = client.filter(|client| client.phase != Phase::Closed) else {
            return false;
        };
        if client.is_counted {
            self.addresses.remove(client.peer.ip());
        }
        client.peer = peer;
        client.is_counted = !client.is_upstream() && !self.addresses.is_full(peer.ip());
        if client.is_counted {
            self.addresses.add(peer.ip());
        } else if !client.is_upstream() {
            if let Some(clients) = self.refusals.count(Full::Address, peer, self.now) {
                self.refusals.write(Full::Address, clients, "");
            }
            self.journal.refused(Full::Address);
            self.mark_closed(id, CloseReason::AddressFull);
            return false;
        }
        true
    }
}
