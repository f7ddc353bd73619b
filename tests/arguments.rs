//! Wrong arguments: one line each, which names the argument, what is wrong,
//! and what would be right; and the right exit code.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod support;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use support::server::{BINARY, Server};
use support::{PATIENCE, holds_within};

/// Runs the command to its end, which must come by itself.
fn run(arguments: &[&str]) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = holds_within(PATIENCE, || child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(ended, "{arguments:?} was not refused");
    output
}

/// Runs `highwater echo` and answers what it says when it refuses: one line,
/// and perhaps a hint how to ask for help.
fn refusal(options: &[&str], code: i32) -> String {
    let output = run(&[&["echo", "--port", "0"], options].concat());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{options:?}: {text}");
    assert!(output.stdout.is_empty(), "{options:?}");
    assert!(!text.contains("panicked"), "{text}");
    let complaints: Vec<_> = text
        .lines()
        .filter(|line| line.to_lowercase().contains("error"))
        .collect();
    assert_eq!(complaints.len(), 1, "{options:?}: {text}");
    assert!(
        !text.contains("Usage:") || text.contains("unexpected argument"),
        "{text}"
    );
    text
}

#[test]
fn each_wrong_value_is_one_line_that_names_it_and_says_what_would_be_right() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--high-water-mark", "64kb?"],
            &["--high-water-mark", "64kb?", "64KiB"],
        ),
        (&["--limit", "64kb"], &["--limit", "`64kb`", "64000", "64KiB"]),
        (&["--limit", "-1"], &["-1"]),
        (&["--limit", "1.5.2"], &["--limit", "1.5.2"]),
        (&["--grace", "5"], &["--grace", "5s"]),
        (&["--grace", "soon"], &["--grace", "soon", "5s"]),
        (&["--grace", "0s"], &["--grace 0", "5s"]),
        (&["--drain-timeout", "0s"], &["--drain-timeout 0", "60s"]),
        (&["--high-water-mark", "0"], &["--high-water-mark 0", "64KiB"]),
        (&["--limit", "0"], &["--limit 0", "64KiB"]),
        (
            &["--limit", "2MiB", "--hard-limit", "1MiB"],
            &["--limit 2MiB", "--hard-limit 1MiB", "lower", "raise"],
        ),
        (
            &["--hard-limit", "1KiB"],
            &["--limit 64KiB", "--hard-limit 1KiB", "raise"],
        ),
        (
            &["--limit", "69KiB"],
            &["--limit 69KiB", "--high-water-mark 64KiB", "lower", "raise"],
        ),
        (
            &["--grace", "2m", "--drain-timeout", "1m"],
            &["--drain-timeout 1m", "--grace 2m", "raise"],
        ),
        (
            &["--slowest-reader", "0"],
            &["--slowest-reader", "`0`", "64KiB/s"],
        ),
        (
            &["--slowest-reader", "100"],
            &["--slowest-reader 100", "10m", "137"],
        ),
        (
            &["--slowest-reader", "64KiB", "--grace", "10m"],
            &["--slowest-reader 64KiB/s", "--grace 10m", "leave"],
        ),
        (
            &["--slowest-reader", "64KiB/s", "--unsent", "0"],
            &["--slowest-reader 64KiB/s", "--unsent", "16KiB"],
        ),
        (
            &["--framing", "length", "--memory-budget", "1MiB"],
            &["--memory-budget 1MiB", "--max-frame 1MiB", "at least"],
        ),
        (&["--max-frame", "1KiB"], &["--max-frame", "--framing length"]),
        (
            &["--frame-timeout", "30s"],
            &["--frame-timeout", "--framing length"],
        ),
        (
            &["--framing", "length", "--frame-timeout", "0s"],
            &["--frame-timeout 0", "30s"],
        ),
        (
            &["--log-level", "off", "--log-file", "/tmp/never-made"],
            &["--log-level off", "--log-file /tmp/never-made"],
        ),
        (&["--hard-limit", "66KiB"], &["--hard-limit 66KiB", "68KiB"]),
        (&["--memory-budget", "1KiB"], &["--memory-budget 1KiB", "68KiB"]),
        (&["--max-clients", "0"], &["--max-clients 0", "at least 1"]),
        (
            &["--max-clients-per-address", "0"],
            &["--max-clients-per-address 0", "at least 1"],
        ),
        (
            &["--max-clients", "5", "--max-clients-per-address", "6"],
            &["--max-clients-per-address 6", "--max-clients 5", "lower"],
        ),
        (&["--max-clients", "many"], &["--max-clients", "many"]),
        (&["--unsent", "1TiB"], &["--unsent 1", "1GiB"]),
        (&["--receive-buffer", "1TiB"], &["--receive-buffer 1", "1GiB"]),
        (&["--framing", "lines"], &["--framing", "lines", "none", "length"]),
        (
            &["--framing", "length", "--max-frame", "0"],
            &["--max-frame 0", "1MiB"],
        ),
        (
            &["--framing", "length", "--max-frame", "8GiB"],
            &["--max-frame 8GiB"],
        ),
        (
            &["--log-level", "loud"],
            &["--log-level", "loud", "error, warn, info, debug or trace"],
        ),
        (
            &["--host", "no.such.host.invalid"],
            &["--host no.such.host.invalid", "127.0.0.1"],
        ),
        (&["--greace", "5s"], &["--greace"]),
        (&["surplus"], &["surplus"]),
    ];
    for (options, words) in cases {
        let text = refusal(options, 2);
        for word in *words {
            assert!(text.contains(word), "{options:?}: no `{word}` in `{text}`");
        }
    }
}

#[test]
fn values_just_within_what_fits_together_are_no_contradiction() {
    for options in [
        &["--limit", "64KiB", "--high-water-mark", "64KiB"][..],
        &["--grace", "60s", "--drain-timeout", "60s"],
        &["--slowest-reader", "137", "--grace", "9m"],
        &["--framing", "length", "--memory-budget", "1093KiB"],
        &["--framing", "length", "--max-frame", "1KiB"],
    ] {
        Server::echo(options).stop();
    }
}

#[test]
fn a_tunnel_refuses_what_nothing_could_ever_reach_and_says_what_to_type_for_a_url() {
    for (options, words) in [
        (
            &["--to=[::1]:1", "--limit=1MiB"][..],
            &["--limit 1MiB", "--high-water-mark 64KiB"][..],
        ),
        (
            &["--to=[::1]:1", "--splice-from=65KiB"],
            &["--splice-from 65KiB", "at most 64KiB"],
        ),
        (
            &["--to=[::1]:1", "--idle-timeout=1m", "--half-closed-timeout=2m"],
            &["--half-closed-timeout 2m", "--idle-timeout 1m", "lower"],
        ),
        (&["--to=redis://h:1"], &["redis://h:1", "h:1"]),
        (&["--to=http://h:80/x"], &["http://h:80/x", "h:80"]),
        (&["--to=http://web"], &["http://web", "web:80"]),
    ] {
        let output = run(&[&["tunnel", "--port=0"], options].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        for word in words {
            assert!(text.contains(word), "{options:?}: no `{word}` in `{text}`");
        }
        assert!(!text.contains("Usage:"), "{text}");
    }
}

#[test]
fn a_port_that_is_out_of_range_or_no_number_is_wrong_usage() {
    for port in ["65536", "-1", "http"] {
        let output = run(&["echo", &format!("--port={port}")]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("--port") && text.contains(port), "{text}");
    }
}

#[test]
fn a_port_that_is_in_use_fails_with_the_address_and_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for level in ["info", "off"] {
        let line = refusal(&["--port", &port, "--log-level", level], 1);
        for word in [&format!("127.0.0.1:{port}"), "in use", "--port"] {
            assert!(line.contains(word), "no `{word}` in `{line}`");
        }
    }
}

#[test]
fn an_address_of_another_machine_fails_with_a_way_out() {
    // 192.0.2.0/24 is nobody's (RFC 5737).
    let line = refusal(&["--host", "192.0.2.1"], 1);
    assert!(line.contains("192.0.2.1") && line.contains("127.0.0.1"), "{line}");
}

#[test]
fn a_log_file_that_cannot_be_written_fails_with_its_path() {
    for path in ["/", "/no/such/directory/log"] {
        let line = refusal(&["--log-file", path], 1);
        assert!(line.contains("--log-file") && line.contains(path), "{line}");
    }
}

#[test]
fn without_arguments_and_on_request_there_is_help() {
    let bare = run(&[]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(
        String::from_utf8(bare.stderr)
            .unwrap()
            .contains("Usage: highwater")
    );
    let asked = run(&["echo", "--help"]);
    assert_eq!(asked.status.code(), Some(0));
    let text = String::from_utf8(asked.stdout).unwrap();
    for option in [
        "--grace",
        "--high-water-mark",
        "--max-frame",
        "--unsent",
        "--log-file",
    ] {
        assert!(text.contains(option), "{option}");
    }
}
