//! Shadow mode: nobody is cut off, it is told who would have been, and the
//! limits that it recommends keep all that recovered.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that fails should say so at once, and these run against the real clock"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::server::Server;
use support::sockets::{Buffers, End, connect, connect_with, fill_up_to, ping, read_to_end};
use support::tunnel::Upstream;
use support::{PATIENCE, holds_within};

/// Sent by each of those who stall: more than a socket and the queue hold.
const SENT_BYTES: usize = 128 << 10;

/// How long those who recover stall.
const PAUSE: Duration = Duration::from_millis(2_500);

/// By so much a loaded machine may stretch a pause. The trial has it on top, so
/// that the same traffic is no slower the second time.
const STRETCH: Duration = Duration::from_millis(2_500);

/// What becomes of the same traffic: one client pauses and reads on, one is
/// stuck, one is healthy. Answers whether the first lost nothing.
fn traffic(server: &Server, pause: Duration) -> (bool, TcpStream) {
    let mut healthy = connect(server.address());
    let mut stuck = connect_with(server.address(), Buffers::SMALL);
    fill_up_to(&mut stuck, SENT_BYTES);
    let mut pausing = connect_with(server.address(), Buffers::SMALL);
    let sent = fill_up_to(&mut pausing, SENT_BYTES);
    let until = Instant::now() + pause;
    while Instant::now() < until {
        ping(&mut healthy, b"unharmed");
        std::thread::sleep(Duration::from_millis(20));
    }
    pausing.shutdown(Shutdown::Write).unwrap();
    let (read, end) = read_to_end(&mut pausing);
    (read.len() == sent && end == End::Clean, stuck)
}

#[test]
fn nobody_is_cut_off_and_the_limits_that_it_recommends_keep_all_that_recovered() {
    let server = Server::echo(&["--shadow", "--grace", "1s", "--stop-timeout", "300ms"]);
    let (is_kept, mut stuck) = traffic(&server, PAUSE + STRETCH);
    assert!(is_kept, "shadow mode cuts nobody off");
    let told = server.wait_for_lines(2, "would disconnect, write timeout: slow for ");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().all(|line| line.contains("window closed, largest ")),
        "{told:?}"
    );
    server.wait_for_line("recovered after ");
    assert!(stuck.read(&mut [0; 1]).is_ok(), "it is still connected");
    server.signal(Signal::USR2);
    let line = server.wait_for_line("shadow: --limit");
    assert!(
        line.contains(
            "of 2 that would have been disconnected 1 recovered, 0 left by themselves, 1 are still stuck"
        ),
        "{line}"
    );
    let summary = server.stop();
    assert!(summary.contains(" 0 write timeout"), "{summary}");
    assert_eq!(
        server.lines_with("would disconnect").len(),
        2,
        "once for each client and episode"
    );
    assert_eq!(server.lines_with("still stuck after ").len(), 1);
    let recommended = server.lines_with("shadow: --limit").pop().unwrap();
    let (_, options) = recommended.split_once("shadow: ").unwrap();
    let (options, _) = options.split_once(" keeps all").unwrap();
    let options: Vec<&str> = options.split(' ').collect();
    println!("{options:?}");
    assert_eq!(
        options[..2],
        ["--limit", "64KiB"],
        "the source pauses: only the grace is sought"
    );

    let server = Server::echo(&options);
    let (is_kept, stuck) = traffic(&server, PAUSE);
    assert!(is_kept, "the recommendation keeps who recovered");
    let cut = server.wait_for_lines(1, "write timeout, disconnecting");
    let address = stuck.local_addr().unwrap().to_string();
    assert!(cut.len() == 1 && cut[0].contains(&address), "{cut:?}");
}

#[test]
fn a_client_that_leaves_and_an_episode_of_its_own_are_told() {
    let server = Server::echo(&["--shadow", "--grace", "300ms"]);
    for number in 1..=2 {
        let mut stuck = connect_with(server.address(), Buffers::SMALL);
        fill_up_to(&mut stuck, SENT_BYTES);
        server.wait_for_lines(number, "would disconnect, write timeout");
    }
    server.wait_for_lines(2, "left by itself after ");
}

#[test]
fn an_upstream_that_does_not_read_is_kept_and_its_grace_is_recommended_once_it_has_recovered() {
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let server = upstream.tunnel(&["--shadow", "--upstream-grace", "500ms", "--drain-timeout", "10m"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let mut served = upstream.accept();
    let sent = fill_up_to(&mut client, 4 * SENT_BYTES);
    let line = server.wait_for_line("would disconnect, write timeout");
    assert!(line.contains("upstream"), "{line}");
    client.shutdown(Shutdown::Write).unwrap();
    let (read, end) = read_to_end(&mut served);
    assert_eq!((read.len(), end), (sent, End::Clean), "nobody is cut off");
    let line = server.wait_for_line("recovered after ");
    assert!(line.contains("upstream"), "{line}");
    server.signal(Signal::USR2);
    let told = server.wait_for_line("shadow: --limit");
    let (_, grace) = told.split_once("--upstream-grace ").unwrap();
    assert!(!grace.starts_with("500ms"), "{told}");
}

#[test]
fn a_reader_of_a_file_who_stalls_is_kept_and_has_all_of_it_in_the_end() {
    const FILE_BYTES: usize = 8 << 20;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), vec![7; FILE_BYTES]).unwrap();
    let options = [folder.path().to_str().unwrap(), "--shadow", "--grace", "400ms"];
    let server = Server::start("serve", &options);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    client
        .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    server.wait_for_line("would disconnect, write timeout");
    let (read, end) = read_to_end(&mut client);
    assert!(
        read.len() > FILE_BYTES && end == End::Clean,
        "{} {end:?}",
        read.len()
    );
    server.wait_for_line("recovered after ");
    assert!(server.lines_with("disconnecting").is_empty());
    server.signal(Signal::USR2);
    let told = server.wait_for_line("shadow: --limit");
    assert!(told.contains("1 recovered"), "{told}");
}

#[test]
fn bounds_of_memory_hold_in_shadow_mode_too() {
    let server = Server::echo(&["--shadow", "--grace", "200ms", "--memory-budget", "100KiB"]);
    let mut first = connect_with(server.address(), Buffers::SMALL);
    fill_up_to(&mut first, SENT_BYTES);
    server.wait_for_line("would disconnect, write timeout");
    let mut second = connect_with(server.address(), Buffers::SMALL);
    // One of the two is cut off, perhaps this one while it sends.
    second.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = second.write_all(&vec![0; SENT_BYTES]);
    let line = server.wait_for_line("memory budget, disconnecting");
    assert!(line.contains("budget 102400"), "{line}");
}

#[test]
fn without_shadow_mode_the_signal_says_so_and_stops_nothing() {
    let server = Server::echo(&[]);
    server.signal(Signal::USR2);
    server.wait_for_line("is not in shadow mode");
    let mut client = connect(server.address());
    ping(&mut client, b"alive");
    assert!(!holds_within(PATIENCE / 100, || server.has_exited()));
}
