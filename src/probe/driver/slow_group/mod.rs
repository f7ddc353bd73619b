//! The slow clients of one probe: connects them, and lets each go at its own pace.
//!
//! Owns their sockets. Whatever they have to do waits for its turn, so that
//! filling thousands of them does not itself make the healthy ones wait.
//! Judges nothing.

mod looks;

use std::time::{Duration, Instant};

use mio::Registry;
use mio::event::Event;

use crate::probe::clients::healthy::Turn;
use crate::probe::clients::opening::Opening;
use crate::probe::clients::slow::SlowClient;
use crate::probe::driver::clock;
use crate::probe::driver::proxy;
use crate::probe::driver::ready_list::ReadyList;
use crate::probe::driver::seen;
use crate::probe::driver::socket::{self, Buffers, CONNECTING_AT_ONCE, ClientStream, Opened};
use crate::probe::error::ProbeError;
use crate::probe::kind::Disconnect;
use crate::probe::kind::{Reading, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::protocol::{Conversations, Wire};
use crate::probe::report::measurement::SlowClientSeen;

/// Clients that begin to connect between two polls.
const CONNECTS_BETWEEN_POLLS: usize = 8;
/// How long a client may take to fill up.
pub(crate) const FILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long after its time a client that was to go is still waited for, and
/// how long a paused one may take to read everything.
pub(crate) const MARGIN: Duration = Duration::from_millis(1500);

/// The send buffer of all: from 40 KB up loopback keeps its speed.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// All slow clients. Their tokens follow those of the healthy ones.
pub(crate) struct SlowClients<'a, S> {
    plan: &'a Plan,
    conversations: &'a dyn Conversations,
    registry: Registry,
    /// Who is to join, in order.
    kinds: Vec<SlowKind>,
    clients: Vec<SlowClient<S>>,
    ports: Vec<u16>,
    /// Those that have not taken all the steps before the protocol.
    openings: Vec<Option<Box<Opening>>>,
    /// Those that have something to do.
    more: ReadyList,
    connecting: usize,
    /// Those that do something by the clock, and are looked at in every tick.
    minding: Vec<usize>,
    /// With whom the next tick begins.
    next_looked_at: usize,
}

/// How many have come how far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlowCounts {
    pub(crate) connected: usize,
    pub(crate) full: usize,
    pub(crate) ended: usize,
}

impl<'a, S: ClientStream> SlowClients<'a, S> {
    /// None of them is connected yet.
    pub(crate) fn new(plan: &'a Plan, conversations: &'a dyn Conversations, registry: Registry) -> Self {
        Self {
            plan,
            conversations,
            registry,
            kinds: plan.slow_kinds(),
            clients: Vec::new(),
            ports: Vec::new(),
            openings: Vec::new(),
            more: ReadyList::default(),
            connecting: 0,
            minding: Vec::new(),
            next_looked_at: 0,
        }
    }

    /// How many there will be.
    pub(crate) fn planned(&self) -> usize {
        self.kinds.len()
    }

    /// Whether some have not begun to connect.
    pub(crate) fn are_missing(&self) -> bool {
        self.clients.len() < self.kinds.len()
    }

    /// Begins to connect the first of those that are missing.
    pub(crate) fn connect_some(&mut self) -> Result<(), ProbeError> {
        let room = CONNECTING_AT_ONCE.saturating_sub(self.connecting);
        let first = self.clients.len();
        let last = (first + room.min(CONNECTS_BETWEEN_POLLS)).min(self.kinds.len());
        for index in first..last {
            self.connect(self.kinds[index])?;
        }
        Ok(())
    }

    fn connect(&mut self, kind: SlowKind) -> Result<(), ProbeError> {
        let index = self.clients.len();
        let (stream, opening, wire) = self.open(index, kind)?;
        self.ports.push(port_of(&stream));
        self.openings.push(Some(opening));
        let now = clock::now();
        let traits = *self.plan.protocol.traits();
        let client = SlowClient::new(stream, kind, wire, traits, self.plan.fill, now);
        self.clients.push(match kind.row().reading {
            Reading::AfterPause => client.pausing(self.plan.pause),
            Reading::Paced => client.reading_at(self.plan.slow[kind].rate_bytes, now),
            _ => client,
        });
        if self.clients[index].minds_the_clock() {
            self.minding.push(index);
        }
        self.connecting += 1;
        Ok(())
    }

    /// A client whose server closed it in order comes back on a new connection.
    fn come_back(&mut self, index: usize, now: Instant) {
        match self.open(index, self.clients[index].kind()) {
            Ok((stream, opening, wire)) => {
                self.ports[index] = port_of(&stream);
                self.openings[index] = Some(opening);
                self.clients[index].come_back(stream, wire, now);
                self.connecting += 1;
            }
            Err(_) => self.clients[index].stay_away(now),
        }
    }

    /// Begins to connect.
    fn open(&self, index: usize, kind: SlowKind) -> Result<(S, Box<Opening>, Wire), ProbeError> {
        let number = self.plan.fast + index;
        let buffers = Buffers {
            receive: Some(kind.row().receive_buffer_bytes),
            send: Some(SEND_BUFFER_BYTES),
        };
        let mut stream = socket::start_connecting(self.plan.address, buffers)
            .map_err(ProbeError::system("open a socket for a slow client"))?;
        socket::watch(&self.registry, &mut stream, number)?;
        let wire = self.conversations.slow(number as u64, self.plan.size);
        let header = proxy::header(self.plan, stream.local_addr().ok());
        let opening = Opening::new(header, self.plan.opening.as_slice().into());
        Ok((S::over(stream, self.plan), Box::new(opening), wire))
    }

    /// Whether nothing more has to be waited for to judge them.
    pub(crate) fn are_settled(&self, now: Instant) -> bool {
        !self.are_missing() && self.clients.iter().all(|client| self.is_settled(client, now))
    }

    fn is_settled(&self, client: &SlowClient<S>, now: Instant) -> bool {
        if client.end().is_some() || client.is_complete() || client.corruption().is_some() {
            return true;
        }
        let since = |start: Instant| now.saturating_duration_since(start);
        let joined = since(client.joined());
        match client.kind().row().reading {
            // As long as bytes still come back, even a busy machine is given its time.
            Reading::AfterPause => since(client.last_progress()) > self.plan.pause + FILL_PATIENCE,
            Reading::Paced if client.kind().is_kept() => joined > self.plan.within + MARGIN,
            Reading::Paced => joined > self.plan.within + 2 * MARGIN,
            _ => match client.full_at() {
                Some(full) => since(full) > self.plan.within + MARGIN + client.time_to_notice(),
                None => joined > FILL_PATIENCE + self.plan.within,
            },
        }
    }

    /// Takes note of an event. What there is to send and to read waits for its
    /// turn, unless the connection is over. Answers how long that took, where
    /// it was more than a note.
    pub(crate) fn serve(&mut self, index: usize, event: &Event, buffer: &mut [u8]) -> Option<Duration> {
        let is_over = event.is_error() || event.is_read_closed() || event.is_write_closed();
        let is_note = self.clients[index].is_connected() && !is_over;
        let took = (!is_note).then(|| {
            let begun = clock::now();
            if self.clients[index].is_connected() {
                self.serve_end(index, event, begun, buffer);
            } else {
                self.finish_connecting(index, event, begun);
            }
            clock::now() - begun
        });
        if self.clients[index].end().is_none() {
            self.more.push(index);
        }
        took
    }

    fn finish_connecting(&mut self, index: usize, event: &Event, now: Instant) {
        let client = &mut self.clients[index];
        match socket::open(client.stream_mut(), &mut self.openings[index], event) {
            Opened::NotYet => {}
            Opened::Stands(rest) => {
                client.set_connected(now, &rest);
                self.connecting = self.connecting.saturating_sub(1);
            }
            Opened::Failed => {
                self.connecting = self.connecting.saturating_sub(1);
                if client.was_connected() {
                    client.stay_away(now);
                } else {
                    client.ended(now, Disconnect::NotConnected);
                }
            }
        }
    }

    /// A connection is over: what it still brought is read before its end is noted.
    fn serve_end(&mut self, index: usize, event: &Event, now: Instant, buffer: &mut [u8]) {
        let client = &mut self.clients[index];
        if client.is_reading() && event.is_readable() {
            client.read(now, buffer);
        }
        if client.end().is_none() {
            // A reset is told from an end of file without reading, as these clients do not read.
            let reset = matches!(client.stream().tcp().take_error(), Ok(Some(_))) || event.is_error();
            let end = if reset {
                Disconnect::Reset
            } else {
                Disconnect::EndOfFile
            };
            if reset || !client.is_reading() {
                client.ended(now, end);
            }
        }
        if client.end().is_some() {
            client.settle_end(now, buffer);
        }
    }

    /// Whether some have something to do.
    pub(crate) fn have_more(&self) -> bool {
        !self.more.is_empty()
    }

    /// Goes on with a few that have something to do.
    pub(crate) fn go_on(&mut self, buffer: &mut [u8]) {
        for _ in 0..self.more.turns() {
            let Some(index) = self.more.pop() else { return };
            let now = clock::now();
            let client = &mut self.clients[index];
            let sent = client.send(now, buffer);
            let read = client.read(now, buffer);
            self.follow(index, if sent == Turn::More { sent } else { read }, buffer);
        }
    }

    fn follow(&mut self, index: usize, turn: Turn, buffer: &mut [u8]) {
        match turn {
            Turn::More => self.more.push(index),
            Turn::Ended(_) => self.clients[index].settle_end(clock::now(), buffer),
            Turn::Done => {}
        }
    }

    /// Their ports, as the server sees them.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Clients that the server must keep stop sending, and read all that still comes.
    pub(crate) fn let_kept_finish(&mut self) {
        for client in &mut self.clients {
            if client.kind().is_kept() {
                client.finish();
            }
        }
    }

    /// All of them stop sending and read, so that an end of file behind unread data is seen.
    pub(crate) fn let_all_finish(&mut self) {
        for client in &mut self.clients {
            client.finish();
        }
    }

    /// Whether one that should get everything got something so recently.
    pub(crate) fn are_receiving(&self, now: Instant, recently: Duration) -> bool {
        self.clients.iter().any(|client| {
            let since = now.saturating_duration_since(client.last_progress());
            client.kind().is_kept() && client.is_verifiable() && !client.is_over() && since < recently
        })
    }

    /// Whether nothing more comes from any of them.
    pub(crate) fn are_over(&self) -> bool {
        self.clients.iter().all(SlowClient::is_over)
    }

    /// How many have come how far.
    pub(crate) fn counts(&self) -> SlowCounts {
        let count =
            |test: fn(&SlowClient<S>) -> bool| self.clients.iter().filter(|client| test(client)).count();
        SlowCounts {
            connected: count(|client| client.is_connected() && client.end().is_none()),
            full: count(|client| client.full_at().is_some()),
            ended: count(|client| client.end().is_some()),
        }
    }

    /// What was seen of them, and they themselves with their connections.
    pub(crate) fn finish(self, epoch: Instant) -> (Vec<SlowClientSeen>, Vec<SlowClient<S>>) {
        let with_ports = self.clients.iter().zip(&self.ports);
        let seen = with_ports
            .map(|(client, port)| seen::slow_client(client, *port, epoch))
            .collect();
        (seen, self.clients)
    }
}

fn port_of(stream: &impl ClientStream) -> u16 {
    stream.tcp().local_addr().map_or(0, |address| address.port())
}
