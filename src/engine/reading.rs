//! Reading: bytes and FIN of a client, taken from its socket.
//!
//! Owns how much is read, and to whom it is handed: the service or the pipe.
//! Refuses to know what they do with it.

use std::io;

use super::actions::Actions;
use super::client::{Client, Ending, Input, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::{Network, Stream};
use super::service::Service;
use crate::error::{CloseReason, Operation};
use crate::limits::{SMALLEST_READ_BYTES, TURN_BUDGET_BYTES, WINDOW_CHECK_BYTES};

impl<N: Network, S: Service> Engine<N, S> {
    /// Reads a client until nothing is left, it must wait, or it has used up
    /// its budget.
    pub(super) fn read(&mut self, id: ClientId) {
        let mut budget = TURN_BUDGET_BYTES;
        loop {
            let Some(client) = self.core.clients.get(id) else {
                return;
            };
            let is_readable = client.readiness.is_readable();
            if !is_readable && !client.readiness.may_have_ended() {
                return;
            }
            if !client.wants_read() {
                return self.core.notice_error(id);
            }
            if budget == 0 || !is_readable {
                return;
            }
            let allowed = self.core.read_allowance(id, client).min(self.read_buffer.len());
            let is_bulk = client.is_bulk;
            if client.receive_buffer.is_shrinking() {
                self.core.follow_window(id, allowed);
            }
            let spliced = if is_bulk { self.splice(id, allowed) } else { None };
            match spliced.unwrap_or_else(|| self.read_once(id, allowed, budget)) {
                Ok(None) => return,
                Ok(Some(0)) => return self.read_end(id),
                Ok(Some(count)) => budget = budget.saturating_sub(count),
                Err(error) => {
                    let reason = CloseReason::Failed(Operation::Read, error);
                    return self.core.mark_closed(id, reason);
                }
            }
        }
    }

    /// Reads at most `allowed` bytes, or `budget` bytes into memory of the
    /// service, and hands them on. Answers as
    /// [`Client::read`](super::client::Client::read) does.
    // Left to the compiler, this, `write_to_destination` and `after_read` are
    // calls: 80 instructions more for each message of an echo.
    #[inline(always)]
    fn read_once(&mut self, id: ClientId, allowed: usize, budget: usize) -> io::Result<Option<usize>> {
        let Some(client) = self.core.clients.get_mut(id) else {
            return Ok(None);
        };
        let is_piped = !client.pipe.is_empty();
        let lent = if client.phase == Phase::Open && !is_piped {
            self.service.read_buffer(id).filter(|lent| !lent.is_empty())
        } else {
            None
        };
        let is_lent = lent.is_some();
        let outcome = match lent {
            Some(lent) => {
                let most = lent.len().min(budget);
                client.read(&mut lent[..most])
            }
            None => client.read(&mut self.read_buffer[..allowed]),
        }?;
        let Some(count @ 1..) = outcome else {
            return Ok(outcome);
        };
        client.is_bulk = self.core.limits.is_bulk(count);
        let received_bytes = client.received_bytes;
        if let Phase::Closing(ending) = &mut client.phase {
            // The server's stop leaves this without a reply.
            if *ending == Ending::IfNothingElseCame {
                *ending = Ending::Truncated;
            }
        } else if is_piped {
            let only = client.pipe.only();
            let data = &self.read_buffer[..count];
            match only {
                Some(only) => self.core.write_to_destination(id, only, data),
                None => self.core.write_to_destinations(id, data),
            }
        } else if is_lent {
            self.service.filled(id, count, &mut Actions::new(&mut self.core));
        } else {
            let data = &self.read_buffer[..count];
            self.service.received(id, data, &mut Actions::new(&mut self.core));
        }
        self.core.count_read(id, count, received_bytes);
        Ok(outcome)
    }

    /// Reads a little of a client for the last time, which shows whether any
    /// input is left.
    pub(super) fn read_last(&mut self, id: ClientId) {
        let client = self.core.clients.get(id);
        if !client.is_some_and(|client| client.wants_read() && client.readiness.is_readable()) {
            return;
        }
        match self.read_once(id, SMALLEST_READ_BYTES, SMALLEST_READ_BYTES) {
            Ok(Some(0)) => self.read_end(id),
            Ok(_) => {}
            Err(error) => {
                let reason = CloseReason::Failed(Operation::Read, error);
                self.core.mark_closed(id, reason);
            }
        }
    }

    /// Hands on the FIN of a client.
    fn read_end(&mut self, id: ClientId) {
        let Some(client) = self.core.clients.get(id) else {
            return;
        };
        if client.phase == Phase::Open {
            if client.pipe.is_empty() {
                self.service.ended(id, &mut Actions::new(&mut self.core));
            } else {
                self.core.end_destinations(id);
            }
        }
        self.core.advance_end(id);
        self.core.watch_half_closed(id);
    }
}

impl<N: Network> Core<N> {
    /// How much of a client may be read at once: the room below the mark in
    /// the queues of its destinations, or in its own queue without a pipe, and
    /// never less than one small read.
    fn read_allowance(&self, id: ClientId, client: &Client<N::Stream>) -> usize {
        let is_own_destination = match client.pipe.only() {
            Some(only) => only == id,
            None => client.pipe.is_empty(),
        };
        let room = if is_own_destination {
            client.queue.room()
        } else {
            let destinations = client.pipe.names().filter_map(|to| self.clients.get(to));
            destinations.map(|to| to.queue.room()).min().unwrap_or(0)
        };
        room.max(SMALLEST_READ_BYTES)
    }

    /// Counts `count` bytes more, which make `received_bytes` of this client,
    /// and now and then follows the window of its destination.
    pub(super) fn count_read(&mut self, id: ClientId, count: usize, received_bytes: u64) {
        self.journal.received(count);
        self.moved_bytes += count as u64;
        if passes_multiple(received_bytes, count as u64, WINDOW_CHECK_BYTES)
            && let Some(client) = self.clients.get_mut(id)
            && client.receive_buffer.is_look_due()
        {
            self.follow_window(id, 0);
        }
    }

    /// A client that may not be read now can still be gone, by a reset of
    /// which its partner should hear at once.
    fn notice_error(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && client.phase == Phase::Open
            && client.readiness.may_have_ended()
            && let Some(error) = client.stream.take_error()
        {
            self.mark_closed(id, CloseReason::Failed(Operation::Read, error));
        }
    }

    /// Reads no more from a client until [`resume`](Self::resume).
    pub(super) fn pause(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && client.input == Input::Flowing
        {
            client.input = Input::Paused;
            self.follow_window(id, 0);
        }
    }

    pub(super) fn resume(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && client.input == Input::Paused
        {
            client.input = Input::Flowing;
            self.list_if_work(id);
        }
    }
}

/// Whether the last `count` of `total` led past a multiple of `step`.
const fn passes_multiple(total: u64, count: u64, step: u64) -> bool {
    total / step != (total - count) / step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_looked_at_once_for_each_multiple_that_is_passed() {
        let passed = |total, count| passes_multiple(total, count, 100);
        assert!(!passed(99, 99), "short of the first");
        assert!(passed(100, 1), "just there");
        assert!(!passed(199, 99), "between two");
        assert!(passed(205, 10), "past the second");
        assert!(passed(450, 300), "several at once are one");
        assert!(!passed(450, 50), "it was reached before");
    }
}
