//! When an episode of shadow mode begins and when it is over, by the second,
//! in a world without sockets and without a clock.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that fails should say so at once, and simulated time needs an origin"
)]

#[path = "support/simulated_network.rs"]
mod network;

use std::time::{Duration, Instant};

use highwater::Limits;
use highwater::engine::Engine;
use highwater::services::Echo;

use network::{SimulatedNetwork, World, pass, take_turn};

const SECOND: Duration = Duration::from_secs(1);

/// Time over the limit, and until the queue must have been empty.
const GRACE: Duration = SECOND;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Far below the mark, so that no source is paused.
const LIMIT_BYTES: usize = 16 << 10;

/// What the kernel of a client holds.
const SOCKET_BYTES: usize = 1000;

/// A server in shadow mode, and its only client.
struct Stage {
    world: World,
    engine: Engine<SimulatedNetwork, Echo>,
    now: Instant,
    client: usize,
}

impl Stage {
    /// The client has sent so much that it is over the limit, and reads nothing.
    fn with_a_stalled_client() -> Self {
        let limits = Limits {
            limit_bytes: Some(LIMIT_BYTES),
            grace: GRACE,
            drain_timeout: Some(DRAIN_TIMEOUT),
            shadow: true,
            ..Limits::default()
        };
        let (world, now) = (World::new(7), Instant::now());
        let network = SimulatedNetwork(world.clone());
        let engine = Engine::new(network, Echo, &limits, 1 << 30, 100, now).unwrap();
        let client = world.connect(SOCKET_BYTES);
        let mut stage = Self {
            world,
            engine,
            now,
            client,
        };
        stage.turn();
        stage.world.send(client, &[7; 2 * LIMIT_BYTES]);
        stage.pass(GRACE / 2);
        stage
    }

    fn turn(&mut self) {
        take_turn(&self.world, &mut self.engine, self.now);
    }

    fn pass(&mut self, time: Duration) {
        pass(&self.world, &mut self.engine, &mut self.now, time);
    }

    /// The client reads at least so many bytes, without time going on.
    fn read(&mut self, bytes: usize) {
        let mut read = 0;
        for _ in 0..10_000 {
            if read >= bytes {
                return;
            }
            read += self.world.read(self.client, SOCKET_BYTES).len();
            self.turn();
        }
        panic!("only {read} of {bytes} bytes come");
    }

    fn read_all(&mut self) {
        while self.engine.queued_bytes() > 0 {
            self.read(1);
        }
    }

    /// Episodes: those that began, that ended by a recovery, and that are not over.
    fn episodes(&self) -> [u64; 3] {
        let told = self.engine.shadow_report().unwrap();
        [told.would_disconnect, told.recovered, told.stuck]
    }
}

#[test]
fn who_is_below_the_limit_again_has_not_recovered_if_its_drain_timeout_is_over_as_well() {
    let mut stage = Stage::with_a_stalled_client();
    stage.pass(GRACE);
    assert_eq!(stage.episodes(), [1, 0, 1], "over the limit for the grace");
    stage.pass(DRAIN_TIMEOUT);
    stage.read(3 * LIMIT_BYTES / 2);
    assert!((1..LIMIT_BYTES).contains(&stage.engine.queued_bytes()));
    assert_eq!(stage.episodes(), [1, 0, 1], "still not drained");
    stage.pass(2 * DRAIN_TIMEOUT);
    assert_eq!(stage.episodes(), [1, 0, 1], "told once");
    stage.read_all();
    assert_eq!(stage.episodes(), [1, 1, 0]);
}

#[test]
fn who_is_below_the_limit_again_has_recovered_and_the_drain_timeout_begins_another_episode() {
    let mut stage = Stage::with_a_stalled_client();
    stage.pass(GRACE);
    stage.read(3 * LIMIT_BYTES / 2);
    assert_eq!(stage.episodes(), [1, 1, 0], "the drain timeout is not over");
    stage.pass(DRAIN_TIMEOUT);
    assert_eq!(stage.episodes(), [2, 1, 1]);
    stage.read_all();
    assert_eq!(stage.episodes(), [2, 2, 0]);
}

#[test]
fn who_comes_over_the_limit_again_while_its_drain_timeout_is_over_is_in_the_same_episode() {
    let mut stage = Stage::with_a_stalled_client();
    stage.pass(DRAIN_TIMEOUT);
    for _ in 0..3 {
        stage.read(3 * LIMIT_BYTES / 2);
        stage.world.send(stage.client, &[7; 3 * LIMIT_BYTES / 2]);
        stage.pass(2 * GRACE);
        assert_eq!(stage.episodes(), [1, 0, 1]);
    }
    stage.read_all();
    assert_eq!(stage.episodes(), [1, 1, 0]);
    stage.world.send(stage.client, &[7; 2 * LIMIT_BYTES]);
    stage.pass(GRACE + SECOND);
    assert_eq!(stage.episodes(), [2, 1, 1], "it had recovered");
}
