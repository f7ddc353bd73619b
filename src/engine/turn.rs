//! One turn of the engine, in a fixed order: accept, read, serve, write,
//! expire, sweep.
//!
//! Owns the order, and who is served first. Refuses to wait and to read the
//! clock: events and the instant come in, and how long nothing has to be done
//! goes out.

use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::client::Phase;
use super::client::readiness::Event;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::journal::Counters;
use super::network::Network;
use super::ready_list::Lane;
use super::service::{Actions, Service};
use crate::error::ServerError;
use crate::limits::{
    LONGEST_WAIT, Limits, READ_BUFFER_BYTES, SHORTEST_TICK, STOP_POLL, TURN_BUDGET_ALL_BYTES,
    TURN_BUDGET_NEW_BYTES,
};

/// Places on the ready list that are kept when memory is given back.
const READY_KEPT: usize = 64;

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

impl<N: Network, S: Service> Engine<N, S> {
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
            core: Core::new(network, limits.clone(), budget, now),
            service,
            acceptor: Acceptor::new(max_clients),
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            woken: false,
            stop_by: None,
        })
    }

    /// Notes an event of a client's socket. A stale id is nobody's.
    pub fn handle_event(&mut self, id: ClientId, event: Event) {
        if let Some(client) = self.core.clients.get_mut(id) {
            client.readiness.announce(event);
            if !client.listed {
                client.listed = true;
                self.core.ready.push(id, client.lane);
            }
        }
    }

    /// Notes that connections wait to be accepted.
    pub const fn handle_listener(&mut self) {
        self.acceptor.announce();
    }

    /// Notes that somebody called from another thread. The service is told in
    /// the next turn, for only there the instant is that of the present.
    pub const fn handle_wake(&mut self) {
        self.woken = true;
    }

    /// Begins to stop: accepts nobody any more, and drains the clients for at
    /// most the grace. Asking again changes nothing.
    pub fn stop(&mut self) {
        self.core.stop_requested = true;
    }

    /// Takes one turn at the charged instant `now`.
    pub fn turn(&mut self, now: Instant) -> Next {
        self.core.now = now;
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
        &self.core.counters
    }

    /// Clients (and upstreams) that are connected.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.core.clients.len()
    }

    /// The sum of all queues and of all that the service holds, in bytes.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.core.queued_bytes()
    }

    /// The network that the loop runs on.
    pub const fn network(&mut self) -> &mut N {
        &mut self.core.network
    }

    /// Gives memory of places that nobody uses back to the allocator.
    pub(crate) fn shrink(&mut self) {
        self.core.clients.shrink();
        self.core.ready.shrink_to(READY_KEPT);
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.woken) {
            self.service.woken(&mut Actions::new(&mut self.core));
        }
    }

    fn tick(&mut self) {
        let (Some(next), Some(interval)) = (self.next_tick, self.tick_interval()) else {
            return;
        };
        if self.core.now >= next {
            let next = next + interval;
            let missed = next <= self.core.now;
            self.next_tick = Some(if missed { self.core.now + interval } else { next });
            self.service.ticked(&mut Actions::new(&mut self.core));
        }
    }

    fn tick_interval(&self) -> Option<Duration> {
        let interval = self.service.tick_interval()?;
        Some(interval.max(SHORTEST_TICK))
    }

    /// Follows the service, which may want ticks only for a while.
    fn arm_tick(&mut self) {
        self.next_tick = match (self.next_tick, self.tick_interval()) {
            (None, Some(interval)) => Some(self.core.now + interval),
            (next, Some(_)) => next,
            (_, None) => None,
        };
    }

    /// Serves everybody on the ready list once, until together they have used
    /// up what a turn may move; what comes back to the list meanwhile is left
    /// for the next turn.
    fn serve(&mut self) {
        let lengths = self.core.ready.lengths();
        let begun = self.core.moved_bytes;
        for (lane, length) in Lane::ALL.into_iter().zip(lengths) {
            let until = self.serves_until(lane, begun);
            for served in 0..length {
                // One of each lane in every turn, so that nobody waits for ever.
                if served > 0 && self.core.moved_bytes >= until {
                    break;
                }
                self.serve_next(lane);
            }
        }
    }

    /// How far this turn, which began with so many bytes moved, may go with
    /// those in a lane. Newcomers have a part of it, as one who waits behind
    /// floods for the first answer waits too; and many disconnects at once are
    /// paid for by those who flood.
    fn serves_until(&self, lane: Lane, begun: u64) -> u64 {
        let until = begun + TURN_BUDGET_ALL_BYTES;
        let moved = self.core.moved_bytes;
        match lane {
            Lane::Interactive => until,
            Lane::New => until.min(moved + TURN_BUDGET_NEW_BYTES),
            Lane::Bulk if self.core.has_slow_due() => moved,
            Lane::Bulk => until,
        }
    }

    fn serve_next(&mut self, lane: Lane) {
        let Some(id) = self.core.ready.pop(lane) else {
            return;
        };
        let Some(client) = self.core.clients.get_mut(id) else {
            return;
        };
        client.listed = false;
        let moved_before = self.core.moved_bytes;
        match client.phase {
            Phase::Closed => return,
            Phase::Connecting => self.finish_connect(id),
            Phase::Open | Phase::Closing => {
                if !client.queue.is_empty() {
                    self.flush(id);
                }
                self.read(id);
            }
        }
        let moved_bytes = self.core.moved_bytes - moved_before;
        self.core.after_serving(id, moved_bytes);
    }

    fn next(&mut self) -> Next {
        let now = self.core.now;
        if self.stop_by.is_some() && self.core.clients.len() == 0 {
            return Next::Stopped;
        }
        let has_more = !self.core.ready.is_empty() || !self.core.marked.is_empty();
        if has_more || self.acceptor.is_due(now) {
            return Next::WaitFor(Duration::ZERO);
        }
        let stop_poll = self.stop_by.map(|_| now + STOP_POLL);
        let deadline = self.core.next_deadline().map(|due| due.min(now + LONGEST_WAIT));
        let due = [deadline, stop_poll, self.next_tick, self.acceptor.retry_at()];
        match due.into_iter().flatten().min() {
            Some(due) => Next::WaitFor(due.saturating_duration_since(now)),
            None => Next::Wait,
        }
    }
}

impl<N: Network> Core<N> {
    /// After a client was served, which moved so many bytes: what was read may
    /// have been all that its end waited for, and what is left to do goes on
    /// the ready list.
    fn after_serving(&mut self, id: ClientId, moved_bytes: u64) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        client.lane = client.lane.after_turn(moved_bytes);
        if client.queue.is_ended() {
            self.advance_end(id);
            self.list_if_work(id);
        } else if client.has_work() {
            self.list_if_work(id);
        }
    }
}
