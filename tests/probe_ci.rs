//! The examples on the page docs/probe-ci.md work as they stand there.
//!
//! The shell steps run in bash, as CI runs them, with another port and this project's own server;
//! nothing is installed. The Rust example is in this file, word for word.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const PAGE: &str = include_str!("../docs/probe-ci.md");
const THIS_FILE: &str = include_str!("probe_ci.rs");

/// One probe at a time: each can fill two processors by itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What the page shows in the block of this language that contains `word`.
fn block<'a>(language: &str, word: &str) -> &'a str {
    let opening = format!("```{language}\n");
    let blocks = PAGE
        .split(&opening)
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let mut fitting = blocks.filter(|block| block.contains(word));
    fitting
        .next()
        .unwrap_or_else(|| panic!("the page has no {language} with {word}"))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines of YAML that belong to the text which `key` opens, without their indentation.
fn text_of<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = yaml.lines().skip_while(|line| line.trim() != key);
    let opening = indentation(lines.next().unwrap_or_else(|| panic!("no {key}")));
    let text: Vec<&str> = lines.take_while(|line| indentation(line) > opening).collect();
    let least = text.iter().map(|line| indentation(line)).min().unwrap_or(0);
    text.iter().map(|line| &line[least..]).collect()
}

/// The shell of the step of that name.
fn step(name: &str) -> String {
    let actions = block("yaml", "runs-on:");
    let heading = format!("- name: {name}\n");
    let (_, rest) = actions
        .split_once(&heading)
        .unwrap_or_else(|| panic!("no step {name}"));
    text_of(rest, "run: |").join("\n")
}

/// A directory in which `./my-server` is a server, and `highwater` the command of this project.
fn workplace(server: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let highwater = env!("CARGO_BIN_EXE_highwater");
    script(
        "my-server",
        &format!("exec '{highwater}' {server} \"$@\" 2>server.log"),
    );
    script("highwater", &format!("exec '{highwater}' \"$@\""));
    directory
}

/// Runs bash as GitHub does, and ends whatever it left running.
fn bash(directory: &Path, script: &str) -> Output {
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after", "5", "100", "bash", "-eo", "pipefail", "-c"])
        .arg(format!(
            "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
        ))
        .current_dir(directory)
        .env("PATH", path)
        .process_group(0);
    command.output().unwrap()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn assert_passed(output: &Output) {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        said(&output.stdout),
        said(&output.stderr)
    );
}

fn assert_written(directory: &Path, name: &str, word: &str) {
    let text = std::fs::read_to_string(directory.join(name)).unwrap();
    assert!(text.contains(word), "{name}: {text:.300}");
}

#[test]
fn the_steps_for_github_probe_a_server_and_write_all_files() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let place = workplace("serve files --grace 5s");
    std::fs::create_dir(place.path().join("files")).unwrap();
    let large = std::fs::File::create(place.path().join("files/large.bin")).unwrap();
    large.set_len(16 << 20).unwrap();
    let script = format!("{}\n{}", step("Start the server"), step("Probe it"));
    let output = bash(place.path(), &script.replace("9000", &free_port().to_string()));
    assert_passed(&output);
    assert_written(place.path(), "probe.json", "\"verdict\":");
    assert_written(place.path(), "probe.xml", "<testsuite");
    assert_written(place.path(), "probe.svg", "<svg");
}

#[test]
fn the_command_for_compose_is_one_line_that_probes_a_server() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = text_of(block("yaml", "depends_on:"), "command: >");
    // YAML folds lines of one indentation into one; a line that is indented further stays a line.
    assert!(lines.iter().all(|line| indentation(line) == 0), "{lines:#?}");
    let port = free_port().to_string();
    let command = lines.join(" ");
    for word in ["cargo install highwater --locked", "server:9000", "/reports/"] {
        assert!(command.contains(word), "{command}");
    }
    let command = command
        .replace("cargo install highwater --locked", "true")
        .replace("server:9000", &format!("127.0.0.1:{port}"))
        .replace("/reports/", "");
    let place = workplace("echo");
    let started = step("Start the server").replace("9000", &port);
    let output = bash(place.path(), &format!("{started}\n{command}"));
    assert_passed(&output);
    assert_written(place.path(), "probe.xml", "<testsuite");
}

#[test]
fn the_rust_example_is_the_module_below() {
    let example = block("rust", "#[test]");
    let dedented: String = THIS_FILE
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line)))
        .collect();
    assert!(dedented.contains(example), "the page has\n{example}");
}

/// Echoes, and resets a client that takes nothing for a second.
fn my_server(listener: std::net::TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || {
            let mut stream = stream;
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let mut buffer = [0; 16 << 10];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..len]).is_err() {
                    return;
                }
            }
        });
    }
}

#[rustfmt::skip] // As the page has it.
mod example {
    use super::my_server;

    use std::net::TcpListener;

    use highwater::probe::{Echo, NoProgress, Outcome, Plan, SlowKind, probe};

    #[test]
    fn a_client_that_never_reads_is_disconnected_and_harms_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || my_server(listener));
        let plan = Plan::new(address)
            .speaking(Echo)
            .without_slow_clients()
            .with(SlowKind::Stalled, 3);
        let report = probe(&plan, "my server", &mut NoProgress).unwrap();
        for name in ["stalled-disconnected", "healthy-served"] {
            let finding = report.finding(name).unwrap();
            assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
        }
    }
}
