//! Inspecting: an operator's question is answered by a walk over all clients,
//! a few in each turn.
//!
//! Owns the walk. Refuses to keep anything: `watch` does.

use std::time::Duration;

use super::client::Phase;
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::network::{Network, Stream};
use super::report::{ClientList, Question, Reply, Report, Snapshot};
use super::service::Service;
use super::watch::Walk;
use crate::error::CloseReason;
use crate::limits::INSPECTED_CLIENTS_PER_TURN;

impl<N: Network, S: Service> Engine<N, S> {
    /// Keeps from here on what an operator may ask for. Costs a few bytes for
    /// each client, and the memory of [`GONE_CLIENTS`](crate::limits::GONE_CLIENTS)
    /// that have left for each reason.
    pub fn watch(&mut self) {
        self.core.watch.get_or_insert_default();
    }

    /// Asks for a report, which `reply` gets after a few turns. Nothing happens
    /// without [`watch`](Self::watch).
    pub fn inspect(&mut self, question: Question, reply: Reply) {
        if let Some(watch) = &mut self.core.watch {
            watch.walks.push_back(Walk {
                question,
                reply,
                next_slot: 0,
                kernel_bytes: 0,
                sent_bytes: 0,
                list: ClientList::default(),
            });
        }
    }

    /// Counts how late the loop was at one of its beats.
    pub(crate) fn observe_lag(&mut self, lag: Duration) {
        if let Some(watch) = &mut self.core.watch {
            watch.loop_lag.observe(lag);
        }
    }

    /// Goes on with the oldest question, for a few clients.
    pub(super) fn advance_inspection(&mut self) {
        let Some(watch) = &mut self.core.watch else {
            return;
        };
        let Some(mut walk) = watch.walks.pop_front() else {
            return;
        };
        if self.core.walk_on(&mut walk) {
            let report = match walk.question {
                Question::Snapshot => Report::Snapshot(Box::new(self.snapshot(&walk))),
                Question::Clients { .. } => {
                    walk.list.shadow = self.shadow_report();
                    Report::Clients(Box::new(walk.list))
                }
            };
            (walk.reply)(report);
        } else if let Some(watch) = &mut self.core.watch {
            watch.walks.push_front(walk);
        }
    }

    fn snapshot(&mut self, walk: &Walk) -> Snapshot {
        let core = &mut self.core;
        let mut snapshot = Snapshot {
            counters: *core.journal.counters(),
            clients: core.client_count(),
            upstreams: core.upstreams,
            max_clients: self.max_clients,
            queued_bytes: core.budget.queued_bytes(),
            memory_budget_bytes: core.budget.budget_bytes(),
            over_limit_episodes: core.journal.over_limit_episodes(),
            over_limit: *core.journal.over_limit(),
            measures: self.service.measures(),
            kernel_bytes: walk.kernel_bytes,
            is_stopping: core.is_stopping(),
            ..Snapshot::default()
        };
        if let Some(watch) = &mut core.watch {
            watch.sent_bytes = watch
                .sent_bytes
                .max(snapshot.counters.sent_bytes + walk.sent_bytes);
            snapshot.sent_bytes = watch.sent_bytes;
            snapshot.loop_lag = watch.loop_lag;
        }
        snapshot
    }
}

impl<N: Network> Core<N> {
    /// Looks at the next clients of a walk, and answers whether it is over.
    fn walk_on(&mut self, walk: &mut Walk) -> bool {
        let Some(watch) = &mut self.watch else {
            return true;
        };
        let end = self
            .clients
            .slots()
            .min(walk.next_slot + INSPECTED_CLIENTS_PER_TURN);
        for slot in walk.next_slot..end {
            let Some((id, client)) = self.clients.at_slot(slot) else {
                continue;
            };
            if client.phase == Phase::Closed {
                continue;
            }
            walk.sent_bytes += client.sent_bytes;
            match walk.question {
                Question::Snapshot => walk.kernel_bytes += client.stream.kernel_bytes(),
                Question::Clients { .. } => {
                    let report = watch.report(id, client, None, self.now);
                    walk.list.live.push(report);
                }
            }
        }
        walk.next_slot = end;
        if end < self.clients.slots() {
            return false;
        }
        match walk.question {
            Question::Snapshot => true,
            Question::Clients { most_gone } => {
                let next = walk.list.gone.len();
                let Some(ring) = watch.departures.last(next, most_gone) else {
                    return true;
                };
                walk.list.gone.push(ring);
                false
            }
        }
    }

    /// Keeps a client that is about to be closed.
    pub(super) fn keep_departure(&mut self, id: ClientId, reason: &CloseReason) {
        if let (Some(watch), Some(client)) = (&mut self.watch, self.clients.get(id)) {
            let report = watch.report(id, client, Some(reason), self.now);
            watch.departures.keep(report);
        }
    }
}
