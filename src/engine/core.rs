//! The engine and its core: all clients of one event loop, and the steps that
//! every verb needs.
//!
//! Owns the table of clients, their timers, the ready list, the sum of all
//! queues, and the list of clients that are marked as closed. Refuses I/O and
//! the service: the files that are named after a verb do that.

use std::collections::VecDeque;
use std::time::Instant;

use super::acceptor::Acceptor;
use super::client::{Client, Phase};
use super::client_table::{ClientId, ClientTable};
use super::journal::Counters;
use super::network::{Network, Stream};
use super::ready_list::ReadyList;
use super::timers::{Entry, Timer, TimerQueue};
use crate::backpressure::Policy;
use crate::error::CloseReason;
use crate::limits::Limits;

/// An event loop without its waiting.
///
/// Feed it with [`handle_event`](Self::hear) and [`handle_listener`](Self::handle_listener),
/// then [`take`](Self::take) one turn; it answers how long to wait for events
/// before the next.
pub struct Engine<N: Network, S> {
    pub(super) core: Core<N>,
    pub(super) service: S,
    pub(super) acceptor: Acceptor,
    pub(super) read_buffer: Box<[u8]>,
    pub(super) next_tick: Option<Instant>,
    pub(super) woken: bool,
    pub(super) stop_by: Option<Instant>,
}

pub(super) struct Core<N: Network> {
    pub(super) network: N,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    /// The charged instant of this turn.
    pub(super) now: Instant,
    pub(super) clients: ClientTable<Client<N::Stream>>,
    /// Clients with work that no further edge will announce; each at most
    /// once.
    pub(super) ready: ReadyList,
    pub(super) marked: VecDeque<(ClientId, CloseReason)>,
    /// Connections in the table that we made ourselves.
    pub(super) upstreams: usize,
    /// Set once the server is asked to stop.
    pub(super) stop_requested: bool,
    /// Bytes that were read, and that were written from queues, so far.
    pub(super) moved_bytes: u64,
    /// Set once the server stops: nobody is connected to any more.
    pub(super) stopping: bool,
    pub(super) policy: Policy,
    /// One queue for each kind of timer, in their order.
    deadlines: [TimerQueue; Timer::ALL.len()],
    pub(super) started: Instant,
    /// The sum of all queues and of all that services hold.
    pub(super) queued_bytes: usize,
    pub(super) memory_budget_bytes: usize,
}

impl<N: Network> Core<N> {
    pub(super) fn new(network: N, limits: Limits, memory_budget_bytes: usize, now: Instant) -> Self {
        Self {
            network,
            counters: Counters::default(),
            now,
            clients: ClientTable::new(),
            ready: ReadyList::default(),
            marked: VecDeque::new(),
            upstreams: 0,
            stop_requested: false,
            moved_bytes: 0,
            stopping: false,
            policy: Policy::new(&limits),
            deadlines: Timer::ALL.map(|timer| {
                TimerQueue::new(match timer {
                    Timer::AckCheck => limits.unheard_delay(),
                    Timer::WriteTimeout | Timer::CloseTimeout => limits.grace,
                    Timer::DrainTimeout => limits.drain_timeout(),
                    Timer::ConnectTimeout => limits.connect_timeout,
                })
            }),
            started: now,
            queued_bytes: 0,
            memory_budget_bytes,
            limits,
        }
    }

    /// The sum of all queues and of all that services hold, in bytes.
    pub(super) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Clients that were accepted and are still there.
    pub(super) fn client_count(&self) -> usize {
        self.clients.len() - self.upstreams
    }

    pub(super) const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Puts a client with work at the end of the ready list, once.
    pub(super) fn list_if_work(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && !client.listed
            && client.has_work()
        {
            client.listed = true;
            self.ready.push(id, client.lane);
        }
    }

    /// Arms a deadline for a timer that has begun to run in this turn.
    pub(super) fn arm(&mut self, timer: Timer, id: ClientId) {
        let clients = &self.clients;
        self.deadlines[timer as usize].push(self.now, id, |entry| is_live(clients, timer, entry));
    }

    /// Whether some client may have been slow for too long by now.
    pub(super) fn has_slow_due(&self) -> bool {
        [Timer::WriteTimeout, Timer::DrainTimeout]
            .into_iter()
            .any(|timer| self.deadlines[timer as usize].has_due(self.now))
    }

    /// The next client for which this timer is over.
    pub(super) fn pop_due(&mut self, timer: Timer) -> Option<ClientId> {
        while let Some(entry) = self.deadlines[timer as usize].pop_due(self.now) {
            if is_live(&self.clients, timer, &entry) {
                return Some(entry.client);
            }
        }
        None
    }

    /// The next instant at which a timer is over for anybody.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let clients = &self.clients;
        let queues = Timer::ALL.into_iter().zip(&mut self.deadlines);
        queues
            .filter_map(|(timer, queue)| queue.next(|entry| is_live(clients, timer, entry)))
            .min()
    }

    /// Marks a client to be closed for this reason. Its queue is given up at
    /// once, so that the sum of all queues is right from here on.
    pub(super) fn mark_closed(&mut self, id: ClientId, reason: CloseReason) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if client.phase == Phase::Closed {
            return;
        }
        client.phase = Phase::Closed;
        let given_up = client.queue.discard() + std::mem::take(&mut client.held_bytes);
        self.queued_bytes -= given_up;
        self.marked.push_back((id, reason));
    }
}

/// Whether a timer that once began still runs for the client.
fn is_live<S: Stream>(clients: &ClientTable<Client<S>>, timer: Timer, entry: &Entry) -> bool {
    let client = clients.get(entry.client);
    client.is_some_and(|client| client.since(timer) == Some(entry.start))
}
