//! One turn of the event loop, in a fixed order: accept, read, serve, write,
//! expire, sweep.
//!
//! Owns the order, the read buffer, and the service. Refuses to wait and to
//! read the clock: events and the instant come in, and how long nothing has
//! to be done goes out. It is generic over the network, so the very code that
//! serves sockets also runs in a simulation.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use log::info;

use super::acceptor::{Accepting, Verdict};
use super::client::readiness::{Event, Readiness};
use super::client::{Phase, Sake};
use super::client_table::ClientId;
use super::core::Engine;
use super::journal::Counters;
use super::network::{Network, Stream};
use super::ready_list::Line;
use super::service::{Actions, Commands, Service};
use super::timers::Delay;
use crate::backpressure::{Reason, Sent};
use crate::error::{CloseReason, Operation, ServerError};
use crate::limits::{
    ACCEPTS_PER_TURN, EXPIRIES_PER_TURN, LONGEST_WAIT, Limits, READ_BUFFER_BYTES, SHORTEST_TICK, STOP_POLL,
    TURN_BUDGET_ALL_BYTES, TURN_BUDGET_BYTES, TURN_BUDGET_NEW_BYTES, WINDOW_CHECK_BYTES,
};

/// An event loop without its waiting.
///
/// Feed it with [`hear`](Self::hear) and [`hear_listener`](Self::hear_listener),
/// then [`take`](Self::take) one turn; it answers how long to wait for events
/// before the next.
pub struct Turn<N: Network, S> {
    engine: Engine<N>,
    service: S,
    accepting: Accepting,
    read_buffer: Box<[u8]>,
    next_tick: Option<Instant>,
    woken: bool,
    stop_by: Option<Instant>,
}

/// What to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for events at most this long; zero if there is more to do now.
    WaitFor(Duration),
    /// Nothing is due: wait for events without end.
    Wait,
    /// The server has stopped.
    Stopped,
}

impl<N: Network, S: Service> Turn<N, S> {
    /// A loop over `network` that serves with `service`. `memory_budget_bytes`
    /// and `max_clients` stand in where `limits` leave them to the machine.
    ///
    /// # Errors
    ///
    /// The limits contradict each other.
    pub fn new(
        network: N,
        service: S,
        limits: &Limits,
        memory_budget_bytes: usize,
        max_clients: usize,
        now: Instant,
    ) -> Result<Self, ServerError> {
        limits.check()?;
        let budget = limits.memory_budget_bytes.unwrap_or(memory_budget_bytes);
        let max_clients = limits.max_clients.unwrap_or(max_clients);
        Ok(Self {
            next_tick: None,
            engine: Engine::new(network, limits.clone(), budget, now),
            service,
            accepting: Accepting::new(max_clients),
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            woken: false,
            stop_by: None,
        })
    }

    /// Notes an event of a client's socket. A stale id is nobody's.
    pub fn hear(&mut self, id: ClientId, event: Event) {
        if let Some(client) = self.engine.clients.get_mut(id) {
            client.readiness.announce(event);
            if !client.listed {
                client.listed = true;
                self.engine.ready.push(id, client.line);
            }
        }
    }

    /// Notes that connections wait to be accepted.
    pub const fn hear_listener(&mut self) {
        self.accepting.announce();
    }

    /// Notes that somebody called from another thread. The service is told in
    /// the next turn, for only there the instant is that of the present.
    pub const fn hear_wake(&mut self) {
        self.woken = true;
    }

    /// Begins to stop: accepts nobody any more, and drains the clients for at
    /// most the grace. Asking again changes nothing.
    pub fn stop(&mut self) {
        self.engine.stop_requested = true;
    }

    /// Takes one turn at the charged instant `now`.
    pub fn take(&mut self, now: Instant) -> Next {
        self.engine.now = now;
        self.accept();
        self.wake();
        self.tick();
        self.serve();
        self.expire();
        self.sweep();
        self.advance_stop();
        self.arm_tick();
        self.next()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.engine.counters
    }

    /// Clients (and upstreams) that are connected.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.engine.clients.len()
    }

    /// The sum of all queues and of all that the service holds, in bytes.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.engine.queued_bytes()
    }

    /// The network that the loop runs on.
    pub const fn network(&mut self) -> &mut N {
        &mut self.engine.network
    }

    /// Gives memory of places that nobody uses back to the allocator.
    pub(crate) fn shrink(&mut self) {
        self.engine.clients.shrink();
        self.engine.ready.shrink_to(READY_KEPT);
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.accepting.is_due(self.engine.now) {
                return;
            }
            let accepted = self.engine.network.accept();
            let clients = self.engine.client_count();
            match self.accepting.judge(accepted, clients, self.engine.now) {
                Verdict::Serve(stream, peer) => match self.engine.admit(stream, peer, Readiness::NEW) {
                    Ok(id) => {
                        self.engine.counters.served_clients += 1;
                        self.service.connected(id, &mut Actions::new(&mut self.engine));
                    }
                    Err(error) => self.accepting.fail(&error, self.engine.now),
                },
                Verdict::Refuse(mut stream) => {
                    self.engine.counters.refused_clients += 1;
                    stream.reset_on_close();
                }
                Verdict::Nobody => {}
                Verdict::Failed => self.engine.counters.failed_accepts += 1,
            }
        }
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.woken) {
            self.service.woken(&mut Actions::new(&mut self.engine));
        }
    }

    fn tick(&mut self) {
        let (Some(next), Some(interval)) = (self.next_tick, self.tick_interval()) else {
            return;
        };
        if self.engine.now >= next {
            let next = next + interval;
            let missed = next <= self.engine.now;
            self.next_tick = Some(if missed { self.engine.now + interval } else { next });
            self.service.ticked(&mut Actions::new(&mut self.engine));
        }
    }

    fn tick_interval(&self) -> Option<Duration> {
        let interval = self.service.tick_interval()?;
        Some(interval.max(SHORTEST_TICK))
    }

    /// Follows the service, which may want ticks only for a while.
    fn arm_tick(&mut self) {
        self.next_tick = match (self.next_tick, self.tick_interval()) {
            (None, Some(interval)) => Some(self.engine.now + interval),
            (next, Some(_)) => next,
            (_, None) => None,
        };
    }

    /// Serves everybody on the ready list once, until together they have used
    /// up what a turn may move; what comes back to the list meanwhile is left
    /// for the next turn.
    fn serve(&mut self) {
        let lengths = self.engine.ready.lengths();
        let begun = self.engine.moved_bytes;
        for (line, length) in Line::ALL.into_iter().zip(lengths) {
            let until = self.serves_until(line, begun);
            for served in 0..length {
                // One of each line in every turn, so that nobody waits for ever.
                if served > 0 && self.engine.moved_bytes >= until {
                    break;
                }
                self.serve_next(line);
            }
        }
    }

    /// How far this turn, which began with so many bytes moved, may go with
    /// those in a line. Newcomers have a part of it, as one who waits behind
    /// floods for the first answer waits too; and many disconnects at once are
    /// paid for by those who flood.
    fn serves_until(&self, line: Line, begun: u64) -> u64 {
        let until = begun + TURN_BUDGET_ALL_BYTES;
        let moved = self.engine.moved_bytes;
        match line {
            Line::Light => until,
            Line::New => until.min(moved + TURN_BUDGET_NEW_BYTES),
            Line::Heavy if self.engine.has_slow_due() => moved,
            Line::Heavy => until,
        }
    }

    fn serve_next(&mut self, line: Line) {
        let Some(id) = self.engine.ready.pop(line) else {
            return;
        };
        let Some(client) = self.engine.clients.get_mut(id) else {
            return;
        };
        client.listed = false;
        let moved_before = self.engine.moved_bytes;
        match client.phase {
            Phase::Doomed => return,
            Phase::Connecting => self.finish_connect(id),
            Phase::Open | Phase::Closing => {
                if !client.queue.is_empty() {
                    self.flush(id);
                }
                self.read(id);
            }
        }
        let moved_bytes = self.engine.moved_bytes - moved_before;
        self.engine.settle(id, moved_bytes);
    }

    fn finish_connect(&mut self, id: ClientId) {
        let Some(client) = self.engine.clients.get_mut(id) else {
            return;
        };
        match client.stream.finish_connect() {
            Ok(false) => {}
            Ok(true) => {
                client.phase = Phase::Open;
                client.peer_awaited_since = None;
                self.engine.counters.upstreams += 1;
                self.service.connected(id, &mut Actions::new(&mut self.engine));
                self.flush(id);
            }
            Err(error) => self
                .engine
                .doom(id, CloseReason::Failed(Operation::Connect, error)),
        }
    }

    fn flush(&mut self, id: ClientId) {
        match self.engine.flush(id) {
            Sent::Drained => {
                self.engine.resume_sources(id);
                self.service.drained(id, &mut Actions::new(&mut self.engine));
            }
            // After an end nobody is told, but whom the queue held back must
            // be read on: that is how their own end is found.
            Sent::Empty => self.engine.resume_sources(id),
            Sent::Waiting => {}
        }
        self.engine.advance_end(id);
    }

    /// Reads a client until it has nothing more, must wait, or has used up
    /// its budget.
    fn read(&mut self, id: ClientId) {
        let mut budget = TURN_BUDGET_BYTES;
        loop {
            let Some(client) = self.engine.clients.get(id) else {
                return;
            };
            if !client.wants_read() {
                return self.notice_error(id);
            }
            if budget == 0 || !client.readiness.is_readable() {
                return;
            }
            let allowed = self.engine.read_allowance(client).min(self.read_buffer.len());
            let is_bulk = client.is_bulk;
            if client.receive_buffer.is_shrinking() {
                self.engine.follow_window(id, allowed);
            }
            let spliced = if is_bulk { self.splice(id, allowed) } else { None };
            match spliced.unwrap_or_else(|| self.read_once(id, allowed, budget)) {
                Ok(None) => return,
                Ok(Some(0)) => return self.read_end(id),
                Ok(Some(count)) => budget = budget.saturating_sub(count),
                Err(error) => {
                    return self.engine.doom(id, CloseReason::Failed(Operation::Read, error));
                }
            }
        }
    }

    /// Reads at most `allowed` bytes, or `budget` bytes into memory of the
    /// service, and hands them on. Answers as
    /// [`Client::read`](super::client::Client::read) does.
    fn read_once(&mut self, id: ClientId, allowed: usize, budget: usize) -> io::Result<Option<usize>> {
        let Some(client) = self.engine.clients.get_mut(id) else {
            return Ok(None);
        };
        let is_heard = client.phase == Phase::Open && client.pipe.is_empty();
        let lent = if is_heard {
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
        client.is_bulk = self.engine.limits.is_bulk(count);
        let received_bytes = client.received_bytes;
        if client.phase == Phase::Closing {
            // Its reply to this is missing, if the server is what stopped it.
            client.cut |= client.stopped;
        } else if is_lent {
            self.service
                .filled(id, count, &mut Actions::new(&mut self.engine));
        } else if client.pipe.is_empty() {
            let data = &self.read_buffer[..count];
            self.service
                .received(id, data, &mut Actions::new(&mut self.engine));
        } else {
            self.engine.write_to_destinations(id, &self.read_buffer[..count]);
        }
        self.note_moved(id, count, received_bytes);
        Ok(outcome)
    }

    /// Has at most `allowed` bytes go on without being copied. `None` where
    /// they cannot; else as [`read_once`](Self::read_once).
    fn splice(&mut self, id: ClientId, allowed: usize) -> Option<io::Result<Option<usize>>> {
        let to = self.engine.splice_destination(id)?;
        let outcome = self.engine.splice(id, to, &mut self.read_buffer[..allowed])?;
        if let Ok(Some(count @ 1..)) = outcome
            && let Some(client) = self.engine.clients.get_mut(id)
        {
            client.is_bulk = self.engine.limits.is_bulk(count);
            let received_bytes = client.received_bytes;
            self.note_moved(id, count, received_bytes);
        }
        Some(outcome)
    }

    /// Counts `count` bytes more, which make `received_bytes` of this client,
    /// and now and then looks at where they go.
    fn note_moved(&mut self, id: ClientId, count: usize, received_bytes: u64) {
        self.engine.counters.received_bytes += count as u64;
        self.engine.moved_bytes += count as u64;
        if passes_multiple(received_bytes, count as u64, WINDOW_CHECK_BYTES)
            && let Some(client) = self.engine.clients.get_mut(id)
            && client.receive_buffer.is_look_due()
        {
            self.engine.follow_window(id, 0);
        }
    }

    /// A client that may not be read now can still be gone, by a reset that
    /// its partner should hear of at once.
    fn notice_error(&mut self, id: ClientId) {
        if let Some(client) = self.engine.clients.get_mut(id)
            && client.phase == Phase::Open
            && client.readiness.may_have_ended()
            && let Some(error) = client.stream.take_error()
        {
            self.engine.doom(id, CloseReason::Failed(Operation::Read, error));
        }
    }

    fn read_end(&mut self, id: ClientId) {
        let Some(client) = self.engine.clients.get(id) else {
            return;
        };
        if client.phase == Phase::Open {
            if client.pipe.is_empty() {
                self.service.ended(id, &mut Actions::new(&mut self.engine));
            } else {
                self.engine.end_destinations(id);
            }
        }
        self.engine.advance_end(id);
    }

    /// Disconnects those whose time is over, after one last flush.
    fn expire(&mut self) {
        for _ in 0..EXPIRIES_PER_TURN {
            let over_limit = self.engine.pop_due(Delay::OverLimit);
            let Some(id) = over_limit.or_else(|| self.engine.pop_due(Delay::NotDrained)) else {
                break;
            };
            // The two of a tunnel are often held up by each other. The service
            // hears of the one that went before the other can be blamed too.
            self.sweep();
            self.judge_slow(id);
        }
        self.expire_each(Delay::Unheard, Engine::admit_acknowledgements);
        self.expire_each(Delay::Lingering, |engine, id| {
            // The last of it may have arrived without an event.
            engine.advance_end(id);
            engine.doom(id, CloseReason::NotAcknowledged);
        });
        self.expire_each(Delay::Connecting, |engine, id| {
            let after = engine.limits.connect_timeout;
            engine.doom(id, CloseReason::ConnectTimedOut(after));
        });
    }

    fn expire_each(&mut self, delay: Delay, act: impl Fn(&mut Engine<N>, ClientId)) {
        for _ in 0..EXPIRIES_PER_TURN {
            let Some(id) = self.engine.pop_due(delay) else {
                return;
            };
            act(&mut self.engine, id);
        }
    }

    fn judge_slow(&mut self, id: ClientId) {
        let now = self.engine.now;
        let policy = *self.engine.policy();
        let verdict = |turn: &Self| {
            let client = turn.engine.clients.get(id)?;
            client.slow.verdict(&policy, now)
        };
        if verdict(self).is_none() {
            return;
        }
        if let Some(client) = self.engine.clients.get_mut(id) {
            // The kernel announces room only once a third of its queue is
            // free, but takes a write long before.
            client.readiness.announce(Event {
                writable: true,
                ..Event::default()
            });
        }
        self.flush(id);
        self.engine.list_if_work(id);
        let Some(reason) = verdict(self) else { return };
        let detail = match reason {
            Reason::NotDrained => format!("not empty for {:?}", policy.drain_timeout),
            _ => format!("limit {}", policy.limit_bytes),
        };
        self.engine.disconnect(id, reason, &detail);
    }

    /// Closes those that were marked. Their service may mark others while it
    /// hears of it, so this goes on until nobody is left; only connections
    /// that it begins meanwhile are left for the next turn, as it could begin
    /// and end them for ever.
    fn sweep(&mut self) {
        let begun = self.engine.clients.next_generation();
        let mut later = VecDeque::new();
        while let Some((id, reason)) = self.engine.doomed.pop_front() {
            if id.is_since(begun) {
                later.push_back((id, reason));
                continue;
            }
            let Some(mut client) = self.engine.clients.remove(id) else {
                continue;
            };
            self.engine.unlink(id, &client);
            self.engine.upstreams -= usize::from(client.upstream_of != Sake::NOBODY);
            self.engine.counters.sent_bytes += client.sent_bytes;
            self.engine.counters.count_closed(&reason);
            Engine::<N>::log_closed(&client, &reason);
            if reason.is_reset() {
                client.stream.reset_on_close();
            } else {
                client.stream.bound_close(self.engine.limits.grace);
            }
            drop(client);
            self.accepting.note_close();
            self.service
                .closed(id, &reason, &mut Actions::new(&mut self.engine));
        }
        self.engine.doomed.append(&mut later);
    }

    /// Goes on with stopping, if asked to.
    fn advance_stop(&mut self) {
        if !self.engine.stop_requested {
            return;
        }
        let now = self.engine.now;
        match self.stop_by {
            None => {
                let grace = self.engine.limits.grace;
                info!(
                    "stopping: {} clients have {} to take what is queued",
                    self.engine.client_count(),
                    humantime::format_duration(grace)
                );
                self.stop_by = Some(now + grace);
                self.engine.stopping = true;
                self.engine.network.stop_listening();
                self.accepting.stop();
                self.service.stopping(&mut Actions::new(&mut self.engine));
                let ids = self.ids();
                for &id in &ids {
                    self.mark_cut(id);
                }
                for id in ids {
                    self.engine.close(id);
                }
            }
            Some(by) if now >= by => {
                for id in self.ids() {
                    self.engine.doom(id, CloseReason::Stopped);
                }
            }
            Some(_) => {
                for id in self.ids() {
                    self.engine.advance_end(id);
                }
            }
        }
        self.sweep();
    }

    fn ids(&self) -> Vec<ClientId> {
        self.engine.clients.iter().map(|(id, _)| id).collect()
    }

    /// What another connection was still to send to this client is lost when
    /// the server stops, and so is what the service still holds for it, so
    /// its end must not look complete. A client to which its service has said
    /// its last word loses nothing.
    fn mark_cut(&mut self, id: ClientId) {
        let Some(client) = self.engine.clients.get(id) else {
            return;
        };
        if client.phase != Phase::Open {
            return;
        }
        let cut = client.held_bytes > 0
            || client.sources.as_slice().iter().any(|&source| {
                source != id
                    && self
                        .engine
                        .clients
                        .get(source)
                        .is_some_and(|client| !client.read_ended)
            });
        if let Some(client) = self.engine.clients.get_mut(id) {
            client.stopped = true;
            client.cut |= cut;
        }
    }

    fn next(&mut self) -> Next {
        let now = self.engine.now;
        if self.stop_by.is_some() && self.engine.clients.len() == 0 {
            return Next::Stopped;
        }
        let has_more = !self.engine.ready.is_empty() || !self.engine.doomed.is_empty();
        if has_more || self.accepting.is_due(now) {
            return Next::WaitFor(Duration::ZERO);
        }
        let stop_poll = self.stop_by.map(|_| now + STOP_POLL);
        let deadline = self.engine.next_deadline().map(|due| due.min(now + LONGEST_WAIT));
        let due = [deadline, stop_poll, self.next_tick, self.accepting.retry_at()];
        match due.into_iter().flatten().min() {
            Some(due) => Next::WaitFor(due.saturating_duration_since(now)),
            None => Next::Wait,
        }
    }
}

/// Whether the last `count` of `total` led past a multiple of `step`.
const fn passes_multiple(total: u64, count: u64, step: u64) -> bool {
    total / step != (total - count) / step
}

/// Places on the ready list that are kept when memory is given back.
const READY_KEPT: usize = 64;

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
