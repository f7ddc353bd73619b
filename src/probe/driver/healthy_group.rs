//! The healthy clients of one probe: connects them, and keeps each busy.
//!
//! Owns their sockets, and the list of those that have more to do without
//! waiting for an event. Refuses to ask for the time while it serves an event,
//! as that would cost each message.

use std::net::Shutdown;
use std::time::Instant;

use mio::Registry;
use mio::event::Event;

use crate::probe::clients::healthy::{HealthyClient, Turn};
use crate::probe::clients::moment::Moment;
use crate::probe::clients::opening::Opening;
use crate::probe::clients::tally::Tally;
use crate::probe::driver::clock;
use crate::probe::driver::proxy;
use crate::probe::driver::ready_list::ReadyList;
use crate::probe::driver::seen;
use crate::probe::driver::socket::{self, Buffers, CONNECTING_AT_ONCE, ClientStream, Opened};
use crate::probe::error::ProbeError;
use crate::probe::plan::Plan;
use crate::probe::protocol::Conversations;
use crate::probe::report::measurement::Healthy;

/// Ended connections whose age is kept to compare that of slow clients with.
const MOST_LIFETIMES: usize = 1000;

/// All healthy clients. Their tokens count from 0.
pub(crate) struct HealthyClients<'a, S> {
    plan: &'a Plan,
    conversations: &'a dyn Conversations,
    registry: Registry,
    clients: Vec<HealthyClient<S>>,
    connected: Vec<bool>,
    /// Those that have not taken all the steps before the protocol.
    openings: Vec<Option<Box<Opening>>>,
    answered: Vec<bool>,
    /// When the connection of each stood.
    stood: Vec<Instant>,
    ends: Ends,
    more: ReadyList,
    connecting: usize,
    has_started: bool,
    /// Whether they go on sending.
    are_sending: bool,
}

/// Connections that the server ended.
#[derive(Default)]
struct Ends {
    in_order: usize,
    /// In seconds.
    lifetimes: Vec<f64>,
}

impl Ends {
    fn note(&mut self, stood: Instant) {
        if self.lifetimes.len() < MOST_LIFETIMES {
            self.lifetimes.push((clock::now() - stood).as_secs_f64());
        }
    }
}

impl<'a, S: ClientStream> HealthyClients<'a, S> {
    /// None of them is connected yet.
    pub(crate) fn new(plan: &'a Plan, conversations: &'a dyn Conversations, registry: Registry) -> Self {
        Self {
            plan,
            conversations,
            registry,
            clients: Vec::new(),
            connected: Vec::new(),
            openings: Vec::new(),
            answered: Vec::new(),
            stood: Vec::new(),
            ends: Ends::default(),
            more: ReadyList::default(),
            connecting: 0,
            has_started: false,
            are_sending: true,
        }
    }

    /// Begins to connect the clients that are missing, a few at once. Call again after
    /// each turn until [`are_connected`](Self::are_connected).
    pub(crate) fn connect_some(&mut self) -> Result<(), ProbeError> {
        while self.connecting < CONNECTING_AT_ONCE && self.clients.len() < self.plan.fast {
            let (client, opening) = self.connect(self.clients.len())?;
            self.clients.push(client);
            self.openings.push(Some(opening));
            self.connected.push(false);
            self.answered.push(false);
            self.stood.push(clock::now());
            self.connecting += 1;
        }
        Ok(())
    }

    /// Whether each of them is connected, or never will be.
    pub(crate) fn are_connected(&self) -> bool {
        self.connecting == 0 && self.clients.len() == self.plan.fast
    }

    fn connect(&self, index: usize) -> Result<(HealthyClient<S>, Box<Opening>), ProbeError> {
        let buffers = if self.plan.protocol.traits().echoes {
            Buffers::of_healthy(self.plan.size.saturating_mul(self.plan.pipeline as usize))
        } else {
            Buffers::default()
        };
        let mut stream = socket::start_connecting(self.plan.address, buffers)
            .map_err(ProbeError::system("open a socket for a healthy client"))?;
        socket::watch(&self.registry, &mut stream, index)?;
        let wire = self.conversations.healthy(index as u64, self.plan.size);
        let header = proxy::header(self.plan, stream.local_addr().ok());
        let opening = Opening::new(header, self.plan.opening.as_slice().into());
        let client = HealthyClient::new(S::over(stream, self.plan), wire, self.plan.pipeline);
        Ok((client, Box::new(opening)))
    }

    /// Lets all who are connected begin.
    pub(crate) fn start(&mut self, now: Moment, buffer: &mut [u8]) {
        // Those still connecting are given up: their tokens stay, so that the others keep theirs.
        self.connecting = 0;
        self.has_started = true;
        for index in 0..self.clients.len() {
            if self.connected[index] {
                let turn = self.clients[index].start(now, buffer);
                self.follow(index, turn);
                // What came with the connection was announced by an edge that is used up.
                self.more.push(index);
            }
        }
    }

    /// Lets nobody send any more.
    pub(crate) fn stop(&mut self) {
        self.are_sending = false;
    }

    /// Whether there is more to do without waiting for an event.
    pub(crate) fn have_more(&self) -> bool {
        !self.more.is_empty()
    }

    /// Serves an event of one of them.
    #[inline]
    pub(crate) fn serve(
        &mut self,
        index: usize,
        event: &Event,
        now: Moment,
        buffer: &mut [u8],
        tally: &mut Tally,
    ) {
        if !self.connected[index] {
            return self.finish_connecting(index, event, now, buffer, tally);
        }
        let client = &mut self.clients[index];
        let mut turn = Turn::Done;
        if event.is_readable() {
            let closed = event.is_read_closed() || event.is_error();
            turn = client.readable(now, closed, self.are_sending, buffer, tally);
            self.answered[index] = true;
        } else if event.is_writable() {
            turn = client.writable(buffer);
        }
        self.follow(index, turn);
    }

    #[cold]
    fn finish_connecting(
        &mut self,
        index: usize,
        event: &Event,
        now: Moment,
        buffer: &mut [u8],
        tally: &mut Tally,
    ) {
        let client = &mut self.clients[index];
        match socket::open(client.stream_mut(), &mut self.openings[index], event) {
            Opened::NotYet => {}
            Opened::Stands(rest) => {
                self.connected[index] = true;
                self.stood[index] = clock::now();
                self.connecting = self.connecting.saturating_sub(1);
                let turn = client.receive_first(&rest, now, tally);
                self.follow(index, turn);
                if self.has_started && self.are_sending {
                    let turn = self.clients[index].start(now, buffer);
                    self.follow(index, turn);
                    self.more.push(index);
                }
            }
            Opened::Failed => {
                self.connecting = self.connecting.saturating_sub(1);
                if self.answered[index] {
                    client.give_up();
                }
            }
        }
    }

    /// Goes on with a few that have more to do.
    pub(crate) fn go_on(&mut self, epoch: Instant, buffer: &mut [u8], tally: &mut Tally) {
        for _ in 0..self.more.turns() {
            let Some(index) = self.more.pop() else { return };
            let now = Moment::of(clock::now(), epoch);
            if !self.connected[index] {
                continue;
            }
            // An end that an earlier edge announced may wait behind a short read.
            let turn = self.clients[index].readable(now, true, self.are_sending, buffer, tally);
            self.answered[index] |= self.clients[index].received_bytes() > 0;
            self.follow(index, turn);
        }
    }

    #[inline]
    fn follow(&mut self, index: usize, turn: Turn) {
        if turn != Turn::Done {
            self.come_back(index, turn);
        }
    }

    fn come_back(&mut self, index: usize, turn: Turn) {
        match turn {
            Turn::More => self.more.push(index),
            Turn::Ended(_) if self.clients[index].is_closed_in_order() => {
                self.ends.note(self.stood[index]);
                self.ends.in_order += 1;
                self.answered[index] = true;
                self.reconnect(index);
            }
            Turn::Ended(_) => {
                self.ends.note(self.stood[index]);
                // It is out of the measurement; its socket is closed so that it costs the server nothing more.
                let _ = self.clients[index].stream_mut().tcp().shutdown(Shutdown::Both);
            }
            Turn::Done => {}
        }
    }

    /// A client whose server closed it as announced comes back with a new connection.
    fn reconnect(&mut self, index: usize) {
        if let Ok((client, opening)) = self.connect(index) {
            self.clients[index] = client;
            self.openings[index] = Some(opening);
            self.connected[index] = false;
        }
    }

    /// When the oldest message without an answer was sent, of the clients that still take part.
    pub(crate) fn oldest_waiting(&self) -> Option<Moment> {
        let playing = self.clients.iter().filter(|client| client.end().is_none());
        playing.filter_map(|client| client.waiting().next()).min()
    }

    /// Whether nobody has sent anything that is not answered.
    pub(crate) fn are_idle(&self) -> bool {
        self.clients.iter().all(HealthyClient::is_idle)
    }

    /// What was seen of them, and they themselves with their connections. What has no answer by
    /// `now` is charged.
    pub(crate) fn finish(self, now: Moment, tally: &mut Tally) -> (Healthy, Vec<HealthyClient<S>>) {
        for client in &self.clients {
            for sent in client.waiting() {
                tally.unanswered(sent, now);
            }
        }
        let seen = Healthy {
            closed_in_order: self.ends.in_order,
            lifetimes: self.ends.lifetimes,
            ..seen::healthy(&self.clients, &self.connected, &self.answered, tally)
        };
        (seen, self.clients)
    }
}
