//! Who is slow, and who is gone.

use std::time::{Duration, Instant};

use crate::operator::Watched;
use crate::support::sockets::{Buffers, connect, connect_with, fill_up_to, ping};
use crate::support::{PATIENCE, holds_within};

#[test]
fn the_slowest_stands_first_with_its_numbers_and_is_kept_with_its_reason_when_gone() {
    let watched = Watched::start("echo", &["--grace", "3s"]);
    let mut healthy = connect(watched.server.address());
    ping(&mut healthy, b"well");
    let mut stalled = connect_with(watched.server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 160 << 10);
    watched.wait_for("highwater_over_limit_episodes_total", 1.0);
    let clients = watched.json("/clients");
    let live = clients["live"].as_array().unwrap();
    assert_eq!(live.len(), 2, "{clients}");
    let address = stalled.local_addr().unwrap().to_string();
    assert_eq!(live[0]["address"], address, "{clients}");
    assert!(live[0]["queued_bytes"].as_u64().unwrap() >= 65_536, "{clients}");
    assert!(live[0]["largest_window_bytes"].is_u64(), "{clients}");
    assert!(
        live[0]["reason"].is_null() && live[0]["state"].is_string(),
        "{clients}"
    );
    assert_eq!(live[1]["sent_bytes"], 4, "{clients}");
    assert_eq!(live[1]["over_limit_seconds"], 0.0, "{clients}");
    assert_eq!(
        watched.json("/clients?limit=1")["live"].as_array().unwrap().len(),
        1
    );
    let oldest = watched.json("/clients?sort=age");
    assert_eq!(
        oldest["live"][1]["address"], address,
        "the oldest is first: {oldest}"
    );

    watched.wait_for("highwater_disconnects_total{reason=\"write timeout\"}", 1.0);
    let clients = watched.json("/clients");
    let gone = &clients["gone"]["write timeout"][0];
    assert_eq!(gone["address"], address, "{clients}");
    assert_eq!(gone["reason"], "write timeout");
    let state = gone["state"].as_str().unwrap();
    assert!(state.starts_with("window closed, largest "), "{gone}");
    assert!(gone["over_limit_seconds"].as_f64().unwrap() >= 3.0, "{gone}");
    assert!(
        gone["queued_bytes"].as_u64().unwrap() >= 65_536,
        "what it owed: {gone}"
    );
    for reason in [
        "not drained",
        "hard limit",
        "idle",
        "finished",
        "failed",
        "server stopped",
    ] {
        assert_eq!(
            clients["gone"][reason].as_array().unwrap().len(),
            0,
            "{reason}: {clients}"
        );
    }
}

#[test]
fn health_checks_cannot_push_out_the_one_that_was_too_slow() {
    let watched = Watched::start("echo", &["--grace", "500ms"]);
    let mut stalled = connect_with(watched.server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 128 << 10);
    watched.wait_for("highwater_disconnects_total{reason=\"write timeout\"}", 1.0);
    for _ in 0..1_100 {
        let mut check = connect(watched.server.address());
        ping(&mut check, b"?");
    }
    watched.wait_for("highwater_disconnects_total{reason=\"finished\"}", 1_100.0);
    let clients = watched.json("/clients?limit=5000");
    assert_eq!(clients["gone"]["write timeout"].as_array().unwrap().len(), 1);
    assert_eq!(
        clients["gone"]["finished"].as_array().unwrap().len(),
        1_000,
        "the ring of one reason is bounded"
    );
    assert_eq!(
        watched.json("/clients")["gone"]["finished"]
            .as_array()
            .unwrap()
            .len(),
        100
    );
}

#[test]
fn a_list_of_thousands_delays_nobody() {
    const CLIENTS: usize = 3_000;
    let watched = Watched::start("echo", &[]);
    let crowd: Vec<_> = (0..CLIENTS).map(|_| connect(watched.server.address())).collect();
    watched.wait_for("highwater_clients", CLIENTS as f64);
    let mut client = connect(watched.server.address());
    ping(&mut client, b"warm");
    let mut waits = Vec::new();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| watched.json("/clients?limit=100000"));
        while !asking.is_finished() {
            waits.push(ping(&mut client, b"while the list is written"));
        }
        let list = asking.join().unwrap();
        assert_eq!(list["live"].as_array().unwrap().len(), CLIENTS + 1);
    });
    waits.sort();
    println!("{} pings, longest {:?}", waits.len(), waits.last());
    assert!(waits[waits.len() / 2] < Duration::from_millis(100), "{waits:?}");
    drop(crowd);
}

#[test]
fn operators_are_answered_while_clients_are_refused_and_one_who_reads_nothing_is_reset() {
    let watched = Watched::start("echo", &["--max-clients", "1", "--grace", "1s"]);
    let mut only = connect(watched.server.address());
    ping(&mut only, b"seated");
    assert_eq!(watched.sample("highwater_clients"), 1.0);
    // Asks for more than its socket takes, and never reads.
    use std::io::Write;
    let mut deaf = connect_with(watched.admin, Buffers::SMALL);
    let begun = Instant::now();
    let mut is_gone = false;
    while begun.elapsed() < PATIENCE && !is_gone {
        is_gone = deaf
            .write_all(
                b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
                    .repeat(50)
                    .as_slice(),
            )
            .is_err();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is_gone, "an operator who reads nothing is reset");
    assert!(holds_within(PATIENCE, || watched
        .server
        .lines_with("admin client")
        .iter()
        .any(|line| line.contains("write timeout, disconnecting"))));
    assert_eq!(
        watched.sample("highwater_disconnects_total{reason=\"write timeout\"}"),
        0.0
    );
}
