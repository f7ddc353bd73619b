//! The probe finds in the examples what they teach, and passes those that are right.
//!
//! The examples and the command run as programs. `cargo test` builds them; after
//! `cargo test --test probe_examples` alone they may be missing, which the message says.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// One probe at a time: each fills two processors by itself, and judges rates.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A server that runs until it is dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn example(name: &str, options: &[&str]) -> Self {
        let directory = PathBuf::from(env!("CARGO_BIN_EXE_highwater"));
        let binary = directory.parent().unwrap().join("examples").join(name);
        assert!(
            binary.exists(),
            "{} is missing: run `cargo build --examples` first",
            binary.display()
        );
        Self::start(Command::new(binary).args(options))
    }

    fn highwater() -> Self {
        Self::start(Command::new(env!("CARGO_BIN_EXE_highwater")).arg("echo"))
    }

    /// Both kinds say `listening on ADDRESS`, on standard output or in the log on standard error.
    fn start(command: &mut Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let process = command
            .args(["--port", "0"])
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut lines = BufReader::new(reader).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("listening on ")
                    .map(|(_, address)| address.trim().to_owned())
            })
            .expect("the server says where it listens");
        // What it logs later must be read, or the server waits for us.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process, address }
    }

    /// What the probe says of it; without the plan's defaults where options say so.
    fn probe(&self, options: &[&str]) -> Value {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args(["probe", &self.address, "--json", "--baseline", "1s"])
            .args(options)
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
        let expected = if report["verdict"] == "pass" { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(expected));
        report
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["name"] == name).unwrap()
}

fn assert_outcomes(report: &Value, expected: &str, names: &[&str]) {
    for name in names {
        let finding = finding(report, name);
        assert_eq!(finding["verdict"], expected, "{finding}");
    }
}

#[test]
fn the_queue_without_limit_fails_for_its_memory_and_for_keeping_stalled_clients() {
    let report = Server::example("unbounded_echo", &[]).probe(&[]);
    assert_outcomes(
        &report,
        "fail",
        &[
            "memory-bounded",
            "stalled-disconnected",
            "stalled-in-time",
            "talkers-disconnected",
        ],
    );
    assert_outcomes(&report, "pass", &["paused-kept", "healthy-served"]);
    assert_eq!(report["verdict"], "fail");
}

#[test]
fn the_server_of_one_blocking_thread_fails_its_healthy_clients() {
    let report = Server::example("blocking_echo", &[]).probe(&["--paused", "0", "--steady", "0"]);
    assert_outcomes(&report, "fail", &["healthy-unaffected", "stalled-disconnected"]);
    assert_outcomes(&report, "pass", &["memory-bounded"]);
    assert_eq!(report["verdict"], "fail");
}

#[test]
fn the_server_with_a_thread_and_a_timeout_for_each_client_passes() {
    let report = Server::example("timeout_echo", &[]).probe(&["--trickle", "1"]);
    let all = [
        "stalled-disconnected",
        "stalled-in-time",
        "talkers-disconnected",
        "tricklers-disconnected",
        "paused-kept",
        "steady-kept",
        "healthy-served",
        "healthy-unaffected",
        "memory-bounded",
        "nothing-left-in-kernel",
    ];
    assert_outcomes(&report, "pass", &all);
    assert_eq!(report["verdict"], "pass");
}

#[test]
fn with_a_plain_close_it_fails_for_what_is_left_in_the_kernel_and_for_nothing_else() {
    let report = Server::example("timeout_echo", &["--plain-close"]).probe(&["--paused", "0"]);
    assert_outcomes(&report, "fail", &["nothing-left-in-kernel"]);
    assert_outcomes(
        &report,
        "pass",
        &[
            "stalled-disconnected",
            "stalled-in-time",
            "steady-kept",
            "healthy-served",
        ],
    );
    assert!(
        finding(&report, "nothing-left-in-kernel")["value"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}

#[test]
fn highwater_echo_passes() {
    let report = Server::highwater().probe(&["--stalled", "20", "--trickle", "1"]);
    let all = [
        "stalled-disconnected",
        "stalled-in-time",
        "talkers-disconnected",
        "tricklers-disconnected",
        "paused-kept",
        "steady-kept",
        "healthy-served",
        "healthy-unaffected",
        "memory-bounded",
        "nothing-left-in-kernel",
    ];
    assert_outcomes(&report, "pass", &all);
    assert_eq!(report["verdict"], "pass");
}
