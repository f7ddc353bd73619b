//! The log: a client too. Nobody waits for who does not read it, and what is
//! lost is counted.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

use support::server::Server;
use support::sockets::{Buffers, connect, connect_with, cut_off, fill_up_to, ping, reset};
use support::{PATIENCE, pattern};

/// More lines than the backlog holds and a pipe takes.
const SHORT_LIVED_CLIENTS: usize = 18_500;

#[test]
fn a_standard_error_that_nobody_reads_stalls_nobody_and_lost_lines_are_counted() {
    let (unread, stderr) = std::io::pipe().unwrap();
    let stdout = stderr.try_clone().unwrap();
    let server = Server::echo_writing_to(
        &["--log-level", "debug"],
        Stdio::from(stdout),
        Stdio::from(stderr),
    );
    let mut client = connect(server.address());
    let mut longest = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..SHORT_LIVED_CLIENTS / 4 {
                    // Served once: of one that resets at once, while the backlog is full,
                    // the server would never hear. Reset, so that no port stays in TIME-WAIT.
                    let mut short_lived = connect(server.address());
                    ping(&mut short_lived, b"!");
                    reset(short_lived);
                }
            });
        }
        for _ in 0..500 {
            longest = longest.max(ping(&mut client, b"unharmed"));
        }
    });
    // The file has a backlog of its own, and is read.
    server.wait_for_lines(SHORT_LIVED_CLIENTS, "closed: ");
    ping(&mut client, b"unharmed");
    println!("longest wait {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert!(
        server.lines_with("log lines lost").is_empty(),
        "the file lost none"
    );

    // The count of lost lines comes once the backlog has room, also for the last lines.
    let (told, count_is_there) = channel();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(unread).lines() {
            let line = line.unwrap();
            if line.contains("log lines lost") {
                let _ = told.send(());
            }
            text += &line;
            text.push('\n');
        }
        text
    });
    count_is_there.recv_timeout(PATIENCE).expect("nothing was lost");
    server.stop();
    let text = reading.join().unwrap();
    let lost: usize = text
        .lines()
        .filter_map(|line| line.split_once(" log lines lost")?.0.rsplit(' ').next())
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    let seen = text.lines().filter(|line| line.contains("closed: ")).count();
    let written = server.lines_with("").len();
    println!("{seen} lines seen, {lost} lost, {written} in the file");
    assert!(lost > 0, "nothing was lost");
    assert!(text.contains("stopped: "), "the last line is there");
    let read_lines = text
        .lines()
        .filter(|line| !line.contains("log lines lost"))
        .count();
    assert_eq!(read_lines + lost, written, "every line is seen or counted");
}

#[test]
fn a_standard_error_that_is_closed_harms_nobody() {
    let (unread, stderr) = std::io::pipe().unwrap();
    let server = Server::echo_writing_to(&["--log-level", "debug"], Stdio::null(), Stdio::from(stderr));
    drop(unread);
    for _ in 0..20 {
        ping(&mut connect(server.address()), b"unharmed");
    }
    server.wait_for_lines(20, "closed: finished");
    server.stop();
}

#[test]
fn a_log_file_is_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    std::fs::write(&log, "what was there\n").unwrap();
    for _ in 0..2 {
        let server = Server::echo_logging_to(&log, &[]);
        ping(&mut connect(server.address()), b"served");
        server.stop();
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("what was there\n"), "{text}");
    assert_eq!(text.matches("stopped: ").count(), 2, "{text}");
}

#[test]
fn a_log_file_on_a_full_disk_is_told_on_standard_error_once() {
    let server = Server::echo_with_log_file("/dev/full", &[]);
    for _ in 0..3 {
        ping(&mut connect(server.address()), b"served");
    }
    server.wait_for_lines(1, "--log-file /dev/full: takes no more lines");
    server.stop();
    let said = server.log();
    assert_eq!(said.matches("takes no more lines").count(), 1, "{said}");
}

#[test]
fn a_peer_that_does_not_read_is_told_from_a_network_that_is_gone() {
    let server = Server::echo(&["--grace", "2s", "--high-water-mark", "8KiB", "--unsent", "4KiB"]);
    let mut idle = connect_with(server.address(), Buffers::SMALL);
    let mut gone = connect_with(server.address(), Buffers::SMALL);
    ping(&mut gone, b"still there");
    cut_off(&gone);
    // What the client sends still arrives; what comes back does not.
    gone.set_nonblocking(true).unwrap();
    let _ = gone.write(&pattern(2 << 20));
    fill_up_to(&mut idle, 400_000);

    let lines = server.wait_for_lines(2, "write timeout, disconnecting");
    let line_of = |client: &TcpStream| {
        let name = client.local_addr().unwrap().to_string();
        lines.iter().find(|line| line.contains(&name)).unwrap().clone()
    };
    assert!(line_of(&idle).contains("peer is not reading"), "{lines:?}");
    assert!(line_of(&gone).contains("network gone for "), "{lines:?}");
}

#[test]
fn a_client_that_comes_over_the_limit_again_and_again_is_one_line_in_ten_seconds() {
    let server = Server::echo(&["--high-water-mark", "4KiB"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    for _ in 0..20 {
        let taken = fill_up_to(&mut client, 60_000);
        let mut back = vec![0; taken];
        std::io::Read::read_exact(&mut client, &mut back).unwrap();
    }
    let lines = server.wait_for_lines(1, "write blocked");
    assert!((1..=2).contains(&lines.len()), "{lines:?}");
}
