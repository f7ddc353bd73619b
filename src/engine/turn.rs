//! One turn of the engine, in a fixed order: accept, wake, tick, serve, judge,
//! sweep, seat newcomers, stop.
//!
//! Owns that order, and who is served first. Refuses to wait and to read the
//! clock: events and the instant come in, and the time to wait goes out.

use std::time::{Duration, Instant};

use log::info;

use super::acceptor::Acceptor;
use super::actions::Actions;
use super::client::Phase;
use super::client::readiness::Event;
use super::client_table::ClientId;
use super::core::{Core, Engine, Stop, Successor};
use super::counters::Counters;
use super::journal::Words;
use super::network::Network;
use super::newcomers::Newcomers;
use super::ready_list::Lane;
use super::service::Service;
use crate::error::ServerError;
use crate::limits::{
    InForce, LONGEST_WAIT, Limits, READ_BUFFER_BYTES, SHORTEST_TICK, STOP_POLL, TURN_BUDGET_ALL_BYTES,
    TURN_BUDGET_NEW_BYTES,
};

/// What to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for events at most this long; zero if there is more to do now.
    WaitFor(Duration),
    /// Nothing is due: wait for events without a limit.
    Wait,
    /// The server has stopped.
    Stopped,
}

impl<N: Network, S: Service> Engine<N, S> {
    /// An engine over `network` that serves with `service`.
    /// `memory_budget_bytes` and `max_clients` apply where `limits` leave them
    /// open.
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
            core: Core::new(
                network,
                limits.clone(),
                budget,
                max_clients,
                Words {
                    role: service.role(),
                    slow_upstream_advice: service.slow_upstream_advice(),
                    held_words: service.held_words(),
                },
                now,
            ),
            service,
            acceptor: Acceptor::new(now),
            max_clients,
            newcomers: Newcomers::new(),
            events: 0,
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            next_tick: None,
            woken: false,
            reload: None,
        })
    }

    /// Sockets for each client, its own included.
    pub(crate) fn sockets_per_client(&self) -> usize {
        self.service.sockets_per_client()
    }

    /// Whether the service stands beside that of the program.
    pub(crate) fn has_role(&self) -> bool {
        !self.service.role().is_empty()
    }

    /// Writes a line with all limits in force.
    pub(crate) fn log_limits(&self) {
        let limits = &self.core.limits;
        let in_force = InForce {
            limits,
            memory_budget_bytes: self.core.budget.budget_bytes(),
            max_clients: self.core.refusals.max_clients(),
        };
        info!(
            event = "limits",
            high_water_mark_bytes = limits.high_water_mark_bytes,
            limit_bytes = limits.limit_bytes(),
            grace_seconds = limits.grace.as_secs_f64(),
            hard_limit_bytes = limits.hard_limit_bytes(),
            memory_budget_bytes = in_force.memory_budget_bytes,
            max_clients = in_force.max_clients;
            "{in_force}"
        );
    }

    /// Takes in an event of a client's socket. A stale id finds nobody.
    pub fn handle_event(&mut self, id: ClientId, event: Event) {
        self.events += 1;
        if let Some(client) = self.core.clients.get_mut(id) {
            client.readiness.announce(event);
            self.core.ready.list(id, &mut client.place);
        }
    }

    /// Takes in that connections wait to be accepted.
    pub const fn handle_listener(&mut self) {
        self.acceptor.announce();
    }

    /// Takes in that another thread has called. The service hears of it in the
    /// next turn, because only then the instant is that of the present.
    pub const fn handle_wake(&mut self) {
        self.woken = true;
    }

    /// Begins to stop: accepts nobody new, and lets conversations go on for at
    /// most the stop timeout. Further calls change nothing.
    pub fn stop(&mut self) {
        self.core.stop(Successor::None);
    }

    /// Begins to stop as [`stop`](Self::stop) does, while another process
    /// accepts on the same listening sockets: connections that wait are left to
    /// it. Clients are served until they end; those that are silent see an
    /// orderly end in the last second of the stop timeout.
    pub fn hand_over(&mut self) {
        self.core.stop(Successor::Accepts);
    }

    /// Takes one turn at the charged instant `now`.
    pub fn turn(&mut self, now: Instant) -> Next {
        self.core.now = now;
        self.put_limits_in_force();
        self.core.refusals.sum_up(now);
        self.accept();
        self.wake();
        self.tick();
        let all_served = self.serve();
        self.service.served(&mut Actions::new(&mut self.core));
        self.expire();
        self.sweep();
        self.seat_newcomers(all_served);
        self.advance_stop();
        self.advance_inspection();
        self.arm_tick();
        self.core.weed_timers();
        self.next()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        self.core.journal.counters()
    }

    /// Clients and upstreams that are connected.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.core.clients.len()
    }

    /// The sum of all queues and of all that the service holds, in bytes.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.core.budget.queued_bytes()
    }

    /// The same, and all that the service keeps.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.queued_bytes().saturating_add(self.service.kept_bytes())
    }

    /// The network that the engine runs on.
    pub const fn network(&mut self) -> &mut N {
        &mut self.core.network
    }

    /// Gives memory of places that nobody uses back to the allocator.
    pub(crate) fn shrink(&mut self) {
        self.core.clients.shrink();
        self.core.ready.shrink();
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
    /// up what a turn may move. Clients that come back to the list meanwhile
    /// are left for the next turn. Answers whether nobody else is left.
    fn serve(&mut self) -> bool {
        let lengths = self.core.ready.lengths();
        let begun = self.core.moved_bytes;
        let mut all_served = true;
        for (lane, length) in Lane::ALL.into_iter().zip(lengths) {
            let until = self.serves_until(lane, begun, lengths[Lane::New as usize]);
            for served in 0..length {
                // One of each lane in every turn, so that nobody waits for ever.
                if served > 0 && self.core.moved_bytes >= until {
                    all_served = false;
                    break;
                }
                self.serve_next(lane);
            }
        }
        all_served
    }

    /// How far this turn, which began with so many bytes moved, may go with a
    /// lane. Newcomers get a share, so that one who waits behind floods for
    /// its first answer is served too; those who are served before them leave it
    /// to them. Many disconnects at once take their time from the bulk clients.
    fn serves_until(&self, lane: Lane, begun: u64, newcomers: usize) -> u64 {
        let until = begun + TURN_BUDGET_ALL_BYTES;
        let moved = self.core.moved_bytes;
        match lane {
            Lane::Interactive | Lane::Moderate if newcomers > 0 => until - TURN_BUDGET_NEW_BYTES,
            Lane::Interactive | Lane::Moderate => until,
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
        client.place.taken_off();
        let moved_before = self.core.moved_bytes;
        match client.phase {
            Phase::Closed => return,
            Phase::Connecting => self.finish_connect(id),
            _ => {
                if client.has_output() {
                    self.flush(id);
                }
                self.say_writable(id);
                self.read(id);
            }
        }
        let moved_bytes = self.core.moved_bytes - moved_before;
        self.core.after_serving(id, moved_bytes);
    }

    fn next(&mut self) -> Next {
        let now = self.core.now;
        let stop_poll = match self.core.stop {
            Stop::Draining { .. } if self.core.clients.len() == 0 => return Next::Stopped,
            Stop::Draining { .. } => Some(now + STOP_POLL),
            Stop::No | Stop::Asked(_) => None,
        };
        let has_more =
            !self.core.ready.is_empty() || !self.core.marked.is_empty() || !self.newcomers.is_empty();
        let is_asked = self.core.watch.as_ref().is_some_and(|watch| watch.is_asked());
        if has_more || is_asked || self.acceptor.is_due(now) {
            return Next::WaitFor(Duration::ZERO);
        }
        let deadline = self.core.next_deadline().map(|due| due.min(now + LONGEST_WAIT));
        let due = [
            deadline,
            stop_poll,
            self.next_tick,
            self.acceptor.due_at(),
            self.core.refusals.sum_at(),
        ];
        match due.into_iter().flatten().min() {
            Some(due) => Next::WaitFor(due.saturating_duration_since(now)),
            None => Next::Wait,
        }
    }
}

impl<N: Network> Core<N> {
    /// Finishes the turn of a client, which moved so many bytes: its end may
    /// have waited for the last input, and what is left to do goes on the
    /// ready list.
    fn after_serving(&mut self, id: ClientId, moved_bytes: u64) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        client.place.after_turn(moved_bytes);
        if client.queue.is_ended() {
            self.advance_end(id);
            self.list_if_work(id);
        } else if client.has_work() {
            self.ready.list(id, &mut client.place);
        }
    }
}
