//! Joining: a client and its upstream become one conversation.
//!
//! Owns what the upstream gets before the client's own bytes, and the end of
//! conversations in which the tunnel would talk to itself.

use std::net::SocketAddr;

use log::info;

use crate::{Actions, ClientId};

use super::{End, Tunnel, proxy_header};

impl Tunnel {
    /// The upstream is there: from here on the pipes do the work.
    pub(super) fn join(&mut self, client: ClientId, upstream: ClientId, actions: &mut Actions<'_>) {
        if let Some(attempt) = self.take_waiting(client) {
            for loser in attempt.upstreams().filter(|&other| other != upstream) {
                self.abandon(loser, actions);
            }
        }
        if let Some(address) = actions.peer(upstream) {
            self.addresses.set_worked(address);
        }
        if let Some((outage, times)) = self.not_connected.recover(actions.now()) {
            info!(
                event = "connected";
                "connected to {} again after {:.3} s; {times} clients were turned away",
                self.target,
                outage.as_secs_f64(),
            );
        }
        self.ends.insert(client, End::Joined(upstream));
        self.ends.insert(upstream, End::Joined(client));
        let introduced = self.introduced.remove(&client).unwrap_or_default();
        if let Some(version) = self.proxy_protocol {
            let (peer, local) = match introduced.addresses {
                Some((peer, local)) => (Some(peer), Some(local)),
                None => (actions.peer(client), actions.local(client)),
            };
            let header = proxy_header::encode(version, peer, local);
            match header {
                Ok(header) => {
                    actions.send(upstream, &header);
                }
                Err(error) => return actions.reject(client, format!("no proxy header: {error}")),
            }
        }
        if !introduced.rest.is_empty() {
            actions.hold(client, 0);
            actions.send(upstream, &introduced.rest);
        }
        actions.pipe(client, upstream);
        actions.pipe(upstream, client);
        actions.resume(client);
    }

    /// An address of the upstream leads back to this tunnel. Ends all
    /// connections to it, and says whether there were any.
    pub(super) fn end_loop(&mut self, own: SocketAddr, actions: &mut Actions<'_>) -> bool {
        let mut found = false;
        for client in self.waiting_clients() {
            let Some(mut attempt) = self.take_waiting(client) else {
                continue;
            };
            for upstream in attempt.take_connects_to(own) {
                self.abandon(upstream, actions);
                found = true;
            }
            self.advance(client, attempt, actions);
        }
        let joined = self.ends.iter().filter_map(|(&id, end)| match end {
            End::Joined(client) if actions.peer(id) == Some(own) => Some(*client),
            _ => None,
        });
        for client in joined.collect::<Vec<_>>() {
            actions.reject(client, format!("{own} is this tunnel itself"));
            found = true;
        }
        found
    }
}
