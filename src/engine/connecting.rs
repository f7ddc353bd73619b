//! Connecting: upstreams, the connections that we open for a client.
//!
//! Owns the way of an upstream from the request to the first write. Refuses to
//! choose addresses: the service does.

use std::io;
use std::net::SocketAddr;

use super::client::readiness::Readiness;
use super::client::{Phase, UpstreamOf};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::{Network, Stream};
use super::service::{Actions, Service};
use super::timers::Timer;
use crate::error::{CloseReason, Operation, Stopping};

impl<N: Network> Core<N> {
    pub(super) fn connect(&mut self, address: SocketAddr, for_client: ClientId) -> io::Result<ClientId> {
        let Some(client) = self.clients.get(for_client) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let upstream_of = client.stream.descriptor();
        let stream = match self.stopping {
            true => Err(io::Error::other(Stopping)),
            false => self.network.connect(address),
        };
        let admitted = stream.and_then(|stream| self.admit(stream, address, Readiness::CONNECTING));
        let id = admitted.inspect_err(|_| self.counters.failed_connects += 1)?;
        self.upstreams += 1;
        if let Some(client) = self.clients.get_mut(id) {
            client.phase = Phase::Connecting;
            client.upstream_of = UpstreamOf::of(upstream_of);
            client.awaiting_since = Some(self.now);
        }
        self.arm(Timer::ConnectTimeout, id);
        Ok(id)
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    pub(super) fn finish_connect(&mut self, id: ClientId) {
        let Some(client) = self.core.clients.get_mut(id) else {
            return;
        };
        match client.stream.finish_connect() {
            Ok(false) => {}
            Ok(true) => {
                client.phase = Phase::Open;
                client.awaiting_since = None;
                self.core.counters.upstreams += 1;
                self.service.connected(id, &mut Actions::new(&mut self.core));
                self.flush(id);
            }
            Err(error) => self
                .core
                .mark_closed(id, CloseReason::Failed(Operation::Connect, error)),
        }
    }
}
