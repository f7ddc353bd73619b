//! Piping: what one client sends goes to others without asking the service.
//!
//! Owns who feeds whom, and splicing: the kernel moves bytes from socket to
//! socket. Refuses to keep bytes: what the destination refuses is written.

use std::io::{self, ErrorKind};

use super::client::{Input, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::Network;
use super::service::Service;
use crate::backpressure::Answer;
use crate::error::{CloseReason, Operation};

impl<N: Network> Core<N> {
    /// Sends everything that `from` sends to `to`.
    pub(super) fn pipe(&mut self, from: ClientId, to: ClientId) {
        if self.clients.get(to).is_none() {
            return;
        }
        let Some(source) = self.clients.get_mut(from) else {
            return;
        };
        if source.pipe.contains(to) {
            return;
        }
        source.pipe.add(to);
        source.receive_buffer.end_rest();
        let has_ended = source.input == Input::Ended;
        // It waited for its destination, and could move nothing meanwhile.
        self.silence.begin_anew(from, self.now);
        self.add_source(to, from);
        if has_ended {
            self.end(to);
        }
    }

    fn add_source(&mut self, to: ClientId, from: ClientId) {
        let Some(destination) = self.clients.get_mut(to) else {
            return;
        };
        let alone_so_far = destination.sources.as_slice().first().copied();
        destination.sources.push(from);
        if destination.queue.needs_drain()
            && let Some(source) = self.clients.get_mut(from)
        {
            source.pipe.answered(to, Answer::Pause);
        }
        if let Some(other) = alone_so_far.and_then(|other| self.clients.get_mut(other)) {
            other.receive_buffer.end_rest();
        }
    }

    /// The end of a piped client ends its destinations.
    pub(super) fn end_destinations(&mut self, from: ClientId) {
        let mut index = 0;
        while let Some(to) = self.clients.get(from).and_then(|client| client.pipe.at(index)) {
            self.end(to);
            index += 1;
        }
    }

    /// The client to which the bytes of `from` can be spliced: its only
    /// destination, with an empty queue.
    fn splice_destination(&self, from: ClientId) -> Option<ClientId> {
        let source = self.clients.get(from)?;
        if source.phase != Phase::Open {
            return None;
        }
        let only = source.pipe.only().filter(|&to| to != from)?;
        let to = self.clients.get(only)?;
        let takes_more = to.phase == Phase::Open && to.accepts_writes() && to.readiness.is_writable();
        (takes_more && to.queue.is_empty()).then_some(only)
    }

    /// Moves what `from` has sent to `to`, at most as much as `rest` has room
    /// for. What `to` refuses is queued for it, by way of `rest`. Answers as
    /// [`Client::read`](super::client::Client::read) does, and `None` where
    /// nothing can be moved in this way.
    fn splice(&mut self, from: ClientId, to: ClientId, rest: &mut [u8]) -> Option<io::Result<Option<usize>>> {
        let (source, destination) = self.clients.get_two_mut(from, to)?;
        let outcome = self
            .network
            .splice(&mut source.stream, &mut destination.stream, rest)?;
        // At the mark of urgent data a splice finds nothing, or the FIN though there
        // is more: only a read gets past the mark, and tells which it is.
        let is_at_mark = match &outcome {
            Ok(spliced) => spliced.taken_bytes == 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock && source.readiness.may_have_ended(),
        };
        if is_at_mark {
            return None;
        }
        let (taken, sent) = match outcome {
            Ok(spliced) => (Ok(spliced.taken_bytes), spliced.sent),
            Err(error) => (Err(error), Ok(0)),
        };
        // Few bytes say nothing: the pipe may have been full.
        let taken = source.after_read(taken, 0);
        let Ok(Some(taken_bytes @ 1..)) = taken else {
            return Some(taken);
        };
        source.is_bulk = self.limits.is_bulk(taken_bytes);
        let received_bytes = source.received_bytes;
        match destination.after_write(sent, taken_bytes) {
            Ok(sent_bytes) if sent_bytes < taken_bytes => {
                self.write_to_destination(from, to, &rest[..taken_bytes - sent_bytes]);
            }
            Ok(_) => {}
            Err(error) => self.mark_closed(to, CloseReason::Failed(Operation::Write, error)),
        }
        self.count_read(from, taken_bytes, received_bytes);
        Some(taken)
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Splices at most `allowed` bytes. `None` where that cannot be done; else
    /// as a read.
    pub(super) fn splice(&mut self, id: ClientId, allowed: usize) -> Option<io::Result<Option<usize>>> {
        let to = self.core.splice_destination(id)?;
        self.core.splice(id, to, &mut self.read_buffer[..allowed])
    }
}
