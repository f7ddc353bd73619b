//! Everything outside of the engine, and the events of a wait.
//!
//! Owns the connections, the edges that no event has reported yet, the only
//! random generator, and the trace. Refuses to act for peers: `peers` does.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use highwater::engine::Event;
use highwater::limits::{
    ACCEPTS_PER_TURN, CONNECT_POLL, HEAD_START, MAX_RACING_CONNECTS, PROXY_HEADER_TIMEOUT,
    SMALLEST_READ_BYTES, TURN_BUDGET_BYTES,
};
use highwater::{ClientId, Limits};

use super::link::{Link, event};
use super::model::{Departure, Model};
use super::plan::{Kind, Plan, Trouble};

pub(crate) type Shared = Rc<RefCell<World>>;

/// Everything outside of the engine.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) links: Vec<Link>,
    pub(crate) model: Model,
    /// Connections whose streams are open or wait to be accepted.
    pub(crate) open: Vec<usize>,
    pub(crate) backlog: VecDeque<usize>,
    pub(crate) listener_edge: bool,
    pub(crate) listening: bool,
    /// The server was asked to stop.
    pub(crate) stop_asked: bool,
    /// Other limits were chosen, of which the service has to hear.
    pub(crate) reload_owed: bool,
    /// Longest time between two retransmissions of new connections, to clients and to
    /// upstreams.
    pub(crate) longest_retransmissions: (Duration, Duration),
    /// The last accept failed, so only a timer may bring the next.
    pub(crate) accept_failed: bool,
    pub(crate) queued: Vec<usize>,
    /// By index in the engine's table: token, and number of the link.
    pub(crate) places: Vec<(usize, usize)>,
    /// Ids of clients that are gone.
    pub(crate) stale: Vec<ClientId>,
    pub(crate) peers_left: usize,
    /// Streams that the engine owns.
    pub(crate) open_streams: usize,
    pub(crate) descriptors_out: bool,
    /// The last turn in which a connection found no descriptor.
    pub(crate) no_descriptor_turn: u64,
    /// Connections that the service began, of which it is not known for whom.
    pub(crate) unnamed: Vec<usize>,
    /// Troubles are over: all peers end in order.
    pub(crate) calm: bool,
    /// System calls, acts of peers and events so far.
    pub(crate) events: u64,
    /// System calls so far.
    pub(crate) calls: u64,
    /// What this turn has done so far.
    pub(crate) work: Work,
    /// Another thread has called, and the service must hear of it.
    pub(crate) wake_owed: bool,
    /// Every call of this turn is interrupted.
    pub(crate) all_interrupted: bool,
    pub(crate) refused_accepts: u64,
    pub(crate) stale_events: u64,
    /// Bytes that went from one stream to another in one call.
    pub(crate) spliced_bytes: u64,
    pub(crate) turn: u64,
    /// Folds everything that happened into one number.
    pub(crate) digest: u64,
    pub(crate) trace: Option<VecDeque<String>>,
}

/// The work of one turn, which must be bounded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Clients at its beginning.
    pub(crate) clients: usize,
    /// Connections accepted or begun.
    pub(crate) comers: usize,
    pub(crate) calls: usize,
    pub(crate) callbacks: usize,
}

/// The most reads of one client in one turn: each but the last brings at least
/// the smallest read, within the budget of the turn.
const READS_PER_CLIENT: usize = TURN_BUDGET_BYTES / SMALLEST_READ_BYTES + 2;

/// The most system calls for one client in one turn: its reads, as many writes
/// from its queue, and the calls that begin and end it.
const CALLS_PER_CLIENT: usize = 2 * READS_PER_CLIENT + 16;

/// The most calls of a service for one client in one turn: for each read, and
/// when the client comes, drains, ends and is closed. Connections that a
/// service begins meanwhile are bounded by the service, over several turns.
const CALLBACKS_PER_CLIENT: usize = READS_PER_CLIENT + 8;

/// The most system calls for the requests of a service in one call: the
/// simulated services make at most four requests.
const CALLS_PER_CALLBACK: usize = 12;

/// Lines of a trace that are kept: the cause of a fault stands at its end.
pub(crate) const TRACE_LINES: usize = 400;

/// What limits ask for, of clients and of upstreams.
pub(crate) fn longest_retransmissions(limits: &Limits) -> (Duration, Duration) {
    let of = |grace: Duration| Duration::from_secs(1).max(grace / 8);
    (of(limits.grace), of(limits.upstream_grace))
}

impl World {
    pub(crate) fn new(plan: &Plan, model: Model) -> Self {
        Self {
            rng: Rng::with_seed(plan.seed ^ 0x5eed),
            plan: plan.clone(),
            links: Vec::new(),
            model,
            open: Vec::new(),
            backlog: VecDeque::new(),
            listener_edge: false,
            listening: true,
            stop_asked: false,
            reload_owed: false,
            longest_retransmissions: longest_retransmissions(&plan.limits),
            accept_failed: false,
            queued: Vec::new(),
            places: Vec::new(),
            stale: Vec::new(),
            peers_left: plan.peers,
            open_streams: 0,
            descriptors_out: false,
            no_descriptor_turn: 0,
            unnamed: Vec::new(),
            calm: false,
            events: 0,
            calls: 0,
            work: Work::default(),
            wake_owed: false,
            all_interrupted: false,
            refused_accepts: 0,
            stale_events: 0,
            spliced_bytes: 0,
            turn: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            trace: None,
        }
    }

    pub(crate) fn fold(&mut self, code: u64, number: u64, value: u64) {
        for word in [code, number, value] {
            self.digest = (self.digest ^ word)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(17);
        }
    }

    pub(crate) fn has(&self, trouble: Trouble) -> bool {
        !self.calm && self.plan.has(trouble)
    }

    pub(crate) fn note_turn(&mut self, now: Instant, real_ns: u64) {
        self.turn += 1;
        self.model.turn = self.turn;
        self.work = Work {
            clients: self.model.alive().len(),
            ..Work::default()
        };
        self.all_interrupted = self.has(Trouble::Interrupts) && self.rng.u8(..32) == 0;
        note!(self, 1, 0, real_ns, "-- turn at {real_ns} ns, charged {now:?}");
        for &number in &self.open {
            self.links[number].read_in_turn = 0;
        }
    }

    /// The service is being called.
    pub(crate) fn note_callback(&mut self) {
        self.work.callbacks += 1;
        self.check_work();
    }

    /// A turn ends, whatever peers and services do.
    pub(crate) fn check_work(&mut self) {
        let work = self.work;
        let clients = work.clients + ACCEPTS_PER_TURN;
        let most_callbacks = CALLBACKS_PER_CLIENT * clients;
        let most_calls = CALLS_PER_CLIENT * (clients + work.comers) + CALLS_PER_CALLBACK * work.callbacks;
        if work.callbacks > most_callbacks || work.calls > most_calls {
            self.model.accuse(|| {
                format!(
                    "a turn without an end: {work:?}, at most {most_calls} calls, {most_callbacks} callbacks"
                )
            });
        }
    }

    /// The link that an id names, if it ever was registered.
    pub(crate) fn link_of(&self, id: ClientId) -> Option<usize> {
        let token = id.to_token();
        let &(there, number) = self.places.get(token & 0xffff_ffff)?;
        (there == token).then_some(number)
    }

    /// The link to which data of this one goes without asking the service.
    pub(crate) fn destination(&self, number: usize) -> Option<usize> {
        match self.plan.kind {
            Kind::Echo => Some(number),
            Kind::Tunnel => self.links[number].partner,
            Kind::FramedEcho | Kind::Herald | Kind::Meddler => None,
        }
    }

    /// The connection of an upstream is there, and both sides are a pair.
    pub(crate) fn pair(&mut self, upstream: usize) {
        if let Some(client) = self.links[upstream].upstream_of {
            self.links[upstream].partner = Some(client);
            self.links[client].partner = Some(upstream);
        }
    }

    /// Whether a tunnel may reset this link: its partner is gone, another
    /// connection was faster, or its client has waited for long enough.
    pub(crate) fn may_reset(&self, number: usize) -> bool {
        let link = &self.links[number];
        match (link.partner, link.upstream_of) {
            (Some(partner), _) => self.links[partner].closed,
            (None, Some(client)) => {
                let client_link = &self.links[client];
                let is_abandoned = self.plan.upstreams > MAX_RACING_CONNECTS
                    && self.model.ledgers[number].is_connecting_for(HEAD_START, self.model.now);
                client_link.closed
                    || client_link.partner.is_some()
                    || self.has_given_up(client)
                    || is_abandoned
            }
            (None, None) => self.has_given_up(number),
        }
    }

    /// Whether a client need not wait for its upstream any more.
    fn has_given_up(&self, client: usize) -> bool {
        self.model.waits_since(client, self.plan.limits.connect_timeout)
            || self.model.has_stopped()
            || self.no_descriptor_turn == self.turn
    }

    /// Connections under way for this client.
    fn rivals(&self, client: usize) -> usize {
        let alive = self.model.alive().iter().map(|&number| &self.links[number]);
        let is_rival = |link: &&Link| link.upstream_of == Some(client) && link.partner.is_none();
        alive.filter(is_rival).count()
    }

    /// No connection outlives its client, and no client waits for too long.
    pub(crate) fn check_waiting(&mut self) {
        if self.plan.kind != Kind::Tunnel {
            return;
        }
        for at in 0..self.model.alive().len() {
            let number = self.model.alive()[at];
            let link = &self.links[number];
            if link.partner.is_some() {
                continue;
            }
            let rivals = link.upstream_of.map_or(0, |client| self.rivals(client));
            if rivals > MAX_RACING_CONNECTS {
                self.model
                    .accuse(|| format!("link {number}: is one of {rivals} connections for one client"));
            }
            let goes_on = link.upstream_of.is_some_and(|client| self.links[client].closed);
            let time = match self.model.ledgers[number].unannounced {
                true => PROXY_HEADER_TIMEOUT,
                false => self.plan.limits.connect_timeout,
            };
            let longest = time + CONNECT_POLL;
            let waits = link.upstream_of.is_none() && self.model.waits_since(number, longest);
            if goes_on {
                self.model
                    .accuse(|| format!("link {number}: is connected to after its client left"));
            }
            if waits {
                self.model
                    .accuse(|| format!("link {number}: waits for its upstream, or we for its header, for more than {longest:?}"));
            }
        }
    }

    pub(crate) fn has_events(&self) -> bool {
        self.listener_edge || !self.queued.is_empty()
    }

    pub(crate) fn take_listener_edge(&mut self) -> bool {
        std::mem::take(&mut self.listener_edge) && self.listening
    }

    /// The events of one wait, in the order of the kernel's list.
    pub(crate) fn collect(&mut self, batch: &mut Vec<(ClientId, Event)>) {
        batch.clear();
        let mut kept = Vec::new();
        for number in std::mem::take(&mut self.queued) {
            if self.has(Trouble::LateEvents) && self.rng.u8(..4) == 0 {
                kept.push(number);
                continue;
            }
            let sparse = self.has(Trouble::SparseEvents);
            let link = &mut self.links[number];
            link.queued = false;
            let Some(id) = link.id else { continue };
            if link.closed {
                continue;
            }
            let event = event(link, sparse);
            (link.edge_in, link.edge_out) = (false, false);
            link.read_on |= event.read_again;
            note!(
                self,
                10,
                number,
                u64::from(event.readable),
                "event for link {number}: {event:?}"
            );
            batch.push((id, event));
        }
        self.queued.append(&mut kept);
        self.add_noise(batch);
    }

    pub(crate) fn add_noise(&mut self, batch: &mut Vec<(ClientId, Event)>) {
        let any = |rng: &mut Rng| Event {
            readable: rng.bool(),
            writable: rng.bool(),
            read_again: rng.bool(),
        };
        if self.has(Trouble::SpuriousEvents) && self.rng.u8(..4) == 0 && !self.open.is_empty() {
            let number = self.open[self.rng.usize(..self.open.len())];
            if let Some(id) = self.links[number].id {
                let event = any(&mut self.rng);
                self.links[number].read_on |= event.read_again;
                note!(self, 11, number, 0, "spurious event for link {number}: {event:?}");
                batch.push((id, event));
            }
        }
        if self.has(Trouble::StaleEvents) && self.rng.u8(..4) == 0 && !self.stale.is_empty() {
            let id = self.stale[self.rng.usize(..self.stale.len())];
            let event = any(&mut self.rng);
            self.stale_events += 1;
            note!(self, 12, id.to_token(), 0, "stale event for {id:?}: {event:?}");
            batch.push((id, event));
        }
    }

    /// Whether the engine must try again by a timer to accept a connection.
    pub(crate) const fn awaits_retry(&self) -> bool {
        self.accept_failed
    }

    pub(crate) fn backlog(&self) -> usize {
        self.backlog.len()
    }

    pub(crate) fn descriptors(&self) -> usize {
        match (self.descriptors_out, self.has(Trouble::FailedAccepts)) {
            (true, true) => 0,
            (false, true) => self.plan.descriptors,
            (_, false) => usize::MAX,
        }
    }

    pub(crate) fn tidy(&mut self) {
        self.open.retain(|&number| !self.links[number].closed);
    }

    pub(crate) fn tell(&mut self, number: usize, at: usize, count: usize) {
        self.links[number].told.push_back((at, count));
    }

    /// A service has a client reset or rejected.
    pub(crate) fn depart(&mut self, number: usize, departure: Departure) {
        self.model.settle();
        self.model.depart(number, departure);
    }
}

/// The address of a link; each has its own.
pub(crate) fn address(number: usize) -> SocketAddr {
    let [_, a, b, c] = (number as u32).to_be_bytes();
    (Ipv4Addr::new(10, a, b, c), 4000).into()
}
