//! Accepting: new connections become clients.
//!
//! Owns the way of a connection into the table of clients. Refuses to decide
//! whether to accept: the [`acceptor`](super::acceptor) does.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::acceptor::Admission;
use super::client::Client;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::{Network, Stream};
use super::service::{Actions, Service};
use crate::limits::ACCEPTS_PER_TURN;

impl<N: Network, S: Service> Engine<N, S> {
    /// Accepts connections that wait, at most so many in one turn.
    pub(super) fn accept(&mut self) {
        self.acceptor.sum_up_refused(self.core.now);
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.acceptor.is_due(self.core.now) {
                return;
            }
            let accepted = self.core.network.accept();
            let clients = self.core.client_count();
            match self.acceptor.judge(accepted, clients, self.core.now) {
                Admission::Serve(stream, peer) => self.begin_serving(stream, peer),
                Admission::Refuse(mut stream) => {
                    self.core.journal.refused();
                    let refusal = self.service.refusal();
                    if !refusal.is_empty() {
                        // The socket is new, so it takes a line or never will.
                        let _ = stream.write(refusal);
                    }
                    stream.reset_on_close();
                }
                Admission::Nobody => {}
                Admission::Failed => self.core.journal.accept_failed(),
            }
        }
    }

    fn begin_serving(&mut self, stream: N::Stream, peer: SocketAddr) {
        let client = Client::new(stream, peer, self.core.limits.high_water_mark_bytes);
        match self.core.admit(client) {
            Ok(id) => {
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
        Ok(id)
    }
}
