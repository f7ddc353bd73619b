//! Readers of files in a world without sockets and without a clock: the real
//! engine, driven from a seed, with the real server of files, and with a
//! service whose disk is simulated too.
//!
//! Every byte that a reader gets is checked as it comes. The books say who may
//! be left, how and when, though the grace changes meanwhile; at the end every reader that was kept has all that it
//! asked for. A failure names the seed that repeats it (`FILES_SEED=N`).
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test or a helper that fails should say so at once"
)]
#![allow(clippy::disallowed_methods, reason = "simulated time needs an origin")]

mod archive;
mod looks;
#[path = "../support/simulated_network.rs"]
mod network;
mod reader;

use std::time::{Duration, Instant};

use archive::{Archive, SharedDisk};
use highwater::engine::{Engine, Next};
use highwater::services::{Echo, Files, FilesConfig, Folder};
use highwater::{EventLoop, Limits, Remote, Service};
use network::{Left, SimulatedNetwork, World};
use reader::{Behaviour, Reader, byte_at};
use tempfile::TempDir;

/// The grace at the start, and those that a reload may choose.
const GRACE: Duration = Duration::from_secs(5);
const GRACES_MS: [u64; 4] = [1_000, 2_000, 3_500, 5_000];
/// A look at what is acknowledged, and steps of simulated time.
const LATE: Duration = Duration::from_millis(400);
const STEP: Duration = Duration::from_millis(50);
const FILES: usize = 5;
/// More than this waits in no reader's name: a head, and a small file.
const HELD_BYTES: usize = 50 * 1024;
/// Far more turns than the slowest reader needs for all that it asked for.
const SETTLE_TURNS: usize = 20_000;
/// Turns at one instant in which nothing moves.
const IDLE_TURNS: usize = 40;

/// Where the files are.
enum Store {
    Disk(SharedDisk),
    Folder(TempDir),
}

impl Store {
    fn shrink(&self, file: usize, size: u64) {
        match self {
            Self::Disk(disk) => {
                let sizes = &mut disk.lock().unwrap().sizes;
                sizes[file] = sizes[file].min(size);
            }
            Self::Folder(folder) => {
                let path = folder.path().join(file.to_string());
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                let size = size.min(file.metadata().unwrap().len());
                file.set_len(size).unwrap();
            }
        }
    }

    fn size(&self, file: usize) -> u64 {
        match self {
            Self::Disk(disk) => disk.lock().unwrap().sizes[file],
            Self::Folder(folder) => {
                let path = folder.path().join(file.to_string());
                std::fs::metadata(path).unwrap().len()
            }
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    reset: usize,
    shrunk: usize,
    cold: usize,
    /// Reloads that gave readers less time than before, and more.
    shortened: usize,
    lengthened: usize,
}

struct Simulation<S: Service> {
    seed: u64,
    random: fastrand::Rng,
    world: World,
    engine: Engine<SimulatedNetwork, S>,
    limits: Limits,
    store: Store,
    now: Instant,
    readers: Vec<Reader>,
    seen: Seen,
    idle_turns: usize,
}

impl<S: Service> Simulation<S> {
    fn new(seed: u64, mut random: fastrand::Rng, store: Store, service: S) -> Self {
        let limits = Limits {
            grace: GRACE,
            drain_timeout: Some(Duration::from_secs(1 << 30)),
            ..Limits::default()
        };
        let now = Instant::now();
        let world = World::new(random.u64(..));
        let network = SimulatedNetwork(world.clone());
        let engine = Engine::new(network, service, &limits, 1 << 30, 1000, now).unwrap();
        let count = random.usize(2..7);
        let readers: Vec<_> = (0..count)
            .map(|_| Reader::new(&world, &mut random, now))
            .collect();
        Self {
            seed,
            random,
            world,
            engine,
            limits,
            store,
            now,
            readers,
            seen: Seen::default(),
            idle_turns: 0,
        }
    }

    fn turn(&mut self) {
        self.engine.handle_listener();
        let owed = |world: &World, readers: &[Reader]| -> usize {
            readers.iter().map(|reader| world.owed(reader.link)).sum()
        };
        let before = owed(&self.world, &self.readers);
        if let Store::Disk(disk) = &self.store
            && !disk.lock().unwrap().fetching.is_empty()
            && self.random.bool()
        {
            self.seen.cold += 1;
            self.engine.handle_wake();
            self.idle_turns = 0;
        }
        if matches!(self.store, Store::Folder(_)) {
            // The kernel may take a page for cold: then a thread has it soon.
            self.engine.handle_wake();
        }
        let events = self.world.take_events();
        let is_quiet = events.is_empty();
        for (id, event) in events {
            self.engine.handle_event(id, event);
        }
        let next = self.engine.turn(self.now);
        let held = self.engine.queued_bytes();
        assert!(
            held <= HELD_BYTES * self.readers.len(),
            "seed {}: {held} bytes wait in memory",
            self.seed
        );
        let moved = owed(&self.world, &self.readers) != before;
        let is_idle = is_quiet && !moved && next == Next::WaitFor(Duration::ZERO);
        self.idle_turns = if is_idle { self.idle_turns + 1 } else { 0 };
        assert!(
            self.idle_turns < IDLE_TURNS,
            "seed {}: the engine spins",
            self.seed
        );
        for reader in &mut self.readers {
            reader.read(&self.world, self.now, self.seed);
            reader.check(&self.world, self.now, self.limits.grace, LATE, self.seed);
        }
    }

    fn step(&mut self) {
        let index = self.random.usize(..self.readers.len());
        let file = self.random.usize(..FILES);
        match self.random.u8(..16) {
            0..=5 => {
                let size = self.store.size(file);
                let is_rest = matches!(self.store, Store::Folder(_)) && self.random.u8(..3) == 0 && size > 1;
                let first = if is_rest { self.random.u64(1..size) } else { 0 };
                for _ in 0..self.random.usize(1..4) {
                    self.readers[index].ask(&self.world, file, first, &mut self.random);
                }
            }
            6..=9 => self.readers[index].change(&mut self.random),
            10 => {
                // Now and then longer than the grace.
                let longest = if self.random.u8(..8) == 0 { 7_000 } else { 900 };
                let time = Duration::from_millis(self.random.u64(1..longest));
                self.pass(time);
            }
            11 if self.random.u8(..6) == 0 => {
                let size = self.random.u64(..self.store.size(file).max(1));
                self.store.shrink(file, size);
                self.seen.shrunk += 1;
                for reader in &mut self.readers {
                    reader.may_be_reset |= reader.asks_for(file);
                }
            }
            12 if self.random.u8(..6) == 0 => {
                self.world.reset(self.readers[index].link);
                self.readers[index].has_left = true;
            }
            13 if self.random.u8(..6) == 0 && !self.readers[index].has_ended => {
                self.world.end(self.readers[index].link);
                self.readers[index].has_ended = true;
            }
            14 if self.random.u8(..3) == 0 && self.readers.len() < 12 => {
                let reader = Reader::new(&self.world, &mut self.random, self.now);
                self.readers.push(reader);
            }
            15 if self.random.u8(..3) == 0 => self.reload(),
            _ => {}
        }
        self.turn();
    }

    /// Chooses another grace. Whoever has less time than before has all of it once
    /// more; of a longer time, what was used up stays used up.
    fn reload(&mut self) {
        let grace = Duration::from_millis(GRACES_MS[self.random.usize(..GRACES_MS.len())]);
        let before = std::mem::replace(&mut self.limits.grace, grace);
        self.engine.reload(&self.limits, 1 << 30, 1000).unwrap();
        self.seen.shortened += usize::from(grace < before);
        self.seen.lengthened += usize::from(grace > before);
        for reader in self.readers.iter_mut().filter(|_| grace < before) {
            reader.pardoned = self.now;
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP.min(until - self.now);
            for _ in 0..3 {
                self.turn();
            }
        }
    }

    /// Everybody reads everything: then nothing may be missing.
    fn settle(mut self) -> Seen {
        for reader in &mut self.readers {
            reader.behaviour = Behaviour::ReadsAll;
        }
        for _ in 0..SETTLE_TURNS {
            self.turn();
            self.now += STEP / 10;
            let is_open = |reader: &Reader| self.world.left(reader.link) == Left::Open && !reader.has_left;
            let mut open = self.readers.iter().filter(|reader| is_open(reader));
            if !open.any(|reader| reader.is_waiting() || reader.has_ended) {
                break;
            }
        }
        for reader in &self.readers {
            let left = self.world.left(reader.link);
            let is_kept = left == Left::Open && !reader.has_left;
            assert!(
                !is_kept || !reader.is_waiting(),
                "seed {}: link {} still waits for what it asked for",
                self.seed,
                reader.link
            );
            assert!(
                !(reader.has_ended && is_kept),
                "seed {}: link {} has ended and is kept",
                self.seed,
                reader.link
            );
            self.seen.answers += reader.answers;
            self.seen.reset += usize::from(left == Left::Reset);
        }
        self.seen
    }

    fn run(mut self) -> Seen {
        self.turn();
        for _ in 0..250 {
            self.step();
        }
        self.settle()
    }
}

fn sizes(random: &mut fastrand::Rng) -> Vec<u64> {
    (0..FILES)
        .map(|_| match random.u8(..4) {
            0 => random.u64(..10),
            1 => random.u64(..40_000),
            _ => random.u64(..80_000),
        })
        .collect()
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("FILES_SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).unwrap(),
        Err(_) => 0..count,
    }
}

fn assert_troubles(seen: &[Seen]) {
    let any = |count: fn(&Seen) -> bool| seen.len() == 1 || seen.iter().any(count);
    assert!(any(|seen| seen.answers > 20) && any(|seen| seen.reset > 0) && any(|seen| seen.shrunk > 0));
    assert!(any(|seen| seen.shortened > 0) && any(|seen| seen.lengthened > 0));
}

#[test]
fn the_server_of_files_keeps_its_books_whatever_readers_and_files_do() {
    let run = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        for (file, size) in sizes(&mut random).into_iter().enumerate() {
            let bytes: Vec<u8> = (0..size).map(|offset| byte_at(file, offset)).collect();
            std::fs::write(folder.path().join(file.to_string()), bytes).unwrap();
        }
        let mut config = FilesConfig::new(Folder::open(folder.path()).unwrap());
        config.request_timeout = Duration::from_secs(1 << 30);
        let service = Files::new(config, remote()).unwrap();
        Simulation::new(seed, random, Store::Folder(folder), service).run()
    };
    assert_troubles(&seeds(40).map(run).collect::<Vec<_>>());
}

#[test]
fn answers_from_a_slow_disk_keep_their_books_too() {
    let run = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = archive::disk(sizes(&mut random), random.u64(..));
        let service = Archive::new(disk.clone());
        Simulation::new(seed, random, Store::Disk(disk), service).run()
    };
    let seen: Vec<_> = seeds(40).map(run).collect();
    assert_troubles(&seen);
    assert!(seen.iter().any(|seen| seen.cold > 10), "no page was ever cold");
}

/// A handle of an event loop that never runs: all pages are in memory here, so
/// no thread has anything to say.
fn remote() -> Remote {
    let mut kept = None;
    let address = ([127, 0, 0, 1], 0).into();
    let event_loop = EventLoop::listen_on(&[address], Limits::default(), |remote| {
        kept = Some(remote);
        Echo
    });
    drop(event_loop.unwrap());
    kept.unwrap()
}
