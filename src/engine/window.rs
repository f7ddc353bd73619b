//! How much the kernel receives for a client, and whether it drops the ACKs of
//! a client.
//!
//! Owns the looks at the windows of peers. Refuses the rule: the
//! [`receive buffer`](super::client::receive_buffer) of a client has it.

use super::client::receive_buffer::Resize;
use super::client_table::ClientId;
use super::core::Core;
use super::network::{Network, PeerWindow, Stream};

impl<N: Network> Core<N> {
    /// Adapts the receive buffer of a source to the window of its destination.
    /// Call it when the source is paused, now and then while it sends much,
    /// and before each read while the buffer is shrinking; `read_bytes` is the
    /// length of that read.
    pub(super) fn follow_window(&mut self, from: ClientId, read_bytes: usize) {
        let base_bytes = self.limits.receive_buffer_bytes;
        if base_bytes == 0 {
            return;
        }
        let Some((peer, is_only_source)) = self.narrowest_window(from) else {
            return;
        };
        let clients = self.clients.len();
        let Some(source) = self.clients.get_mut(from) else {
            return;
        };
        match source.receive_buffer.follow(peer, base_bytes, clients) {
            Resize::Keep => {}
            Resize::Grow(bytes) => source.stream.set_receive_buffer(bytes),
            Resize::Shrink(bytes) => {
                let read_bytes = u32::try_from(read_bytes).unwrap_or(u32::MAX);
                let is_shrunk = source.stream.shrink_receive_buffer(bytes, read_bytes);
                source.receive_buffer.shrunk(is_shrunk);
            }
        }
        if is_only_source {
            source.receive_buffer.rest(peer, base_bytes);
        }
    }

    /// The narrowest window of the peers that a source's bytes go to, and
    /// whether nobody else sends to that peer.
    fn narrowest_window(&self, from: ClientId) -> Option<(PeerWindow, bool)> {
        let source = self.clients.get(from)?;
        if source.pipe.is_empty() {
            return source.stream.peer_window().map(|peer| (peer, false));
        }
        let destinations = source.pipe.names().filter_map(|to| self.clients.get(to));
        let peer = destinations
            .filter_map(|to| to.stream.peer_window())
            .min_by_key(|peer| peer.window_bytes)?;
        let only = source.pipe.only().and_then(|to| self.clients.get(to));
        let is_only_source = only.is_some_and(|to| to.sources.as_slice().len() == 1);
        Some((peer, is_only_source))
    }

    /// Makes sure that our own kernel does not keep a client over the limit by
    /// dropping its ACKs.
    pub(super) fn check_acknowledgements(&mut self, id: ClientId) {
        let silence = self.limits.ack_check_delay() / 2;
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if !client.stream.check_acknowledgements(silence) {
            return;
        }
        self.journal.acks_let_in(client, silence);
        if self.limits.receive_buffer_bytes == 0 {
            client.stream.set_receive_buffer(None);
        } else {
            // It shrinks again as soon as it is read.
            client.receive_buffer.shrunk(false);
        }
    }
}
