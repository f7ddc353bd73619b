//! What services count themselves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::operator::Watched;
use crate::support::sockets::{Buffers, connect, connect_with};
use crate::support::{PATIENCE, holds_within};

#[test]
fn answers_over_http_are_counted_by_status() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("there"), "here").unwrap();
    let watched = Watched::serving(folder.path());
    for (target, status) in [("/there", "200"), ("/there", "200"), ("/nothing", "404")] {
        let mut client = connect(watched.server.address());
        write!(
            client,
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(status), "{answer}");
    }
    assert_eq!(watched.sample("highwater_answers_total{status=\"200\"}"), 2.0);
    assert_eq!(watched.sample("highwater_answers_total{status=\"404\"}"), 1.0);
}

fn say(stream: &mut TcpStream, line: &str, answers: usize) {
    write!(stream, "{line}\r\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..answers {
        reader.read_line(&mut String::new()).unwrap();
    }
}

#[test]
fn messages_deliveries_and_losses_are_counted() {
    let options = ["--slow", "drop-oldest", "--high-water-mark", "1KiB"];
    let watched = Watched::start("broadcast", &options);
    assert_eq!(
        watched.sample("highwater_lost_messages_total{action=\"drop-oldest\"}"),
        0.0
    );
    let mut subscribers: Vec<_> = (0..2).map(|_| connect(watched.server.address())).collect();
    for subscriber in &mut subscribers {
        say(subscriber, "SUBSCRIBE news", 6);
    }
    let mut publisher = connect(watched.server.address());
    say(&mut publisher, "PUBLISH news hello", 1);
    assert_eq!(watched.sample("highwater_commands_total"), 3.0);
    assert_eq!(watched.sample("highwater_messages_total"), 1.0);
    assert_eq!(watched.sample("highwater_deliveries_total"), 2.0);
    // While nobody reads, what sockets do not take is dropped; a loss is counted
    // when the subscriber passes the gap.
    let payload = "x".repeat(60_000);
    for _ in 0..400 {
        say(&mut publisher, &format!("PUBLISH news {payload}"), 1);
    }
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut subscribers[0], &mut std::io::sink());
    });
    watched.wait_for("highwater_lost_messages_total{action=\"drop-oldest\"}", 1.0);
    assert_eq!(
        watched.sample("highwater_lost_messages_total{action=\"latest\"}"),
        0.0
    );
}

#[test]
fn a_publisher_that_waits_for_a_slow_subscriber_is_seen_until_that_has_gone() {
    let watched = Watched::start("broadcast", &["--slow", "pause", "--grace", "60s"]);
    let gauges = [
        "highwater_clients_behind",
        "highwater_held_publishers",
        "highwater_waiting_bytes",
    ];
    assert_eq!(watched.sample("highwater_publisher_pauses_total"), 0.0);
    assert_eq!(watched.sample("highwater_subscriptions"), 0.0);
    for gauge in gauges {
        assert_eq!(watched.sample(gauge), 0.0, "{gauge}");
    }
    let mut subscriber = connect_with(watched.server.address(), Buffers::SMALL);
    say(&mut subscriber, "SUBSCRIBE news", 6);
    watched.wait_for("highwater_subscriptions", 1.0);
    let mut publisher = connect(watched.server.address());
    let payload = "x".repeat(60_000);
    std::thread::spawn(move || {
        // Bounded by far more than all buffers; the end of the server ends it too.
        for _ in 0..400 {
            if write!(publisher, "PUBLISH news {payload}\r\n").is_err() {
                return;
            }
        }
    });
    watched.wait_for("highwater_publisher_pauses_total", 1.0);
    watched.wait_for("highwater_clients_behind", 1.0);
    watched.wait_for("highwater_held_publishers", 1.0);
    watched.wait_for("highwater_waiting_bytes", 65_536.0);
    drop(subscriber);
    let are_gone = holds_within(PATIENCE, || {
        watched.sample("highwater_subscriptions") == 0.0
            && gauges.iter().all(|gauge| watched.sample(gauge) == 0.0)
    });
    assert!(are_gone, "{}", watched.get("/metrics").body);
}
