//! What the peers do: connect, send, read, stall, trickle, end and reset, at
//! random, and at last in order.
//!
//! Owns their behaviour and the edges that follow from it. Edges are those of
//! edge-triggered epoll: one for each transition, and none for bytes left after
//! a partial read. Data and FIN share an event when both came before the wait.
//! Room for writing is announced only after a write was refused or came back
//! short.

use std::collections::VecDeque;

use super::content::Content;
use super::introduction;
use super::link::{Connecting, Link, Reading};
use super::plan::{Kind, Trouble};
use super::world::World;

/// The most bytes that a peer still sends once all peers end.
const CALM_STREAM_BYTES: usize = 2000;

/// Whether this client sends a part of its header and no more.
const fn is_silent(number: usize) -> bool {
    number % 8 == 7
}

impl World {
    pub(crate) fn new_link(&mut self, connecting: Connecting) -> usize {
        let number = self.links.len();
        let most = if self.calm {
            CALM_STREAM_BYTES
        } else {
            self.plan.stream_bytes
        };
        let total = self.rng.usize(..=most);
        let is_client = connecting == Connecting::Made;
        let header = (is_client && self.plan.proxied)
            .then(|| introduction::header(self.plan.seed, number, self.plan.peer_addresses));
        let header_bytes = header.as_ref().map_or(0, |(bytes, _)| bytes.len());
        let content = if let Some((header, _)) = &header {
            Content::introduced(header, number, total)
        } else if self.plan.kind == Kind::FramedEcho {
            Content::frames(
                &mut self.rng,
                number,
                self.plan.max_frame_bytes,
                total.min(60_000),
            )
        } else {
            Content::pattern(number)
        };
        // Some send a part of their header and no more.
        let left_to_send = content.len().min((total + header_bytes) as u64);
        let left_to_send = match header_bytes {
            0 => left_to_send,
            _ if is_silent(number) => left_to_send.min(header_bytes as u64 / 2),
            _ => left_to_send,
        };
        self.links.push(Link {
            id: None,
            is_upstream: false,
            partner: None,
            upstream_of: None,
            content,
            header: header.map(|(_, header)| header),
            header_bytes: header_bytes as u64,
            connecting,
            sent: 0,
            read: 0,
            left_to_send,
            urgent_at: None,
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
            unregistered: false,
            given_up_before: Vec::new(),
            longest_retransmission: None,
            close_is_reset: false,
            closed: false,
            said_closed: false,
            was_slow: false,
            read_in_turn: 0,
            dry_turn: 0,
            read_on: false,
            interrupted_turn: 0,
            tried_turn: 0,
        });
        self.open.push(number);
        self.change_mood(number);
        number
    }

    /// A peer connects and waits to be accepted.
    pub(crate) fn arrive(&mut self) {
        if !self.listening {
            return;
        }
        let number = self.new_link(Connecting::Made);
        note!(self, 2, number, 0, "link {number} connects");
        self.links[number].given_up_before = self.given_up_seats();
        if self.backlog.is_empty() || !self.has(Trouble::SparseEvents) {
            self.listener_edge = true;
        }
        self.backlog.push_back(number);
    }

    /// One client leaves, and the next comes, in the middle of a turn.
    pub(crate) fn swap_peers(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let number = self.open[self.rng.usize(..self.open.len())];
        let link = &self.links[number];
        let may_leave = link.connecting == Connecting::Made && !link.reset && !link.closed;
        if may_leave && self.peers_left > 0 {
            self.peers_left -= 1;
            self.peer_resets(number);
            self.arrive();
        }
    }

    /// Clients that are gone and of which nothing is under way any more, where
    /// seats are few and nothing keeps the engine from knowing it.
    fn given_up_seats(&self) -> Vec<usize> {
        let is_limited = self.plan.max_clients < 1000 || self.plan.peer_addresses.is_some();
        let troubles = [Trouble::LateEvents, Trouble::Interrupts, Trouble::Floods];
        let is_blurred = troubles.into_iter().any(|trouble| self.has(trouble));
        if !is_limited || is_blurred || self.plan.kind == Kind::Meddler {
            return Vec::new();
        }
        let is_gone = |&number: &usize| {
            let (link, kind) = (&self.links[number], self.plan.kind);
            let has_ended = matches!(kind, Kind::Echo | Kind::FramedEcho)
                && (link.peer_ended && link.waiting() == 0 && link.is_settled())
                && self
                    .model
                    .ledgers
                    .get(number)
                    .is_some_and(|ledger| ledger.queue() == 0);
            link.id.is_some() && !link.is_upstream && !link.closed && (link.reset || has_ended)
        };
        self.open.iter().copied().filter(is_gone).collect()
    }

    pub(crate) fn change_mood(&mut self, number: usize) {
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

    pub(crate) fn act_on(&mut self, number: usize) {
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

    pub(crate) fn decide_connection(&mut self, number: usize) {
        if self.plan.silent_upstreams && !self.calm && !number.is_multiple_of(8) {
            return;
        }
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

    pub(crate) fn peer_sends(&mut self, number: usize) {
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
        let urgent = self.has(Trouble::Urgent) && self.rng.u8(..8) == 0;
        if urgent {
            let link = &mut self.links[number];
            let at = link.sent - self.rng.u64(..=count);
            note!(self, 28, number, at, "link {number} has urgent data at {at}");
            self.links[number].urgent_at = Some(at);
        }
        if was_empty || urgent || !self.has(Trouble::SparseEvents) {
            self.links[number].edge_in = true;
            self.queue(number);
        }
    }

    pub(crate) fn peer_ends(&mut self, number: usize) {
        if self.links[number].peer_ended {
            return;
        }
        note!(self, 6, number, 0, "link {number} ends");
        let link = &mut self.links[number];
        link.peer_ended = true;
        link.edge_in = true;
        self.queue(number);
    }

    pub(crate) fn peer_resets(&mut self, number: usize) {
        note!(self, 7, number, 0, "link {number} resets");
        let link = &mut self.links[number];
        link.reset = true;
        link.edge_in = true;
        link.edge_out = true;
        self.queue(number);
    }

    /// Moves bytes from our kernel's buffer to the peer's.
    pub(crate) fn deliver(&mut self, number: usize) {
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

    pub(crate) fn peer_reads(&mut self, number: usize) {
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

    /// Room is announced only after a refusal, and only once half of the kernel's
    /// buffer is free.
    pub(crate) fn announce_room(&mut self, number: usize) {
        let threshold = (self.plan.kernel_bytes / 2) as u64;
        let link = &mut self.links[number];
        if link.refused && link.in_kernel() <= threshold {
            link.refused = false;
            link.edge_out = true;
            self.queue(number);
        }
    }

    pub(crate) fn queue(&mut self, number: usize) {
        let link = &mut self.links[number];
        if !link.queued && link.id.is_some() && !link.closed {
            link.queued = true;
            self.queued.push(number);
        }
    }

    /// Every peer reads everything, sends its last bytes, and ends.
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
                let link = &self.links[number];
                // Who owes the rest of a header is silent until that is too late.
                let owes_header = link.peer_ended || link.sent < link.header_bytes && is_silent(number);
                if link.left_to_send == 0 && !owes_header {
                    self.peer_ends(number);
                }
            }
        }
        self.open.retain(|&number| !self.links[number].closed);
    }
}
