//! The four actions for slow subscribers, gaps, and what stalled subscribers
//! cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, Value};
use crate::support::server::second_of;
use crate::support::{PATIENCE, wait_until};
use crate::{number_of, payload, publish_many, start};

const LOST: &str = "__highwater__:lost";

#[test]
fn a_stalled_subscriber_is_reset_after_the_grace_and_a_healthy_one_gets_everything() {
    let server = start(&["--grace", "1s"]);
    let mut stalled = Client::with_small_buffer(server.address());
    stalled.subscribe("a");
    let mut healthy = Client::connect(server.address());
    healthy.subscribe("a");
    let address = server.address();
    let reader = std::thread::spawn(move || {
        for number in 0..2000 {
            assert_eq!(number_of(healthy.next().message().unwrap().1), number);
        }
        healthy
    });
    let mut publisher = Client::connect(address);
    let begun = Instant::now();
    publish_many(&mut publisher, "a", 2000, 1000);
    // Nothing is published any more, and the clock goes on all the same.
    let line = server.wait_for_line("write timeout, disconnecting: slow for 1.");
    assert!(line.contains("limit 65536"), "{line}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let _healthy = reader.join().unwrap();
    assert_eq!(
        publisher.ask(&["PUBLISH", "a", "x"]),
        Value::Integer(1),
        "it is gone"
    );
}

#[test]
fn a_subscriber_that_pauses_for_less_than_the_grace_is_kept() {
    let server = start(&["--grace", "20s"]);
    let mut subscriber = Client::with_small_buffer(server.address());
    subscriber.subscribe("a");
    let mut publisher = Client::connect(server.address());
    publish_many(&mut publisher, "a", 1000, 4096);
    for number in 0..1000 {
        assert_eq!(number_of(subscriber.next().message().unwrap().1), number);
    }
    assert_eq!(
        subscriber.ask(&["PING"]),
        Value::Array(vec![Value::Text("pong".into()), Value::Text(String::new())])
    );
}

/// Reads until the message with this number, checks the order, and answers how
/// many messages came and how many gaps were told.
fn account(subscriber: &mut Client, channel: &str, last: usize) -> (usize, usize) {
    let (mut got, mut told, mut expected) = (0, 0, 0);
    loop {
        let value = subscriber.next();
        let (from, data) = value.message().unwrap();
        if from == LOST {
            let (lost_channel, count) = data.rsplit_once(' ').unwrap();
            assert_eq!(lost_channel, channel);
            let count: usize = count.parse().unwrap();
            told += count;
            expected += count;
            continue;
        }
        assert_eq!(number_of(data), expected, "a gap is told exactly where it is");
        expected += 1;
        got += 1;
        if number_of(data) == last {
            return (got, told);
        }
    }
}

#[test]
fn under_drop_oldest_delivered_and_told_make_published() {
    const COUNT: usize = 3000;
    for version in ["2", "3"] {
        let server = start(&["--slow", "drop-oldest"]);
        let mut subscriber = Client::with_small_buffer(server.address());
        subscriber.ask(&["HELLO", version]);
        subscriber.subscribe("a");
        subscriber.subscribe(LOST);
        let mut publisher = Client::connect(server.address());
        let receivers = publish_many(&mut publisher, "a", COUNT, 1000);
        assert_eq!(
            receivers,
            Value::Integer(1),
            "a subscriber counts also where it loses"
        );
        let listed = publisher.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        let (got, told) = account(&mut subscriber, "a", COUNT - 1);
        assert_eq!(got + told, COUNT);
        assert!(told > 0, "nothing was lost, so nothing was tested");
        let shown = listed.text().rsplit_once("lost=").unwrap().1.trim().to_owned();
        assert_eq!(shown, told.to_string());
        let info = publisher.ask(&["INFO", "stats"]);
        assert!(
            info.text().contains(&format!("lost_messages:{told}\r\n")),
            "{info:?}"
        );
        let line = server.wait_for_line(&format!(" lost {told} messages in "));
        assert!(line.contains("(drop-oldest)"), "{line}");
    }
}

#[test]
fn under_latest_the_last_value_of_every_channel_arrives() {
    let server = start(&["--slow-for", "t.*=latest"]);
    let mut subscriber = Client::with_small_buffer(server.address());
    subscriber.send(&["PSUBSCRIBE", "t.*"]);
    subscriber.next();
    subscriber.subscribe(LOST);
    let mut publisher = Client::connect(server.address());
    const ROUNDS: usize = 600;
    for round in 0..ROUNDS {
        for channel in ["t.a", "t.b", "t.c"] {
            publisher.send(&["PUBLISH", channel, &payload(round, 2000)]);
        }
        (0..3).for_each(|_| drop(publisher.next()));
    }
    let (mut seen, mut missing, mut last) = (0, 0, BTreeMap::new());
    while last.values().filter(|&&number| number == ROUNDS - 1).count() < 3 {
        let value = subscriber.next();
        let (channel, data) = value.message().unwrap();
        if channel == LOST {
            missing += data.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap();
            continue;
        }
        let before = last.insert(channel.to_owned(), number_of(data));
        assert!(before.is_none_or(|before| before < number_of(data)), "in order");
        seen += 1;
    }
    assert_eq!(seen + missing, 3 * ROUNDS);
    assert!(missing > 0, "nothing was lost, so nothing was tested");
}

#[test]
fn under_pause_a_publisher_waits_until_the_subscriber_has_drained() {
    let server = start(&["--slow", "pause", "--grace", "20s"]);
    let mut subscriber = Client::with_small_buffer(server.address());
    subscriber.subscribe("a");
    let address = server.address();
    let publisher = std::thread::spawn(move || {
        publish_many(&mut Client::connect(address), "a", 2000, 1000);
    });
    let mut watcher = Client::connect(address);
    wait_until("the publisher is held", || {
        watcher
            .ask(&["INFO", "clients"])
            .text()
            .contains("held_publishers:1")
    });
    for number in 0..2000 {
        assert_eq!(number_of(subscriber.next().message().unwrap().1), number);
    }
    publisher.join().unwrap();
}

#[test]
fn under_pause_many_stalled_subscribers_cost_a_publisher_one_grace() {
    let server = start(&["--slow", "pause", "--grace", "1s"]);
    let address = server.address();
    let mut stalled: Vec<Client> = (0..10).map(|_| Client::with_small_buffer(address)).collect();
    stalled.iter_mut().for_each(|client| client.subscribe("a"));
    let begun = Instant::now();
    publish_many(&mut Client::connect(address), "a", 2000, 1000);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}: it was never held");
    assert!(took < Duration::from_secs(5), "{took:?}: one grace, not ten");
    server.wait_for_lines(10, "write timeout, disconnecting");
}

#[test]
fn publishing_to_oneself_is_never_held() {
    let server = start(&["--slow", "pause", "--grace", "20s"]);
    let mut client = Client::connect(server.address());
    client.ask(&["HELLO", "3"]);
    client.subscribe("a");
    for number in 0..300 {
        client.send(&["PUBLISH", "a", &payload(number, 1000)]);
    }
    let mut own = 0;
    while own < 300 {
        own += usize::from(client.next().message().is_some());
    }
    let mut watcher = Client::connect(server.address());
    assert!(
        watcher
            .ask(&["INFO", "clients"])
            .text()
            .contains("held_publishers:0")
    );
}

#[test]
fn a_full_subscriber_can_still_unsubscribe() {
    let server = start(&["--grace", "30s"]);
    let mut subscriber = Client::with_small_buffer(server.address());
    subscriber.subscribe("a");
    let mut publisher = Client::connect(server.address());
    publish_many(&mut publisher, "a", 1000, 1000);
    subscriber.send(&["UNSUBSCRIBE", "a"]);
    wait_until("it has left", || {
        publisher.ask(&["PUBLISH", "a", "late"]) == Value::Integer(0)
    });
    for number in 0..1000 {
        assert_eq!(number_of(subscriber.next().message().unwrap().1), number);
    }
    assert_eq!(
        subscriber.next().message(),
        None,
        "the confirmation, and nothing published later"
    );
}

#[test]
fn the_hard_limit_ends_a_subscriber_at_once() {
    let server = start(&["--hard-limit", "1MiB", "--grace", "60s", "--drain-timeout", "60s"]);
    let mut stalled = Client::with_small_buffer(server.address());
    stalled.subscribe("a");
    publish_many(&mut Client::connect(server.address()), "a", 4000, 1000);
    server.wait_for_line("hard limit, disconnecting");
    assert!(stalled.ends_within(Duration::from_secs(10)));
}

#[test]
fn new_limits_act_on_a_subscriber_that_is_behind_and_zero_switches_one_off() {
    let server = start(&["--grace", "60s"]);
    let mut stalled = Client::with_small_buffer(server.address());
    stalled.subscribe("a");
    let mut publisher = Client::connect(server.address());
    publish_many(&mut publisher, "a", 1000, 4096);
    let set = |publisher: &mut Client, limits: &str| {
        publisher.ask(&[
            "CONFIG",
            "SET",
            "client-output-buffer-limit",
            &format!("pubsub {limits}"),
        ])
    };
    // No limit holds: it is kept, whatever it owes.
    assert_eq!(set(&mut publisher, "0 0 0").text(), "+OK");
    publish_many(&mut publisher, "a", 10_000, 4096);
    assert_eq!(publisher.ask(&["PUBLISH", "a", "x"]), Value::Integer(1));
    let begun = Instant::now();
    assert_eq!(set(&mut publisher, "0 100000 1").text(), "+OK");
    server.wait_for_line("write timeout, disconnecting: slow for 1.");
    assert!(begun.elapsed() >= Duration::from_secs(1), "its clock began anew");
}

#[test]
fn the_rules_for_subscribers_stand_in_the_log() {
    let server = start(&["--grace", "7s", "--hard-limit", "1MiB"]);
    let line = server.wait_for_line("subscribers: disconnect");
    assert!(line.contains("limit 64KiB, grace 7s"), "{line}");
    assert!(line.contains("hard limit 1MiB"), "{line}");
    let line = server.wait_for_line("limits in force");
    assert!(line.contains("hard limit by the service"), "{line}");
}

#[test]
fn a_hundred_stalled_subscribers_take_little_memory() {
    for (action, length) in [("disconnect", 128), ("drop-oldest", 4096), ("latest", 128)] {
        let server = start(&["--slow", action, "--grace", "60s", "--drain-timeout", "60s"]);
        let mut stalled: Vec<Client> = (0..100)
            .map(|_| Client::with_small_buffer(server.address()))
            .collect();
        stalled.iter_mut().for_each(|client| client.subscribe("a"));
        let mut publisher = Client::connect(server.address());
        publish_many(&mut publisher, "a", 20_000, length);
        let memory = publisher.ask(&["INFO", "memory"]).text().to_owned();
        let waiting = memory
            .split_once("waiting_bytes:")
            .unwrap()
            .1
            .lines()
            .next()
            .unwrap()
            .parse::<usize>()
            .unwrap();
        let resident = server.resident_bytes();
        assert!(
            resident < (20 << 20) + waiting,
            "{action} {length}: {resident} bytes, {waiting} wait"
        );
    }
}

#[test]
fn in_shadow_mode_a_stalled_subscriber_is_kept_and_loses_nothing_and_a_grace_that_keeps_it_is_recommended() {
    let server = start(&["--shadow", "--grace", "500ms"]);
    let mut stalled = Client::with_small_buffer(server.address());
    stalled.subscribe("a");
    let mut publisher = Client::connect(server.address());
    publish_many(&mut publisher, "a", 2000, 1000);
    let line = server.wait_for_line("would disconnect, write timeout: slow for ");
    assert!(line.contains("limit 65536"), "{line}");
    for number in 0..2000 {
        assert_eq!(number_of(stalled.next().message().unwrap().1), number);
    }
    server.wait_for_line("recovered after ");
    server.signal(Signal::USR2);
    let told = server.wait_for_line("shadow: --limit ");
    assert!(
        told.contains("of 1 that would have been disconnected 1 recovered"),
        "{told}"
    );
    let (_, options) = told.split_once("--limit ").unwrap();
    let (options, _) = options.split_once(" keeps all").unwrap();
    let (limit, _) = options.split_once(" --grace ").unwrap();
    assert!(
        limit.ends_with("KiB") || limit.ends_with("MiB"),
        "a limit above its queue: {told}"
    );
    assert_eq!(
        server.lines_with("would disconnect").len(),
        1,
        "once for an episode"
    );
    let summary = server.stop();
    assert!(summary.contains(" 0 write timeout"), "{summary}");
}

#[test]
fn in_shadow_mode_publishers_go_on_after_the_grace_and_the_hard_limit_holds() {
    let server = start(&[
        "--shadow",
        "--grace",
        "300ms",
        "--slow-for",
        "b=pause",
        "--hard-limit",
        "2MiB",
    ]);
    let mut paused = Client::with_small_buffer(server.address());
    paused.subscribe("b");
    let mut publisher = Client::connect(server.address());
    let begun = Instant::now();
    while server.lines_with("would disconnect, write timeout").is_empty() {
        publish_many(&mut publisher, "b", 16, 32_000);
        assert!(begun.elapsed() < PATIENCE);
    }
    // It is still there, and counted as a reader.
    assert_eq!(publisher.ask(&["PUBLISH", "b", "x"]), Value::Integer(1));
    let mut stalled = Client::with_small_buffer(server.address());
    stalled.subscribe("a");
    publish_many(&mut publisher, "a", 400, 32_000);
    server.wait_for_line("hard limit, disconnecting");
}

#[test]
fn rules_that_a_reload_brings_hold_for_what_is_published_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("highwater.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("grace = \"10m\"\ndrain-timeout = \"20m\"\n");
    let server = start(&["--config", path.to_str().unwrap()]);
    let mut subscriber = Client::with_small_buffer(server.address());
    subscriber.subscribe("ticks.a");
    let mut publisher = Client::connect(server.address());
    publish_many(&mut publisher, "ticks.a", 1000, 4096);
    write("grace = \"10m\"\ndrain-timeout = \"20m\"\nslow-for = [\"ticks.*=latest\", \"*=pause\"]\n");
    server.signal(Signal::HUP);
    let line = server.wait_for_line("reload: ");
    assert!(line.contains("slow-for = ticks.*=latest *=pause"), "{line}");
    publish_many(&mut publisher, "ticks.a", 1000, 4096);
    publisher.ask(&["PUBLISH", "ticks.a", &payload(5000, 4096)]);
    let mut read = 0;
    loop {
        let value = subscriber.next();
        let number = number_of(value.message().unwrap().1);
        if number == 5000 {
            break;
        }
        assert!(
            read >= 1000 || number == read,
            "all of those before the reload: {number} after {read}"
        );
        read += 1;
    }
    assert!(read < 1100, "of those behind it the last: {read}");
}

#[test]
fn a_grace_that_is_lowered_acts_on_a_subscriber_that_is_stalled_already_and_all_of_it_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("highwater.toml");
    std::fs::write(&path, "grace = \"10m\"\ndrain-timeout = \"20m\"\n").unwrap();
    let server = start(&["--config", path.to_str().unwrap()]);
    let mut stalled = Client::with_small_buffer(server.address());
    stalled.subscribe("a");
    let mut publisher = Client::connect(server.address());
    publish_many(&mut publisher, "a", 1000, 4096);
    std::thread::sleep(Duration::from_millis(1200));
    std::fs::write(&path, "grace = \"1s\"\ndrain-timeout = \"20m\"\n").unwrap();
    server.signal(Signal::HUP);
    let cut = server.wait_for_line("write timeout, disconnecting");
    let in_force = server.wait_for_lines(2, "limits in force: ").remove(1);
    let allowed = second_of(&cut) - second_of(&in_force);
    assert!(allowed > 0.99, "only {allowed} s after the reload: {cut}");
}
