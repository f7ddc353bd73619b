//! Which clients are served first, counted in turns of the real engine, over
//! connections that always or never have input.
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use highwater::engine::{Engine, Event, Network, PeerState, PeerWindow, Question, Report, Stream};
use highwater::limits::{
    BULK_TURN_BYTES, EXPIRIES_PER_TURN, GRACE, INSPECTED_CLIENTS_PER_TURN, TURN_BUDGET_ALL_BYTES,
    TURN_BUDGET_BYTES, TURN_BUDGET_NEW_BYTES,
};
use highwater::services::Echo;
use highwater::{Actions, ClientId, Limits, Service};

/// The input of one connection, and the echo that it took: all of it or nothing.
#[derive(Clone, Default)]
struct Pipe {
    readable_bytes: Rc<Cell<usize>>,
    echoed_bytes: Rc<Cell<usize>>,
    is_stalled: Rc<Cell<bool>>,
    /// How often the engine asked the kernel about the connection.
    looks: Rc<Cell<usize>>,
}

impl Pipe {
    fn send(&self, bytes: usize) {
        self.readable_bytes.set(self.readable_bytes.get() + bytes);
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.readable_bytes.get().min(buffer.len()) {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => {
                self.readable_bytes.set(self.readable_bytes.get() - count);
                Ok(count)
            }
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.is_stalled.get() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.echoed_bytes.set(self.echoed_bytes.get() + data.len());
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Pipe {
    fn descriptor(&self) -> i32 {
        0
    }

    fn finish_connect(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn shut_down_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reset_on_close(&mut self) {}

    fn is_settled(&self) -> bool {
        true
    }

    fn peer_state(&self) -> PeerState {
        PeerState::Unknown
    }

    fn kernel_bytes(&self) -> u64 {
        self.looks.set(self.looks.get() + 1);
        1
    }

    fn peer_window(&self) -> Option<PeerWindow> {
        self.looks.set(self.looks.get() + 1);
        None
    }
}

/// Connections that all wait to be accepted when the test begins.
struct Listener {
    waiting: Vec<Pipe>,
    ids: Vec<ClientId>,
}

impl Network for Listener {
    type Stream = Pipe;

    fn accept(&mut self) -> io::Result<(Pipe, SocketAddr)> {
        let stream = self.waiting.pop().ok_or(ErrorKind::WouldBlock)?;
        Ok((stream, (Ipv4Addr::LOCALHOST, 9).into()))
    }

    fn register(&mut self, _: &mut Pipe, id: ClientId) -> io::Result<()> {
        self.ids.push(id);
        Ok(())
    }

    fn connect(&mut self, _: SocketAddr) -> io::Result<Pipe> {
        Err(ErrorKind::Unsupported.into())
    }

    fn stop_listening(&mut self) {}
}

/// A server with its clients, at an instant that the test sets.
struct Bench<S = Echo> {
    engine: Engine<Listener, S>,
    clients: Vec<(ClientId, Pipe)>,
    now: Instant,
}

impl Bench {
    fn with(clients: usize) -> Self {
        Self::over((0..clients).map(|_| Pipe::default()).collect(), Echo)
    }
}

impl<S: Service> Bench<S> {
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock"
    )]
    fn over(pipes: Vec<Pipe>, service: S) -> Self {
        let clients = pipes.len();
        let network = Listener {
            waiting: pipes.iter().rev().cloned().collect(),
            ids: Vec::new(),
        };
        let now = Instant::now();
        let mut engine = Engine::new(network, service, &Limits::default(), usize::MAX, clients, now).unwrap();
        while engine.client_count() < clients {
            engine.handle_listener();
            engine.turn(now);
        }
        let clients = engine.network().ids.iter().copied().zip(pipes).collect();
        Self { engine, clients, now }
    }

    /// A client sends, and an event announces it.
    fn send(&mut self, client: usize, bytes: usize) {
        let (id, pipe) = &self.clients[client];
        pipe.send(bytes);
        let event = Event {
            readable: true,
            writable: true,
            ..Event::default()
        };
        self.engine.handle_event(*id, event);
    }

    /// Lets these clients flood until each was served, so that none is new.
    fn flood(&mut self, clients: Range<usize>) {
        for client in clients.clone() {
            self.send(client, ENDLESS);
        }
        while clients.clone().any(|client| self.echoed(client) == 0) {
            self.take_turn();
        }
    }

    fn take_turn(&mut self) {
        self.engine.turn(self.now);
    }

    fn echoed(&self, client: usize) -> usize {
        self.clients[client].1.echoed_bytes.get()
    }
}

const ENDLESS: usize = usize::MAX / 2;
const MESSAGE: usize = 64;

#[test]
fn a_small_message_is_answered_in_the_next_turn_however_many_flood() {
    const FLOODING: usize = 1000;
    let mut bench = Bench::with(FLOODING + 1);
    let small = FLOODING;
    bench.send(small, MESSAGE);
    bench.take_turn();
    assert_eq!(bench.echoed(small), MESSAGE);
    // First as newcomers, then as bulk clients.
    for flooding in 0..FLOODING {
        bench.send(flooding, ENDLESS);
    }
    for messages in 2..2 * FLOODING {
        bench.send(small, MESSAGE);
        bench.take_turn();
        assert_eq!(bench.echoed(small), messages * MESSAGE, "turn {messages}");
    }
    assert!((0..FLOODING).all(|flooding| bench.echoed(flooding) > 0));
}

#[test]
fn the_first_message_of_a_newcomer_is_answered_in_the_next_turn_however_many_flood() {
    const FLOODING: usize = 1000;
    const NEWCOMERS: usize = 20;
    let mut bench = Bench::with(FLOODING + NEWCOMERS);
    bench.flood(0..FLOODING);
    for newcomer in FLOODING..FLOODING + NEWCOMERS {
        bench.send(newcomer, MESSAGE);
    }
    bench.take_turn();
    assert!((FLOODING..FLOODING + NEWCOMERS).all(|newcomer| bench.echoed(newcomer) == MESSAGE));
}

/// Twenty newcomers send a small message behind 1,500 clients that were served
/// before and send this much. All get their first answers in one turn.
fn newcomers_are_answered_beside(length: usize) {
    const SENDING: usize = 1500;
    const NEWCOMERS: usize = 20;
    let mut bench = Bench::with(SENDING + NEWCOMERS);
    for client in 0..SENDING {
        bench.send(client, length);
    }
    while (0..SENDING).any(|client| bench.echoed(client) == 0) {
        bench.take_turn();
    }
    for client in 0..SENDING {
        bench.send(client, length);
    }
    for newcomer in SENDING..SENDING + NEWCOMERS {
        bench.send(newcomer, MESSAGE);
    }
    bench.take_turn();
    let served = (0..SENDING)
        .filter(|&client| bench.echoed(client) > length)
        .count();
    assert!(served < SENDING, "all fitted into one turn");
    assert!((SENDING..SENDING + NEWCOMERS).all(|newcomer| bench.echoed(newcomer) == MESSAGE));
}

#[test]
fn the_first_message_of_a_newcomer_is_answered_in_the_next_turn_beside_many_of_3000_or_16000_bytes() {
    newcomers_are_answered_beside(3_000);
    newcomers_are_answered_beside(16_000);
}

#[test]
fn newcomers_who_flood_leave_most_of_a_turn_to_others() {
    const NEWCOMERS: usize = 100;
    const FLOODING: usize = 10;
    let mut bench = Bench::with(NEWCOMERS + FLOODING);
    bench.flood(NEWCOMERS..NEWCOMERS + FLOODING);
    for newcomer in 0..NEWCOMERS {
        bench.send(newcomer, ENDLESS);
    }
    bench.take_turn();
    let echoed: usize = (0..NEWCOMERS).map(|newcomer| bench.echoed(newcomer)).sum();
    assert_eq!(echoed, TURN_BUDGET_NEW_BYTES as usize);
}

#[test]
fn those_who_flood_are_served_though_small_messages_never_end() {
    // Together they use up every turn, each just below a bulk turn.
    let small_bytes = BULK_TURN_BYTES as usize - 1;
    let small = TURN_BUDGET_ALL_BYTES as usize / small_bytes + 1;
    const FLOODING: usize = 3;
    let mut bench = Bench::with(small + FLOODING);
    for client in 0..small {
        bench.send(client, MESSAGE);
    }
    bench.take_turn();
    bench.flood(small..small + FLOODING);
    let flooded = |bench: &Bench| -> Vec<usize> {
        (small..small + FLOODING)
            .map(|client| bench.echoed(client))
            .collect()
    };
    let before = flooded(&bench);
    for _ in 0..4 * FLOODING {
        for client in 0..small {
            bench.send(client, small_bytes);
        }
        bench.take_turn();
    }
    for (after, before) in flooded(&bench).into_iter().zip(before) {
        assert_eq!(after - before, 4 * TURN_BUDGET_BYTES, "evenly, one in each turn");
    }
    assert!(
        bench.echoed(0) > 3 * FLOODING * small_bytes,
        "nor do they hold up the others"
    );
}

#[test]
fn a_client_that_has_flooded_is_served_first_again_once_it_moves_little() {
    const FLOODING: usize = 100;
    let mut bench = Bench::with(FLOODING + 1);
    let changed = FLOODING;
    bench.send(changed, BULK_TURN_BYTES as usize);
    bench.take_turn();
    bench.flood(0..FLOODING);
    bench.send(changed, MESSAGE);
    let mut turns = 0;
    while bench.echoed(changed) < BULK_TURN_BYTES as usize + MESSAGE {
        bench.take_turn();
        turns += 1;
    }
    assert!(turns > 1, "its last turn had moved much");
    bench.send(changed, MESSAGE);
    bench.take_turn();
    assert_eq!(bench.echoed(changed), BULK_TURN_BYTES as usize + 2 * MESSAGE);
}

#[test]
fn while_clients_are_due_to_go_of_those_who_flood_one_has_its_turn() {
    const TURNS: usize = 4;
    const STALLED: usize = TURNS * EXPIRIES_PER_TURN;
    const FLOODING: usize = 8;
    let mut bench = Bench::with(STALLED + FLOODING);
    for client in 0..STALLED {
        bench.clients[client].1.is_stalled.set(true);
        bench.send(client, ENDLESS);
    }
    // Until all are over the limit, and no client has work.
    for _ in 0..STALLED {
        bench.take_turn();
    }
    bench.flood(STALLED..STALLED + FLOODING);
    let flooded = |bench: &Bench| -> usize {
        (STALLED..STALLED + FLOODING)
            .map(|client| bench.echoed(client))
            .sum()
    };
    bench.now += GRACE;
    let mut before = flooded(&bench);
    for turn in 1..=TURNS {
        bench.take_turn();
        assert_eq!(flooded(&bench) - before, TURN_BUDGET_BYTES, "turn {turn}");
        assert_eq!(
            bench.engine.client_count(),
            STALLED + FLOODING - turn * EXPIRIES_PER_TURN
        );
        before = flooded(&bench);
    }
    bench.take_turn();
    assert_eq!(
        flooded(&bench) - before,
        TURN_BUDGET_ALL_BYTES as usize,
        "nobody is due any more"
    );
}

/// Many clients send messages of one length, each again once it is answered. The
/// most bytes that the server moves between a small message and its answer.
fn bytes_before_a_small_answer(message_bytes: usize) -> usize {
    const CLIENTS: usize = 1500;
    const ROUNDS: usize = 100;
    let mut bench = Bench::with(CLIENTS + 1);
    let small = CLIENTS;
    for client in 0..=CLIENTS {
        bench.send(client, if client == small { MESSAGE } else { message_bytes });
    }
    while (0..=CLIENTS).any(|client| bench.echoed(client) == 0) {
        bench.take_turn();
    }
    let mut sent = vec![message_bytes; CLIENTS];
    let mut most_bytes = 0;
    for round in 2..2 + ROUNDS {
        bench.send(small, MESSAGE);
        let moved = |bench: &Bench| (0..CLIENTS).map(|client| bench.echoed(client)).sum::<usize>();
        let before = moved(&bench);
        while bench.echoed(small) < round * MESSAGE {
            for (client, sent) in sent.iter_mut().enumerate() {
                if bench.echoed(client) == *sent {
                    bench.send(client, message_bytes);
                    *sent += message_bytes;
                }
            }
            bench.take_turn();
        }
        most_bytes = most_bytes.max(moved(&bench) - before);
    }
    most_bytes
}

#[test]
fn a_small_message_waits_no_longer_beside_many_of_16000_bytes_than_beside_many_of_20000() {
    let (moderate, bulk) = (
        bytes_before_a_small_answer(16_000),
        bytes_before_a_small_answer(20_000),
    );
    println!("{moderate} bytes beside 16,000, {bulk} beside 20,000");
    assert!(bulk <= 2 * TURN_BUDGET_ALL_BYTES as usize, "{bulk}");
    assert!(
        moderate * 2 <= bulk * 3,
        "{moderate} beside 16,000, {bulk} beside 20,000"
    );
}

#[test]
fn an_operators_question_about_15000_clients_is_answered_in_slices_between_small_messages() {
    const CLIENTS: usize = 15_000;
    const QUESTIONS: usize = 3;
    let mut bench = Bench::with(CLIENTS);
    bench.engine.watch();
    let looks = |bench: &Bench| -> usize { bench.clients.iter().map(|(_, pipe)| pipe.looks.get()).sum() };
    let (answered, answers) = std::sync::mpsc::channel();
    // Several operators at once take no longer slices.
    for _ in 0..QUESTIONS {
        for question in [Question::Snapshot, Question::Clients { most_gone: 100 }] {
            let answered = answered.clone();
            bench
                .engine
                .inspect(question, Box::new(move |report| answered.send(report).unwrap()));
        }
    }
    let mut reports = Vec::new();
    for turn in 1..=CLIENTS {
        let before = looks(&bench);
        bench.send(0, MESSAGE);
        bench.take_turn();
        assert_eq!(bench.echoed(0), turn * MESSAGE, "it waits for no operator");
        let slice = looks(&bench) - before;
        assert!(slice <= INSPECTED_CLIENTS_PER_TURN, "{slice} looks in a turn");
        reports.extend(answers.try_iter());
        if reports.len() == 2 * QUESTIONS {
            break;
        }
    }
    assert_eq!(reports.len(), 2 * QUESTIONS, "every operator is answered");
    assert_eq!(looks(&bench), 2 * QUESTIONS * CLIENTS);
    for report in reports {
        match report {
            Report::Snapshot(snapshot) => assert_eq!(snapshot.kernel_bytes, CLIENTS as u64),
            Report::Clients(list) => assert_eq!(list.live.len(), CLIENTS),
        }
    }
}

/// Closes every client as soon as it comes.
struct Dismissal;

impl Service for Dismissal {
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        actions.close(client);
    }
}

#[test]
fn a_client_whose_turn_did_not_come_before_its_close_timeout_is_still_closed_in_order() {
    const FLOODING: usize = 20;
    let pipes: Vec<_> = (0..=FLOODING).map(|_| Pipe::default()).collect();
    for pipe in &pipes[..FLOODING] {
        pipe.send(ENDLESS);
    }
    let mut bench = Bench::over(pipes, Dismissal);
    assert_eq!(
        bench.engine.client_count(),
        FLOODING + 1,
        "the silent client was not served"
    );
    bench.now += GRACE;
    bench.take_turn();
    assert_eq!(bench.engine.client_count(), 0);
    let counters = bench.engine.counters();
    assert_eq!(counters.finished_clients, 1, "the silent client");
    assert_eq!(counters.unacknowledged_clients, FLOODING as u64);
}
