//! Drives all clients of one probe from one thread, and writes down what it sees.
//!
//! Owns the poll and the sockets, and asks for the time. Judges nothing.

use std::io;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::clock::{self, MessageClock};
use super::error::ProbeError;
use super::fast::{BUFFER_BYTES, End, FastClient, Turn};
use super::kernel_queue;
use super::measurement::{Measurement, PublisherSeen, Slice};
use super::moment::Moment;
use super::pattern::Pattern;
use super::plan::{Plan, Protocol};
use super::publisher::Publisher;
use super::quiet::{QuietClients, QuietPlan};
use super::ready_list::ReadyList;
use super::seen;
use super::server_process::Observer;
use super::slow::{Kind, SlowClient};
use super::socket::{self, Buffers, DirectStream};
use super::tally::Tally;
use super::ticker::Ticker;
use super::watcher::{Live, Phase, Watcher};
use super::wires::Wires;

/// How often slow clients are looked at: fine enough for a pace of 64 KiB/s in steps of 1.3 KB.
const TICK: Duration = Duration::from_millis(20);
/// The token of the ticks; those of clients count from 0.
const TICKER: Token = Token(usize::MAX - 1);

/// Most slow clients looked at in one tick, in turn. Each costs some 3 µs of system calls; all of
/// a thousand at every tick would take a fifth of the time that the healthy clients need.
const CLIENTS_PER_TICK: usize = 256;
/// One slice of the timeline.
pub(crate) const SLICE: Duration = Duration::from_millis(100);
/// Events fetched at once.
const EVENTS_PER_POLL: usize = 1024;
/// Healthy clients with more to do, and slow ones, that are served between two polls, 64 KiB
/// each. Whatever slow clients have to do waits for its turn here, so that filling thousands of
/// them does not itself make the healthy ones wait: some 1 ms.
const TURNS_BETWEEN_POLLS: usize = 8;
/// Connections being made at once; below any usual listen backlog.
const CONNECTING_AT_ONCE: usize = 64;
/// Slow clients that begin to connect between two polls, for the same reason.
const CONNECTS_BETWEEN_POLLS: usize = 8;
/// How long connecting may take before the rest counts as not connected.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long after its time a client that was to go is still waited for, and
/// how long a paused one may take to read everything.
const MARGIN: Duration = Duration::from_millis(1500);
/// How long a slow client may take to fill up.
const FILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the observer may take for its first look in a phase.
const OBSERVER_PATIENCE: Duration = Duration::from_secs(1);
/// How long the last words of those that stayed are waited for.
const FAREWELL: Duration = Duration::from_secs(1);

/// The receive buffer of those that are to fill up quickly and hide little (facts: a stalled client's kernel).
const SMALL_BUFFER_BYTES: usize = 4 << 10;
/// The receive buffer of those that are to be kept: on loopback the window
/// opens in steps of up to 64 KB, and below that a steady reader looks stalled.
const STEADY_BUFFER_BYTES: usize = 64 << 10;
/// The send buffer of slow clients: from 40 KB up loopback keeps its speed.
const SLOW_SEND_BUFFER_BYTES: usize = 64 << 10;

/// All clients, and what has been seen of them.
pub(crate) struct Driver<'a> {
    plan: &'a Plan,
    wires: &'a Wires,
    poll: Poll,
    ticker: Ticker,
    epoch: Instant,
    /// The end of the last turn.
    now: Instant,
    buffer: Vec<u8>,
    fast: Vec<FastClient<DirectStream>>,
    fast_connected: Vec<bool>,
    fast_answered: Vec<bool>,
    slow: Vec<SlowClient<TcpStream>>,
    slow_ports: Vec<u16>,
    /// Healthy clients that have more to do without waiting for an edge.
    more_of_fast: ReadyList,
    /// Slow clients that have something to do.
    more_of_slow: ReadyList,
    connecting: usize,
    tally: Tally,
    phase: Phase,
    /// Whether healthy clients go on sending.
    go_on: bool,
    is_tick_due: bool,
    /// The slow client with which the next tick begins.
    next_looked_at: usize,
    next_slice: Instant,
    timeline: Vec<Slice>,
    observer: Option<Observer>,
    publisher: Option<Publisher<TcpStream>>,
    quiet: Option<QuietClients>,
    interrupted: bool,
}

impl<'a> Driver<'a> {
    /// A driver without clients. The observer, if any, looks at the server's process.
    pub(crate) fn new(
        plan: &'a Plan,
        wires: &'a Wires,
        observer: Option<Observer>,
    ) -> Result<Self, ProbeError> {
        let now = clock::now();
        let poll = Poll::new().map_err(ProbeError::system("make an epoll"))?;
        let ticker =
            Ticker::start(poll.registry(), TICKER, TICK).map_err(ProbeError::system("start a timer"))?;
        Ok(Self {
            plan,
            wires,
            poll,
            ticker,
            epoch: now,
            now,
            buffer: vec![0; BUFFER_BYTES],
            fast: Vec::new(),
            fast_connected: Vec::new(),
            fast_answered: Vec::new(),
            slow: Vec::new(),
            slow_ports: Vec::new(),
            more_of_fast: ReadyList::default(),
            more_of_slow: ReadyList::default(),
            connecting: 0,
            tally: Tally::default(),
            phase: Phase::Connecting,
            go_on: true,
            is_tick_due: false,
            next_looked_at: 0,
            next_slice: now + SLICE,
            timeline: Vec::new(),
            observer,
            publisher: None,
            quiet: None,
            interrupted: false,
        })
    }

    /// The whole probe: before, during, after.
    pub(crate) fn run(mut self, watcher: &mut dyn Watcher) -> Result<Measurement, ProbeError> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        self.connect_healthy(&mut events, watcher)?;
        self.begin(Phase::Before, &mut events, watcher)?;
        self.start_healthy();
        self.start_publisher()?;
        self.run_for(self.plan.baseline, &mut events, watcher)?;
        if self.has_slow() {
            if self.begin(Phase::During, &mut events, watcher)? {
                self.run_slow(&mut events, watcher)?;
            }
            if self.begin(Phase::After, &mut events, watcher)? {
                self.let_slow_finish();
                self.run_for(self.plan.baseline, &mut events, watcher)?;
            }
        }
        self.tally.end_phase(self.moment(clock::now()));
        if let Some(observer) = &mut self.observer {
            observer.look_last();
        }
        self.note_orphans(clock::now());
        self.bid_farewell(&mut events, watcher)?;
        Ok(self.into_measurement())
    }

    fn has_slow(&self) -> bool {
        self.wires.slow() > 0 || self.plan.quiet.is_some_and(|clients| clients > 0)
    }

    /// Begins a phase, unless the probe was ended. First the observer looks for
    /// the last time in the old one, so that its memory is not that of the new
    /// one; meanwhile everything goes on as it did.
    fn begin(
        &mut self,
        phase: Phase,
        events: &mut Events,
        watcher: &mut dyn Watcher,
    ) -> Result<bool, ProbeError> {
        if let Some(observer) = &self.observer {
            observer.begin_phase(phase);
        }
        let until = clock::now() + OBSERVER_PATIENCE;
        while !self.interrupted && !self.is_observing(phase) && clock::now() < until {
            self.turn(events, watcher)?;
        }
        if !self.interrupted {
            self.phase = phase;
            self.tally.begin_phase(self.moment(clock::now()));
        }
        Ok(!self.interrupted)
    }

    fn is_observing(&self, phase: Phase) -> bool {
        let observer = self.observer.as_ref();
        observer.is_none_or(|observer| observer.has_begun(phase))
    }

    fn connect_healthy(&mut self, events: &mut Events, watcher: &mut dyn Watcher) -> Result<(), ProbeError> {
        let deadline = clock::now() + CONNECT_PATIENCE;
        while !self.interrupted {
            while self.connecting < CONNECTING_AT_ONCE && self.fast.len() < self.plan.fast {
                self.connect_one_healthy()?;
            }
            let now = clock::now();
            if (self.connecting == 0 && self.fast.len() == self.plan.fast) || now >= deadline {
                break;
            }
            self.turn(events, watcher)?;
        }
        Ok(())
    }

    fn connect_one_healthy(&mut self) -> Result<(), ProbeError> {
        let index = self.fast.len();
        let client = self.new_healthy(index)?;
        self.fast.push(client);
        self.fast_connected.push(false);
        self.fast_answered.push(false);
        self.connecting += 1;
        Ok(())
    }

    fn new_healthy(&self, index: usize) -> Result<FastClient<DirectStream>, ProbeError> {
        let buffers = match self.plan.protocol {
            Protocol::Echo | Protocol::Framed => {
                Buffers::of_healthy(self.plan.size.saturating_mul(self.plan.pipeline as usize))
            }
            _ => Buffers::default(),
        };
        let mut stream = socket::start_connecting(self.plan.address, buffers)
            .map_err(ProbeError::system("open a socket for a healthy client"))?;
        self.register(&mut stream, index)?;
        let wire = self.wires.healthy(Pattern::new(index as u64));
        Ok(FastClient::new(
            DirectStream::new(stream),
            wire,
            self.plan.pipeline,
        ))
    }

    fn start_healthy(&mut self) {
        // Those still connecting are given up: their tokens stay, so that the others keep theirs.
        self.connecting = 0;
        let now = self.moment(clock::now());
        for index in 0..self.fast.len() {
            if self.fast_connected[index] {
                let turn = self.fast[index].start(now, &mut self.buffer);
                self.follow(index, turn);
            }
        }
    }

    fn start_publisher(&mut self) -> Result<(), ProbeError> {
        if let Protocol::Push {
            publish: Some(line),
            publish_rate,
            ..
        } = &self.plan.protocol
        {
            // Served at every tick; it needs no events of its own.
            let stream = socket::start_connecting(self.plan.address, Buffers::default())
                .map_err(ProbeError::system("open a socket for the publisher"))?;
            self.publisher = Some(Publisher::new(stream, line.clone(), *publish_rate, clock::now()));
        }
        Ok(())
    }

    fn run_for(
        &mut self,
        time: Duration,
        events: &mut Events,
        watcher: &mut dyn Watcher,
    ) -> Result<(), ProbeError> {
        let until = clock::now() + time;
        while !self.interrupted && self.now < until {
            self.turn(events, watcher)?;
        }
        Ok(())
    }

    fn run_slow(&mut self, events: &mut Events, watcher: &mut dyn Watcher) -> Result<(), ProbeError> {
        let begun = clock::now();
        let at_least = begun + self.plan.baseline;
        let at_most = begun + self.longest_during();
        self.quiet = self.start_quiet();
        let kinds = self.wires.slow_kinds();
        while !self.interrupted {
            let missing = &kinds[self.slow.len()..];
            if !missing.is_empty() {
                self.spend_on_slow(|driver| driver.connect_some_slow(missing))?;
            }
            let now = clock::now();
            let settled = self.quiet.as_ref().is_none_or(QuietClients::is_settled)
                && self.slow.len() == kinds.len()
                && self.slow.iter().all(|client| self.is_settled(client, now));
            if now >= at_most || (now >= at_least && settled) {
                break;
            }
            self.turn(events, watcher)?;
        }
        Ok(())
    }

    /// Quiet clients need to see the server's sockets, and a server that sends what it was sent.
    fn start_quiet(&self) -> Option<QuietClients> {
        let observer = self.observer.as_ref()?;
        let clients = self.plan.quiet.unwrap_or(usize::from(self.plan.stalled > 0));
        let first_pattern = (self.plan.fast + self.wires.slow()) as u64;
        let wire = self.wires.quiet_wires(first_pattern)?;
        if clients == 0 {
            return None;
        }
        QuietClients::start(QuietPlan {
            address: self.plan.address,
            tables: observer.tables(),
            last_look: observer.last_look(),
            wire,
            clients,
            offer: self.plan.fill,
            within: self.plan.within,
            epoch: self.epoch,
        })
    }

    /// The longest that the middle phase can last.
    fn longest_during(&self) -> Duration {
        CONNECT_PATIENCE
            + FILL_PATIENCE
            + self.plan.within.max(self.plan.pause + 4 * FILL_PATIENCE)
            + 2 * MARGIN
    }

    /// Begins to connect the first of those that are missing.
    fn connect_some_slow(&mut self, missing: &[Kind]) -> Result<(), ProbeError> {
        let room = CONNECTING_AT_ONCE.saturating_sub(self.connecting);
        for &kind in missing.iter().take(room.min(CONNECTS_BETWEEN_POLLS)) {
            self.connect_one_slow(kind)?;
        }
        Ok(())
    }

    fn connect_one_slow(&mut self, kind: Kind) -> Result<(), ProbeError> {
        let index = self.slow.len();
        let receive = match kind {
            Kind::Paused | Kind::Steady => STEADY_BUFFER_BYTES,
            _ => SMALL_BUFFER_BYTES,
        };
        let buffers = Buffers {
            receive: Some(receive),
            send: Some(SLOW_SEND_BUFFER_BYTES),
        };
        let mut stream = socket::start_connecting(self.plan.address, buffers)
            .map_err(ProbeError::system("open a socket for a slow client"))?;
        self.register(&mut stream, self.plan.fast + index)?;
        self.slow_ports
            .push(stream.local_addr().map_or(0, |address| address.port()));
        let now = clock::now();
        let wire = self
            .wires
            .slow_wire(Pattern::new((self.plan.fast + index) as u64));
        let client = SlowClient::new(stream, kind, wire, self.plan.fill, now);
        self.slow.push(match kind {
            Kind::Paused => client.pausing(self.plan.pause),
            Kind::Trickle => client.reading_at(self.plan.trickle_rate, now),
            Kind::Steady => client.reading_at(self.plan.steady_rate, now),
            Kind::Stalled | Kind::Quiet | Kind::Talker => client,
        });
        self.connecting += 1;
        Ok(())
    }

    fn register(&self, stream: &mut TcpStream, token: usize) -> Result<(), ProbeError> {
        self.poll
            .registry()
            .register(stream, Token(token), Interest::READABLE | Interest::WRITABLE)
            .map_err(ProbeError::system("watch a socket"))
    }

    /// Whether nothing more has to be waited for to judge this client.
    fn is_settled(&self, client: &SlowClient<TcpStream>, now: Instant) -> bool {
        if client.end().is_some() || client.is_complete() {
            return true;
        }
        let since = |start: Instant| now.saturating_duration_since(start);
        let joined = since(client.joined());
        match client.kind() {
            // As long as bytes still come back, even a busy machine is given its time.
            Kind::Paused => since(client.last_progress()) > self.plan.pause + FILL_PATIENCE,
            Kind::Steady => joined > self.plan.within + MARGIN,
            Kind::Trickle => joined > self.plan.within + 2 * MARGIN,
            Kind::Stalled | Kind::Quiet | Kind::Talker => match client.full_at() {
                Some(full) => since(full) > self.plan.within + MARGIN,
                None => joined > FILL_PATIENCE + self.plan.within,
            },
        }
    }

    /// Waits for events, of which the next tick is one, and serves everything once.
    fn turn(&mut self, events: &mut Events, watcher: &mut dyn Watcher) -> Result<(), ProbeError> {
        let has_more = !self.more_of_fast.is_empty() || !self.more_of_slow.is_empty();
        let wait = has_more.then_some(Duration::ZERO);
        match self.poll.poll(events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ProbeError::system("wait for events")(error)),
        }
        self.serve(events);
        for _ in 0..self.more_of_fast.len().min(TURNS_BETWEEN_POLLS) {
            self.go_on_with_healthy();
        }
        if !self.more_of_slow.is_empty() {
            self.spend_on_slow(|driver| {
                for _ in 0..driver.more_of_slow.len().min(TURNS_BETWEEN_POLLS) {
                    driver.go_on_with_slow();
                }
            });
        }
        self.now = clock::now();
        if std::mem::take(&mut self.is_tick_due) {
            self.spend_on_slow(|driver| driver.tick(driver.now, watcher));
        }
        Ok(())
    }

    /// Does something that healthy clients have to wait for, and counts the time.
    fn spend_on_slow<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let begun = clock::now();
        let outcome = work(self);
        self.tally.spent_on_slow(clock::now() - begun);
        outcome
    }

    fn serve(&mut self, events: &Events) {
        let mut clock = MessageClock::new(self.epoch);
        for event in events {
            let token = event.token().0;
            if token < self.plan.fast {
                self.serve_healthy(token, event, clock.tick());
            } else if event.token() == TICKER {
                self.ticker.take();
                self.is_tick_due = true;
            } else {
                self.serve_slow(token - self.plan.fast, event, &mut clock);
            }
        }
    }

    fn serve_healthy(&mut self, index: usize, event: &Event, now: Moment) {
        if !self.fast_connected[index] {
            let stream = self.fast[index].stream_mut();
            if is_connected(stream, event) {
                self.fast_connected[index] = true;
                self.connecting = self.connecting.saturating_sub(1);
                if self.phase != Phase::Connecting && self.go_on {
                    let turn = self.fast[index].start(now, &mut self.buffer);
                    self.follow(index, turn);
                }
            } else if event.is_error() || event.is_write_closed() {
                self.connecting = self.connecting.saturating_sub(1);
                if self.fast_answered[index] {
                    self.fast[index].give_up();
                }
            }
            return;
        }
        let client = &mut self.fast[index];
        let mut turn = Turn::Done;
        if event.is_readable() {
            let closed = event.is_read_closed() || event.is_error();
            turn = client.readable(now, closed, self.go_on, &mut self.buffer, &mut self.tally);
            self.fast_answered[index] = true;
        } else if event.is_writable() {
            turn = client.writable(&mut self.buffer);
        }
        self.follow(index, turn);
    }

    /// Takes note of an event. What there is to send and to read waits for its turn, unless the
    /// connection is over.
    fn serve_slow(&mut self, index: usize, event: &Event, clock: &mut MessageClock) {
        if !self.slow[index].is_connected() {
            clock.forget();
            self.finish_connecting_slow(index, event);
        } else if event.is_error() || event.is_read_closed() || event.is_write_closed() {
            clock.forget();
            self.spend_on_slow(|driver| driver.serve_end(index, event));
        }
        if self.slow[index].end().is_none() {
            self.more_of_slow.push(index);
        }
    }

    fn finish_connecting_slow(&mut self, index: usize, event: &Event) {
        let now = clock::now();
        let client = &mut self.slow[index];
        if is_connected(client.stream_mut(), event) {
            client.set_connected(now);
            self.connecting = self.connecting.saturating_sub(1);
        } else if event.is_error() || event.is_write_closed() {
            client.ended(now, End::NotConnected);
            self.connecting = self.connecting.saturating_sub(1);
        }
    }

    /// A connection is over: what it still brought is read before its end is noted.
    fn serve_end(&mut self, index: usize, event: &Event) {
        let now = clock::now();
        let client = &mut self.slow[index];
        if client.is_reading() && event.is_readable() {
            client.read(now, &mut self.buffer);
        }
        self.note_end(index, event, now);
    }

    /// Tells a reset from an end of file without reading, as these clients do not read.
    fn note_end(&mut self, index: usize, event: &Event, now: Instant) {
        let client = &mut self.slow[index];
        if client.end().is_none() {
            let reset = matches!(client.stream().take_error(), Ok(Some(_))) || event.is_error();
            let end = if reset { End::Reset } else { End::EndOfFile };
            if reset || !client.is_reading() {
                client.ended(now, end);
            }
        }
        if client.end().is_some() {
            client.verify_rest(&mut self.buffer);
        }
    }

    fn go_on_with_healthy(&mut self) {
        let Some(index) = self.more_of_fast.pop() else {
            return;
        };
        let now = self.moment(clock::now());
        let turn = self.fast[index].readable(now, false, self.go_on, &mut self.buffer, &mut self.tally);
        self.follow(index, turn);
    }

    fn go_on_with_slow(&mut self) {
        let Some(index) = self.more_of_slow.pop() else {
            return;
        };
        let now = clock::now();
        let client = &mut self.slow[index];
        let sent = client.send(now, &mut self.buffer);
        let read = client.read(now, &mut self.buffer);
        let turn = if sent == Turn::More { sent } else { read };
        self.follow(self.plan.fast + index, turn);
    }

    #[inline]
    fn follow(&mut self, token: usize, turn: Turn) {
        if turn != Turn::Done {
            self.come_back(token, turn);
        }
    }

    fn come_back(&mut self, token: usize, turn: Turn) {
        match turn {
            Turn::More if token < self.plan.fast => self.more_of_fast.push(token),
            Turn::More => self.more_of_slow.push(token - self.plan.fast),
            Turn::Ended(_) if token < self.plan.fast && self.fast[token].is_closed_in_order() => {
                self.reconnect(token)
            }
            Turn::Ended(_) if token < self.plan.fast => {
                // It is out of the measurement; its socket is closed so that it costs the server nothing more.
                let _ = self.fast[token].stream_mut().shutdown(Shutdown::Both);
            }
            Turn::Ended(_) => self.slow[token - self.plan.fast].verify_rest(&mut self.buffer),
            Turn::Done => {}
        }
    }

    /// A healthy client whose server closed it as announced comes back with a new connection.
    fn reconnect(&mut self, index: usize) {
        let made = self.new_healthy(index);
        if let Ok(client) = made {
            self.fast[index] = client;
            self.fast_connected[index] = false;
        }
    }

    fn tick(&mut self, now: Instant, watcher: &mut dyn Watcher) {
        if let Some(publisher) = &mut self.publisher {
            publisher.turn(now, &mut self.buffer);
        }
        for _ in 0..self.slow.len().min(CLIENTS_PER_TICK) {
            let index = self.next_looked_at % self.slow.len();
            self.next_looked_at = index + 1;
            self.look_at_slow(index, now);
        }
        if now >= self.next_slice {
            self.note_orphans(now);
            self.end_slice(now, watcher);
        }
    }

    /// Notes how far a slow client has come, and goes on with what it does by the clock.
    fn look_at_slow(&mut self, index: usize, now: Instant) {
        let client = &mut self.slow[index];
        if client.end().is_some() || !client.is_connected() {
            return;
        }
        let unacknowledged = kernel_queue::unacknowledged_bytes(client.stream()).unwrap_or(0);
        let unread = kernel_queue::unread_bytes(client.stream()).unwrap_or(0);
        let port = self.slow_ports[index];
        let server_queue = self
            .observer
            .as_ref()
            .map_or(0, |observer| observer.send_queue(port));
        let server_queue = if client.is_echo() { 0 } else { server_queue };
        client.note(unacknowledged, unread, server_queue, now);
        // Reading keeps to a pace, so it does not wait for its turn; sending may.
        let turn = client.read(now, &mut self.buffer);
        if client.may_send() {
            self.more_of_slow.push(index);
        }
        self.follow(self.plan.fast + index, turn);
    }

    fn end_slice(&mut self, now: Instant, watcher: &mut dyn Watcher) {
        self.next_slice += SLICE;
        if self.next_slice <= now {
            self.next_slice = now + SLICE;
        }
        let moment = self.moment(now);
        let tally = self.tally.take_slice();
        let still_waiting = self.fast.iter().filter(|client| client.end().is_none());
        let oldest = still_waiting.filter_map(|client| client.waiting().next()).min();
        let longest_wait = tally
            .longest_wait
            .max(oldest.map_or(Duration::ZERO, |sent| moment.since(sent)));
        let count = |test: &dyn Fn(&SlowClient<TcpStream>) -> bool| {
            self.slow.iter().filter(|client| test(client)).count()
        };
        let slice = Slice {
            at: self.seconds(now),
            messages: tally.counts.messages,
            bytes: tally.counts.bytes,
            longest_wait_us: longest_wait.as_secs_f64() * 1e6,
            slow_connected: count(&|client| client.is_connected() && client.end().is_none()),
            slow_full: count(&|client| client.full_at().is_some()),
            slow_ended: count(&|client| client.end().is_some()),
            rss_bytes: self.observer.as_ref().and_then(Observer::rss_bytes),
        };
        let since_last = self.timeline.last().map_or(slice.at, |last| slice.at - last.at);
        self.timeline.push(slice);
        let live = Live {
            phase: self.phase,
            elapsed: now.saturating_duration_since(self.epoch),
            expected: self.expected(),
            messages_per_second: tally.counts.messages as f64 / since_last.max(1e-3),
            longest_wait,
            slow_connected: slice.slow_connected,
            slow_full: slice.slow_full,
            slow_ended: slice.slow_ended,
        };
        if let ControlFlow::Break(()) = watcher.observe(&live) {
            self.interrupted = true;
        }
    }

    fn expected(&self) -> Duration {
        let during = self.plan.within.max(self.plan.pause) + MARGIN;
        if self.wires.slow() > 0 {
            2 * self.plan.baseline + during
        } else {
            self.plan.baseline
        }
    }

    /// A server that closes without a reset cannot be seen doing so by a client with a full receive buffer.
    fn note_orphans(&mut self, now: Instant) {
        let Some(observer) = &mut self.observer else {
            return;
        };
        let mut ports = self.slow_ports.clone();
        ports.extend(self.quiet.iter().flat_map(QuietClients::ports));
        observer.collect(&ports);
        for (client, port) in self.slow.iter_mut().zip(&self.slow_ports) {
            if client.end().is_none() && client.is_connected() && observer.is_orphan(*port) {
                client.ended(now, End::LeftInKernel);
            }
        }
    }

    /// Those that are to be kept stop sending and read all that is still to come.
    fn let_slow_finish(&mut self) {
        for client in &mut self.slow {
            if !client.kind().is_to_go() {
                client.finish();
            }
        }
    }

    /// Reads from everybody what there still is, so that an end of file behind
    /// unread data is seen, and every byte verified.
    fn bid_farewell(&mut self, events: &mut Events, watcher: &mut dyn Watcher) -> Result<(), ProbeError> {
        self.go_on = false;
        for client in &mut self.slow {
            client.finish();
        }
        let until = clock::now() + FAREWELL;
        while clock::now() < until && !self.is_quiet() {
            self.turn(events, watcher)?;
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.fast.iter().all(FastClient::is_idle)
            && self
                .slow
                .iter()
                .all(|client| client.end().is_some() || client.is_complete())
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment::of(at, self.epoch)
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.epoch).as_secs_f64()
    }

    fn into_measurement(mut self) -> Measurement {
        let now = clock::now();
        let moment = self.moment(now);
        for client in &self.fast {
            for sent in client.waiting() {
                self.tally.unanswered(sent, moment);
            }
        }
        let mut slow: Vec<_> = (self.slow.iter().zip(&self.slow_ports))
            .map(|(client, port)| seen::slow_client(client, *port, self.epoch))
            .collect();
        slow.extend(self.quiet.take().map(QuietClients::finish).unwrap_or_default());
        let server = self.observer.take().map(Observer::finish);
        Measurement {
            seconds: self.seconds(now),
            interrupted: self.interrupted,
            healthy: seen::healthy(&self.fast, &self.fast_connected, &self.fast_answered, &self.tally),
            slow,
            server,
            timeline: self.timeline,
            publisher: self.publisher.map(|publisher| PublisherSeen {
                messages: publisher.published(),
                ended: publisher.is_gone(),
            }),
        }
    }
}

/// Whether a connection that was being made now stands.
fn is_connected(stream: &TcpStream, event: &Event) -> bool {
    event.is_writable() && !event.is_error() && stream.peer_addr().is_ok()
}
