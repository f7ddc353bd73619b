//! A kernel's TCP and the peers behind it, simulated.
//!
//! Owns connections, buffers, edges, the backlog, descriptors, and how peers
//! behave; all chance comes from one generator. Edges are those of epoll in
//! its edge-triggered mode: one for each transition and none for what is left
//! after a partial read, data and end in one event when both came before the
//! wait, and room for writing announced only after a write was refused or
//! came back short. Refuses to know the engine; what the engine does to a
//! stream is entered into the [`Model`]'s books.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use fastrand::Rng;
use highwater::event_loop::{ClientId, Event, Network, PeerState, Stream};
use highwater::limits::{READ_BUFFER_BYTES, TURN_BUDGET_BYTES};

use super::content::{Content, LONGEST_PIECE_BYTES, piece};
use super::model::{Doom, Model};
use super::plan::{Kind, Plan, Trouble};

/// The table of open files is full (accept(2)).
const EMFILE: i32 = 24;
/// Too many watches (epoll_ctl(2)).
const ENOSPC: i32 = 28;

/// What a peer still says at most once everybody is to end.
const CALM_STREAM_BYTES: usize = 2000;

/// How a peer behaves, for the time being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Fast,
    Trickling,
    Stalled,
}

/// Where a connection that the engine asked for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connecting {
    Made,
    Pending,
    Refused,
}

/// One connection, with the kernel's part and the peer's part.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: Option<ClientId>,
    is_upstream: bool,
    /// The other side of a tunnel.
    pub(crate) partner: Option<usize>,
    content: Content,
    connecting: Connecting,
    // From the peer to the engine.
    sent: u64,
    read: u64,
    left_to_send: u64,
    peer_ended: bool,
    end_read: bool,
    reset: bool,
    reset_told: bool,
    /// The peer has closed both ways: data that reaches it is answered with
    /// a reset.
    peer_gone: bool,
    // From the engine to the peer.
    taken: u64,
    arrived: u64,
    peer_read: u64,
    refused: bool,
    ended: bool,
    end_arrived: bool,
    /// What a service that says its own said, as places in the pattern.
    told: VecDeque<(usize, usize)>,
    // Edges that no event has carried yet.
    edge_in: bool,
    edge_out: bool,
    queued: bool,
    reading: Reading,
    pub(crate) close_is_reset: bool,
    pub(crate) closed: bool,
    pub(crate) said_closed: bool,
    read_in_turn: usize,
    /// The last turn in which a read found nothing left.
    dry_turn: u64,
}

impl Link {
    const fn waiting(&self) -> u64 {
        self.sent - self.read
    }

    const fn unread(&self) -> bool {
        self.waiting() > 0 || (self.peer_ended && !self.end_read) || (self.reset && !self.reset_told)
    }

    const fn in_kernel(&self) -> u64 {
        self.taken - self.arrived
    }

    /// Whether nothing is under way, in neither direction.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.is_settled() && !self.unread()
    }

    pub(crate) const fn is_settled(&self) -> bool {
        self.reset || (self.in_kernel() == 0 && (!self.ended || self.end_arrived))
    }
}

pub(crate) type Shared = Rc<RefCell<World>>;

/// Everything outside of the engine.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) links: Vec<Link>,
    pub(crate) model: Model,
    /// Connections whose streams are open or wait to be accepted.
    open: Vec<usize>,
    backlog: VecDeque<usize>,
    listener_edge: bool,
    listening: bool,
    /// The last accept failed, so only a timer may bring the next.
    accept_failed: bool,
    queued: Vec<usize>,
    /// By index in the engine's table: token, and number of the link.
    places: Vec<(usize, usize)>,
    /// Ids of clients that are gone.
    pub(crate) stale: Vec<ClientId>,
    pub(crate) peers_left: usize,
    /// Streams that the engine owns.
    pub(crate) open_streams: usize,
    pub(crate) descriptors_out: bool,
    /// The client that the service is being called for.
    pub(crate) called_for: Option<usize>,
    /// Troubles have an end: everybody is made to end in order.
    pub(crate) calm: bool,
    /// What happened so far: system calls, acts of peers, events.
    pub(crate) events: u64,
    /// System calls so far.
    pub(crate) calls: u64,
    pub(crate) refused_accepts: u64,
    pub(crate) stale_events: u64,
    turn: u64,
    /// Folds everything that happened into one number.
    pub(crate) digest: u64,
    pub(crate) trace: Option<VecDeque<String>>,
}

/// Lines of a trace that are kept: what led to a fault is at its end.
const TRACE_LINES: usize = 400;

macro_rules! note {
    ($world:expr, $code:expr, $number:expr, $value:expr, $($format:tt)*) => {{
        let world = &mut *$world;
        world.events += 1;
        world.fold($code, $number as u64, $value as u64);
        if let Some(trace) = &mut world.trace
            && world.model.fault.is_none()
        {
            if trace.len() == TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!($($format)*));
        }
    }};
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
            accept_failed: false,
            queued: Vec::new(),
            places: Vec::new(),
            stale: Vec::new(),
            peers_left: plan.peers,
            open_streams: 0,
            descriptors_out: false,
            called_for: None,
            calm: false,
            events: 0,
            calls: 0,
            refused_accepts: 0,
            stale_events: 0,
            turn: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            trace: None,
        }
    }

    fn fold(&mut self, code: u64, number: u64, value: u64) {
        for word in [code, number, value] {
            self.digest = (self.digest ^ word)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(17);
        }
    }

    fn has(&self, trouble: Trouble) -> bool {
        !self.calm && self.plan.has(trouble)
    }

    pub(crate) fn note_turn(&mut self, now: Instant, real_ns: u64) {
        self.turn += 1;
        self.model.turn = self.turn;
        note!(self, 1, 0, real_ns, "-- turn at {real_ns} ns, charged {now:?}");
        for &number in &self.open {
            self.links[number].read_in_turn = 0;
        }
    }

    /// The link that an id names, if it ever was registered.
    pub(crate) fn link_of(&self, id: ClientId) -> Option<usize> {
        let token = id.to_token();
        let &(there, number) = self.places.get(token & 0xffff_ffff)?;
        (there == token).then_some(number)
    }

    /// Where data that is read from a link goes without asking the service.
    fn destination(&self, number: usize) -> Option<usize> {
        match self.plan.kind {
            Kind::Echo => Some(number),
            Kind::Tunnel => self.links[number].partner,
            Kind::FramedEcho | Kind::Herald => None,
        }
    }

    /// Whether the other side of a tunnel is there. A server that stops waits
    /// for no connection that is still being made.
    pub(crate) fn has_partner(&self, number: usize) -> bool {
        let is_making = |number: usize| {
            let ledger = self.model.ledgers.get(number);
            ledger.is_some_and(|ledger| ledger.connecting_since.is_some())
        };
        let Some(partner) = self.links[number].partner else {
            return false;
        };
        let given_up = self.model.stopping_since.is_some() && (is_making(partner) || is_making(number));
        !self.links[partner].closed && !given_up
    }

    // What peers do.

    fn new_link(&mut self, connecting: Connecting) -> usize {
        let number = self.links.len();
        let most = if self.calm {
            CALM_STREAM_BYTES
        } else {
            self.plan.stream_bytes
        };
        let total = self.rng.usize(..=most);
        let content = if self.plan.kind == Kind::FramedEcho {
            Content::frames(
                &mut self.rng,
                number,
                self.plan.max_frame_bytes,
                total.min(60_000),
            )
        } else {
            Content::pattern(number)
        };
        let left_to_send = content.len().min(total as u64);
        self.links.push(Link {
            id: None,
            is_upstream: false,
            partner: None,
            content,
            connecting,
            sent: 0,
            read: 0,
            left_to_send,
            peer_ended: false,
            end_read: false,
            reset: false,
            reset_told: false,
            peer_gone: false,
            taken: 0,
            arrived: 0,
            peer_read: 0,
            refused: false,
            ended: false,
            end_arrived: false,
            told: VecDeque::new(),
            edge_in: false,
            edge_out: false,
            queued: false,
            reading: Reading::Fast,
            close_is_reset: false,
            closed: false,
            said_closed: false,
            read_in_turn: 0,
            dry_turn: 0,
        });
        self.open.push(number);
        self.change_mood(number);
        number
    }

    /// Somebody connects and waits to be accepted.
    pub(crate) fn arrive(&mut self) {
        if !self.listening {
            return;
        }
        let number = self.new_link(Connecting::Made);
        note!(self, 2, number, 0, "link {number} connects");
        if self.backlog.is_empty() || !self.has(Trouble::SparseEvents) {
            self.listener_edge = true;
        }
        self.backlog.push_back(number);
    }

    fn change_mood(&mut self, number: usize) {
        let mood = match self.rng.u8(..4) {
            0 if self.has(Trouble::Stalls) => Reading::Stalled,
            1 if self.has(Trouble::Trickles) => Reading::Trickling,
            _ => Reading::Fast,
        };
        self.links[number].reading = mood;
    }

    /// Between two turns the peers act.
    pub(crate) fn act(&mut self) {
        if self.has(Trouble::FailedAccepts) && self.rng.u8(..16) == 0 {
            self.descriptors_out = !self.descriptors_out;
        }
        if self.peers_left > 0 && self.rng.u8(..4) == 0 {
            let storm = self.has(Trouble::Storms) && self.rng.u8(..8) == 0;
            let comers = match (storm, self.rng.u8(..4)) {
                (true, 0) => self.rng.usize(1..=200),
                (true, _) => self.rng.usize(1..=20),
                (false, _) => 1,
            };
            self.peers_left -= 1;
            for _ in 0..comers {
                self.arrive();
            }
        }
        for _ in 0..self.rng.usize(..=self.plan.acts) {
            if self.open.is_empty() {
                return;
            }
            let number = self.open[self.rng.usize(..self.open.len())];
            self.act_on(number);
        }
    }

    fn act_on(&mut self, number: usize) {
        if self.links[number].reset || self.links[number].closed {
            return;
        }
        match self.links[number].connecting {
            Connecting::Made => {}
            Connecting::Pending => return self.decide_connection(number),
            Connecting::Refused => return,
        }
        match self.rng.u8(..32) {
            0..12 => self.peer_sends(number),
            12..24 => {
                self.deliver(number);
                self.peer_reads(number);
            }
            24..27 => self.deliver(number),
            27 => self.change_mood(number),
            28 if self.has(Trouble::Resets) && self.rng.u8(..6) == 0 => self.peer_resets(number),
            29 if self.has(Trouble::Resets) && self.rng.u8(..6) == 0 => {
                self.links[number].peer_gone = true;
                self.peer_ends(number);
            }
            30 | 31 if self.rng.u8(..8) == 0 => self.peer_ends(number),
            _ => {}
        }
    }

    fn decide_connection(&mut self, number: usize) {
        match self.rng.u8(..8) {
            0..4 => {
                note!(self, 3, number, 0, "link {number} is accepted by its server");
                self.links[number].connecting = Connecting::Made;
                self.links[number].edge_out = true;
            }
            4 if !self.calm => {
                note!(self, 4, number, 0, "link {number} is refused by its server");
                self.links[number].connecting = Connecting::Refused;
                self.links[number].edge_in = true;
                self.links[number].edge_out = true;
            }
            _ => return,
        }
        self.queue(number);
    }

    fn peer_sends(&mut self, number: usize) {
        let most = self.rng.usize(1..=self.plan.piece_bytes) as u64;
        let room = self.plan.kernel_bytes as u64;
        let link = &mut self.links[number];
        let count = most
            .min(link.left_to_send)
            .min(room.saturating_sub(link.waiting()));
        if count == 0 || link.peer_ended {
            return;
        }
        let was_empty = link.waiting() == 0;
        link.sent += count;
        link.left_to_send -= count;
        note!(self, 5, number, count, "link {number} sends {count}");
        if was_empty || !self.has(Trouble::SparseEvents) {
            self.links[number].edge_in = true;
            self.queue(number);
        }
    }

    fn peer_ends(&mut self, number: usize) {
        if self.links[number].peer_ended {
            return;
        }
        note!(self, 6, number, 0, "link {number} ends");
        let link = &mut self.links[number];
        link.peer_ended = true;
        link.edge_in = true;
        self.queue(number);
    }

    fn peer_resets(&mut self, number: usize) {
        note!(self, 7, number, 0, "link {number} resets");
        let link = &mut self.links[number];
        link.reset = true;
        link.edge_in = true;
        link.edge_out = true;
        self.queue(number);
    }

    /// Moves what our kernel holds to the peer's.
    fn deliver(&mut self, number: usize) {
        let window = self.plan.kernel_bytes as u64;
        let link = &mut self.links[number];
        let room = window.saturating_sub(link.arrived - link.peer_read);
        let count = link.in_kernel().min(room);
        if count > 0 && link.peer_gone {
            return self.peer_resets(number);
        }
        link.arrived += count;
        let end_arrives = link.ended && !link.end_arrived && link.in_kernel() == 0;
        if end_arrives {
            // Our state changes, and epoll wakes for that.
            link.end_arrived = true;
            link.edge_out = true;
        }
        if count > 0 || end_arrives {
            note!(self, 8, number, count, "link {number} gets {count}");
        }
        if end_arrives {
            self.queue(number);
        }
        self.announce_room(number);
    }

    fn peer_reads(&mut self, number: usize) {
        let most = self.rng.usize(1..=self.plan.piece_bytes) as u64;
        let link = &mut self.links[number];
        let there = link.arrived - link.peer_read;
        let count = match link.reading {
            Reading::Fast => there,
            Reading::Trickling => there.min(most.min(64)),
            Reading::Stalled => 0,
        };
        link.peer_read += count;
        if count > 0 {
            note!(self, 9, number, count, "link {number} reads {count}");
        }
    }

    /// Room is announced only to whom it was refused, and only once half of
    /// the kernel's buffer is free.
    fn announce_room(&mut self, number: usize) {
        let threshold = (self.plan.kernel_bytes / 2) as u64;
        let link = &mut self.links[number];
        if link.refused && link.in_kernel() <= threshold {
            link.refused = false;
            link.edge_out = true;
            self.queue(number);
        }
    }

    fn queue(&mut self, number: usize) {
        let link = &mut self.links[number];
        if !link.queued && link.id.is_some() && !link.closed {
            link.queued = true;
            self.queued.push(number);
        }
    }

    // What the wait of the event loop brings.

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

    fn add_noise(&mut self, batch: &mut Vec<(ClientId, Event)>) {
        let any = |rng: &mut Rng| Event {
            readable: rng.bool(),
            writable: rng.bool(),
            read_again: rng.bool(),
        };
        if self.has(Trouble::SpuriousEvents) && self.rng.u8(..4) == 0 && !self.open.is_empty() {
            let number = self.open[self.rng.usize(..self.open.len())];
            if let Some(id) = self.links[number].id {
                let event = any(&mut self.rng);
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

    // Checks of the kernel's side.

    /// Work that no event will announce must not be slept over.
    pub(crate) fn check_nobody_forgotten(&mut self) {
        for at in 0..self.model.alive().len() {
            let number = self.model.alive()[at];
            if let Some(what) = self.forgotten(number) {
                let link = format!("{:?}; {:?}", self.links[number], self.model.ledgers[number]);
                self.model
                    .accuse(|| format!("link {number} is forgotten: {what}; {link}"));
            }
        }
        let can_accept = self.open_streams < self.descriptors();
        if !self.backlog.is_empty()
            && !self.listener_edge
            && self.listening
            && !self.accept_failed
            && can_accept
        {
            self.model
                .accuse(|| "connections are left waiting in the backlog".to_owned());
        }
    }

    fn forgotten(&self, number: usize) -> Option<&'static str> {
        let link = &self.links[number];
        let ledger = &self.model.ledgers[number];
        if link.connecting != Connecting::Made {
            let decided = link.connecting == Connecting::Refused;
            return (decided && !link.edge_out).then_some("its connection was refused");
        }
        if ledger.connecting_since.is_some() {
            return (!link.edge_out).then_some("its connection has been made");
        }
        let to = self.destination(number);
        if link.unread() && !link.edge_in && self.model.may_be_read(number, to) {
            return Some("it has sent something");
        }
        if ledger.queue() > 0 && !link.refused && !link.edge_out {
            return Some("its socket has room");
        }
        let quiet = !link.unread() && !link.edge_in && !link.edge_out;
        if (link.end_read || ledger.closing) && link.ended && quiet && link.is_settled() {
            return Some("both sides have ended");
        }
        None
    }

    /// Whether the engine, waiting for this long, could miss a connection.
    pub(crate) const fn awaits_retry(&self) -> bool {
        self.accept_failed
    }

    pub(crate) fn backlog(&self) -> usize {
        self.backlog.len()
    }

    fn descriptors(&self) -> usize {
        match (self.descriptors_out, self.has(Trouble::FailedAccepts)) {
            (true, true) => 0,
            (false, true) => self.plan.descriptors,
            (_, false) => usize::MAX,
        }
    }

    /// Every peer reads all there is, sends its last bytes, and ends.
    pub(crate) fn calm_down(&mut self) {
        self.calm = true;
        self.peers_left = 0;
        self.descriptors_out = false;
        self.plan.kernel_bytes = self.plan.kernel_bytes.max(50_000);
        self.plan.piece_bytes = self.plan.piece_bytes.max(CALM_STREAM_BYTES);
        for &number in &self.open {
            let link = &mut self.links[number];
            link.reading = Reading::Fast;
            link.left_to_send = link.left_to_send.min(CALM_STREAM_BYTES as u64);
        }
        for number in self.open.clone() {
            self.announce_room(number);
        }
    }

    pub(crate) fn act_calmly(&mut self) {
        for at in 0..self.open.len() {
            let number = self.open[at];
            let link = &self.links[number];
            if link.reset || link.closed {
                continue;
            }
            if link.connecting == Connecting::Pending {
                self.decide_connection(number);
            }
            if self.links[number].connecting == Connecting::Made {
                self.peer_sends(number);
                self.deliver(number);
                self.peer_reads(number);
                if self.links[number].left_to_send == 0 {
                    self.peer_ends(number);
                }
            }
        }
        self.open.retain(|&number| !self.links[number].closed);
    }

    pub(crate) fn tidy(&mut self) {
        self.open.retain(|&number| !self.links[number].closed);
    }

    pub(crate) fn tell(&mut self, number: usize, at: usize, count: usize) {
        self.links[number].told.push_back((at, count));
    }

    // The system calls.

    fn call(&mut self) {
        self.calls += 1;
    }

    fn interrupted(&mut self) -> bool {
        self.has(Trouble::Interrupts) && self.rng.u8(..32) == 0
    }

    fn nudge(&mut self, number: usize) {
        if self.has(Trouble::MidTurn) && self.rng.u8(..8) == 0 {
            self.act_on(number);
        }
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.call();
        self.check_usable(number);
        if self.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        self.nudge(number);
        let result = self.read_now(number, buffer);
        self.nudge(number);
        result
    }

    fn read_now(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let to = self.destination(number);
        let link = &mut self.links[number];
        let count = link.waiting().min(buffer.len() as u64) as usize;
        if link.connecting != Connecting::Made {
            return Err(ErrorKind::WouldBlock.into());
        }
        if count > 0 {
            buffer[..count].copy_from_slice(link.content.at(link.read, count));
            link.read += count as u64;
            link.read_in_turn += count;
            if count < buffer.len() {
                link.dry_turn = self.turn;
            }
            let greedy = link.read_in_turn > TURN_BUDGET_BYTES + READ_BUFFER_BYTES;
            self.model.read(number, count, to, &self.links[number].content);
            note!(self, 13, number, count, "read {count} from link {number}");
            if greedy {
                self.model
                    .accuse(|| format!("link {number}: read past the budget of a turn"));
            }
            return Ok(count);
        }
        if link.reset {
            if std::mem::replace(&mut link.reset_told, true) {
                link.end_read = true;
                self.model.read_end(number, to);
                return Ok(0);
            }
            note!(self, 14, number, 0, "read of link {number} fails");
            self.model.fail(number);
            return Err(ErrorKind::ConnectionReset.into());
        }
        if link.peer_ended {
            link.end_read = true;
            note!(self, 15, number, 0, "read the end of link {number}");
            self.model.read_end(number, to);
            return Ok(0);
        }
        link.dry_turn = self.turn;
        note!(self, 16, number, 0, "nothing to read from link {number}");
        Err(ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, number: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.call();
        self.check_usable(number);
        if self.interrupted() {
            // What could not be written directly waits from here on.
            self.model.settle();
            return Err(ErrorKind::Interrupted.into());
        }
        self.nudge(number);
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let link = &mut self.links[number];
        if link.reset {
            link.reset_told = true;
            note!(self, 17, number, 0, "write to link {number} fails");
            self.model.fail(number);
            return Err(ErrorKind::BrokenPipe.into());
        }
        if link.ended {
            self.model
                .accuse(|| format!("link {number}: written to after its end"));
        }
        let room = (self.plan.kernel_bytes as u64).saturating_sub(link.in_kernel()) as usize;
        let room = if link.connecting == Connecting::Made {
            room
        } else {
            0
        };
        let mut count = offered.min(room);
        if count > 1 && self.has(Trouble::ShortWrites) && self.rng.u8(..4) == 0 {
            count = self.rng.usize(1..=count);
        }
        let link = &mut self.links[number];
        link.refused |= count < offered;
        note!(
            self,
            18,
            number,
            count,
            "write {count} of {offered} to link {number}"
        );
        if count > 0 {
            self.check_bytes(number, slices, count);
            self.links[number].taken += count as u64;
            self.model.take(number, count);
        }
        if count < offered {
            self.model.settle();
        }
        if self.links[number].connecting == Connecting::Made {
            self.announce_room(number);
        }
        self.nudge(number);
        if count == 0 && offered > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    /// Every byte must be the one that is owed at this place.
    fn check_bytes(&mut self, number: usize, slices: &[IoSlice<'_>], count: usize) {
        let mut left = count;
        let mut offset = self.links[number].taken;
        for slice in slices {
            let mut part = &slice[..left.min(slice.len())];
            left -= part.len();
            while !part.is_empty() {
                let chunk = part.len().min(LONGEST_PIECE_BYTES);
                let matched = match self.plan.kind {
                    Kind::Herald => self.match_told(number, &part[..chunk]),
                    Kind::Tunnel => self.links[number]
                        .partner
                        .map_or(0, |from| self.match_link(from, offset, &part[..chunk])),
                    Kind::Echo | Kind::FramedEcho => self.match_link(number, offset, &part[..chunk]),
                };
                if matched == 0 {
                    self.model
                        .accuse(|| format!("link {number}: wrong bytes from {offset} on"));
                    return;
                }
                offset += matched as u64;
                part = &part[matched..];
            }
        }
    }

    fn match_link(&self, from: usize, offset: u64, data: &[u8]) -> usize {
        let expected = self.links[from].content.at(offset, data.len());
        if expected == data { data.len() } else { 0 }
    }

    fn match_told(&mut self, number: usize, data: &[u8]) -> usize {
        let told = &mut self.links[number].told;
        let Some((at, length)) = told.front_mut() else {
            return 0;
        };
        let count = data.len().min(*length);
        if piece(*at, count) != &data[..count] {
            return 0;
        }
        *at += count;
        *length -= count;
        if *length == 0 {
            told.pop_front();
        }
        count
    }

    fn check_usable(&mut self, number: usize) {
        if self.links[number].closed {
            self.model
                .accuse(|| format!("link {number}: used after it was closed"));
        }
    }

    fn shut_down_write(&mut self, number: usize) -> io::Result<()> {
        self.call();
        self.check_usable(number);
        self.model.settle();
        note!(self, 19, number, 0, "shut down link {number}");
        let ledger = &self.model.ledgers[number];
        let (ended, queue, alive) = (ledger.ended, ledger.queue(), ledger.is_alive());
        if self.links[number].connecting != Connecting::Made {
            self.model.accuse(|| {
                format!("link {number}: ended before its connection was made, which breaks it off")
            });
        } else if self.links[number].ended {
            self.model.accuse(|| format!("link {number}: ended twice"));
        } else if !ended || queue > 0 || !alive {
            self.model
                .accuse(|| format!("link {number}: ended with {queue} bytes queued, asked for: {ended}"));
        }
        self.check_whole(number);
        let link = &mut self.links[number];
        if link.reset {
            link.reset_told = true;
            self.model.fail(number);
            return Err(ErrorKind::NotConnected.into());
        }
        link.ended = true;
        Ok(())
    }

    /// A clean end says to the peer that it has everything. A server that
    /// stops may cut a stream only by a reset.
    fn check_whole(&mut self, number: usize) {
        let ledger = &self.model.ledgers[number];
        if !ledger.stopped || ledger.cut_short || self.links[number].reset {
            return;
        }
        let from = match self.plan.kind {
            Kind::Echo | Kind::FramedEcho => number,
            Kind::Tunnel => match self.links[number].partner {
                Some(from) => from,
                None => return,
            },
            Kind::Herald => return,
        };
        let (source, ledger) = (&self.links[from], &self.model.ledgers[from]);
        let all_said = from == number || ledger.end_read;
        // What comes in after the last look cannot be helped.
        let looked = source.dry_turn > self.model.stopped_turn;
        let unread = if looked { 0 } else { source.waiting() };
        let lost = source.read - self.links[number].taken;
        let half_frame = if self.plan.kind == Kind::FramedEcho && ledger.end_read {
            ledger.read - ledger.frames.whole_bytes
        } else {
            0
        };
        if unread > 0 || lost > half_frame || !all_said {
            self.model.accuse(|| {
                format!(
                    "link {number}: a clean end, though {unread} bytes were not read and {lost} not sent on"
                )
            });
        }
    }

    fn finish_connect(&mut self, number: usize) -> io::Result<bool> {
        note!(self, 20, number, 0, "ask whether link {number} is connected");
        match self.links[number].connecting {
            // Asking in vain is not counted as work.
            Connecting::Pending => Ok(false),
            Connecting::Refused => {
                self.model.fail(number);
                Err(ErrorKind::ConnectionRefused.into())
            }
            Connecting::Made => {
                self.call();
                self.model.settle();
                self.model.connected(number);
                Ok(true)
            }
        }
    }

    fn close(&mut self, number: usize) {
        let is_reset = self.links[number].close_is_reset;
        note!(
            self,
            21,
            number,
            u64::from(is_reset),
            "close link {number}, reset: {is_reset}"
        );
        let link = &mut self.links[number];
        if link.closed {
            self.model.accuse(|| format!("link {number}: closed twice"));
        }
        let link = &mut self.links[number];
        link.closed = true;
        self.open_streams -= 1;
        let Some(id) = link.id else {
            if !link.close_is_reset {
                self.model
                    .accuse(|| format!("link {number}: turned away without a reset"));
            }
            return;
        };
        self.stale.push(id);
        self.model.settle();
        // To one whose connection was never made nothing was said.
        let was_made = self.model.ledgers[number].connecting_since.is_none();
        if !self.links[number].close_is_reset && was_made {
            self.check_orderly_close(number);
        }
    }

    fn check_orderly_close(&mut self, number: usize) {
        let link = &self.links[number];
        let ledger = &self.model.ledgers[number];
        let both_ended = ledger.ended && (ledger.end_read || ledger.closing);
        let unread = link.waiting() > 0 && !link.edge_in;
        let may_close = ledger.is_alive() || ledger.is_dismissed();
        if ledger.queue() > 0 || !link.is_settled() || !both_ended || !may_close || unread {
            let fault = format!("link {number}: closed without a reset, though {link:?}; {ledger:?}");
            self.model.accuse(|| fault);
        }
        self.check_complete(number);
        self.check_whole(number);
    }

    /// Once both sides have ended in order, everything has arrived.
    fn check_complete(&mut self, number: usize) {
        let from = match self.plan.kind {
            Kind::Echo | Kind::FramedEcho => Some(number),
            Kind::Tunnel => self.links[number].partner,
            Kind::Herald => None,
        };
        let Some(from) = from else { return };
        let source = &self.model.ledgers[from];
        if !source.end_read || source.thrown > 0 || source.cut_short || self.links[from].reset {
            return;
        }
        let owed = match self.plan.kind {
            Kind::FramedEcho => source.frames.whole_bytes,
            _ => self.links[from].sent,
        };
        let (taken, read) = (self.links[number].taken, self.links[from].read);
        if taken != owed {
            self.model.accuse(|| {
                format!("link {number}: ended in order with {taken} of {owed} bytes, {read} read")
            });
        }
    }

    fn accept(&mut self) -> io::Result<(usize, SocketAddr)> {
        self.call();
        if self.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.open_streams >= self.descriptors() {
            self.accept_failed = true;
            self.refused_accepts += 1;
            note!(self, 22, 0, 0, "accept fails");
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        self.accept_failed = false;
        let Some(number) = self.backlog.pop_front() else {
            note!(self, 23, 0, 0, "nobody to accept");
            return Err(ErrorKind::WouldBlock.into());
        };
        if self.links[number].reset && self.rng.bool() {
            self.links[number].closed = true;
            return Err(ErrorKind::ConnectionAborted.into());
        }
        note!(self, 24, number, 0, "accept link {number}");
        self.open_streams += 1;
        Ok((number, address(number)))
    }

    fn connect(&mut self) -> io::Result<usize> {
        self.call();
        if self.open_streams >= self.descriptors() {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let number = self.new_link(Connecting::Pending);
        // When one address has failed, the next is tried on that occasion.
        let sake = match self.called_for {
            Some(number) if self.links[number].is_upstream => self.links[number].partner,
            sake => sake,
        };
        self.links[number].is_upstream = true;
        note!(self, 25, number, 0, "connect link {number} for {sake:?}");
        self.links[number].partner = sake;
        if let Some(client) = sake {
            self.links[client].partner = Some(number);
        }
        self.open_streams += 1;
        Ok(number)
    }

    fn register(&mut self, number: usize, id: ClientId) -> io::Result<()> {
        self.call();
        if self.has(Trouble::FailedAccepts) && self.rng.u8(..32) == 0 {
            note!(self, 26, number, 0, "link {number} cannot be registered");
            self.accept_failed = true;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        note!(self, 27, number, id.to_token(), "link {number} is {id:?}");
        let token = id.to_token();
        let index = token & 0xffff_ffff;
        if self.places.len() <= index {
            self.places.resize(index + 1, (usize::MAX, usize::MAX));
        }
        self.places[index] = (token, number);
        let link = &mut self.links[number];
        let connecting = link.connecting != Connecting::Made;
        link.id = Some(id);
        link.edge_out = !connecting;
        link.edge_in = link.unread();
        self.model.admit(number, index as u32, connecting);
        if !connecting || self.links[number].edge_in {
            self.queue(number);
        }
        Ok(())
    }

    /// A service has a client reset or rejected.
    pub(crate) fn doom(&mut self, number: usize, doom: Doom) {
        self.model.settle();
        self.model.doom(number, doom);
    }
}

/// What one event says: only what is new, or all that holds.
fn event(link: &Link, sparse: bool) -> Event {
    let at_end = link.peer_ended || link.reset || link.connecting == Connecting::Refused;
    if sparse {
        Event {
            readable: link.edge_in,
            writable: link.edge_out,
            read_again: link.edge_in && at_end,
        }
    } else {
        Event {
            readable: link.waiting() > 0 || at_end,
            writable: link.edge_out || (link.connecting == Connecting::Made && !link.refused),
            read_again: at_end,
        }
    }
}

/// Every link has an address of its own.
pub(crate) fn address(number: usize) -> SocketAddr {
    let [_, a, b, c] = (number as u32).to_be_bytes();
    (Ipv4Addr::new(10, a, b, c), 4000).into()
}

/// The simulated network, as the engine sees it.
pub(crate) struct SimulatedNetwork(pub(crate) Shared);

impl Network for SimulatedNetwork {
    type Stream = SimulatedStream;

    fn accept(&mut self) -> io::Result<(SimulatedStream, SocketAddr)> {
        let (number, peer) = self.0.borrow_mut().accept()?;
        let world = Rc::clone(&self.0);
        Ok((SimulatedStream { world, number }, peer))
    }

    fn register(&mut self, stream: &mut SimulatedStream, id: ClientId) -> io::Result<()> {
        self.0.borrow_mut().register(stream.number, id)
    }

    fn connect(&mut self, _: SocketAddr) -> io::Result<SimulatedStream> {
        let number = self.0.borrow_mut().connect()?;
        let world = Rc::clone(&self.0);
        Ok(SimulatedStream { world, number })
    }

    fn stop_listening(&mut self) {
        let mut world = self.0.borrow_mut();
        if !std::mem::replace(&mut world.listening, false) {
            world.model.accuse(|| "stopped listening twice".to_owned());
        }
        for number in std::mem::take(&mut world.backlog) {
            world.links[number].closed = true;
        }
    }
}

/// The engine's end of one link.
pub(crate) struct SimulatedStream {
    world: Shared,
    number: usize,
}

impl Read for SimulatedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.world.borrow_mut().read(self.number, buffer)
    }
}

impl Write for SimulatedStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.world.borrow_mut().write(self.number, &[IoSlice::new(data)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.world.borrow_mut().write(self.number, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for SimulatedStream {
    fn descriptor(&self) -> i32 {
        self.number as i32
    }

    fn finish_connect(&mut self) -> io::Result<bool> {
        self.world.borrow_mut().finish_connect(self.number)
    }

    fn shut_down_write(&mut self) -> io::Result<()> {
        self.world.borrow_mut().shut_down_write(self.number)
    }

    fn reset_on_close(&mut self) {
        self.world.borrow_mut().links[self.number].close_is_reset = true;
    }

    fn is_settled(&self) -> bool {
        let mut world = self.world.borrow_mut();
        world.call();
        world.links[self.number].is_settled()
    }

    fn peer_state(&self) -> PeerState {
        PeerState::NotReading
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        self.world.borrow_mut().close(self.number);
    }
}
