//! Single rules, each in a world of a few clients whose every byte and second
//! is known.

use std::time::{Duration, Instant};

use highwater::Limits;
use highwater::engine::Engine;
use highwater::services::Broadcast;
use highwater::services::broadcast::{Settings, SettingsChange};

use crate::command;
use crate::network::{SimulatedNetwork, World, pass, take_turn};
use crate::{CHANNELS, GRACE, LIMIT_BYTES, MARK_BYTES};

const HARD_LIMIT_BYTES: usize = 20_000;

/// Longer than any message is beside its payload.
const FRAME_BYTES: usize = 64;

/// What the kernel of a subscriber holds.
const SOCKET_BYTES: usize = 500;

struct Stage {
    world: World,
    engine: Engine<SimulatedNetwork, Broadcast>,
    settings: Settings,
    change: SettingsChange,
    now: Instant,
}

impl Stage {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(shadow: bool) -> Self {
        let limits = Limits {
            shadow,
            high_water_mark_bytes: MARK_BYTES,
            limit_bytes: Some(LIMIT_BYTES),
            hard_limit_bytes: Some(HARD_LIMIT_BYTES),
            grace: GRACE,
            ..Limits::default()
        };
        let mut settings = Settings::new(&limits);
        let rule = |(name, action): (&str, _)| (format!("{name}*").into_bytes(), action);
        settings.rules = CHANNELS.map(rule).to_vec();
        let now = Instant::now();
        let world = World::new(7);
        let network = SimulatedNetwork(world.clone());
        let limits = Broadcast::engine_limits(&limits);
        let change = SettingsChange::default();
        let service = Broadcast::new(settings.clone()).following(change.clone());
        let engine = Engine::new(network, service, &limits, 1 << 30, 100, now);
        Self {
            world,
            engine: engine.unwrap(),
            settings,
            change,
            now,
        }
    }

    /// Other settings, as a reload brings them.
    fn reload(&mut self, edit: impl FnOnce(&mut Settings)) {
        edit(&mut self.settings);
        self.change.leave(self.settings.clone());
        let limits = Broadcast::engine_limits(&Limits::default());
        self.engine.reload(&limits, 1 << 30, 100).unwrap();
        self.turn();
    }

    /// A subscriber with a small socket that reads only if it is told to.
    fn subscriber(&mut self, channels: &[&str]) -> usize {
        let link = self.world.connect(SOCKET_BYTES);
        self.turn();
        self.say(link, &[&["SUBSCRIBE"], channels].concat());
        self.read(link, usize::MAX);
        link
    }

    fn publisher(&mut self) -> usize {
        let link = self.world.connect(usize::MAX);
        self.turn();
        link
    }

    fn say(&mut self, link: usize, parts: &[&str]) {
        self.world.send(link, &command(parts));
        self.turn();
    }

    /// Publishes so many bytes.
    fn publish(&mut self, publisher: usize, channel: &str, bytes: usize) {
        self.say(publisher, &["PUBLISH", channel, &"x".repeat(bytes)]);
    }

    /// Reads as much as has come.
    fn read(&mut self, link: usize, most: usize) -> Vec<u8> {
        let bytes = self.world.read(link, most);
        self.turn();
        bytes
    }

    fn read_all(&mut self, link: usize) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..1000 {
            all.extend(self.read(link, usize::MAX));
        }
        all
    }

    fn turn(&mut self) {
        take_turn(&self.world, &mut self.engine, self.now);
    }

    fn pass(&mut self, time: Duration) {
        pass(&self.world, &mut self.engine, &mut self.now, time);
    }

    fn is_gone(&self, link: usize) -> bool {
        self.world.has_left(link)
    }

    fn answers(&mut self, publisher: usize) -> usize {
        let bytes = self.read(publisher, usize::MAX);
        bytes.iter().filter(|&&byte| byte == b':').count()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_clock_of_disconnect_stops_below_the_limit_and_begins_anew_above_it() {
    let mut stage = Stage::new();
    let (subscriber, publisher) = (stage.subscriber(&["keep"]), stage.publisher());
    for _ in 0..12 {
        stage.publish(publisher, "keep", 1000 - FRAME_BYTES);
    }
    stage.pass(GRACE - SECOND);
    // Below the limit, and far from empty.
    let mut taken = 0;
    while taken < 5_000 {
        let got = stage.read(subscriber, 250).len();
        assert!(got > 0, "after {taken} bytes");
        taken += got;
    }
    stage.pass(3 * GRACE);
    assert!(!stage.is_gone(subscriber), "it owes less than the limit");
    for _ in 0..5 {
        stage.publish(publisher, "keep", 1000 - FRAME_BYTES);
    }
    stage.pass(GRACE - SECOND);
    assert!(!stage.is_gone(subscriber), "its clock began anew");
    stage.pass(SECOND + Duration::from_millis(200));
    assert!(stage.is_gone(subscriber), "over the limit for the grace");
}

#[test]
fn nobody_is_disconnected_for_the_limit_when_publishing_stops_below_it() {
    let mut stage = Stage::new();
    let (subscriber, publisher) = (stage.subscriber(&["keep"]), stage.publisher());
    for _ in 0..7 {
        stage.publish(publisher, "keep", 1000);
    }
    stage.pass(10 * GRACE);
    assert!(!stage.is_gone(subscriber));
    stage.pass(3 * GRACE);
    assert!(stage.is_gone(subscriber), "the drain timeout holds all the same");
}

#[test]
fn in_shadow_mode_who_is_below_the_limit_again_has_not_recovered_if_its_drain_timeout_is_over_as_well() {
    let mut stage = Stage::with(true);
    let (subscriber, publisher) = (stage.subscriber(&["keep"]), stage.publisher());
    for _ in 0..12 {
        stage.publish(publisher, "keep", 1000 - FRAME_BYTES);
    }
    let episodes = |stage: &Stage| {
        let told = stage.engine.shadow_report().unwrap();
        [told.would_disconnect, told.recovered, told.stuck]
    };
    stage.pass(GRACE + SECOND);
    assert_eq!(episodes(&stage), [1, 0, 1], "over the limit for the grace");
    stage.pass(12 * GRACE);
    let mut taken = 0;
    while taken < 8_000 {
        let got = stage.read(subscriber, 250).len();
        assert!(got > 0, "after {taken} bytes");
        taken += got;
    }
    assert_eq!(episodes(&stage), [1, 0, 1], "still not drained");
    stage.pass(GRACE);
    assert_eq!(episodes(&stage), [1, 0, 1], "told once");
    stage.read_all(subscriber);
    assert_eq!(episodes(&stage), [1, 1, 0]);
    assert!(!stage.is_gone(subscriber));
}

#[test]
fn a_message_is_always_taken_into_an_empty_queue_and_the_next_meets_the_hard_limit() {
    let mut stage = Stage::new();
    let (subscriber, publisher) = (stage.subscriber(&["keep"]), stage.publisher());
    stage.publish(publisher, "keep", HARD_LIMIT_BYTES + 5_000);
    stage.pass(GRACE - SECOND);
    assert!(!stage.is_gone(subscriber), "one message, however long");
    let got = stage.read_all(subscriber);
    assert!(got.len() > HARD_LIMIT_BYTES + 5_000);
    stage.publish(publisher, "keep", HARD_LIMIT_BYTES + 5_000);
    stage.publish(publisher, "keep", 1);
    stage.turn();
    assert!(stage.is_gone(subscriber), "two, above the hard limit");
}

#[test]
fn under_pause_many_stalled_subscribers_hold_a_publisher_for_one_grace_in_all() {
    let mut stage = Stage::new();
    let subscribers: Vec<usize> = (0..5).map(|_| stage.subscriber(&["wait"])).collect();
    let publisher = stage.publisher();
    let mut answered = 0;
    for _ in 0..20 {
        // Each is full at another time, since each has taken something else.
        stage.publish(publisher, "wait", 300);
        answered += stage.answers(publisher);
        let reader = subscribers[answered % 5];
        stage.read(reader, 100 * (answered % 4));
    }
    assert!(answered < 20, "it was never held");
    stage.pass(GRACE + Duration::from_millis(100));
    answered += stage.answers(publisher);
    assert_eq!(answered, 20, "all at once after one grace");
    let left = subscribers.iter().filter(|&&link| !stage.is_gone(link)).count();
    assert_eq!(left, 0);
}

#[test]
fn a_shorter_grace_of_a_reload_is_whole_for_who_was_over_the_limit_and_for_who_holds_a_publisher() {
    for channel in ["keep", "wait"] {
        let mut stage = Stage::new();
        let (subscriber, publisher) = (stage.subscriber(&[channel]), stage.publisher());
        for _ in 0..12 {
            stage.publish(publisher, channel, 1000 - FRAME_BYTES);
        }
        stage.pass(GRACE - SECOND);
        stage.reload(|settings| settings.grace = 2 * SECOND);
        stage.pass(2 * SECOND - Duration::from_millis(100));
        assert!(
            !stage.is_gone(subscriber),
            "{channel}: it has all of the new grace"
        );
        stage.pass(Duration::from_millis(300));
        assert!(stage.is_gone(subscriber), "{channel}: and no more");
        stage.turn();
        assert_eq!(stage.answers(publisher), 12, "{channel}");
    }
}

#[test]
fn a_lower_limit_of_a_reload_begins_the_grace_and_a_higher_one_ends_it() {
    let mut stage = Stage::new();
    let (subscriber, publisher) = (stage.subscriber(&["keep"]), stage.publisher());
    for _ in 0..7 {
        stage.publish(publisher, "keep", 1000 - FRAME_BYTES);
    }
    stage.pass(2 * GRACE);
    stage.reload(|settings| settings.limit_bytes = LIMIT_BYTES / 2);
    stage.pass(GRACE - SECOND);
    stage.reload(|settings| settings.limit_bytes = LIMIT_BYTES);
    stage.pass(2 * GRACE);
    stage.reload(|settings| settings.limit_bytes = LIMIT_BYTES / 2);
    stage.pass(GRACE - SECOND);
    assert!(!stage.is_gone(subscriber), "its clock began anew");
    stage.pass(SECOND + Duration::from_millis(200));
    assert!(stage.is_gone(subscriber));
}

#[test]
fn under_pause_a_transaction_never_stops_half_way_and_a_client_never_waits_for_itself() {
    let mut stage = Stage::new();
    let _stalled = stage.subscriber(&["wait"]);
    let publisher = stage.publisher();
    stage.say(publisher, &["HELLO", "3"]);
    stage.say(publisher, &["SUBSCRIBE", "wait"]);
    stage.read(publisher, usize::MAX);
    stage.say(publisher, &["MULTI"]);
    for _ in 0..20 {
        stage.publish(publisher, "wait", 500);
    }
    stage.say(publisher, &["EXEC"]);
    stage.turn();
    let answered = String::from_utf8(stage.read(publisher, usize::MAX)).unwrap();
    assert_eq!(answered.matches(":2\r\n").count(), 20, "all of the transaction");
    assert_eq!(
        answered.matches(">3\r\n$7\r\nmessage\r\n").count(),
        20,
        "its own too"
    );
    // With the next message it is held for the other; and free after the grace.
    stage.publish(publisher, "wait", 500);
    stage.read(publisher, usize::MAX);
    stage.say(publisher, &["PING"]);
    assert!(stage.read(publisher, usize::MAX).is_empty());
    stage.pass(GRACE + Duration::from_millis(100));
    assert_eq!(stage.read(publisher, usize::MAX), b"+PONG\r\n");
    // Alone with itself it is never held.
    for _ in 0..20 {
        stage.publish(publisher, "wait", 5_000);
    }
    let answered = String::from_utf8(stage.read(publisher, usize::MAX)).unwrap();
    assert_eq!(answered.matches(":1\r\n").count(), 20);
}

#[test]
fn what_may_be_dropped_counts_to_no_limit_and_costs_no_message_of_another_action() {
    let mut stage = Stage::new();
    let subscriber = stage.subscriber(&["keep", "drop", "value"]);
    let publisher = stage.publisher();
    for _ in 0..40 {
        stage.publish(publisher, "drop", 900);
        stage.publish(publisher, "value", 900);
    }
    // Half of the limit, in between.
    for number in 0..4 {
        let payload = format!("kept-{number}-{}", "x".repeat(900));
        stage.say(publisher, &["PUBLISH", "keep", &payload]);
        for _ in 0..20 {
            stage.publish(publisher, "drop", 900);
        }
    }
    stage.pass(3 * GRACE);
    assert!(!stage.is_gone(subscriber), "it owes less than the limit");
    let got = String::from_utf8_lossy(&stage.read_all(subscriber)).into_owned();
    let places: Vec<usize> = (0..4)
        .map(|number| got.find(&format!("kept-{number}-")).unwrap())
        .collect();
    assert!(places.is_sorted(), "none is missing, and all are in order");
    assert!(got.matches("$4\r\ndrop\r\n").count() < 10, "most were dropped");
    assert_eq!(got.matches("$5\r\nvalue\r\n").count(), 1, "the last value");
}

#[test]
fn what_may_be_dropped_of_several_channels_stays_near_one_mark_though_no_time_passes() {
    let mut stage = Stage::new();
    let channels = ["drop.a", "drop.b", "drop.c"];
    let subscriber = stage.subscriber(&channels);
    let publisher = stage.publisher();
    for _ in 0..200 {
        for channel in channels {
            stage.publish(publisher, channel, 100);
        }
    }
    stage.read(publisher, usize::MAX);
    stage.say(publisher, &["CLIENT", "LIST"]);
    let list = String::from_utf8(stage.read(publisher, usize::MAX)).unwrap();
    let owed = list
        .split("omem=")
        .filter_map(|rest| rest.split(' ').next()?.parse().ok());
    let owed: usize = owed.max().unwrap();
    // A quarter of the mark may come before it is looked at again.
    let most = MARK_BYTES + MARK_BYTES / 4 + 4 * (100 + FRAME_BYTES);
    assert!(
        (MARK_BYTES / 2..most).contains(&owed),
        "{owed} bytes wait, {most} may"
    );
    let got = stage.read_all(subscriber).len();
    assert!(got <= most + SOCKET_BYTES, "{got} bytes waited, {most} may");
}

#[test]
fn a_pattern_gets_each_channel_s_last_value_once_though_it_fell_behind_within_a_turn() {
    let mut stage = Stage::new();
    let subscriber = stage.world.connect(SOCKET_BYTES);
    stage.turn();
    stage.say(subscriber, &["PSUBSCRIBE", "value*"]);
    stage.read(subscriber, usize::MAX);
    let publisher = stage.publisher();
    // One turn: its socket takes the first, a part of the second, and no third.
    let filling = "x".repeat(300);
    for round in 0..3 {
        let commands = ["a", "b", "c"].map(|name| {
            let payload = format!("{name}{round} {filling}");
            command(&["PUBLISH", &format!("value.{name}"), &payload])
        });
        stage.world.send(publisher, &commands.concat());
        stage.turn();
    }
    let got = String::from_utf8(stage.read_all(subscriber)).unwrap();
    let count = |payload: &str| got.matches(&format!("{payload} x")).count();
    assert_eq!([count("a0"), count("a1"), count("a2")], [1, 0, 1], "{got}");
    for name in ["b", "c"] {
        assert_eq!(count(&format!("{name}2")), 1, "{got}");
        assert!(count(&format!("{name}1")) == 0 && count(&format!("{name}0")) <= 1);
    }
}

#[test]
fn under_the_actions_that_drop_who_takes_nothing_for_the_drain_timeout_goes_all_the_same() {
    let mut stage = Stage::new();
    let (silent, slow) = (stage.subscriber(&["drop"]), stage.subscriber(&["drop"]));
    let publisher = stage.publisher();
    for _ in 0..13 {
        for _ in 0..10 {
            stage.publish(publisher, "drop", 900);
        }
        assert!(!stage.is_gone(silent));
        stage.pass(GRACE - Duration::from_millis(200));
        stage.read(slow, 100);
    }
    assert!(
        stage.is_gone(silent) || {
            stage.pass(SECOND);
            stage.is_gone(silent)
        }
    );
    assert!(!stage.is_gone(slow), "it takes something now and then");
}

#[test]
fn a_stranger_is_refused_while_there_is_no_password() {
    let mut stage = Stage::new();
    stage.world.come_from([192, 0, 2, 1]);
    let stranger = stage.world.connect(usize::MAX);
    stage.turn();
    stage.say(stranger, &["PING"]);
    let told = String::from_utf8(stage.read(stranger, usize::MAX)).unwrap();
    assert!(told.starts_with("-DENIED "), "{told}");
    assert_eq!(told.matches("\r\n").count(), 1, "and nothing more");
    stage.pass(GRACE);
    assert!(stage.is_gone(stranger));
    stage.world.come_from([127, 0, 0, 1]);
    let neighbour = stage.publisher();
    stage.say(neighbour, &["PING"]);
    assert_eq!(stage.read(neighbour, usize::MAX), b"+PONG\r\n");
}
