//! How much the kernel receives for a client, and whether it drops the ACKs of
//! a client.
//!
//! Owns the looks at the windows of peers: for the receive buffer of a source,
//! and for the grace of a client. Refuses the rules: the
//! [`receive buffer`](super::client::receive_buffer) of a client and
//! [`Limits::grace_for`](crate::Limits::grace_for) have them.

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
        let needs_each_look = self.limits.slowest_reader_bytes_per_s.is_some();
        if base_bytes == 0 && !needs_each_look {
            return;
        }
        let Some((peer, largest_bytes, is_only_source)) = self.narrowest_window(from) else {
            return;
        };
        if base_bytes == 0 {
            return;
        }
        let clients = self.clients.len();
        let Some(source) = self.clients.get_mut(from) else {
            return;
        };
        match source
            .receive_buffer
            .follow(peer, base_bytes, clients, largest_bytes)
        {
            Resize::Keep => {}
            Resize::Grow(bytes) => source.stream.set_receive_buffer(bytes),
            Resize::Shrink(bytes) => {
                let read_bytes = u32::try_from(read_bytes).unwrap_or(u32::MAX);
                let is_shrunk = source.stream.shrink_receive_buffer(bytes, read_bytes);
                source.receive_buffer.shrunk(is_shrunk);
            }
        }
        if is_only_source && !needs_each_look {
            source.receive_buffer.rest(peer, base_bytes);
        }
    }

    /// The narrowest window of the peers that a source's bytes go to, the largest
    /// that this peer announced so far, and whether nobody else sends to it.
    fn narrowest_window(&mut self, from: ClientId) -> Option<(PeerWindow, u32, bool)> {
        let source = self.clients.get_mut(from)?;
        if source.pipe.is_empty() {
            let peer = source.look_at_window()?;
            return Some((peer, source.largest_window_bytes, false));
        }
        let only = source.pipe.only();
        let mut narrowest: Option<(PeerWindow, u32)> = None;
        let mut index = 0;
        while let Some(to) = self.clients.get(from).and_then(|source| source.pipe.at(index)) {
            index += 1;
            let Some(to) = self.clients.get_mut(to) else {
                continue;
            };
            if let Some(peer) = to.look_at_window()
                && narrowest.is_none_or(|(least, _)| peer.window_bytes < least.window_bytes)
            {
                narrowest = Some((peer, to.largest_window_bytes));
            }
        }
        let (peer, largest_bytes) = narrowest?;
        let only = only.and_then(|to| self.clients.get(to));
        let is_only_source = only.is_some_and(|to| to.sources.as_slice().len() == 1);
        Some((peer, largest_bytes, is_only_source))
    }

    /// Remembers the window of a client, which may raise its grace. Call it
    /// before its clocks are judged.
    pub(super) fn look_at_window(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            let _ = client.look_at_window();
        }
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
