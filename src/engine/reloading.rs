//! Reloading: other limits while clients are connected.
//!
//! Owns what new limits mean for those who are there: a client whose time
//! became shorter has all of it from now on, and many such clients do not go
//! together. Refuses to judge and to close: timers and rules do, as ever.

use std::time::{Duration, Instant};

use super::actions::Actions;
use super::client::Phase;
use super::client_table::ClientId;
use super::core::{Core, Engine, Reload};
use super::late_timers::LateTimers;
use super::network::{Network, Stream};
use super::service::Service;
use super::timers::{Timer, Timers};
use crate::backpressure::SlowReason;
use crate::backpressure::rules::{LimitsChange, Started};
use crate::backpressure::spread::share_of;
use crate::error::ServerError;
use crate::limits::Limits;

/// A client that has its time once more.
struct Pardoned {
    id: ClientId,
    clocks: Started,
    /// Its wait for the peer began anew.
    awaits: bool,
    /// It is watched for what it acknowledges, and that began anew.
    is_watched: bool,
}

impl<N: Network, S: Service> Engine<N, S> {
    /// Puts other limits in force with the next turn, for clients that are
    /// connected too. Those that belong to sockets stay as they are
    /// ([`Limits::while_running`]). `memory_budget_bytes` and `max_clients` apply
    /// where `limits` leave them open. A server that is stopping keeps its limits.
    ///
    /// # Errors
    ///
    /// The limits contradict each other; nothing changes then.
    pub fn reload(
        &mut self,
        limits: &Limits,
        memory_budget_bytes: usize,
        max_clients: usize,
    ) -> Result<(), ServerError> {
        let limits = limits.while_running(&self.core.limits);
        limits.check()?;
        self.reload = Some(Reload {
            memory_budget_bytes: limits.memory_budget_bytes.unwrap_or(memory_budget_bytes),
            max_clients: limits.max_clients.unwrap_or(max_clients),
            limits,
        });
        Ok(())
    }

    /// Puts new limits in force, if there are any.
    pub(super) fn put_limits_in_force(&mut self) {
        let Some(reload) = self.reload.take().filter(|_| !self.core.is_stopping()) else {
            return;
        };
        self.max_clients = reload.max_clients;
        let leaves_shadow = self.core.shadow.is_some() && !reload.limits.shadow;
        if leaves_shadow {
            self.log_shadow();
        }
        let retransmissions_before = self.core.longest_retransmissions();
        self.core.reload(reload);
        self.core.network.limits_changed(&self.core.limits);
        if self.core.longest_retransmissions() != retransmissions_before {
            self.bound_retransmissions();
        }
        if !self.has_role() {
            self.log_limits();
        }
        let limits = self.core.limits.clone();
        self.service.reloaded(&limits, &mut Actions::new(&mut self.core));
    }

    /// Has the kernel repeat what is lost as often as the new graces ask for. By the
    /// bound of a shorter grace it would give a client up before its grace is over.
    fn bound_retransmissions(&mut self) {
        let (of_clients, of_upstreams) = self.core.longest_retransmissions();
        for stream in self.newcomers.streams() {
            stream.bound_retransmissions(of_clients);
        }
        for id in self.core.ids() {
            if let Some(client) = self.core.clients.get_mut(id) {
                let longest = match client.is_upstream() {
                    true => of_upstreams,
                    false => of_clients,
                };
                client.stream.bound_retransmissions(longest);
            }
        }
    }
}

impl<N: Network> Core<N> {
    /// Longest time between two retransmissions, to a client and to an upstream.
    fn longest_retransmissions(&self) -> (Duration, Duration) {
        let of_clients = self.limits.longest_retransmission();
        (of_clients, self.upstream_limits.longest_retransmission())
    }

    fn reload(&mut self, reload: Reload) {
        let before = std::mem::replace(&mut self.limits, reload.limits);
        let upstreams_before = std::mem::replace(&mut self.upstream_limits, self.limits.for_upstreams());
        self.refusals
            .limits_changed(reload.max_clients, self.limits.max_clients_per_address);
        self.recount_addresses();
        self.journal.set_limit(self.limits.limit_bytes());
        // Before the clocks, by which it chooses who goes.
        self.budget.set(reload.memory_budget_bytes);
        self.keep_budget();
        match self.limits.shadow {
            true => drop(self.shadow.get_or_insert_default()),
            false => self.shadow = None,
        }
        let pardoned = self.change_clocks(&before, &upstreams_before);
        self.spread(&pardoned);
        self.pardon_silence(&before);
        self.rearm_timers();
    }

    /// Counts the clients of each address, which nobody did without such a limit.
    fn recount_addresses(&mut self) {
        let counted = self.clients.iter().filter(|(_, client)| client.is_counted);
        let addresses = counted.map(|(_, client)| client.peer.ip());
        self.addresses
            .limit_changed(self.limits.max_clients_per_address, addresses);
    }

    /// Gives each client the new mark, and its time once more where that became
    /// shorter.
    fn change_clocks(&mut self, before: &Limits, upstreams_before: &Limits) -> Vec<Pardoned> {
        let ids = self.ids().into_iter();
        ids.filter_map(|id| self.change_clocks_of(id, before, upstreams_before))
            .collect()
    }

    fn change_clocks_of(
        &mut self,
        id: ClientId,
        before: &Limits,
        upstreams_before: &Limits,
    ) -> Option<Pardoned> {
        let client = self.clients.get_mut(id)?;
        if client.phase == Phase::Closed {
            return None;
        }
        client
            .queue
            .set_high_water_mark(self.limits.high_water_mark_bytes);
        let change = |(before, after)| LimitsChange {
            before,
            after,
            largest_window_bytes: client.reopening_window_bytes(),
            now: self.now,
        };
        let of_client = change((before, &self.limits));
        let own = match client.is_upstream() {
            true => change((upstreams_before, &self.upstream_limits)),
            false => of_client,
        };
        let since = client.clocks.since(SlowReason::WriteTimeout);
        let clocks = client.clocks.limits_changed(&own, &client.queue);
        match (since, client.clocks.since(SlowReason::WriteTimeout)) {
            (None, Some(_)) => self.journal.blocked(client, self.now),
            (Some(since), None) => {
                let over_limit = self.now.saturating_duration_since(since);
                self.journal.back_below_limit(over_limit);
            }
            _ => {}
        }
        let has_less = of_client.shortens(SlowReason::WriteTimeout);
        let waits_less = match client.phase {
            Phase::Connecting => self.limits.connect_timeout < before.connect_timeout,
            _ => has_less,
        };
        let awaits = client.awaiting_since.is_some() && waits_less;
        if awaits {
            client.awaiting_since = Some(self.now);
        }
        let is_watched = client.is_watched && has_less;
        let is_pardoned = clocks != Started::default() || awaits || is_watched;
        is_pardoned.then_some(Pardoned {
            id,
            clocks,
            awaits,
            is_watched,
        })
    }

    /// Where many have their time once more, each begins a little later than the
    /// one before: they go within a second such time.
    fn spread(&mut self, pardoned: &[Pardoned]) {
        let count = pardoned.len();
        for (at, each) in pardoned.iter().enumerate() {
            let share = |time: Duration| share_of(time, at, count);
            let Some(client) = self.clients.get_mut(each.id) else {
                continue;
            };
            let limits = match client.is_upstream() {
                true => &self.upstream_limits,
                false => &self.limits,
            };
            let window_bytes = client.reopening_window_bytes();
            let grace = share(limits.grace_for(window_bytes));
            let drain_timeout = share(limits.drain_timeout_for(window_bytes));
            client.clocks.postpone(each.clocks, grace, drain_timeout);
            if each.awaits && client.phase != Phase::Connecting {
                client.awaiting_since = Some(self.now + grace);
            }
            if each.is_watched
                && let Some(send) = self.files.get_mut(each.id)
            {
                send.owed_since = send.owed_since.and(Some(self.now + grace));
            }
        }
    }

    /// Silence of which less is allowed than before begins anew.
    fn pardon_silence(&mut self, before: &Limits) {
        let idle = |limits: &Limits| limits.idle_timeout.unwrap_or(Duration::MAX);
        let half_closed = |limits: &Limits| limits.half_closed_timeout;
        let now = &self.limits;
        let is_shorter = idle(now) < idle(before) || half_closed(now) < half_closed(before);
        if is_shorter {
            let time = idle(now).min(half_closed(now));
            self.silence
                .all_begin_anew(|at, count| self.now + share_of(time, at, count));
        }
    }

    /// Arms all timers anew: those of a kind are sorted by when they began, and
    /// run for the same time.
    fn rearm_timers(&mut self) {
        self.timers = Timers::new(&self.limits);
        self.late_timers = LateTimers::default();
        let mut running: Vec<(Instant, Timer, ClientId)> = Vec::new();
        for (id, client) in self
            .clients
            .iter()
            .filter(|(_, client)| client.phase != Phase::Closed)
        {
            let since = |timer| client.since(timer).map(|since| (since, timer, id));
            running.extend(Timer::of_clocks().filter_map(since));
        }
        running.sort_by_key(|&(since, ..)| since);
        for (since, timer, id) in running {
            if since <= self.now {
                self.timers.arm(timer, id, since);
            } else {
                let after = timer.after(&self.limits);
                self.late_timers.arm(timer, id, since, since + after);
            }
        }
        for id in self.ids() {
            self.rearm_looks(id);
        }
    }

    /// Arms the timers of a client that is looked at from time to time.
    fn rearm_looks(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else {
            return;
        };
        if client.phase == Phase::Closed {
            return;
        }
        if client.is_watched {
            self.timers.arm(Timer::Progress, id, self.now);
        }
        if client.phase != Phase::Open {
            return;
        }
        let (is_upstream, is_half_closed) = (client.is_upstream(), client.half_closed_watched);
        if !is_upstream {
            self.watch_idle(id);
        }
        if is_half_closed {
            self.watch_silence(Timer::HalfClosed, id);
        }
    }
}
