//! Looping: two tunnels that lead to each other fill each other with clients.
//!
//! Owns the hint that tells so. Refuses to end anybody on a guess: the limit of
//! clients ends such a loop, and clients of the upstream's own host may be real.

use std::net::SocketAddr;

use crate::Actions;

use super::{End, Tunnel};

impl Tunnel {
    /// What the log adds about a refused client, if it and nine in ten of those
    /// that are served come from the upstream's host: so it is in a loop, where
    /// only the first client came from anywhere else.
    pub(super) fn loop_hint(&self, refused: SocketAddr, actions: &mut Actions<'_>) -> String {
        if !self.addresses.is_host(refused.ip()) {
            return String::new();
        }
        let is_client = |end: &End| !matches!(end, End::UpstreamOf(_));
        let peers = self.ends.iter().filter(|(_, end)| is_client(end));
        let peers = peers.filter_map(|(&id, _)| actions.peer(id));
        let (mut clients, mut of_host) = (0_usize, 0_usize);
        for peer in peers.filter(|peer| !self.addresses.is_known(*peer)) {
            clients += 1;
            of_host += usize::from(self.addresses.is_host(peer.ip()));
        }
        if of_host * 10 < clients * 9 {
            return String::new();
        }
        format!(
            "; {of_host} of them come from the host of {}: if that is a tunnel, it may lead back to this one",
            self.target
        )
    }
}
