//! The meddler: a service that asks for anything, from every callback.
//!
//! Owns its random requests, which no books know. Under them the engine must
//! keep its budget, end every turn, wait when there is no work, report each
//! client as closed exactly once, and stop when asked to.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use highwater::ConnectError;
use highwater::{Actions, ClientId, CloseReason, Service};

use super::content::piece;
use super::plan::Plan;
use super::world::{Shared, address};

/// Most that is sent at once.
const LONGEST_BYTES: usize = 40_000;

/// Connections that it begins in one run, so that the run ends. They are more
/// than one turn may bring (`CALLBACKS_PER_CLIENT`), so that an endless turn
/// cannot look like a long one.
const MOST_CONNECTS: usize = 32_000;

/// Makes random requests.
pub(crate) struct Meddler {
    world: Shared,
    rng: Rng,
    /// All clients so far.
    clients: Vec<ClientId>,
    longest_bytes: usize,
    interval: Option<Duration>,
    last_tick: Option<Instant>,
    /// When a client is closed, it begins a connection and ends it at once.
    rebounds: bool,
    connects_left: usize,
    shared: Bytes,
    /// The memory that it lends.
    memory: Vec<u8>,
}

impl Meddler {
    pub(crate) fn new(world: &Shared, plan: &Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed ^ 0x3ed_d1e5);
        let mark = plan.limits.high_water_mark_bytes;
        let longest_bytes = [1, mark, 2 * mark, LONGEST_BYTES][rng.usize(..4)];
        Self {
            world: Rc::clone(world),
            clients: Vec::new(),
            longest_bytes: longest_bytes.min(LONGEST_BYTES),
            interval: [None, Some(0), Some(1), Some(30)][rng.usize(..4)].map(Duration::from_millis),
            last_tick: None,
            rebounds: rng.u8(..4) == 0,
            connects_left: MOST_CONNECTS,
            shared: Bytes::from_static(piece(0, LONGEST_BYTES)),
            memory: vec![0; LONGEST_BYTES],
            rng,
        }
    }

    /// Any client, mostly one of the newest; it may be gone.
    fn anybody(&mut self) -> Option<ClientId> {
        let newest = self
            .clients
            .len()
            .min(if self.rng.u8(..8) == 0 { 200 } else { 12 });
        (newest > 0).then(|| self.clients[self.clients.len() - 1 - self.rng.usize(..newest)])
    }

    fn meddle(&mut self, actions: &mut Actions<'_>) {
        if self.world.borrow().calm || self.world.borrow().model.fault.is_some() {
            return;
        }
        for _ in 0..self.rng.usize(..4) {
            if let Some(client) = self.anybody() {
                self.ask_anything(client, actions);
            }
        }
    }

    fn ask_anything(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        match self.rng.u8(..40) {
            0..6 => actions.pause(client),
            6..12 => actions.resume(client),
            12..16 => {
                if let Some(to) = self.anybody() {
                    actions.pipe(client, to);
                }
            }
            16 => actions.pipe(client, client),
            17..19 => actions.hold(client, self.rng.usize(..2 * self.longest_bytes)),
            19 => actions.end(client),
            20..23 => {
                self.connect(client, actions);
            }
            23 if self.rng.u8(..4) == 0 => self.dismiss(client, actions),
            24 if self.rng.u8(..100) == 0 => actions.stop(),
            _ => {
                let length = self.rng.usize(..=self.longest_bytes);
                if self.rng.bool() {
                    actions.send(client, piece(0, length));
                } else {
                    actions.send_shared(client, &self.shared.slice(..length));
                }
            }
        }
    }

    fn connect(&mut self, sake: ClientId, actions: &mut Actions<'_>) -> Option<ClientId> {
        self.connects_left = self.connects_left.checked_sub(1)?;
        match actions.connect(address(0), sake) {
            Ok(upstream) => {
                self.clients.push(upstream);
                Some(upstream)
            }
            Err(error) => {
                let seen = &mut self.world.borrow_mut().model.seen;
                seen.refused_connects += u64::from(matches!(error, ConnectError::Stopping));
                None
            }
        }
    }

    fn dismiss(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        match self.rng.u8(..3) {
            0 => actions.reset(client),
            1 => actions.reject(client, "meddling"),
            _ => actions.close(client),
        }
    }

    /// Begins a connection for any client that exists, and ends it at once.
    fn rebound(&mut self, actions: &mut Actions<'_>) {
        if self.world.borrow().calm || self.world.borrow().model.fault.is_some() {
            return;
        }
        let there = self.clients.iter().rev().take(300);
        let sake = there.copied().find(|&client| actions.peer(client).is_some());
        if let Some(upstream) = sake.and_then(|sake| self.connect(sake, actions)) {
            self.dismiss(upstream, actions);
        }
    }

    /// At last all clients may end.
    fn let_go(&mut self, actions: &mut Actions<'_>) {
        if self.world.borrow().calm {
            for &client in &self.clients {
                actions.close(client);
            }
            self.clients.clear();
        }
    }
}

impl Service for Meddler {
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.clients.push(client);
        self.meddle(actions);
    }

    fn received(&mut self, _: ClientId, _: &[u8], actions: &mut Actions<'_>) {
        self.meddle(actions);
    }

    fn read_buffer(&mut self, _: ClientId) -> Option<&mut [u8]> {
        match self.rng.u8(..4) {
            0 => Some(&mut []),
            1 => {
                let length = self.rng.usize(..LONGEST_BYTES);
                Some(&mut self.memory[..length])
            }
            _ => None,
        }
    }

    fn filled(&mut self, _: ClientId, _: usize, actions: &mut Actions<'_>) {
        self.meddle(actions);
    }

    fn drained(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        if self.rng.bool() && !self.world.borrow().calm {
            actions.send(client, piece(0, self.longest_bytes));
        }
        self.meddle(actions);
    }

    fn ended(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.meddle(actions);
        if self.rng.bool() {
            actions.end(client);
        }
    }

    fn closed(&mut self, client: ClientId, _: &CloseReason, actions: &mut Actions<'_>) {
        if actions.peer(client).is_some() {
            let world = &mut self.world.borrow_mut();
            world
                .model
                .accuse(|| format!("{client:?} is gone and still there"));
        }
        if self.rebounds {
            self.rebound(actions);
        }
        self.meddle(actions);
    }

    fn tick_interval(&self) -> Option<Duration> {
        let calm = self.world.borrow().calm && !self.clients.is_empty();
        if calm {
            return Some(Duration::ZERO);
        }
        self.interval
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        if self.last_tick.replace(now) == Some(now) {
            let world = &mut self.world.borrow_mut();
            world.model.accuse(|| "two ticks at one instant".to_owned());
        }
        self.let_go(actions);
        self.meddle(actions);
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        self.meddle(actions);
    }

    fn stopping(&mut self, actions: &mut Actions<'_>) {
        self.meddle(actions);
    }
}
