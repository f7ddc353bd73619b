//! A producer that outruns a FIFO: the naive program keeps the difference in
//! its memory, ours pauses, and both write the same bytes.
//!
//! `cargo test` builds the example; after `cargo test --test random_to_file`
//! alone it may be missing, which the message says.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a slow reader reads at the pace of the real clock"
)]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

const TOTAL_BYTES: usize = 160_000_000;

/// The pace of the reader, until it has seen enough.
const READ_BYTES_PER_SECOND: usize = 4_000_000;

/// What a naive program is let keep in its memory before the reader hurries.
const ENOUGH_BYTES: u64 = 110_000_000;

/// Shortest time for which the reader is slow.
const SHORTEST: Duration = Duration::from_secs(3);

/// Longest time for which the reader is slow.
const PATIENCE: Duration = Duration::from_secs(20);

const SEED: u64 = 7;

fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/random_to_file");
    assert!(
        path.exists(),
        "build it first: cargo build --example random_to_file"
    );
    path
}

/// Runs the example into a FIFO that is read slowly; answers what it said and
/// whether the bytes were those of the seed.
fn run(options: &[&str]) -> (Output, bool) {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let child = Command::new(program())
        .args([
            "--bytes",
            &TOTAL_BYTES.to_string(),
            "--seed",
            &SEED.to_string(),
            "--to",
        ])
        .arg(&fifo)
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let is_naive = options.contains(&"--unbounded");
    let process = child.id();
    let is_slow = |read_for: Duration| {
        let waits_for_memory = is_naive && read_for < PATIENCE && resident_bytes(process) < ENOUGH_BYTES;
        read_for < SHORTEST || waits_for_memory
    };
    let is_right = read_slowly(&fifo, is_slow);
    (child.wait_with_output().unwrap(), is_right)
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    kibibytes
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// Reads and compares all bytes, slowly at first.
fn read_slowly(fifo: &Path, is_slow: impl Fn(Duration) -> bool) -> bool {
    let mut reader = File::open(fifo).unwrap();
    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut piece, mut expected) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let (began, mut read, mut is_right) = (Instant::now(), 0, true);
    while read < TOTAL_BYTES {
        let length = piece.len().min(TOTAL_BYTES - read);
        reader.read_exact(&mut piece[..length]).unwrap();
        random.fill(&mut expected[..length]);
        is_right &= piece[..length] == expected[..length];
        read += length;
        let due = Duration::from_secs_f64(read as f64 / READ_BYTES_PER_SECOND as f64);
        while began.elapsed() < due && is_slow(began.elapsed()) {
            thread::sleep(Duration::from_millis(5));
        }
    }
    is_right && reader.read(&mut piece).unwrap() == 0
}

/// The number in front of `unit` in the last line.
fn number(output: &Output, unit: &str) -> u64 {
    let said = String::from_utf8_lossy(&output.stdout);
    let (before, _) = said
        .split_once(unit)
        .unwrap_or_else(|| panic!("no `{unit}` in {said}"));
    before.trim().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_producer_that_pauses_writes_the_same_bytes_in_a_twentieth_of_the_memory() {
    let (ours, (naive, naive_is_right)) = thread::scope(|scope| {
        let naive = scope.spawn(|| run(&["--unbounded"]));
        (run(&[]), naive.join().unwrap())
    });
    let (ours, ours_is_right) = ours;
    assert!(ours.status.success() && naive.status.success());
    assert!(
        ours_is_right && naive_is_right,
        "the bytes are not those of the seed"
    );
    let memory = |output: &Output| number(output, " KB");
    assert!(memory(&ours) < 8_000, "{} KB with pauses", memory(&ours));
    assert!(memory(&naive) > 100_000, "{} KB without", memory(&naive));
    assert!(number(&ours, " pauses") > 100);
    assert!(
        number(&ours, " bytes, ") <= 2 * 64 * 1024,
        "the queue stays near its mark"
    );
    assert_eq!(number(&naive, " pauses"), 0);
    let progress = String::from_utf8_lossy(&naive.stderr).into_owned();
    assert!(
        progress.lines().count() >= 2 && progress.contains("RSS "),
        "{progress}"
    );
}

#[test]
fn a_reader_that_leaves_ends_the_program_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let child = Command::new(program())
        .args(["--bytes", "100MB", "--seed", "1", "--to"])
        .arg(&fifo)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(File::open(&fifo).unwrap());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot write to ") && said.contains("Broken pipe"),
        "{said}"
    );
}

#[test]
fn wrong_arguments_get_one_usage_line_and_exit_code_two() {
    for typed in [
        &["--to"][..],
        &["--to", "x", "--bytes", "many", "--seed", "1"],
        &["--size", "1"],
        &[],
    ] {
        let output = Command::new(program()).args(typed).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{typed:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.starts_with("usage: random_to_file ") && said.lines().count() == 1,
            "{said}"
        );
    }
}
