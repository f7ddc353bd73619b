//! A producer that outruns a file, done right and, with `--unbounded`, wrong.
//!
//! One thread makes random bytes as fast as it can. Another writes them to a
//! file, FIFO or device that is slower. Between the two is a queue. A program
//! that queues whatever is not written yet stores the difference of both speeds
//! in its memory, second by second. This one asks the queue: a write that
//! brings it to its high-water mark answers *pause*, and the producer waits
//! until the queue has drained.
//!
//! Same bytes, same time: the file sets the pace either way. Only the memory
//! differs. Try it:
//!
//! ```text
//! mkfifo /tmp/slow
//! pv -qL 20m /tmp/slow > /dev/null &
//! cargo run --release --example random_to_file -- --to /tmp/slow --bytes 400MB --seed 1 --unbounded
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "a program that shows its rate reads the clock"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use highwater::backpressure::{Answer, Flow, Pipe, SendQueue, Sent};
use highwater::limits::HIGH_WATER_MARK_BYTES;

const USAGE: &str =
    "usage: random_to_file --to PATH --bytes SIZE --seed N [--unbounded]  (SIZE: 500, 64KB, 400MB or 2GB)";

/// Bytes that are made, and bytes that are written, at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Pieces of the queue that are offered to the file at once.
const SLICES: usize = 16;

/// Time between two lines of progress.
const SHOW_EVERY: Duration = Duration::from_secs(1);

struct Asked {
    to: String,
    bytes: u64,
    seed: u64,
    is_unbounded: bool,
}

/// What both threads share. The file is the only destination of the pipe, so
/// it needs no name.
struct Shared {
    state: Mutex<State>,
    /// There is more to write, or the queue has drained.
    changed: Condvar,
}

struct State {
    queue: SendQueue,
    pipe: Pipe<()>,
    peak_bytes: usize,
    pauses: u64,
    written_bytes: u64,
    /// The writer has ended, by an error or because all is written.
    outcome: Option<io::Result<()>>,
}

fn main() -> ExitCode {
    let typed: Vec<String> = std::env::args().skip(1).collect();
    let Some(asked) = parse(&typed) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to {}: {error}", asked.to);
            ExitCode::FAILURE
        }
    }
}

fn parse(typed: &[String]) -> Option<Asked> {
    let (mut to, mut bytes, mut seed, mut is_unbounded) = (None, None, None, false);
    let mut words = typed.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--to" => to = Some(words.next()?.clone()),
            "--bytes" => bytes = Some(parse_size(words.next()?)?),
            "--seed" => seed = Some(words.next()?.parse().ok()?),
            "--unbounded" => is_unbounded = true,
            _ => return None,
        }
    }
    Some(Asked {
        to: to?,
        bytes: bytes?,
        seed: seed?,
        is_unbounded,
    })
}

fn parse_size(typed: &str) -> Option<u64> {
    for (unit, factor) in [("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)] {
        if let Some(number) = typed.strip_suffix(unit) {
            return number.parse::<u64>().ok()?.checked_mul(factor);
        }
    }
    typed.parse().ok()
}

fn run(asked: &Asked) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&asked.to)?;
    let mut pipe = Pipe::default();
    pipe.add(());
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: SendQueue::new(HIGH_WATER_MARK_BYTES),
            pipe,
            peak_bytes: 0,
            pauses: 0,
            written_bytes: 0,
            outcome: None,
        }),
        changed: Condvar::new(),
    });
    let writer = shared.clone();
    thread::spawn(move || {
        let outcome = writer.write_all(file);
        writer.lock().outcome = Some(outcome);
        writer.changed.notify_all();
    });
    let began = Instant::now();
    let shown = shared.clone();
    let total = asked.bytes;
    thread::spawn(move || shown.show(total, began));
    shared.produce(asked);
    shared.finish(total, began)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all bytes. This is the whole difference: the naive program does
    /// not look at the answer.
    fn produce(&self, asked: &Asked) {
        let mut random = fastrand::Rng::with_seed(asked.seed);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = asked.bytes;
        while left > 0 {
            let length = CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES));
            random.fill(&mut chunk[..length]);
            left -= length as u64;

            let mut state = self.lock();
            if state.outcome.is_some() {
                return; // The file takes no more.
            }
            let answer = state.queue.write(&chunk[..length]);
            state.peak_bytes = state.peak_bytes.max(state.queue.len());
            self.changed.notify_all();
            if asked.is_unbounded {
                continue;
            }
            state.pipe.answered((), answer);
            state.pauses += u64::from(answer == Answer::Pause);
            while state.pipe.flow() != Flow::Read && state.outcome.is_none() {
                state = self.wait(state);
            }
        }
        self.lock().queue.end();
        self.changed.notify_all();
    }

    /// Writes what is queued until the producer has ended and nothing is left.
    fn write_all(&self, mut file: File) -> io::Result<()> {
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        loop {
            let mut state = self.lock();
            while state.queue.is_empty() {
                if state.queue.is_ended() {
                    return Ok(());
                }
                state = self.wait(state);
            }
            piece.clear();
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = state.queue.fill_slices(&mut slices);
            for slice in &slices[..filled] {
                let room = CHUNK_BYTES - piece.len();
                piece.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            drop(state);

            // The file takes its time, and nobody holds the lock meanwhile.
            let count = match file.write(&piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };

            let mut state = self.lock();
            state.written_bytes += count as u64;
            if state.queue.sent(count) == Sent::Drained {
                state.pipe.drained(());
                self.changed.notify_all();
            }
        }
    }

    /// Shows how far it is, once a second, until the process ends.
    fn show(&self, total_bytes: u64, began: Instant) {
        let is_terminal = io::stderr().is_terminal();
        let mut before = 0;
        loop {
            thread::sleep(SHOW_EVERY);
            let state = self.lock();
            let (written, queued, pauses) = (state.written_bytes, state.queue.len(), state.pauses);
            drop(state);
            let done = usize::try_from(written * 20 / total_bytes.max(1))
                .unwrap_or(20)
                .min(20);
            let line = format!(
                "{:4.0} s [{}{}] {:4} MB written, {:4} MB/s, queue {}, {pauses} pauses, RSS {} MB",
                began.elapsed().as_secs_f64(),
                "#".repeat(done),
                "-".repeat(20 - done),
                written / 1_000_000,
                (written - before) / 1_000_000,
                megabytes(queued as u64),
                megabytes(resident_bytes()),
            );
            before = written;
            let line_end = if is_terminal { "\r" } else { "\n" };
            let _ = write!(io::stderr(), "{line}{line_end}");
        }
    }

    fn finish(&self, total_bytes: u64, began: Instant) -> io::Result<()> {
        let mut state = self.lock();
        let outcome = loop {
            match state.outcome.take() {
                Some(outcome) => break outcome,
                None => state = self.wait(state),
            }
        };
        outcome?;
        println!(
            "{total_bytes} bytes in {:.1} s; longest queue {} bytes, {} pauses, most memory {} KB",
            began.elapsed().as_secs_f64(),
            state.peak_bytes,
            state.pauses,
            most_resident_bytes() / 1000,
        );
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Memory that this process uses now.
fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// Most memory that this process has used.
fn most_resident_bytes() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    kibibytes
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
