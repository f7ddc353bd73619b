//! The slow-client scenarios of `make slow-test` fail when the defence is
//! switched off. (That they pass when it is on is what `make slow-test` shows.)
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // Tests may; clippy does not see that helpers are tests.

use std::path::Path;
use std::process::{Command, Output};

fn run(scenario: &str, server_args: &str) -> Output {
    Command::new("bash")
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("scripts")
                .join(scenario),
        )
        .env("HIGHWATER", env!("CARGO_BIN_EXE_highwater"))
        .env("SERVER_ARGS", server_args)
        .output()
        .expect("bash is there")
}

fn fails_without_the_defence(scenario: &str) {
    // The stop has a timeout of its own.
    let output = run(scenario, "--grace 1h --stop-timeout 1h");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success(),
        "{scenario} passed without the defence: {said}"
    );
    assert!(said.starts_with("FAIL") || said.contains("\nFAIL"), "{said}");
}

#[test]
fn a_stalled_client_is_missed_when_it_stays() {
    fails_without_the_defence("stalled_client.sh");
}

#[test]
fn a_paused_client_beside_a_stalled_one_that_stays_is_no_success() {
    fails_without_the_defence("paused_client.sh");
}

#[test]
fn a_slow_reader_beside_a_stalled_one_that_stays_is_no_success() {
    fails_without_the_defence("slow_reader.sh");
}

#[test]
fn fifty_stalled_clients_are_missed_when_they_stay() {
    fails_without_the_defence("fifty_stalled.sh");
}

#[test]
fn a_server_that_never_stops_for_a_stalled_client_is_no_success() {
    fails_without_the_defence("stop_with_stalled.sh");
}

#[test]
fn a_stalled_client_of_a_tunnel_is_missed_when_it_stays() {
    fails_without_the_defence("tunnel_stalled_client.sh");
}
