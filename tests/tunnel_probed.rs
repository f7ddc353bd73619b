//! The probe tells a tunnel that one stalled client stops from one that it
//! does not.
//!
//! The example and the command run as programs. `cargo test` builds them;
//! after `cargo test --test tunnel_probed` alone the example may be missing,
//! which the message says.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the lint's exemption for tests does not reach their helpers"
)]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::server::{BINARY, Server};
use support::sockets::Buffers;
use support::tunnel::echo_upstream;

/// The tunnel of the tutorials, until it is dropped.
struct SelectTunnel {
    process: Child,
    address: String,
}

impl SelectTunnel {
    fn start(to: &str) -> Self {
        let folder = Path::new(BINARY).parent().unwrap();
        let program = folder.join("examples").join("select_tunnel");
        assert!(
            program.exists(),
            "{} is missing: run `cargo build --examples` first",
            program.display()
        );
        let mut process = Command::new(program)
            .args(["--port", "0", "--to", to])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { process, address }
    }
}

impl Drop for SelectTunnel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the probe says of a server with five fast clients and a stalled one.
fn probe(address: &str, within: &str) -> Value {
    let clients = "--fast 5 --stalled 1 --quiet 0 --talkers 0 --paused 0 --steady 0";
    let output = Command::new(BINARY)
        .args(["probe", address, "--json", "--within", within])
        .args(clients.split(' '))
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)))
}

fn verdict<'a>(report: &'a Value, name: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["name"] == name);
    finding.unwrap()["verdict"].as_str().unwrap()
}

/// Answers a second that the fast clients got in a phase.
fn rate(report: &Value, phase: &str) -> f64 {
    report["healthy"][phase]["messages_per_second"].as_f64().unwrap()
}

#[test]
fn one_stalled_client_stops_all_of_the_select_tunnel_and_none_of_ours() {
    let to = echo_upstream(Buffers::default()).to_string();

    let select = SelectTunnel::start(&to);
    let report = probe(&select.address, "3s");
    assert_eq!(report["verdict"], "fail");
    assert_eq!(verdict(&report, "healthy-unaffected"), "fail", "{report}");
    assert_eq!(verdict(&report, "stalled-disconnected"), "fail", "{report}");
    let (before, after) = (rate(&report, "before"), rate(&report, "after"));
    assert!(
        before > 100.0 && after < before / 100.0,
        "{before} before, {after} after"
    );

    let ours = Server::start("tunnel", &["--to", &to, "--grace", "2s"]);
    let report = probe(&ours.address().to_string(), "4s");
    assert_eq!(report["verdict"], "pass", "{report}");
    for name in [
        "healthy-unaffected",
        "healthy-served",
        "stalled-disconnected",
        "stalled-in-time",
    ] {
        assert_eq!(verdict(&report, name), "pass", "{report}");
    }
    assert_eq!(ours.lines_with("disconnecting").len(), 1);
}
