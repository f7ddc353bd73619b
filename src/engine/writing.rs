//! Writing: bytes for a client go to its socket, and what the socket refuses
//! to its queue.
//!
//! Owns both halves of a write, the hard limit and the memory budget. Refuses
//! to close a client by itself: `closing` does.

use std::num::NonZeroU32;

use bytes::Bytes;
use log::info;

use super::client::Phase;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::Network;
use super::service::{Actions, Service};
use super::timers::Timer;
use crate::backpressure::{Answer, Flow, SendQueue, Sent, SlowReason};
use crate::error::{CloseReason, Operation};
use crate::limits::{LOG_REPEAT_INTERVAL, TURN_BUDGET_BYTES};

impl<N: Network> Core<N> {
    pub(super) fn write(&mut self, id: ClientId, data: &[u8]) -> Answer {
        self.write_then_queue(id, data, |queue, taken| queue.write(&data[taken..]))
    }

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
        match client.write_directly(data) {
            Ok(taken) if taken == data.len() && client.queue.is_empty() => Answer::Continue,
            Ok(taken) => self.enqueue(id, data.len() - taken, |queue| put(queue, taken)),
            Err(error) => {
                self.mark_closed(id, CloseReason::Failed(Operation::Write, error));
                Answer::Continue
            }
        }
    }

    /// Puts what a socket refused into its queue. `put` does so; the hard
    /// limit is checked before, the clocks and the budget after.
    fn enqueue(
        &mut self,
        id: ClientId,
        rest_bytes: usize,
        put: impl FnOnce(&mut SendQueue) -> Answer,
    ) -> Answer {
        let Some(client) = self.clients.get_mut(id) else {
            return Answer::Continue;
        };
        let queue_bytes = client.queue.len();
        if self.policy.exceeds_hard_limit(queue_bytes, rest_bytes) {
            let detail = format!(
                "hard limit {}, a write of {rest_bytes} more",
                self.policy.hard_limit_bytes
            );
            self.disconnect(id, SlowReason::HardLimit, &detail);
            return Answer::Continue;
        }
        let answer = put(&mut client.queue);
        let length_bytes = u32::try_from(client.queue.len()).unwrap_or(u32::MAX);
        client.peak_bytes = client.peak_bytes.max(length_bytes);
        self.queued_bytes += rest_bytes;
        let started = client.clocks.queue_changed(&self.policy, &client.queue, self.now);
        if started.waiting {
            self.arm(Timer::DrainTimeout, id);
        }
        if started.over_limit {
            self.arm(Timer::AckCheck, id);
            self.arm(Timer::WriteTimeout, id);
            self.log_blocked(id);
        }
        self.list_if_work(id);
        self.keep_budget();
        answer
    }

    /// Says that a client is over the limit; at most once in a while for each,
    /// as a fast one that moves much data comes there all the time.
    fn log_blocked(&mut self, id: ClientId) {
        let limit_bytes = self.policy.limit_bytes;
        let elapsed = self.now.saturating_duration_since(self.started).as_secs();
        let now_s = NonZeroU32::MIN.saturating_add(u32::try_from(elapsed).unwrap_or(u32::MAX));
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if let Some(last_s) = client.blocked.last_s
            && now_s.get() - last_s.get() < LOG_REPEAT_INTERVAL.as_secs() as u32
        {
            client.blocked.since += 1;
            return;
        }
        client.blocked.last_s = Some(now_s);
        let repeated = match std::mem::take(&mut client.blocked.since) {
            0 => String::new(),
            times => format!(", and {times} times before"),
        };
        info!(
            "{} write blocked: {} bytes queued, over the limit of {limit_bytes}{repeated} ({})",
            client.name(),
            client.queue.len(),
            client.peer,
        );
    }

    /// While all queues together are over the budget, the longest goes.
    fn keep_budget(&mut self) {
        while self.queued_bytes > self.memory_budget_bytes {
            let longest = self
                .clients
                .iter()
                .filter(|(_, client)| client.phase != Phase::Closed)
                .max_by_key(|(_, client)| client.queue.len() + client.held_bytes)
                .map(|(id, _)| id);
            // One goes with every round, so there is an end to them.
            let Some(id) = longest else { return };
            let detail = format!(
                "the longest of {} clients with {} together, budget {}",
                self.clients.len(),
                self.queued_bytes,
                self.memory_budget_bytes,
            );
            self.disconnect(id, SlowReason::MemoryBudget, &detail);
        }
    }

    pub(super) fn hold(&mut self, id: ClientId, held_bytes: usize) {
        if let Some(client) = self.clients.get_mut(id)
            && client.phase != Phase::Closed
        {
            let before = std::mem::replace(&mut client.held_bytes, held_bytes);
            self.queued_bytes = self.queued_bytes - before + held_bytes;
            self.keep_budget();
        }
    }

    /// Hands what a piped client has sent to its destinations.
    pub(super) fn write_to_destinations(&mut self, from: ClientId, data: &[u8]) {
        if let Some(only) = self.clients.get(from).and_then(|client| client.pipe.only()) {
            return self.write_to_destination(from, only, data);
        }
        let mut index = 0;
        while let Some(to) = self.clients.get(from).and_then(|client| client.pipe.at(index)) {
            self.write_to_destination(from, to, data);
            index += 1;
        }
    }

    pub(super) fn write_to_destination(&mut self, from: ClientId, to: ClientId, data: &[u8]) {
        if self.write(to, data) == Answer::Pause
            && let Some(client) = self.clients.get_mut(from)
        {
            client.pipe.answered(to, Answer::Pause);
            self.follow_window(from, 0);
        }
    }

    /// A client has drained: those who feed it may be read again.
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
            {
                self.list_if_work(from);
            }
            index += 1;
        }
    }

    /// Writes from a client's queue what its socket takes, within the budget
    /// of a turn.
    fn flush(&mut self, id: ClientId) -> Sent {
        let Some(client) = self.clients.get_mut(id) else {
            return Sent::Empty;
        };
        let before = client.queue.len();
        let mut outcome = Sent::Waiting;
        let mut error = None;
        while client.readiness.is_writable() && !client.queue.is_empty() {
            let left = client.queue.len();
            match client.write_queue() {
                // An interrupted call; the edge stands for the next turn.
                Ok(_) if client.queue.len() == left => break,
                Ok(sent) => outcome = sent,
                Err(failure) => {
                    error = Some(failure);
                    break;
                }
            }
            if before - client.queue.len() >= TURN_BUDGET_BYTES {
                break;
            }
        }
        let sent_bytes = before - client.queue.len();
        self.queued_bytes -= sent_bytes;
        self.moved_bytes += sent_bytes as u64;
        client.clocks.queue_changed(&self.policy, &client.queue, self.now);
        if let Some(error) = error {
            self.mark_closed(id, CloseReason::Failed(Operation::Write, error));
            return Sent::Waiting;
        }
        outcome
    }
}

impl<N: Network, S: Service> Engine<N, S> {
    pub(super) fn flush(&mut self, id: ClientId) {
        match self.core.flush(id) {
            Sent::Drained => {
                self.core.resume_sources(id);
                self.service.drained(id, &mut Actions::new(&mut self.core));
            }
            // After an end nobody is told, but whom the queue held back must
            // be read on: that is how their own end is found.
            Sent::Empty => self.core.resume_sources(id),
            Sent::Waiting => {}
        }
        self.core.advance_end(id);
    }
}
