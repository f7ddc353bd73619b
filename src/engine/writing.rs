//! Writing: bytes for a client go to its socket, and what the socket refuses
//! goes to its queue.
//!
//! Owns both halves of a write, and the hard limit. Refuses the memory budget
//! (`holding`) and the steps of a close (`closing`).

use bytes::Bytes;

use super::actions::Actions;
use super::client::FileState;
use super::client::readiness::Event;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::file::FilePart;
use super::network::Network;
use super::service::Service;
use crate::backpressure::rules::exceeds_hard_limit;
use crate::backpressure::{Answer, Flow, SendQueue, Sent, SlowReason};
use crate::error::{CloseReason, Operation};
use crate::limits::TURN_BUDGET_BYTES;

impl<N: Network> Core<N> {
    /// Sends `data` to a client.
    pub(super) fn write(&mut self, id: ClientId, data: &[u8]) -> Answer {
        self.write_then_queue(id, data, |queue, taken| queue.write(&data[taken..]))
    }

    /// Sends `data`, held by reference where it must wait.
    pub(super) fn write_shared(&mut self, id: ClientId, data: &Bytes) -> Answer {
        self.write_then_queue(id, data, |queue, taken| queue.write_shared(data.slice(taken..)))
    }

    /// Offers `data` to the socket first; `put` then queues what is left
    /// behind the bytes that the socket took.
    #[inline]
    fn write_then_queue(
        &mut self,
        id: ClientId,
        data: &[u8],
        put: impl FnOnce(&mut SendQueue, usize) -> Answer,
    ) -> Answer {
        let Some(client) = self.clients.get_mut(id) else {
            return Answer::Continue;
        };
        if !client.accepts_writes() {
            return Answer::Continue;
        }
        if client.file != FileState::None {
            // It must not overtake the answer under way.
            self.send_file(id, vec![FilePart::memory(data)]);
            return Answer::Pause;
        }
        match client.write_directly(data) {
            Ok(taken) if taken == data.len() && client.queue.is_empty() => Answer::Continue,
            Ok(taken) => self.enqueue(id, data.len() - taken, |queue| put(queue, taken)),
            Err(error) => {
                self.mark_closed(id, CloseReason::Failed(Operation::Write, error));
                Answer::Continue
            }
        }
    }

    /// Offers `data` to the socket, and answers how much of it is dealt with.
    /// Nothing is queued.
    pub(super) fn offer(&mut self, id: ClientId, data: &[u8]) -> usize {
        let Some(client) = self.clients.get_mut(id) else {
            return data.len();
        };
        if !client.accepts_writes() {
            return data.len();
        }
        match client.write_directly(data) {
            Ok(taken) => {
                self.moved_bytes += taken as u64;
                if taken < data.len() {
                    client.calls_when_writable = true;
                    self.list_if_work(id);
                }
                taken
            }
            Err(error) => {
                self.mark_closed(id, CloseReason::Failed(Operation::Write, error));
                data.len()
            }
        }
    }

    /// The service wants to hear when the socket takes bytes.
    pub(super) fn call_when_writable(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.calls_when_writable = true;
            self.list_if_work(id);
        }
    }

    /// Takes a socket for writable until it refuses.
    pub(super) fn try_again(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.readiness.announce(Event {
                writable: true,
                ..Event::default()
            });
            self.list_if_work(id);
        }
    }

    /// Queues `rest_bytes` that the socket refused, by `put`. The hard limit
    /// is checked before, clocks and budget after.
    fn enqueue(
        &mut self,
        id: ClientId,
        rest_bytes: usize,
        put: impl FnOnce(&mut SendQueue) -> Answer,
    ) -> Answer {
        let Some(client) = self.clients.get_mut(id) else {
            return Answer::Continue;
        };
        if exceeds_hard_limit(&self.limits, client.queue.len(), rest_bytes) {
            return self.refuse(id, rest_bytes);
        }
        let answer = client.enqueue(put);
        self.budget.grow(rest_bytes);
        let started = client.clocks.queue_changed(&self.limits, &client.queue, self.now);
        if started.over_limit {
            self.journal.blocked(client, self.now);
        }
        let raises_grace = self.limits.slowest_reader_bytes_per_s.is_some();
        if started.waiting && (raises_grace || client.largest_window_bytes == 0) {
            let _ = client.look_at_window();
        }
        if client.has_work() {
            self.ready.list(id, &mut client.place);
        }
        let is_upstream = client.is_upstream();
        self.timers.arm_started(started, id, is_upstream, self.now);
        self.keep_budget();
        answer
    }

    /// Disconnects a client over the hard limit.
    fn refuse(&mut self, id: ClientId, rest_bytes: usize) -> Answer {
        let hard_limit_bytes = self.limits.hard_limit_bytes();
        let detail = format!("hard limit {hard_limit_bytes}, a write of {rest_bytes} more");
        self.disconnect(id, SlowReason::HardLimit, &detail);
        Answer::Continue
    }

    /// Hands what a piped client has sent to its destinations.
    pub(super) fn write_to_destinations(&mut self, from: ClientId, data: &[u8]) {
        let mut index = 0;
        while let Some(to) = self.clients.get(from).and_then(|client| client.pipe.at(index)) {
            self.write_to_destination(from, to, data);
            index += 1;
        }
    }

    /// Hands what a piped client has sent to one destination.
    #[inline(always)]
    pub(super) fn write_to_destination(&mut self, from: ClientId, to: ClientId, data: &[u8]) {
        if self.write(to, data) == Answer::Pause
            && let Some(client) = self.clients.get_mut(from)
        {
            client.pipe.answered(to, Answer::Pause);
            self.follow_window(from, 0);
        }
    }

    /// A client has drained: its sources may be read again.
    fn resume_sources(&mut self, to: ClientId) {
        let mut index = 0;
        loop {
            let source = self
                .clients
                .get(to)
                .and_then(|client| client.sources.as_slice().get(index).copied());
            let Some(from) = source else { return };
            if let Some(client) = self.clients.get_mut(from)
                && client.pipe.drained(to) == Flow::Read
                && client.has_work()
            {
                self.ready.list(from, &mut client.place);
            }
            index += 1;
        }
    }

    /// Writes from a client's queue what its socket takes, within the budget
    /// of a turn.
    fn write_queue(&mut self, id: ClientId) -> Sent {
        let Some(client) = self.clients.get_mut(id) else {
            return Sent::Empty;
        };
        let before = client.queue.len();
        let clocks_before = client.clocks;
        let mut outcome = Ok(Sent::Waiting);
        while client.readiness.is_writable() && !client.queue.is_empty() {
            let left = client.queue.len();
            outcome = client.write_queue();
            // An interrupted call moves nothing; the edge stands for the next
            // turn.
            let is_stuck = outcome.is_err() || client.queue.len() == left;
            if is_stuck || before - client.queue.len() >= TURN_BUDGET_BYTES {
                break;
            }
        }
        let sent_bytes = before - client.queue.len();
        self.budget.shrink(sent_bytes);
        self.moved_bytes += sent_bytes as u64;
        client.clocks.queue_changed(&self.limits, &client.queue, self.now);
        if let Some(since) = clocks_before.since(SlowReason::WriteTimeout)
            && client.clocks.since(SlowReason::WriteTimeout).is_none()
        {
            let over_limit = self.now.saturating_duration_since(since);
            self.journal.back_below_limit(over_limit);
        }
        // By the window as it was known, before a look at it.
        if self.shadow.is_some() {
            self.shadow_flush(id, clocks_before);
        }
        if sent_bytes > 0
            && self.limits.slowest_reader_bytes_per_s.is_some()
            && let Some(client) = self.clients.get_mut(id)
        {
            let _ = client.look_at_window();
        }
        outcome.unwrap_or_else(|error| {
            self.mark_closed(id, CloseReason::Failed(Operation::Write, error));
            Sent::Waiting
        })
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Calls a service that waits for room in a client's socket.
    pub(super) fn say_writable(&mut self, id: ClientId) {
        let Some(client) = self.core.clients.get_mut(id) else {
            return;
        };
        let has_room = client.queue.is_empty() && client.readiness.is_writable();
        if client.calls_when_writable && has_room && client.accepts_writes() {
            client.calls_when_writable = false;
            self.service.writable(id, &mut Actions::new(&mut self.core));
        }
    }

    /// Writes from a client's queue, and says drain where it is due.
    pub(super) fn flush(&mut self, id: ClientId) {
        match self.core.write_queue(id) {
            Sent::Drained => {
                self.core.resume_sources(id);
                self.service.drained(id, &mut Actions::new(&mut self.core));
            }
            // After an end the service hears of no drain, but the sources that
            // the queue held back must be read on, to find their own FIN.
            Sent::Empty => self.core.resume_sources(id),
            Sent::Waiting => {}
        }
        let client = self.core.clients.get(id);
        if client.is_some_and(|client| client.queue.is_empty() && client.file == FileState::Sending) {
            self.go_on_with_file(id);
        }
        self.core.advance_end(id);
    }
}
