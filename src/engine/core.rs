//! The engine and its core: all clients of one event loop, and the steps that
//! every verb needs.
//!
//! Owns the table of clients, their timers, the ready list, the sum of all
//! queues, and the list of clients that are marked as closed. Refuses I/O and
//! the service: the files that are named after a verb do that.

use std::collections::VecDeque;
use std::time::Instant;

use super::acceptor::Acceptor;
use super::address_counts::AddressCounts;
use super::client::{Client, FileState, Phase};
use super::client_table::{ClientId, ClientTable};
use super::file_sends::FileSends;
use super::held::Held;
use super::journal::{Journal, Words};
use super::late_timers::LateTimers;
use super::network::{Network, Stream};
use super::newcomers::Newcomers;
use super::ready_list::ReadyList;
use super::refusals::Refusals;
use super::shadow::Shadow;
use super::silence::Silence;
use super::timers::{Entry, Timer, Timers};
use super::watch::Watch;
use crate::backpressure::SlowReason;
use crate::error::CloseReason;
use crate::limits::Limits;

/// A server without its waiting: clients, a service, and what happens to them
/// in one turn.
///
/// Feed it with [`handle_event`](Self::handle_event) and
/// [`handle_listener`](Self::handle_listener), then take one
/// [`turn`](Self::turn), which answers how long to wait for events before the
/// next.
pub struct Engine<N: Network, S> {
    pub(super) core: Core<N>,
    pub(super) service: S,
    pub(super) acceptor: Acceptor,
    /// Most clients at a time.
    pub(super) max_clients: usize,
    /// Accepted, and neither served nor refused.
    pub(super) newcomers: Newcomers<N::Stream>,
    /// Events since the turn before.
    pub(super) events: usize,
    /// Lent to each client in turn; between two reads it holds nothing.
    pub(super) read_buffer: Box<[u8]>,
    pub(super) next_tick: Option<Instant>,
    /// Another thread has called.
    pub(super) woken: bool,
    /// Limits that the next turn puts in force.
    pub(super) reload: Option<Reload>,
}

/// The engine without its service, so that both can be used at once.
pub(super) struct Core<N: Network> {
    pub(super) network: N,
    pub(super) limits: Limits,
    /// The limits of upstreams.
    pub(super) upstream_limits: Limits,
    /// The charged instant of this turn.
    pub(super) now: Instant,
    pub(super) clients: ClientTable<Client<N::Stream>>,
    /// How many of the clients are upstreams.
    pub(super) upstreams: usize,
    /// How many clients each address has.
    pub(super) addresses: AddressCounts,
    /// Clients with work that no edge will announce.
    pub(super) ready: ReadyList,
    pub(super) timers: Timers,
    /// Timers of clients that have longer than others.
    pub(super) late_timers: LateTimers,
    pub(super) budget: Budget,
    /// Clients that are closed and not yet swept.
    pub(super) marked: VecDeque<(ClientId, CloseReason)>,
    pub(super) journal: Journal,
    pub(super) refusals: Refusals,
    pub(super) stop: Stop,
    pub(super) silence: Silence,
    /// Set in shadow mode.
    pub(super) shadow: Option<Box<Shadow>>,
    /// Since when services hold bytes for clients.
    pub(super) held: Held,
    /// What an operator may ask for, if anybody may.
    pub(super) watch: Option<Box<Watch>>,
    /// What is left of the answers under way.
    pub(super) files: FileSends,
    /// The client that the service hears to be closed, and how many bytes its
    /// peer has acknowledged.
    pub(super) departed: Option<(ClientId, u64)>,
    /// Bytes read, and bytes written from queues and files, so far.
    pub(super) moved_bytes: u64,
}

/// Limits that the next turn puts in force.
pub(super) struct Reload {
    pub(super) limits: Limits,
    pub(super) memory_budget_bytes: usize,
    pub(super) max_clients: usize,
}

/// How far the server has come in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// Somebody asked for it; the next turn begins it.
    Asked(Successor),
    /// Conversations may go on until then.
    Draining {
        by: Instant,
        successor: Successor,
    },
}

/// Whether another process accepts on the same listening sockets after this
/// server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    /// Nobody: connections that wait are served by this server or by none.
    None,
    /// Connections that wait are left to it, and no client has to hurry.
    Accepts,
}

/// The memory budget: the sum of all queues, and of all bytes that services
/// hold.
pub(super) struct Budget {
    queued_bytes: usize,
    budget_bytes: usize,
}

impl Budget {
    pub(super) const fn new(budget_bytes: usize) -> Self {
        Self {
            queued_bytes: 0,
            budget_bytes,
        }
    }

    /// Another budget, which the caller then keeps.
    pub(super) const fn set(&mut self, budget_bytes: usize) {
        self.budget_bytes = budget_bytes;
    }

    pub(super) const fn grow(&mut self, bytes: usize) {
        self.queued_bytes += bytes;
    }

    pub(super) const fn shrink(&mut self, bytes: usize) {
        self.queued_bytes -= bytes;
    }

    pub(super) const fn is_over(&self) -> bool {
        self.queued_bytes > self.budget_bytes
    }

    pub(super) const fn left_bytes(&self) -> usize {
        self.budget_bytes.saturating_sub(self.queued_bytes)
    }

    pub(super) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) const fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }
}

impl<N: Network> Core<N> {
    pub(super) fn new(
        network: N,
        limits: Limits,
        memory_budget_bytes: usize,
        max_clients: usize,
        words: Words,
        now: Instant,
    ) -> Self {
        Self {
            network,
            now,
            clients: ClientTable::new(),
            upstreams: 0,
            addresses: AddressCounts::new(limits.max_clients_per_address),
            ready: ReadyList::default(),
            timers: Timers::new(&limits),
            late_timers: LateTimers::default(),
            budget: Budget::new(memory_budget_bytes),
            marked: VecDeque::new(),
            journal: Journal::new(words, limits.limit_bytes(), now),
            refusals: Refusals::new(max_clients, limits.max_clients_per_address, now),
            stop: Stop::No,
            silence: Silence::default(),
            shadow: limits.shadow.then(Box::default),
            held: Held::default(),
            watch: None,
            files: FileSends::default(),
            departed: None,
            moved_bytes: 0,
            upstream_limits: limits.for_upstreams(),
            limits,
        }
    }

    /// Clients that are connected, upstreams left out.
    pub(super) fn client_count(&self) -> usize {
        self.clients.len() - self.upstreams
    }

    /// The limits by which a client, or an upstream, is judged.
    pub(super) fn limits_of(&self, client: &Client<N::Stream>) -> &Limits {
        match client.is_upstream() {
            true => &self.upstream_limits,
            false => &self.limits,
        }
    }

    pub(super) fn ids(&self) -> Vec<ClientId> {
        self.clients.iter().map(|(id, _)| id).collect()
    }

    /// Puts a client with work on the ready list.
    pub(super) fn list_if_work(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && client.has_work()
        {
            self.ready.list(id, &mut client.place);
        }
    }

    /// The next client that a rule about slow clients may concern, and the timer
    /// that says so.
    pub(super) fn pop_slow_due(&mut self) -> Option<(Timer, ClientId)> {
        let rules = SlowReason::ALL.into_iter();
        let mut timers = rules.flat_map(|rule| [Timer::Slow(rule), Timer::SlowUpstream(rule)]);
        timers.find_map(|timer| Some((timer, self.pop_due(timer)?)))
    }

    /// The next client whose own time for this timer is over, where it has
    /// longer than others.
    pub(super) fn pop_late_due(&mut self) -> Option<(Timer, ClientId)> {
        while let Some((timer, entry)) = self.late_timers.pop_due(self.now) {
            if is_live(&self.clients, timer, &entry) {
                return Some((timer, entry.client));
            }
        }
        None
    }

    /// Whether a rule about slow clients may be broken by now.
    pub(super) fn has_slow_due(&self) -> bool {
        self.timers.has_slow_due(self.now) || self.late_timers.has_due(self.now)
    }

    /// The next client for which this timer has expired.
    pub(super) fn pop_due(&mut self, timer: Timer) -> Option<ClientId> {
        while let Some(entry) = self.timers.pop_due(timer, self.now) {
            if is_live(&self.clients, timer, &entry) {
                return Some(entry.client);
            }
        }
        None
    }

    /// The next instant at which a timer of any client expires.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let clients = &self.clients;
        let is_live = |timer, entry: &Entry| is_live(clients, timer, entry);
        let (common, late) = (self.timers.next(is_live), self.late_timers.next(is_live));
        [common, late].into_iter().flatten().min()
    }

    /// Drops timers whose clocks have stopped, where there are many.
    pub(super) fn weed_timers(&mut self) {
        let clients = &self.clients;
        let is_live = |timer, entry: &Entry| is_live(clients, timer, entry);
        self.timers.weed(is_live);
        self.late_timers.weed(is_live);
    }

    /// A client that is closed leaves the seat of its address.
    fn leave_seat(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && std::mem::take(&mut client.is_counted)
        {
            self.addresses.remove(client.peer.ip());
        }
    }

    /// Marks a client as closed, for this reason; the sweep takes it out of
    /// the table. Its queue is given up at once, so that the sum of all queues
    /// is right from here on.
    pub(super) fn mark_closed(&mut self, id: ClientId, reason: CloseReason) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if client.phase == Phase::Closed {
            return;
        }
        if let Some(since) = client.clocks.since(SlowReason::WriteTimeout) {
            let over_limit = self.now.saturating_duration_since(since);
            self.journal.back_below_limit(over_limit);
        }
        self.shadow_close(id, &reason);
        if self.watch.is_some() {
            self.keep_departure(id, &reason);
        }
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        client.phase = Phase::Closed;
        if client.file != FileState::None || client.is_watched {
            client.file = FileState::None;
            self.files.forget(id);
        }
        let held_bytes = std::mem::take(&mut client.held_bytes);
        let given_up = client.queue.discard() + held_bytes;
        if held_bytes > 0 {
            self.held.forget(id);
        }
        self.budget.shrink(given_up);
        self.leave_seat(id);
        self.marked.push_back((id, reason));
    }
}

/// Whether the clock that a timer was armed for still runs.
fn is_live<S: Stream>(clients: &ClientTable<Client<S>>, timer: Timer, entry: &Entry) -> bool {
    let client = clients.get(entry.client);
    client.is_some_and(|client| match timer {
        // There is one entry at a time for each client that is watched.
        Timer::Progress => client.is_watched && client.phase != Phase::Closed,
        Timer::Idle => client.phase == Phase::Open,
        Timer::HalfClosed => client.is_half_closed(),
        _ => client.since(timer) == Some(entry.start),
    })
}
