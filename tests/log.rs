//! The log: a client too. Nobody waits for who does not read it, and what is
//! lost is counted.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::server::{Server, number_before, second_of};
use support::sockets::{Buffers, connect, connect_with, cut_off, fill_up_to, is_refused, ping, reset};
use support::{PATIENCE, pattern, wait_until};

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
    assert!(line_of(&idle).contains("window closed, largest "), "{lines:?}");
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

#[test]
fn a_fifo_that_nobody_reads_stalls_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let server = Server::echo_with_log_file(fifo.to_str().unwrap(), &["--log-level", "debug"]);
    // More lines than a FIFO holds.
    for _ in 0..2000 {
        let mut client = connect(server.address());
        assert!(ping(&mut client, b"served") < Duration::from_secs(2));
        reset(client);
    }
    server.wait_for_lines(2000, "closed: ");
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_signal_opens_the_log_file_anew_and_no_line_is_lost() {
    let server = Server::echo(&["--log-level", "debug"]);
    let rotated = server.log_path().with_extension("1");
    let closed = |text: &str| text.matches("closed: ").count();
    let mut clients = 0;
    for signal in [Signal::HUP, Signal::USR1] {
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| (0..300).map(|_| reset_after_a_ping(&server)).count());
            std::fs::rename(server.log_path(), &rotated).unwrap();
            server.signal(signal);
            clients.join().unwrap()
        });
        clients += 300;
        server.wait_for_line("signal: opening the log file anew");
        let lines = || {
            let old = std::fs::read_to_string(&rotated).unwrap();
            closed(&old) + closed(&server.log())
        };
        wait_until("every line is in one of the files", || lines() >= clients);
        assert_eq!(lines(), clients);
        // The next rotation overwrites what was counted.
        clients = closed(&server.log());
    }
    server.signal(Signal::TERM);
    server.wait_for_exit();
}

fn reset_after_a_ping(server: &Server) {
    let mut client = connect(server.address());
    ping(&mut client, b"served");
    reset(client);
}

#[test]
fn a_log_file_that_cannot_be_opened_anew_goes_on_and_standard_error_says_so() {
    let (said, stderr) = std::io::pipe().unwrap();
    let server = Server::echo_writing_to(&["--log-level", "debug"], Stdio::null(), Stdio::from(stderr));
    let (told, complaint) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(said).lines() {
            let line = line.unwrap();
            if line.contains("cannot be opened anew") {
                let _ = told.send(line);
            }
        }
    });
    let moved = server.log_path().with_extension("1");
    std::fs::rename(server.log_path(), &moved).unwrap();
    std::fs::create_dir(server.log_path()).unwrap();
    server.signal(Signal::HUP);
    let complaint = complaint.recv_timeout(PATIENCE).expect("nobody was told");
    assert!(complaint.contains("--log-file"), "{complaint}");
    reset_after_a_ping(&server);
    wait_until("the old file goes on", || {
        std::fs::read_to_string(&moved).unwrap().contains("closed: ")
    });
}

#[test]
fn bad_frames_are_ten_lines_a_second_and_the_rest_is_summed_up_in_time_and_at_the_stop() {
    let server = Server::echo(&["--framing", "length", "--log-rate", "10"]);
    let began = Instant::now();
    let mut sent = 0;
    let mut send_a_bad_frame = || {
        let mut client = connect(server.address());
        client.write_all(&[255; 4]).unwrap();
        let _ = std::io::Read::read(&mut client, &mut [0]);
        sent += 1;
    };
    let (is_sum, is_bad) = (" more lines like this in ", "disconnecting: ");
    while began.elapsed() < Duration::from_secs(2) {
        send_a_bad_frame();
    }
    server.wait_for_line(is_sum);
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    for _ in 0..50 {
        send_a_bad_frame();
    }
    server.stop();
    let lines = server.lines_with(is_bad);
    let (sums, single): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains(is_sum));
    let counted: usize = sums
        .iter()
        .map(|line| number_before(line, "more lines like this") as usize)
        .sum();
    assert!(sums.len() >= 2, "{sums:?}: the stop sums up too");
    assert_eq!(single.len() + counted, sent, "{sums:?}");
    for eleven in single.windows(11) {
        let time = second_of(eleven[10]) - second_of(eleven[0]);
        assert!(!(0.0..=0.99).contains(&time), "eleven lines in {time} s");
    }
}

#[test]
fn refusals_tell_their_sum_at_the_stop() {
    let server = Server::echo(&["--max-clients", "1", "--log-rate", "10"]);
    let mut served = connect(server.address());
    ping(&mut served, b"served");
    for _ in 0..20 {
        assert!(is_refused(server.address()));
    }
    server.stop();
    let lines = server.lines_with("refused ");
    let refused: f64 = lines
        .iter()
        .filter(|line| line.contains("the last one"))
        .map(|line| number_before(line, "new clients"))
        .sum();
    assert!((refused - 20.0).abs() < 0.5, "{lines:?}");
}

#[test]
fn a_second_signal_ends_the_program_and_its_line_is_written() {
    let server = Server::echo(&["--grace", "1h", "--drain-timeout", "2h"]);
    let mut stalled = connect_with(server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 400_000);
    server.wait_for_line("write blocked");
    server.signal(Signal::TERM);
    server.wait_for_line("stopping:");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(1));
    assert_eq!(server.lines_with("second signal: exiting now").len(), 1);
}

#[test]
fn a_log_in_json_says_the_same_with_the_facts_as_fields_in_file_and_on_standard_error() {
    let server = Server::echo(&["--log-format", "json", "--grace", "2s", "--log-level", "debug"]);
    let mut stalled = connect_with(server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 128 << 10);
    let line = server.wait_for_line("\"event\":\"disconnect\"");
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["reason"], "write timeout", "{line}");
    assert_eq!(object["level"], "WARN", "{line}");
    assert_eq!(
        object["address"],
        stalled.local_addr().unwrap().to_string(),
        "{line}"
    );
    for number in [
        "client",
        "queued_bytes",
        "peak_bytes",
        "limit_bytes",
        "sent_bytes",
    ] {
        assert!(object[number].is_u64(), "{number}: {line}");
    }
    assert!(object["slow_seconds"].as_f64().unwrap() >= 2.0, "{line}");
    assert!(
        object["message"]
            .as_str()
            .unwrap()
            .contains("write timeout, disconnecting: slow for"),
        "{line}"
    );
    assert!(object.get("upstream").is_none(), "{line}");
    let start = server.lines_with("limits in force: high-water mark 64KiB");
    assert_eq!(start.len(), 1);
    server.stop();
    for line in server.lines_with("") {
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(
            object["time"].is_string() && object["event"].is_string(),
            "{line}"
        );
        assert_ne!(object["event"], "note", "{line}");
    }
    assert_eq!(server.standard_error(), server.lines_with("").join("\n") + "\n");
}
