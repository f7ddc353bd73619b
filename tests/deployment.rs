//! The files beside the program do what they are for: units that systemd takes
//! and rates, and a rotation of logs that loses no line.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::server::{BINARY, Server};
use support::sockets::{connect, ping};
use support::wait_until;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/operations")
        .join(name)
}

/// Where a program is; says so if it is not installed, since its test is
/// skipped.
fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap();
    let all = std::env::split_paths(&folders).chain(["/usr/sbin".into()]);
    let found = all.map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const SERVICES: [&str; 2] = ["highwater.service", "highwater-tunnel@.service"];

/// What systemd says of units that lie together in a folder.
fn verify(analyze: &Path, units: &[PathBuf]) -> Output {
    let mut command = Command::new(analyze);
    command
        .args(["verify", "--man=no", "--generators=no"])
        .args(units);
    command.output().unwrap()
}

#[test]
fn systemd_takes_the_units_without_a_word() {
    let Some(analyze) = program("systemd-analyze") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        // Where it will be installed there is nothing yet.
        let path = folder.path().join(name.replace("@.", "@name."));
        fs::write(&path, text.replace("/usr/bin/highwater", BINARY)).unwrap();
        path
    };
    let names = SERVICES.iter().chain(&["highwater.socket"]);
    let units: Vec<_> = names
        .map(|name| put(name, &fs::read_to_string(file(name)).unwrap()))
        .collect();
    let output = verify(&analyze, &units);
    assert!(
        output.status.success() && text(&output).is_empty(),
        "{}",
        text(&output)
    );
    let wrong = put(
        "wrong.service",
        "[Service]\nExecStart=/usr/bin/highwater\nWatchdogSecs=1\n",
    );
    assert!(
        text(&verify(&analyze, &[wrong])).contains("WatchdogSecs"),
        "it would not have said a word"
    );
}

#[test]
fn systemd_rates_the_services_as_safe() {
    let Some(analyze) = program("systemd-analyze") else {
        return;
    };
    for name in SERVICES {
        let output = Command::new(&analyze)
            .args(["security", "--offline=true"])
            .arg(file(name))
            .output();
        let said = text(&output.unwrap());
        let level = said
            .split("exposure level for")
            .nth(1)
            .and_then(|rest| rest.split(':').nth(1));
        let level: f64 = level.unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(level <= 2.0, "{name}: {level}\n{said}");
    }
}

#[test]
fn services_tell_their_state_and_are_reloaded_by_a_signal() {
    for name in SERVICES {
        let unit = fs::read_to_string(file(name)).unwrap();
        for line in [
            "Type=notify",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "WatchdogSec=30s",
        ] {
            assert!(
                unit.lines().any(|written| written == line),
                "{name} has no {line}"
            );
        }
    }
}

/// All logs in a folder, read through and through.
fn all_logs(folder: &Path) -> String {
    let files = fs::read_dir(folder).unwrap().flatten();
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("server.log"));
    let read = logs.map(|file| {
        let path = file.path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let output = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        } else {
            fs::read_to_string(path).unwrap()
        }
    });
    read.collect()
}

#[test]
fn logrotate_loses_no_line_of_a_server_under_load() {
    const CLIENTS: usize = 4000;
    const ROTATIONS: usize = 6;
    let Some(logrotate) = program("logrotate") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("server.log");
    let server = Server::echo_logging_to(&log, &["--log-level", "debug"]);
    // The file of the package, for this log and this server.
    let signal = format!("kill -USR1 {}", server.pid().as_raw_nonzero());
    let packaged = fs::read_to_string(file("logrotate")).unwrap();
    let (_, rest) = packaged.split_once('{').unwrap();
    let rules: Vec<_> = rest
        .lines()
        .map(|line| {
            if line.contains("systemctl") {
                signal.as_str()
            } else {
                line
            }
        })
        .collect();
    assert!(
        rules.contains(&signal.as_str()),
        "the file of the package sends no signal"
    );
    let rules = format!("{} {{{}\n", log.display(), rules.join("\n"));
    let config = folder.path().join("config");
    fs::write(&config, rules).unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let (address, counted) = (server.address(), Arc::clone(&done));
    let load = thread::spawn(move || {
        for _ in 0..CLIENTS {
            ping(&mut connect(address), b"a line");
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for rotation in 1..=ROTATIONS {
        wait_until("some lines are written", || {
            done.load(Ordering::Relaxed) >= rotation * CLIENTS / (ROTATIONS + 1)
        });
        let mut command = Command::new(&logrotate);
        command
            .args(["--force", "--state"])
            .arg(folder.path().join("state"))
            .arg(&config);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        // It compresses the file of the rotation before, which the server must have left.
        wait_until("the server has opened its log anew", || log.exists());
        thread::sleep(Duration::from_millis(50));
    }
    load.join().unwrap();
    let last = server.stop();
    assert!(last.contains(&format!("{CLIENTS} clients served")), "{last}");
    let logs = all_logs(folder.path());
    let lines = |part: &str| logs.lines().filter(|line| line.contains(part)).count();
    assert_eq!(lines("closed: finished"), CLIENTS);
    assert_eq!(lines("opening the log file anew"), ROTATIONS);
    assert_eq!(lines("lines lost"), 0);
    let rotated = fs::read_dir(folder.path()).unwrap().flatten();
    let rotated = rotated.filter(|file| file.file_name().to_string_lossy().starts_with("server.log."));
    assert_eq!(rotated.count(), ROTATIONS);
}
