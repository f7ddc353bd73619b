//! A deterministic simulation of the whole server but the kernel: the real
//! turn, clients, policy and services on simulated streams, readiness and
//! clock, all from one seed.
//!
//! After every turn the invariants are checked against books that are kept
//! from the outside ([`model`]); a fault ends the run at the turn in which it
//! was seen.

// A fault carries its plan, and is made once in thousands of runs.
#![allow(clippy::result_large_err)]
// Each of the two programs that share this uses a part.
#![allow(dead_code)]

/// Counts what happens, folds it into the digest, and keeps it in a trace.
macro_rules! note {
    ($world:expr, $code:expr, $number:expr, $value:expr, $($format:tt)*) => {{
        let world = &mut *$world;
        world.events += 1;
        world.fold($code, $number as u64, $value as u64);
        if let Some(trace) = &mut world.trace
            && world.model.fault.is_none()
        {
            if trace.len() == $crate::simulation::world::TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!($($format)*));
        }
    }};
}

mod checks;
mod content;
mod introduction;
mod kernel;
mod link;
mod meddler;
mod model;
mod peers;
pub(crate) mod plan;
mod services;
mod world;

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use highwater::engine::{Clock, Engine, Event, Next};
use highwater::limits::{
    ACCEPT_RETRY, EXPIRIES_PER_TURN, GONE_CLIENTS, INSPECTED_CLIENTS_PER_TURN, TURN_ALLOWANCE,
};
use highwater::services::{AddressRange, Echo, FramedEcho, Tunnel};
use highwater::{ClientId, Question, Service, SlowReason};

use kernel::SimulatedNetwork;
use meddler::Meddler;
use model::{EXPIRIES_IN_ONE_TURN, Model, Seen};
use plan::{Kind, Plan, Trouble};
use services::{Herald, Witness};
use world::{Shared, World};

/// What a run of one seed came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) turns: u64,
    /// System calls, events, and acts of peers.
    pub(crate) events: u64,
    /// All that happened, folded into a number.
    pub(crate) digest: u64,
    pub(crate) seen: Seen,
    pub(crate) refused_accepts: u64,
    pub(crate) stale_events: u64,
    pub(crate) spliced_bytes: u64,
    pub(crate) jumps: u64,
    /// Other limits that were put in force.
    pub(crate) reloads: u64,
    /// Clients that shadow mode has kept.
    pub(crate) shadowed: u64,
    pub(crate) links: u64,
}

/// The first fault of a run.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) plan: Plan,
    pub(crate) turn: u64,
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        writeln!(
            f,
            "seed {} ({:?}), turn {}: {}",
            plan.seed, plan.kind, self.turn, self.what
        )?;
        writeln!(f, "troubles needed: {:?}", plan.troubles())?;
        writeln!(f, "{plan:?}")?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// Runs one plan to its end or to its first fault.
pub(crate) fn run(plan: &Plan) -> Result<Report, Box<Fault>> {
    run_traced(plan, false)
}

/// Runs one seed; at a fault, looks for the fewest troubles that show one.
pub(crate) fn run_and_shrink(plan: &Plan) -> Result<Report, Box<Fault>> {
    let Err(mut fault) = run(plan) else {
        return run(plan);
    };
    for trouble in plan.troubles() {
        if let Err(smaller) = run(&fault.plan.without(trouble)) {
            fault = smaller;
        }
    }
    for turns in [5, 10, 20, 50] {
        let shorter = Plan {
            turns,
            ..fault.plan.clone()
        };
        if turns < fault.plan.turns
            && let Err(smaller) = run(&shorter)
        {
            fault = smaller;
            break;
        }
    }
    match run_traced(&fault.plan, true) {
        Err(traced) => Err(traced),
        Ok(_) => Err(fault),
    }
}

fn run_traced(plan: &Plan, traced: bool) -> Result<Report, Box<Fault>> {
    let mut progress = Progress::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| dispatch(plan, traced, &mut progress)));
    let what = match outcome {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(what)) => what,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            format!("panic: {}", said.unwrap_or_default())
        }
    };
    Err(Box::new(Fault {
        plan: plan.clone(),
        turn: progress.turns,
        what,
        trace: progress.trace,
    }))
}

#[derive(Default)]
struct Progress {
    turns: u64,
    trace: Vec<String>,
}

fn dispatch(plan: &Plan, traced: bool, progress: &mut Progress) -> Result<Report, String> {
    let start = start();
    let model = Model::new(
        plan.kind,
        &plan.limits,
        usize::MAX / 2,
        plan.max_frame_bytes,
        plan.frame_timeout,
        start,
    );
    let mut world = World::new(plan, model);
    if traced {
        world.trace = Some(std::collections::VecDeque::new());
    }
    let world: Shared = Rc::new(RefCell::new(world));
    let result = match plan.kind {
        Kind::Echo => Driver::drive(plan, &world, Echo, start, progress),
        Kind::FramedEcho => {
            let service = FramedEcho::new(plan.max_frame_bytes)
                .map_err(|error| error.to_string())?
                .with_long_frames_from(plan.long_frame_bytes)
                .with_frame_timeout(plan.frame_timeout);
            Driver::drive(plan, &world, service, start, progress)
        }
        Kind::Tunnel => {
            let upstreams = (0..plan.upstreams).map(|number| world::address(0xff_0000 + number));
            let service = Tunnel::to_addresses(
                "upstream".to_owned(),
                upstreams.collect(),
                plan.limits.connect_timeout,
            );
            let service = match plan.proxied {
                true => service.accepting_proxy_protocol(vec![AddressRange::ANY]),
                false => service,
            };
            Driver::drive(plan, &world, service, start, progress)
        }
        Kind::Herald => Driver::drive(plan, &world, Herald::new(&world, plan.seed), start, progress),
        Kind::Meddler => Driver::drive(plan, &world, Meddler::new(&world, plan), start, progress),
    };
    if let Some(trace) = &world.borrow().trace {
        progress.trace = trace.iter().cloned().collect();
    }
    result
}

#[expect(
    clippy::disallowed_methods,
    reason = "an instant can only be had from the clock"
)]
fn start() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    // Far from the end of the clock's range, wherever this runs.
    *START.get_or_init(Instant::now)
}

/// Turns that everybody needs at most to end in order, once they all want to.
const LAST_TURNS: usize = 3000;

/// Turns in which a loop may find nothing to do, one after the other: an
/// interrupted call is tried again, and an edge may turn out to be used up.
const IDLE_TURNS: usize = 3;

/// Turns within which an operator is told of all rings, one in a turn.
const RING_TURNS: usize = 32;

/// Wakes a turn up, feeds it, and checks it.
struct Driver<'a, S: Service> {
    world: &'a Shared,
    engine: Engine<SimulatedNetwork, Witness<S>>,
    clock: Clock,
    rng: Rng,
    /// What an operator does.
    operator: Rng,
    plan: &'a Plan,
    start: Instant,
    real: Instant,
    charged: Instant,
    wait: Option<Duration>,
    batch: Vec<(ClientId, Event)>,
    idle_turns: usize,
    /// An operator waits for an answer, which takes turns without any call.
    is_asked: bool,
    report: Report,
    stopped: bool,
}

impl<'a, S: Service> Driver<'a, S> {
    fn drive(
        plan: &'a Plan,
        world: &'a Shared,
        service: S,
        start: Instant,
        progress: &mut Progress,
    ) -> Result<Report, String> {
        let witness = Witness::new(service, world, plan.kind);
        let network = SimulatedNetwork(Rc::clone(world));
        let budget = usize::MAX / 2;
        let engine = Engine::new(network, witness, &plan.limits, budget, plan.max_clients, start)
            .map_err(|error| error.to_string())?;
        let mut driver = Self {
            world,
            engine,
            clock: Clock::new(start),
            rng: Rng::with_seed(plan.seed ^ 0xc10c),
            operator: Rng::with_seed(plan.seed ^ 0x516_4e10),
            plan,
            start,
            real: start,
            charged: start,
            wait: Some(Duration::ZERO),
            batch: Vec::new(),
            idle_turns: 0,
            is_asked: false,
            report: Report::default(),
            stopped: false,
        };
        if plan.watched {
            driver.engine.watch();
            world.borrow_mut().model.watched = true;
        }
        let outcome = driver.drive_to_the_end();
        progress.turns = driver.report.turns;
        outcome?;
        let world = world.borrow();
        Ok(Report {
            events: world.events,
            digest: world.digest,
            seen: world.model.seen,
            refused_accepts: world.refused_accepts,
            stale_events: world.stale_events,
            spliced_bytes: world.spliced_bytes,
            links: world.links.len() as u64,
            ..driver.report
        })
    }

    fn drive_to_the_end(&mut self) -> Result<(), String> {
        let stop_at = self
            .plan
            .has(Trouble::Stop)
            .then(|| self.rng.usize(..self.plan.turns));
        for at in 0..self.plan.turns {
            self.world.borrow_mut().act();
            if stop_at == Some(at) {
                self.stop();
            }
            self.step()?;
            if self.stopped {
                return self.check_end();
            }
        }
        self.world.borrow_mut().calm_down();
        self.run_until("everybody has ended", |driver| {
            driver.world.borrow().open_streams == 0
        })?;
        self.check_rings()?;
        self.stop();
        self.run_until("the server has stopped", |driver| driver.stopped)?;
        self.check_end()
    }

    /// Asks as an operator who is there and who has left, and compares the answer
    /// with the books: each that has left stands in the ring of its reason.
    fn check_rings(&mut self) -> Result<(), String> {
        if !self.plan.watched || self.stopped {
            return Ok(());
        }
        let answer = Arc::new(Mutex::new(None));
        let told = Arc::clone(&answer);
        let question = Question::Clients {
            most_gone: usize::MAX,
        };
        let reply = move |report| *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        self.engine.inspect(question, Box::new(reply));
        // A storm leaves a table with thousands of places, most of them free.
        let table_turns = self.world.borrow().links.len() / INSPECTED_CLIENTS_PER_TURN;
        let turns = RING_TURNS + table_turns;
        for _ in 0..turns {
            self.is_asked = true;
            self.step()?;
            if let Some(told) = answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.is_asked = false;
                return self.compare_rings(told);
            }
        }
        Err(format!("an operator has no answer after {turns} turns"))
    }

    fn compare_rings(&self, told: highwater::Report) -> Result<(), String> {
        let highwater::Report::Clients(list) = told else {
            return Err("the answer to another question".to_owned());
        };
        let world = self.world.borrow();
        if !list.live.is_empty() {
            return Err(format!("{:?} are told to be there", list.live));
        }
        let mut in_rings = 0;
        for (word, ring) in &list.gone {
            let of_reason = world.model.gone.iter().filter(|gone| gone.reason == *word);
            let count = of_reason.clone().count();
            in_rings += count;
            if count > GONE_CLIENTS {
                if ring.len() != GONE_CLIENTS {
                    return Err(format!(
                        "{} of {count} that left as `{word}` are told",
                        ring.len()
                    ));
                }
                continue;
            }
            let mut gone: Vec<(u64, u64)> = of_reason.map(|gone| (gone.read, gone.taken)).collect();
            let mut kept: Vec<(u64, u64)> = ring
                .iter()
                .map(|report| (report.received_bytes, report.sent_bytes))
                .collect();
            gone.sort_unstable();
            kept.sort_unstable();
            if gone != kept {
                return Err(format!("left as `{word}`: {gone:?}, told: {kept:?}"));
            }
        }
        if in_rings != world.model.gone.len() {
            return Err(format!(
                "{in_rings} are told to have left, {} have",
                world.model.gone.len()
            ));
        }
        Ok(())
    }

    /// Stops the server, every third one in favour of a successor.
    fn stop(&mut self) {
        let hands_over = self.plan.seed.is_multiple_of(3);
        let mut world = self.world.borrow_mut();
        let is_first = !std::mem::replace(&mut world.stop_asked, true);
        if is_first {
            world.model.hands_over = hands_over;
        }
        drop(world);
        if hands_over {
            self.engine.hand_over();
        } else {
            self.engine.stop();
        }
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        for _ in 0..LAST_TURNS {
            if self.stopped || (done(self) && self.world.borrow().backlog() == 0) {
                return Ok(());
            }
            self.world.borrow_mut().act_calmly();
            self.step()?;
        }
        let world = self.world.borrow();
        let alive = world.model.alive();
        let first = alive
            .first()
            .map(|&number| (&world.links[number], &world.model.ledgers[number]));
        Err(format!(
            "not so after {LAST_TURNS} turns: {what}; {} in the backlog; {alive:?}, the first {first:?}",
            world.backlog()
        ))
    }

    /// One wait and one turn, and all checks.
    fn step(&mut self) -> Result<(), String> {
        self.pass_time()?;
        self.reload()?;
        self.check_acknowledgements();
        let calls = self.world.borrow().calls;
        let next = self.engine.turn(self.charged);
        self.report.turns += 1;
        self.report.shadowed = self.report.shadowed.max(self.world.borrow().model.shadowed);
        self.check(next, calls)?;
        self.wait = match next {
            Next::WaitFor(time) => Some(time),
            Next::Wait => None,
            Next::Stopped => {
                self.stopped = true;
                Some(Duration::ZERO)
            }
        };
        Ok(())
    }

    /// Lets the real clock go on as a wait, and trouble, would have it.
    fn pass_time(&mut self) -> Result<(), String> {
        let has_events = self.world.borrow().has_events();
        let micros =
            |rng: &mut Rng, most: Duration| Duration::from_micros(rng.u64(..=most.as_micros() as u64));
        let mut ran = match self.wait {
            Some(wait) if has_events => micros(&mut self.rng, wait),
            Some(wait) => wait,
            None => micros(&mut self.rng, Duration::from_secs(3)),
        };
        ran += Duration::from_micros(self.rng.u64(..100));
        if self.plan.has(Trouble::Delays) && self.rng.u8(..8) == 0 {
            ran += micros(&mut self.rng, Duration::from_millis(90));
        }
        let most = self.wait.map(|wait| wait + TURN_ALLOWANCE);
        let mut elapsed = ran;
        if self.plan.has(Trouble::Jumps) && self.rng.u8(..24) == 0 {
            elapsed += micros(&mut self.rng, Duration::from_secs(60));
            self.report.jumps += 1;
        }
        self.real += elapsed;
        let charged = self.clock.advance(self.real, self.wait);
        let delta = charged - self.charged;
        let right = match most {
            None => delta == elapsed,
            Some(most) => delta == elapsed.min(most),
        };
        if !right {
            return Err(format!(
                "{delta:?} charged for {elapsed:?} after a wait of {:?}",
                self.wait
            ));
        }
        self.charged = charged;
        let mut world = self.world.borrow_mut();
        let real_ns = self.real.duration_since(self.start).as_nanos() as u64;
        world.note_turn(charged, real_ns);
        world.model.begin_turn(charged);
        Ok(())
    }

    /// Chooses other limits now and then.
    fn reload(&mut self) -> Result<(), String> {
        let mut world = self.world.borrow_mut();
        let is_due = world.has(Trouble::Reloads) && self.operator.u8(..12) == 0;
        // A reload arms all timers anew, and one turn takes only so many: which of a crowd
        // it takes cannot be told from outside. `tests/reload.rs` reloads beside crowds.
        let is_crowded = world.model.alive().len() >= EXPIRIES_IN_ONE_TURN;
        if !is_due || is_crowded || world.stop_asked || world.model.stopping_since.is_some() {
            return Ok(());
        }
        let (limits, max_clients) = world.plan.other_limits(&mut self.operator);
        note!(
            world,
            20,
            0,
            max_clients,
            "reload: {limits:?}, {max_clients} clients"
        );
        world.model.reload(&limits);
        world.plan.limits = limits.clone();
        world.plan.max_clients = max_clients;
        world.reload_owed = true;
        self.report.reloads += 1;
        drop(world);
        let outcome = self.engine.reload(&limits, usize::MAX / 2, max_clients);
        outcome.map_err(|error| format!("{error}: {limits:?}"))
    }

    fn check_acknowledgements(&mut self) {
        let listener = self.world.borrow_mut().take_listener_edge();
        if listener || (self.plan.has(Trouble::SpuriousEvents) && self.rng.u8(..32) == 0) {
            self.engine.handle_listener();
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.world.borrow_mut().collect(&mut batch);
        if self.plan.has(Trouble::Wakes) && self.rng.u8(..16) == 0 {
            self.engine.handle_wake();
            self.world.borrow_mut().wake_owed = true;
        }
        for &(id, event) in &batch {
            self.engine.handle_event(id, event);
        }
        self.idle_turns = if batch.is_empty() { self.idle_turns } else { 0 };
        self.batch = batch;
    }

    fn check(&mut self, next: Next, calls_before: u64) -> Result<(), String> {
        let mut world = self.world.borrow_mut();
        let clients = self.engine.client_count();
        world.model.check_turn(next, self.engine.queued_bytes(), clients);
        let sleeps = match next {
            Next::WaitFor(time) => !time.is_zero(),
            Next::Wait => true,
            Next::Stopped => false,
        };
        if sleeps {
            world.check_nobody_forgotten();
            world.check_waiting();
        }
        world.check_seats();
        let World { model, links, .. } = &mut *world;
        model.check_silences(|number| links[number].partner);
        let retries = matches!(next, Next::WaitFor(time) if time <= ACCEPT_RETRY);
        if world.awaits_retry()
            && sleeps
            && !retries
            && world.backlog() > 0
            && world.model.stopping_since.is_none()
        {
            world
                .model
                .accuse(|| format!("{next:?}, though accepting has to be tried again"));
        }
        let idle = !sleeps && !self.is_asked && world.calls == calls_before && next != Next::Stopped;
        self.idle_turns = if idle { self.idle_turns + 1 } else { 0 };
        // Looks at silent clients are no calls, and one turn takes only so many.
        let turns_of_looks = clients / EXPIRIES_PER_TURN;
        if self.idle_turns > IDLE_TURNS + turns_of_looks {
            world
                .model
                .accuse(|| "the loop spins: nothing to do, and it does not wait".to_owned());
        }
        if let Some(shadow) = self
            .engine
            .shadow_report()
            .filter(|_| self.plan.kind != Kind::Meddler)
        {
            let ended = shadow.recovered + shadow.left + shadow.stuck;
            let told = shadow.would_disconnect;
            // In a crowd a client may recover before anybody looks, and for the memory
            // budget one may go in the turn in which its time is over.
            let kept = match world.model.was_crowded || self.plan.has(Trouble::TightBudget) {
                true => told.min(world.model.shadowed),
                false => world.model.shadowed,
            };
            let most = kept + world.model.perhaps_shadowed;
            if !(kept..=most).contains(&told) || ended != told {
                world.model.accuse(|| {
                    format!("{told} would have been disconnected, {kept} to {most} should; {ended} are accounted for")
                });
            }
        }
        world.check_retransmissions();
        if world.reload_owed {
            world
                .model
                .accuse(|| "other limits were not put in force".to_owned());
        }
        if world.wake_owed {
            world
                .model
                .accuse(|| "a call from another thread was not passed on".to_owned());
        }
        if next == Next::Stopped && world.model.stopping_since.is_none() {
            world.model.accuse(|| "stopped without being asked to".to_owned());
        }
        world.tidy();
        match world.model.fault.clone() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn check_end(&mut self) -> Result<(), String> {
        let world = self.world.borrow();
        let (counters, seen) = (self.engine.counters(), &world.model.seen);
        let counted = [
            counters.served_clients,
            counters.refused_clients,
            counters.address_refused_clients,
            counters.upstreams,
            counters.failed_accepts,
            counters.finished_clients,
        ];
        let happened = [
            seen.served,
            seen.refused,
            seen.address_refused,
            seen.upstreams,
            world.refused_accepts,
            seen.finished,
        ];
        let ledgers = &world.model.ledgers;
        let read: u64 = ledgers.iter().map(|ledger| ledger.read).sum();
        let taken: u64 = world.links.iter().map(|link| link.taken).sum();
        if (counters.received_bytes, counters.sent_bytes) != (read, taken) {
            return Err(format!("counted {counters:?}, but read {read}, taken {taken}"));
        }
        if counted != happened || SlowReason::ALL.map(|reason| counters.slow(reason)) != seen.slow {
            return Err(format!(
                "counted {counters:?}, but happened {happened:?}, {seen:?}"
            ));
        }
        if world.open_streams != 0 {
            return Err(format!("{} streams were never closed", world.open_streams));
        }
        let silent = world
            .links
            .iter()
            .position(|link| link.id.is_some() && !link.said_closed);
        if let Some(number) = silent {
            return Err(format!("link {number} is gone and its service was never told"));
        }
        Ok(())
    }
}
