//! Introducing: a balancer says in a PROXY header who the client is.
//!
//! Owns the way from a connection to a client that has a name: who may send a
//! header, the bytes that came of it, and the time that it may take. Refuses a
//! client without a header, as its bytes could be anybody's.

use crate::limits::PROXY_HEADER_TIMEOUT;
use crate::protocol::proxy::{self, ProxyHeaderError};
use crate::units::format_time;
use crate::{Actions, ClientId};

use super::balancers::Introduced;
use super::{End, Tunnel};

impl Tunnel {
    /// A client has come. With balancers it has to be introduced first.
    pub(super) fn welcome(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let Some(balancers) = &mut self.balancers else {
            return self.begin(client, actions);
        };
        if !actions
            .peer(client)
            .is_some_and(|peer| balancers.may_introduce(peer))
        {
            return actions.reject(client, "may not send a PROXY header from this address");
        }
        balancers.due.push_back((client, actions.now()));
        self.ends.insert(client, End::Unannounced(Vec::new()));
    }

    /// More of a PROXY header has come.
    pub(super) fn take_header(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        let (Some(balancers), Some(End::Unannounced(bytes))) = (&self.balancers, self.ends.get_mut(&client))
        else {
            return;
        };
        bytes.extend_from_slice(&balancers.buffer[..count_bytes]);
        match proxy::parse(bytes) {
            Ok(None) => actions.hold(client, bytes.len()),
            Err(error) => self.refuse_header(client, &error, actions),
            Ok(Some(header)) => {
                let rest = bytes.split_off(header.length_bytes);
                actions.hold(client, rest.len());
                let addresses = header.addresses;
                // Without addresses the balancer itself is the client.
                let peer = addresses.map(|(peer, _)| peer).or_else(|| actions.peer(client));
                if !peer.is_some_and(|peer| actions.set_peer(client, peer)) {
                    return;
                }
                self.introduced.insert(client, Introduced { addresses, rest });
                self.begin(client, actions);
            }
        }
    }

    fn refuse_header(&mut self, client: ClientId, error: &ProxyHeaderError, actions: &mut Actions<'_>) {
        self.ends.remove(&client);
        actions.reject(client, error.to_string());
    }

    /// Ends clients whose header is not whole in time.
    pub(super) fn end_unannounced(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        let Some(balancers) = &mut self.balancers else {
            return;
        };
        while let Some(&(client, since)) = balancers.due.front()
            && now.saturating_duration_since(since) >= PROXY_HEADER_TIMEOUT
        {
            balancers.due.pop_front();
            if let Some(End::Unannounced(bytes)) = self.ends.get(&client) {
                let after = format_time(PROXY_HEADER_TIMEOUT);
                let why = format!("PROXY header not whole after {after}: {} bytes came", bytes.len());
                self.ends.remove(&client);
                actions.reject(client, why);
            }
        }
    }
}
