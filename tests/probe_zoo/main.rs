//! The zoo: servers whose truth is known, and the prober held against each.
//!
//! `cargo test --test probe_zoo` runs all rows, several at a time, and fails when the
//! prober contradicts what is true. `make zoo` prints the matrix and writes docs/zoo.md.
//! Arguments: words that the names of rows contain; `--exact` for whole names;
//! `--jobs N`; `--write FILE`; `--list`; `--verbose` shows the reason of each finding.
//!
//! Each small server runs in a process of its own, which is this program again, so that
//! what the prober sees of its memory and sockets is that server's alone.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]
#![allow(clippy::disallowed_methods, reason = "these servers wait by the real clock")]

mod broker;
mod echo;
mod encrypted;
mod http;
mod matrix;
mod patience;
mod programs;
mod push;
mod row;
mod rows;
mod trial;
mod truths;

use std::io::Write;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::row::{Row, Server};
use crate::trial::Trial;

/// Rows under way at once: most of a row is waiting, so that two processors bear several.
const JOBS: usize = 12;

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    words: Vec<String>,
    is_exact: bool,
    jobs: usize,
    write: Option<String>,
    is_verbose: bool,
    lists: bool,
    serve: Option<String>,
}

impl Asked {
    fn read() -> Self {
        let mut asked = Self {
            jobs: JOBS,
            ..Self::default()
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--serve" => asked.serve = words.next(),
                "--write" => asked.write = words.next(),
                "--jobs" => asked.jobs = words.next().and_then(|jobs| jobs.parse().ok()).unwrap_or(JOBS),
                "--exact" => asked.is_exact = true,
                "--verbose" | "--nocapture" => asked.is_verbose = true,
                "--list" => asked.lists = true,
                // Options of cargo's own test programs mean nothing here.
                option if option.starts_with('-') => {}
                _ => asked.words.push(word),
            }
        }
        asked
    }

    fn wants(&self, row: &Row) -> bool {
        let is_meant = |word: &String| {
            if self.is_exact {
                row.name == word
            } else {
                row.name.contains(word.as_str())
            }
        };
        self.words.is_empty() || self.words.iter().any(is_meant)
    }
}

fn main() -> ExitCode {
    let asked = Asked::read();
    let rows = rows::all();
    if let Some(name) = &asked.serve {
        return serve(&rows, name);
    }
    let rows: Vec<Row> = rows.into_iter().filter(|row| asked.wants(row)).collect();
    if asked.lists {
        for row in &rows {
            println!("{}: test", row.name);
        }
        return ExitCode::SUCCESS;
    }
    let mut trials = run(&rows, asked.jobs);
    try_again(&mut trials);
    matrix::print(&trials, asked.is_verbose);
    if let Some(path) = &asked.write {
        std::fs::write(path, matrix::page(&trials)).expect(path);
    }
    matrix::sums(&trials).verdict()
}

/// One small server: says its port, and serves until it is killed or its parent is gone.
fn serve(rows: &[Row], name: &str) -> ExitCode {
    let row = rows
        .iter()
        .find(|row| row.name == name)
        .expect("a row of that name");
    let Server::Small(server) = row.server.clone() else {
        return ExitCode::FAILURE;
    };
    // Elsewhere, the address comes after the server.
    let address = if row.is_elsewhere {
        "0.0.0.0:0"
    } else {
        "127.0.0.1:0"
    };
    let listener = TcpListener::bind(address).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    thread::spawn(move || server.serve(listener));
    // The parent holds the other end for as long as it lives.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    ExitCode::SUCCESS
}

/// A fail that another row's load may explain is tried again, alone. A false pass stands.
fn try_again(trials: &mut [Trial]) {
    for trial in trials.iter_mut().filter(|trial| trial.may_be_the_load()) {
        eprintln!("zoo: {}: once more, alone", trial.row.name);
        let again = Trial::run(&trial.row);
        eprintln!("{}", matrix::line(&again));
        *trial = Trial {
            tried_again: true,
            ..again
        };
    }
}

/// Runs all rows, `jobs` at a time.
fn run(rows: &[Row], jobs: usize) -> Vec<Trial> {
    let next = AtomicUsize::new(0);
    let trials = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((index, row)) = rows.get(next.fetch_add(1, Ordering::Relaxed)).map(|row| {
                    let index = rows.iter().position(|other| other.name == row.name).unwrap_or(0);
                    (index, row)
                }) {
                    let trial = Trial::run(row);
                    eprintln!("{}", matrix::line(&trial));
                    trials
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((index, trial));
                }
            });
        }
    });
    let mut trials = trials.into_inner().unwrap_or_else(PoisonError::into_inner);
    trials.sort_by_key(|(index, _)| *index);
    trials.into_iter().map(|(_, trial)| trial).collect()
}
