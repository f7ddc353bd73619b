//! Connecting: a client waits until one of the upstream's addresses answers.
//!
//! Owns what is done when an attempt says so (connect, abandon, look up, turn
//! away), and the look-ups that bring new addresses. Which address is tried
//! when stands in `attempt.rs`. Refuses to wait longer than one client's
//! connect timeout.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use log::{info, warn};

use crate::{Actions, ClientId, CloseReason, ConnectError};

use super::attempt::{Attempt, Step};
use super::failures::and_before;
use super::{End, Tunnel};

impl Tunnel {
    /// A client needs an upstream.
    pub(super) fn begin(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        // What the client sends waits in the kernel until then.
        actions.pause(client);
        let now = actions.now();
        let attempt = Attempt::new(&self.addresses, now, self.connect_timeout);
        let own = actions
            .local(client)
            .and_then(|local| self.addresses.note_own(local));
        let ends_others = own.is_some_and(|own| self.end_loop(own, actions));
        if ends_others {
            // It is the upstream of one of those, come back to us.
            return actions.reset(client);
        }
        self.advance(client, Box::new(attempt), actions);
    }

    /// Does what the attempt says until there is something to wait for.
    pub(super) fn advance(&mut self, client: ClientId, mut attempt: Box<Attempt>, actions: &mut Actions<'_>) {
        let now = actions.now();
        loop {
            match attempt.step(&self.addresses, now) {
                Step::Connect(address) => self.connect(client, address, &mut attempt, actions),
                Step::Abandon(upstream) => self.abandon(upstream, actions),
                Step::LookUp => self.look_up(),
                Step::GiveUp => return self.turn_away(client, &attempt, actions),
                Step::Wait(until) => {
                    attempt.wakes_at = until;
                    self.waiting.insert((until, client));
                    self.ends.insert(client, End::Connecting(attempt));
                    return;
                }
            }
        }
    }

    fn connect(
        &mut self,
        client: ClientId,
        address: SocketAddr,
        attempt: &mut Attempt,
        actions: &mut Actions<'_>,
    ) {
        match actions.connect(address, client) {
            Ok(upstream) => {
                attempt.begun(upstream, address, actions.now());
                self.ends.insert(upstream, End::UpstreamOf(client));
            }
            Err(error @ ConnectError::OutOfDescriptors(_)) => {
                let why = format!("{error}; raise `ulimit -n` or lower --max-clients");
                attempt.failed_to_begin(address, &why, true);
            }
            Err(error) => {
                if let ConnectError::Io(error) = &error
                    && error.kind() == io::ErrorKind::AddrNotAvailable
                {
                    self.warn_of_local_ports(address, error, actions.now());
                }
                attempt.failed_to_begin(address, &error.to_string(), false);
            }
        }
    }

    /// Each connection to one address needs a local port of its own.
    fn warn_of_local_ports(&mut self, address: SocketAddr, error: &io::Error, now: Instant) {
        if let Some(unlogged) = self.no_local_port.note(now) {
            warn!(
                event = "no_local_port";
                "no local port is free for a connection to {address}: {error}; widen \
                 net.ipv4.ip_local_port_range or give {} more addresses{}",
                self.target,
                and_before(unlogged),
            );
        }
    }

    /// Closes a connection that is being made and that nobody needs any more.
    pub(super) fn abandon(&mut self, upstream: ClientId, actions: &mut Actions<'_>) {
        self.ends.remove(&upstream);
        actions.reset(upstream);
    }

    fn look_up(&self) {
        if let Some(resolver) = &self.resolver {
            resolver.ask();
        }
    }

    /// Takes out a client that waits for its upstream.
    pub(super) fn take_waiting(&mut self, client: ClientId) -> Option<Box<Attempt>> {
        let End::Connecting(attempt) = self.ends.remove(&client)? else {
            return None;
        };
        self.waiting.remove(&(attempt.wakes_at, client));
        Some(attempt)
    }

    pub(super) fn waiting_clients(&self) -> Vec<ClientId> {
        self.waiting.iter().map(|&(_, client)| client).collect()
    }

    /// Disconnects a client for which there is no upstream.
    fn turn_away(&mut self, client: ClientId, attempt: &Attempt, actions: &mut Actions<'_>) {
        for upstream in attempt.upstreams() {
            self.abandon(upstream, actions);
        }
        let (Some(name), Some(peer)) = (actions.name(client), actions.peer(client)) else {
            return;
        };
        let (waited, mut why) = attempt.outcome(actions.now());
        if let Some(own) = self.addresses.all_own() {
            let each = own.iter().map(|own| format!("{own}: that is this tunnel itself"));
            why = each.collect::<Vec<_>>().join(", ");
        } else if why.is_empty() {
            why.clone_from(&self.unresolved);
        }
        if let Some(unlogged) = self.not_connected.note(actions.now()) {
            warn!(
                event = "connect_failed",
                address:% = peer,
                reason = "connect failed",
                waited_seconds = waited.as_secs_f64();
                "{name} disconnecting: cannot connect to {}: {why}, after {:.3} s{} ({peer})",
                self.target,
                waited.as_secs_f64(),
                and_before(unlogged),
            );
        }
        actions.reset(client);
    }

    /// Tells of clients that were turned away and had no line.
    pub(super) fn sum_up_failures(&mut self, now: Instant) {
        if let Some(clients) = self.not_connected.take_unlogged(now) {
            warn!(
                event = "connect_failed";
                "cannot connect to {}: {clients} more clients were turned away",
                self.target
            );
        }
    }

    /// A connection that was being made for a client has failed.
    pub(super) fn connect_failed(
        &mut self,
        client: ClientId,
        upstream: ClientId,
        reason: &CloseReason,
        actions: &mut Actions<'_>,
    ) {
        let Some(mut attempt) = self.take_waiting(client) else {
            return;
        };
        let why = match reason {
            CloseReason::Failed(_, error) => error.to_string(),
            other => other.to_string(),
        };
        attempt.failed(upstream, &why, actions.now());
        self.advance(client, attempt, actions);
    }

    /// A look-up has found these addresses.
    pub(super) fn resolved(&mut self, found: Vec<SocketAddr>, actions: &mut Actions<'_>) {
        let now = actions.now();
        if let Some((outage, _)) = self.not_resolved.recover(now) {
            info!(
                event = "resolved";
                "{} resolves again after {:.3} s",
                self.target,
                outage.as_secs_f64()
            );
        }
        if !self.addresses.replace(found) {
            return;
        }
        info!(event = "resolved"; "{} is at {}", self.target, self.addresses.list());
        for client in self.waiting_clients() {
            if let Some(mut attempt) = self.take_waiting(client) {
                attempt.take_up(&self.addresses, now);
                self.advance(client, attempt, actions);
            }
        }
    }

    pub(super) fn not_resolved(&mut self, error: &io::Error, now: Instant) {
        if self.addresses.is_empty() {
            self.unresolved = error.to_string();
        }
        if let Some(unlogged) = self.not_resolved.note(now) {
            let so = match self.addresses.is_empty() {
                true => "clients wait for it".to_owned(),
                false => format!("going on with {}", self.addresses.list()),
            };
            let before = and_before(unlogged);
            warn!(event = "resolve_failed"; "cannot resolve {}: {error}; {so}{before}", self.target);
        }
    }
}
