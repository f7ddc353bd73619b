//! Services under simulation: a witness around any of them, and the herald,
//! which writes from every callback and cannot pause.
//!
//! Owns the entries that the books get from services: drains and ends, and all
//! requests of the herald. Refuses to help the engine.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use highwater::{Actions, Answer, ClientId, CloseReason, Limits, Service};

use super::content::piece;
use super::model::{Departure, Found};
use super::plan::{Kind, Trouble};
use super::world::{Shared, address};

/// Hears everything that a service hears.
pub(crate) struct Witness<S> {
    pub(crate) service: S,
    world: Shared,
    kind: Kind,
    /// All clients so far.
    clients: Vec<ClientId>,
    /// Every queue as the service sees it, by link.
    queues: Vec<(usize, usize)>,
}

impl<S> Witness<S> {
    pub(crate) fn new(service: S, world: &Shared, kind: Kind) -> Self {
        let world = Rc::clone(world);
        Self {
            service,
            world,
            kind,
            clients: Vec::new(),
            queues: Vec::new(),
        }
    }

    /// Ends a client of echo while its pipe remains: what the client sends from
    /// here on is dropped, but must be read.
    fn end_any(&self, actions: &mut Actions<'_>) {
        let client = {
            let mut world = self.world.borrow_mut();
            let newest = self.clients.len().min(8);
            if world.calm || newest == 0 {
                return;
            }
            let client = self.clients[self.clients.len() - 1 - world.rng.usize(..newest)];
            if let Some(number) = world.link_of(client)
                && world.model.ledgers[number].is_alive()
            {
                world.model.end_early(number);
            }
            client
        };
        actions.end(client);
    }

    /// Counts a call of the service, and compares all queues with the books.
    fn begin_call(&mut self, actions: &Actions<'_>) {
        let world = &mut *self.world.borrow_mut();
        world.note_callback();
        world.model.settle();
        if !world.plan.has(Trouble::TightBudget) {
            return;
        }
        self.queues.clear();
        for &number in world.model.alive() {
            if let Some(id) = world.links[number].id {
                self.queues.push((number, actions.queued(id)));
            }
        }
        world.model.check_queues(&self.queues);
    }

    /// Notes for whom the tunnel has begun connections: the engine names an
    /// upstream after its client.
    fn end_call(&self, actions: &Actions<'_>) {
        let world = &mut *self.world.borrow_mut();
        for number in std::mem::take(&mut world.unnamed) {
            let name = world.links[number].id.and_then(|id| actions.name(id));
            let name = name.map(|name| name.to_string()).unwrap_or_default();
            let client = name
                .rsplit_once(" of client ")
                .and_then(|(_, client)| client.parse().ok());
            if let Some(client) = client
                && self.kind == Kind::Tunnel
            {
                world.links[number].upstream_of = Some(client);
            }
        }
    }

    fn pair(&self, upstream: ClientId) {
        let world = &mut *self.world.borrow_mut();
        if let Some(number) = world.link_of(upstream) {
            world.pair(number);
        }
    }

    /// Calls the service for one client.
    fn call(
        &mut self,
        client: ClientId,
        actions: &mut Actions<'_>,
        what: impl FnOnce(&mut S, &mut Actions<'_>),
    ) {
        let framed = self.kind == Kind::FramedEcho;
        self.begin_call(actions);
        let number = {
            let mut world = self.world.borrow_mut();
            let number = world.link_of(client);
            world.model.settle();
            if framed {
                world.model.inside_framed = number;
            }
            number
        };
        what(&mut self.service, actions);
        self.end_call(actions);
        if let Some(number) = number
            && framed
        {
            let queued = actions.queued(client);
            self.world.borrow_mut().model.settle_framed(number, queued);
        }
    }
}

impl<S: Service> Service for Witness<S> {
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.clients.push(client);
        self.pair(client);
        let world = Rc::clone(&self.world);
        self.call(client, actions, |service, actions| {
            world.borrow_mut().join(client);
            service.connected(client, actions)
        });
    }

    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        self.call(client, actions, |service, actions| {
            service.received(client, data, actions)
        });
    }

    fn read_buffer(&mut self, client: ClientId) -> Option<&mut [u8]> {
        self.service.read_buffer(client)
    }

    fn filled(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        self.world.borrow_mut().model.seen.lent_reads += 1;
        self.call(client, actions, |service, actions| {
            service.filled(client, count_bytes, actions)
        });
    }

    fn drained(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        {
            let mut world = self.world.borrow_mut();
            match world.link_of(client) {
                Some(number) => world.model.drained(number),
                None => world
                    .model
                    .accuse(|| format!("drain said to {client:?}, which is nobody")),
            }
        }
        self.call(client, actions, |service, actions| {
            service.drained(client, actions)
        });
    }

    fn ended(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.call(client, actions, |service, actions| service.ended(client, actions));
    }

    fn closed(&mut self, client: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        {
            let mut world = self.world.borrow_mut();
            let Some(number) = world.link_of(client) else {
                return world
                    .model
                    .accuse(|| format!("{client:?} was never there and is closed"));
            };
            let turn = world.model.turn;
            let may_reset = world.may_reset(number);
            let partner = world.links[number].partner;
            let partner_was_slow = partner.is_some_and(|partner| world.links[partner].was_slow);
            // A splice found the FIN of the other end, and the read that has to tell
            // whether it is one was interrupted.
            let partner_interrupted =
                partner.is_some_and(|partner| world.links[partner].interrupted_turn == turn);
            let most = world.plan.limits.max_clients_per_address;
            let seats = world
                .seat_address(number)
                .map(|address| world.seats_of(address, |_| true));
            // Its own is one of them in these books.
            let is_address_full = most.is_some_and(|most| seats > Some(most));
            let link = &mut world.links[number];
            let (is_reset, is_closed) = (link.close_is_reset, link.closed);
            let found = Found {
                settled: link.is_settled(),
                quiet: link.is_quiet(turn),
                tried: link.tried_turn == turn,
                may_reset,
                partner_was_slow,
                partner_interrupted,
                is_address_full,
            };
            link.was_slow = matches!(reason, CloseReason::Slow(_));
            let twice = std::mem::replace(&mut link.said_closed, true);
            world.model.closed(number, reason, found);
            let orderly = matches!(reason, CloseReason::Finished);
            if orderly == is_reset || !is_closed || twice {
                world.model.accuse(|| {
                    format!(
                        "link {number} '{reason}': reset {is_reset}, closed {is_closed}, said before {twice}"
                    )
                });
            }
        }
        self.begin_call(actions);
        self.service.closed(client, reason, actions);
        self.end_call(actions);
    }

    fn introduces_clients(&self) -> bool {
        self.service.introduces_clients()
    }

    fn sockets_per_client(&self) -> usize {
        self.service.sockets_per_client()
    }

    fn tick_interval(&self) -> Option<Duration> {
        self.service.tick_interval()
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        self.begin_call(actions);
        self.service.ticked(actions);
        self.end_call(actions);
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        self.begin_call(actions);
        {
            let world = &mut *self.world.borrow_mut();
            if !std::mem::take(&mut world.wake_owed) {
                world.model.accuse(|| "woken though nobody called".to_owned());
            }
        }
        self.service.woken(actions);
        self.end_call(actions);
        if self.kind == Kind::Echo {
            self.end_any(actions);
        }
    }

    fn reloaded(&mut self, limits: &Limits, actions: &mut Actions<'_>) {
        self.begin_call(actions);
        {
            let world = &mut *self.world.borrow_mut();
            if !std::mem::take(&mut world.reload_owed) || *limits != world.plan.limits {
                world
                    .model
                    .accuse(|| "told of limits that nobody chose".to_owned());
            }
        }
        self.service.reloaded(limits, actions);
        self.end_call(actions);
    }

    fn stopping(&mut self, actions: &mut Actions<'_>) {
        self.begin_call(actions);
        self.service.stopping(actions);
        self.world.borrow_mut().model.stop();
    }
}

/// A service that writes to random clients whenever it is called, also to
/// clients that are gone, and ignores *pause*.
pub(crate) struct Herald {
    world: Shared,
    rng: Rng,
    /// All clients so far.
    clients: Vec<ClientId>,
    longest_bytes: usize,
    interval: Option<Duration>,
    start: std::time::Instant,
    ticks: u32,
    last_tick: Option<std::time::Instant>,
    shared: Bytes,
}

/// Bytes that the herald can share between clients.
const SHARED_BYTES: usize = 40_000;

impl Herald {
    pub(crate) fn new(world: &Shared, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x4e7a1d);
        let longest_bytes = [1, 100, 2000, 20_000][rng.usize(..4)];
        let interval = [None, Some(0), Some(1), Some(20), Some(400)][rng.usize(..5)];
        Self {
            world: Rc::clone(world),
            clients: Vec::new(),
            longest_bytes,
            interval: interval.map(Duration::from_millis),
            start: world.borrow().model.now,
            ticks: 0,
            last_tick: None,
            shared: Bytes::from_static(piece(0, SHARED_BYTES)),
            rng,
        }
    }

    fn speak(&mut self, actions: &mut Actions<'_>) {
        if self.world.borrow().calm || self.clients.is_empty() {
            return;
        }
        for _ in 0..self.rng.usize(..4) {
            let newest = self.clients.len().min(20);
            let among = if self.rng.u8(..8) == 0 {
                self.clients.len()
            } else {
                newest
            };
            let client = self.clients[self.clients.len() - 1 - self.rng.usize(..among)];
            match self.rng.u8(..64) {
                0 => self.end(client, actions),
                1 => self.dismiss(client, actions),
                2 => self.connect(client, actions),
                3..6 => self.hold(client, actions),
                _ => self.send(client, actions),
            }
        }
    }

    fn send(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let length = match self.rng.u8(..8) {
            0 => 0,
            1 => self.longest_bytes,
            _ => self.rng.usize(..=self.longest_bytes),
        };
        let at = self.rng.usize(..SHARED_BYTES - length);
        let asked = {
            let mut world = self.world.borrow_mut();
            let number = world.link_of(client);
            let asked = number.filter(|&number| world.model.ask(number, length));
            if let Some(number) = asked
                && length > 0
            {
                world.tell(number, at, length);
            }
            asked
        };
        let answer = if self.rng.bool() {
            actions.send(client, piece(at, length))
        } else {
            actions.send_shared(client, &self.shared.slice(at..at + length))
        };
        let mut world = self.world.borrow_mut();
        world.model.settle();
        let expected = match asked {
            // This closed the client, which the service will hear.
            Some(number) if !world.model.ledgers[number].is_alive() => return,
            Some(number) => world.model.answer(number),
            None => Answer::Continue,
        };
        if answer != expected && !world.model.is_loose() {
            world
                .model
                .accuse(|| format!("{client:?}: {length} bytes answered {answer:?}, not {expected:?}"));
        }
    }

    fn hold(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let held = self.rng.usize(..2000);
        let number = self.world.borrow().link_of(client);
        if let Some(number) = number {
            let model = &mut self.world.borrow_mut().model;
            if !model.ledgers[number].accepts() {
                // It may be marked as closed, which cannot be seen from outside
                // before the sweep.
                return;
            }
            model.hold(number, held);
        }
        actions.hold(client, held);
    }

    /// It treats an upstream like any client, from the start.
    fn connect(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        if let Ok(upstream) = actions.connect(address(0), client) {
            self.clients.push(upstream);
        }
    }

    fn end(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let number = self.world.borrow().link_of(client);
        let close = self.rng.bool();
        if let Some(number) = number {
            let model = &mut self.world.borrow_mut().model;
            if model.ledgers[number].is_alive() {
                if close {
                    model.close(number)
                } else {
                    model.end(number)
                }
            }
        }
        if close {
            actions.close(client);
        } else {
            actions.end(client);
        }
    }

    fn dismiss(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let number = self.world.borrow().link_of(client);
        let reject = self.rng.bool();
        if let Some(number) = number {
            let departure = if reject {
                Departure::Rejected
            } else {
                Departure::Reset
            };
            self.world.borrow_mut().depart(number, departure);
        }
        if reject {
            actions.reject(client, "the herald does not like it");
        } else {
            actions.reset(client);
        }
    }
}

impl Service for Herald {
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.clients.push(client);
        self.speak(actions);
    }

    fn received(&mut self, _: ClientId, _: &[u8], actions: &mut Actions<'_>) {
        self.speak(actions);
    }

    fn drained(&mut self, _: ClientId, actions: &mut Actions<'_>) {
        self.speak(actions);
    }

    fn ended(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.speak(actions);
        let number = self.world.borrow().link_of(client);
        if let Some(number) = number {
            let model = &mut self.world.borrow_mut().model;
            if model.ledgers[number].is_alive() {
                model.end(number);
            }
        }
        actions.end(client);
    }

    fn closed(&mut self, _: ClientId, _: &CloseReason, actions: &mut Actions<'_>) {
        self.speak(actions);
    }

    fn tick_interval(&self) -> Option<Duration> {
        self.interval
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        if self.last_tick.replace(now) == Some(now) {
            let world = &mut self.world.borrow_mut();
            world.model.accuse(|| "two ticks at one instant".to_owned());
        }
        self.ticks += 1;
        let least = self.interval.unwrap_or_default() * self.ticks;
        if now - self.start < least {
            let (world, ticks) = (&mut self.world.borrow_mut(), self.ticks);
            world
                .model
                .accuse(|| format!("{ticks} ticks, though {least:?} have not passed"));
        }
        self.speak(actions);
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        if actions.now() != self.world.borrow().model.now {
            let world = &mut self.world.borrow_mut();
            world
                .model
                .accuse(|| "woken at an instant that is past".to_owned());
        }
        self.speak(actions);
    }

    fn stopping(&mut self, actions: &mut Actions<'_>) {
        self.speak(actions);
    }
}
