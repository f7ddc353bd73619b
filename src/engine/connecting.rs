//! Connecting: upstreams, the connections that we open for a client.
//!
//! Owns the way of an upstream from the request to the first write. Refuses to
//! choose addresses: the service does.

use std::net::SocketAddr;

use super::actions::Actions;
use super::client::readiness::Readiness;
use super::client::{Client, Phase, UpstreamOf};
use super::client_table::ClientId;
use super::core::{Core, Engine, Stop};
use super::network::{Network, Stream};
use super::service::Service;
use super::timers::Timer;
use crate::error::{CloseReason, ConnectError, Operation};

impl<N: Network> Core<N> {
    /// Begins a connection to `address` for a client.
    pub(super) fn connect(
        &mut self,
        address: SocketAddr,
        for_client: ClientId,
    ) -> Result<ClientId, ConnectError> {
        let Some(client) = self.clients.get(for_client) else {
            return Err(ConnectError::ClientGone);
        };
        let upstream_of = UpstreamOf::of(client.stream.descriptor());
        let begun = self.begin_connect(address, upstream_of);
        let id = begun.inspect_err(|_| self.journal.connect_failed())?;
        self.upstreams += 1;
        self.timers.arm(Timer::ConnectTimeout, id, self.now);
        Ok(id)
    }

    fn begin_connect(
        &mut self,
        address: SocketAddr,
        upstream_of: UpstreamOf,
    ) -> Result<ClientId, ConnectError> {
        if matches!(self.stop, Stop::Draining { by, .. } if self.now >= by) {
            return Err(ConnectError::Stopping);
        }
        let stream = self.network.connect(address)?;
        let mut upstream = Client::new(stream, address, self.limits.high_water_mark_bytes);
        upstream.phase = Phase::Connecting;
        upstream.readiness = Readiness::CONNECTING;
        upstream.upstream_of = upstream_of;
        upstream.awaiting_since = Some(self.now);
        Ok(self.admit(upstream)?)
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Asks whether a connection was made, after an event of its socket.
    pub(super) fn finish_connect(&mut self, id: ClientId) {
        let Some(upstream) = self.core.clients.get_mut(id) else {
            return;
        };
        match upstream.stream.finish_connect() {
            Ok(false) => {}
            Ok(true) => {
                upstream.phase = Phase::Open;
                upstream.awaiting_since = None;
                self.core.journal.connected();
                self.service.connected(id, &mut Actions::new(&mut self.core));
                self.flush(id);
            }
            Err(error) => {
                let reason = CloseReason::Failed(Operation::Connect, error);
                self.core.mark_closed(id, reason);
            }
        }
    }
}
