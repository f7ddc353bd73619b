//! How much the kernel receives for a client, and whether it hears the peer.
//!
//! Owns the looks at the windows of peers. Refuses the rule: the
//! [`receive buffer`](super::client::receive_buffer) of a client has it.

use log::debug;

use super::client::receive_buffer::Resize;
use super::client_table::ClientId;
use super::core::Core;
use super::network::{Network, Stream};

impl<N: Network> Core<N> {
    /// Lets the receive buffer of a source follow the window of those its
    /// bytes go to. Call it when it is paused, now and then while it sends
    /// much, and before each read while the buffer is shrinking; `read_bytes`
    /// is the length of that read.
    pub(super) fn follow_window(&mut self, from: ClientId, read_bytes: usize) {
        let base_bytes = self.limits.receive_buffer_bytes;
        if base_bytes == 0 {
            return;
        }
        let Some(source) = self.clients.get(from) else {
            return;
        };
        let peer = if source.pipe.is_empty() {
            source.stream.peer_window()
        } else {
            let destinations = source.pipe.names().filter_map(|to| self.clients.get(to));
            destinations
                .filter_map(|to| to.stream.peer_window())
                .min_by_key(|peer| peer.window_bytes)
        };
        let only = source.pipe.only().and_then(|to| self.clients.get(to));
        let is_only_source = only.is_some_and(|to| to.sources.as_slice().len() == 1);
        let clients = self.clients.len();
        if let Some(peer) = peer
            && let Some(source) = self.clients.get_mut(from)
        {
            match source.receive_buffer.follow(peer, base_bytes, clients) {
                Resize::Keep => {}
                Resize::Grow(bytes) => source.stream.set_receive_buffer(bytes),
                Resize::Shrink(bytes) => {
                    let is_shrunk = source
                        .stream
                        .shrink_receive_buffer(bytes, u32::try_from(read_bytes).unwrap_or(u32::MAX));
                    source.receive_buffer.shrunk(is_shrunk);
                }
            }
            if is_only_source {
                source.receive_buffer.rest(peer, base_bytes);
            }
        }
    }

    /// Makes sure that a client over the limit is not kept there by our own
    /// kernel.
    pub(super) fn check_acknowledgements(&mut self, id: ClientId) {
        let silence = self.limits.unheard_delay() / 2;
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if !client.stream.check_acknowledgements(silence) {
            return;
        }
        debug!(
            "{} acknowledges nothing: its receive buffer is larger now, in case it was too full to hear it ({})",
            client.name(),
            client.peer,
        );
        if self.limits.receive_buffer_bytes == 0 {
            client.stream.set_receive_buffer(None);
        } else {
            // It shrinks again as soon as it is read.
            client.receive_buffer.shrunk(false);
        }
    }
}
