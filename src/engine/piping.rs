//! Piping: what one client sends goes to others without asking the service.
//!
//! Owns who feeds whom, and the bytes that the kernel moves from socket to
//! socket. Refuses to hold bytes in memory: what the kernel cannot move is
//! written.

use std::io;

use super::client::Phase;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::Network;
use super::service::Service;
use crate::backpressure::Answer;
use crate::error::{CloseReason, Operation};

impl<N: Network> Core<N> {
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
        let source_ended = source.read_ended;
        if let Some(destination) = self.clients.get_mut(to) {
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
        if source_ended {
            self.end(to);
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

    /// The client to which what `from` sends can be moved without copying: its
    /// only destination, with nothing waiting for it.
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
    /// [`Client::read`] does, and `None` where nothing can be moved in this way.
    fn splice(&mut self, from: ClientId, to: ClientId, rest: &mut [u8]) -> Option<io::Result<Option<usize>>> {
        let (source, destination) = self.clients.get_two_mut(from, to)?;
        let outcome = self
            .network
            .splice(&mut source.stream, &mut destination.stream, rest)?;
        let (taken, sent) = match outcome {
            Ok(spliced) => (Ok(spliced.taken_bytes), spliced.sent),
            Err(error) => (Err(error), Ok(0)),
        };
        // Few bytes say nothing: the pipe may have been full.
        let taken = source.after_read(taken, 0);
        if let Ok(Some(taken_bytes)) = taken {
            match destination.after_write(sent, taken_bytes) {
                Ok(sent_bytes) if sent_bytes < taken_bytes => {
                    self.write_to_destination(from, to, &rest[..taken_bytes - sent_bytes]);
                }
                Ok(_) => {}
                Err(error) => self.mark_closed(to, CloseReason::Failed(Operation::Write, error)),
            }
        }
        Some(taken)
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Has at most `allowed` bytes go on without being copied. `None` where
    /// they cannot; else as [`read_once`](Self::read_once).
    pub(super) fn splice(&mut self, id: ClientId, allowed: usize) -> Option<io::Result<Option<usize>>> {
        let to = self.core.splice_destination(id)?;
        let outcome = self.core.splice(id, to, &mut self.read_buffer[..allowed])?;
        if let Ok(Some(count @ 1..)) = outcome
            && let Some(client) = self.core.clients.get_mut(id)
        {
            client.is_bulk = self.core.limits.is_bulk(count);
            let received_bytes = client.received_bytes;
            self.count_read(id, count, received_bytes);
        }
        Some(outcome)
    }
}
