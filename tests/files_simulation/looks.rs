//! What a reader that stands still costs: how often the server looks at it, and
//! when it goes.

use std::time::{Duration, Instant};

use highwater::Limits;
use highwater::engine::{Engine, Next};
use highwater::services::{Files, FilesConfig, Folder};

use crate::network::{Left, Looks, SimulatedNetwork, World};
use crate::remote;

/// More than a connection holds.
const FILE_BYTES: usize = 100_000;
const CAPACITY_BYTES: usize = 5_000;
/// Far more turns than any of these readers needs.
const MOST_TURNS: usize = 10_000;

/// What a reader costs until it is reset.
struct Cost {
    /// From the last byte that it read on.
    kept_for: Duration,
    looks: Looks,
}

/// A reader that takes something after each pause, and then nothing more. Time
/// passes as the engine says that it may wait.
fn cost(grace: Duration, pauses: &[Duration]) -> Cost {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), vec![7; FILE_BYTES]).unwrap();
    let service = Files::new(FilesConfig::new(Folder::open(folder.path()).unwrap()), remote()).unwrap();
    let limits = Limits {
        grace,
        drain_timeout: Some(Duration::from_secs(1 << 30)),
        ..Limits::default()
    };
    let mut now = Instant::now();
    let world = World::new(1);
    let network = SimulatedNetwork(world.clone());
    let mut engine = Engine::new(network, service, &limits, 1 << 30, 10, now).unwrap();
    let link = world.connect(CAPACITY_BYTES);
    world.send(link, b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
    engine.handle_listener();
    let mut pauses = pauses.iter();
    let mut last_read = now;
    let mut next_read = pauses.next().map(|pause| now + *pause);
    let mut events = Vec::new();
    for _ in 0..MOST_TURNS {
        for (id, event) in events.drain(..) {
            engine.handle_event(id, event);
        }
        // The kernel may take a page for cold: then a thread has it soon.
        engine.handle_wake();
        let wait = match engine.turn(now) {
            Next::WaitFor(wait) => wait,
            Next::Wait => Duration::ZERO,
            Next::Stopped => break,
        };
        if world.left(link) != Left::Open {
            assert_eq!(world.left(link), Left::Reset);
            let kept_for = now - last_read;
            let looks = world.looks(link);
            return Cost { kept_for, looks };
        }
        events = world.take_events();
        now += if events.is_empty() { wait } else { Duration::ZERO };
        if let Some(due) = next_read.filter(|due| *due <= now) {
            now = due;
            last_read = now;
            assert!(!world.read(link, 1_000).is_empty());
            next_read = pauses.next().map(|pause| now + *pause);
        }
    }
    panic!("the reader was kept");
}

#[test]
fn a_reader_that_stands_still_is_looked_at_thirty_times_and_goes_on_time() {
    let cost = cost(Duration::from_secs(60), &[]);
    assert_eq!(cost.kept_for, Duration::from_secs(60));
    // Each look is one system call. A window is looked at where it may have
    // grown, and for the line that says why a reader goes.
    let Looks { owed, window } = cost.looks;
    assert!((20..=33).contains(&owed) && window <= 2, "{:?}", cost.looks);
}

#[test]
fn a_reader_goes_at_most_one_look_after_its_grace_wherever_its_last_byte_was_read() {
    for (grace, longest) in [(5_000, 5_167), (60_000, 62_000), (200, 210)] {
        for step in 1..10 {
            let pause = Duration::from_millis(grace * step / 13);
            let kept_for = cost(Duration::from_millis(grace), &[pause, pause]).kept_for;
            let range = Duration::from_millis(grace)..=Duration::from_millis(longest);
            assert!(
                range.contains(&kept_for),
                "{kept_for:?} of {grace} ms, step {step}"
            );
        }
    }
}
