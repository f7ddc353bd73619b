//! Publishers and subscribers in a world without sockets and without a clock:
//! the real engine and the real service, driven from a seed.
//!
//! After each turn every byte that a subscriber got is checked: messages of a
//! channel are in order, none overtakes a message of another channel, and what
//! was delivered and what was told as lost make together what was published.
//! Nobody is disconnected without a reason, though limits change meanwhile. A failure names the seed that
//! repeats it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test or a helper that fails should say so at once"
)]
#![allow(clippy::disallowed_methods, reason = "simulated time needs an origin")]

mod books;
#[path = "../support/simulated_network.rs"]
mod network;
mod rules;
mod subscriber;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use highwater::Limits;
use highwater::backpressure::Action;
use highwater::engine::Engine;
use highwater::services::Broadcast;
use highwater::services::broadcast::{Settings, SettingsChange};

use books::Books;
use network::{SimulatedNetwork, World, take_turn};
use subscriber::{Behaviour, Subscriber};

/// The grace at the start, and those that a reload may choose.
const GRACE: Duration = Duration::from_secs(5);
const GRACES_MS: [u64; 3] = [1_500, 3_000, 5_000];
const MARK_BYTES: usize = 2_000;
/// One channel for each action, published to by one client of its own, so that
/// the order of its messages is known.
const CHANNELS: [(&str, Action); 4] = [
    ("keep", Action::Disconnect),
    ("drop", Action::DropOldest),
    ("value", Action::Latest),
    ("wait", Action::Pause),
];
const LIMIT_BYTES: usize = 4 * MARK_BYTES;

struct Publisher {
    link: usize,
    sent: u64,
    answered: u64,
    waits_since: Option<Instant>,
}

struct Simulation {
    seed: u64,
    random: fastrand::Rng,
    world: World,
    engine: Engine<SimulatedNetwork, Broadcast>,
    settings: Settings,
    change: SettingsChange,
    reloads: usize,
    now: Instant,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    books: Books,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = Limits {
            high_water_mark_bytes: MARK_BYTES,
            limit_bytes: Some(LIMIT_BYTES),
            hard_limit_bytes: Some(1 << 20),
            grace: GRACE,
            ..Limits::default()
        };
        let mut settings = Settings::new(&limits);
        settings.rules = CHANNELS
            .map(|(name, action)| (name.as_bytes().to_vec(), action))
            .to_vec();
        let now = Instant::now();
        let world = World::new(random.u64(..));
        let network = SimulatedNetwork(world.clone());
        let change = SettingsChange::default();
        let service = Broadcast::new(settings.clone()).following(change.clone());
        let engine = Engine::new(
            network,
            service,
            &Broadcast::engine_limits(&limits),
            1 << 30,
            1000,
            now,
        )
        .unwrap();
        let publishers = CHANNELS.iter().map(|_| Publisher {
            link: world.connect(usize::MAX),
            sent: 0,
            answered: 0,
            waits_since: None,
        });
        let publishers = publishers.collect();
        let subscribers = (0..random.usize(2..7))
            .map(|_| Subscriber::new(&world, &mut random, now))
            .collect();
        Self {
            seed,
            random,
            world,
            engine,
            settings,
            change,
            reloads: 0,
            now,
            publishers,
            subscribers,
            books: Books::new(GRACE, LIMIT_BYTES),
        }
    }

    fn turn(&mut self) {
        self.books.turn += 1;
        take_turn(&self.world, &mut self.engine, self.now);
        self.read_answers();
    }

    /// Publishers read everything at once, and none waits for longer than the
    /// grace and two looks at the clocks: once more after a shorter one came.
    fn read_answers(&mut self) {
        for (publisher, (name, _)) in self.publishers.iter_mut().zip(CHANNELS) {
            let answers = self.world.read(publisher.link, usize::MAX);
            publisher.answered += answers.iter().filter(|&&byte| byte == b':').count() as u64;
            self.books.processed(name, publisher.answered);
            if publisher.answered == publisher.sent {
                publisher.waits_since = None;
            }
            let waited = publisher
                .waits_since
                .map_or(Duration::ZERO, |since| self.now - since);
            assert!(
                waited <= self.books.grace + Duration::from_millis(300),
                "seed {}: a publisher waited {waited:?}",
                self.seed
            );
        }
    }

    fn processed(&self) -> BTreeMap<&'static str, u64> {
        CHANNELS
            .iter()
            .zip(&self.publishers)
            .map(|((name, _), publisher)| (*name, publisher.answered))
            .collect()
    }

    fn step(&mut self) {
        match self.random.u8(..13) {
            0..=4 => self.publish(),
            5..=8 => {
                let index = self.random.usize(..self.subscribers.len());
                self.subscribers[index].read_some(&self.world, &mut self.random);
            }
            9 => return self.change_subscription(),
            10 => {
                // Now and then longer than the grace.
                let longest = if self.random.u8(..10) == 0 { 7_000 } else { 400 };
                let time = Duration::from_millis(self.random.u64(1..longest));
                self.pass(time);
            }
            11 if self.random.u8(..3) == 0 => self.reload(),
            _ => {
                let index = self.random.usize(..self.subscribers.len());
                self.subscribers[index].change_behaviour(&mut self.random);
            }
        }
        self.turn();
        self.let_healthy_ones_read();
    }

    /// Chooses another grace and another limit. Whoever has less time than before has
    /// all of it once more.
    fn reload(&mut self) {
        let grace = Duration::from_millis(GRACES_MS[self.random.usize(..GRACES_MS.len())]);
        let limit_bytes = LIMIT_BYTES / self.random.usize(1..4);
        if grace < self.books.grace {
            for subscriber in &mut self.subscribers {
                subscriber.pardon(self.now);
            }
            for publisher in &mut self.publishers {
                publisher.waits_since = publisher.waits_since.and(Some(self.now));
            }
        }
        (self.settings.grace, self.settings.limit_bytes) = (grace, limit_bytes);
        (self.books.grace, self.books.limit_bytes) = (grace, limit_bytes);
        self.change.leave(self.settings.clone());
        let limits = Broadcast::engine_limits(&Limits::default());
        self.engine.reload(&limits, 1 << 30, 1000).unwrap();
        self.reloads += 1;
    }

    /// Time goes on as the loop's waits let it.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(25).min(until - self.now);
            self.turn();
            self.let_healthy_ones_read();
        }
    }

    fn publish(&mut self) {
        let index = self.random.usize(..CHANNELS.len());
        let publisher = &mut self.publishers[index];
        if publisher.sent > publisher.answered {
            return;
        }
        for _ in 0..self.random.usize(1..6) {
            let filling = "x".repeat(self.random.usize(..300));
            let payload = format!("{} {} {filling}", publisher.sent, self.books.turn);
            let name = CHANNELS[index].0;
            self.books.sent(name, payload.len());
            self.world
                .send(publisher.link, &command(&["PUBLISH", name, &payload]));
            publisher.sent += 1;
        }
        publisher.waits_since = Some(self.now);
    }

    fn change_subscription(&mut self) {
        let before = self.processed();
        let index = self.random.usize(..self.subscribers.len());
        let changed = self.subscribers[index].change_subscription(&self.world, &mut self.random, &before);
        self.turn();
        // An answer may still be under way, so only what was sent is certain.
        for channel in changed {
            let place = CHANNELS.iter().position(|(name, _)| *name == channel).unwrap();
            self.subscribers[index].changed(channel, self.publishers[place].sent);
        }
        self.let_healthy_ones_read();
    }

    fn let_healthy_ones_read(&mut self) {
        for subscriber in &mut self.subscribers {
            if subscriber.behaviour == Behaviour::Healthy {
                subscriber.read_all(&self.world);
            }
            subscriber.check(&self.world, &self.books, self.now, self.seed);
        }
    }

    /// Everybody reads everything: then nothing may be missing.
    fn settle(&mut self) {
        for _ in 0..600 {
            for subscriber in &mut self.subscribers {
                subscriber.behaviour = Behaviour::Healthy;
            }
            self.turn();
            self.let_healthy_ones_read();
            self.now += Duration::from_millis(20);
        }
        let processed = self.processed();
        for subscriber in &self.subscribers {
            subscriber.check_end(&processed, self.seed);
        }
        assert!(
            self.publishers
                .iter()
                .all(|publisher| publisher.sent == publisher.answered),
            "seed {}",
            self.seed
        );
    }
}

fn command(parts: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        bytes.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
    }
    bytes
}

#[test]
fn delivered_and_told_make_published_whatever_subscribers_do() {
    let seeds = match std::env::var("BROADCAST_SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).unwrap(),
        Err(_) => 0..120,
    };
    let (mut lost, mut cut, mut reloads) = (0, 0, 0);
    for seed in seeds {
        let mut simulation = Simulation::new(seed);
        simulation.turn();
        for _ in 0..300 {
            simulation.step();
        }
        simulation.settle();
        reloads += simulation.reloads;
        lost += simulation
            .subscribers
            .iter()
            .map(|subscriber| subscriber.told)
            .sum::<u64>();
        cut += simulation
            .subscribers
            .iter()
            .filter(|subscriber| subscriber.is_gone)
            .count();
    }
    assert!(lost > 0 || cut > 0, "nobody was slow, so nothing was tested");
    assert!(reloads > 0, "no limit ever changed");
}
