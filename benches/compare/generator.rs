//! The load of one server, in a process of its own: thousands of clients for
//! each of several servers need more descriptors than one process may have.
//!
//! Both ends of the protocol are here. The driver writes one word per line; the
//! process answers with a line that begins with `ok`, or with an error.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::str::FromStr;
use std::time::Duration;

use crate::launch;
use crate::load::{Buffers, Load, Slice, Work};
use crate::procfs;

/// The first word of a command line that asks for [`serve`].
pub(crate) const LOAD: &str = "--load-of-one-server";

/// Latencies of all slices together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) max: Duration,
}

/// The driver's end.
pub(crate) struct Generator {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    backend: SocketAddr,
}

impl Generator {
    /// Starts the process; no client is connected yet.
    pub(crate) fn start(work: Work, clients: usize) -> Result<Self, String> {
        let this = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
        let (kind, first, second) = match work {
            Work::Ping { size, in_flight } => ("ping", size, in_flight as usize),
            Work::Bulk { frame, in_flight } => ("bulk", frame.unwrap_or(0), in_flight as usize),
            Work::Crowd { size } => ("crowd", size, 0),
            Work::Connect { size } => ("connect", size, 0),
            Work::Flood => ("flood", 0, 0),
        };
        let words: Vec<String> = [
            LOAD.to_owned(),
            kind.to_owned(),
            first.to_string(),
            second.to_string(),
            clients.to_string(),
        ]
        .into();
        let mut process = launch::command(launch::LOAD_CORE, &this.to_string_lossy(), &words)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start the load: {error}"))?;
        let (Some(to), Some(from)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the load has no pipes".into());
        };
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut generator = Self {
            process,
            to,
            from: BufReader::new(from),
            backend: unknown,
        };
        generator.backend = generator.ask_for("backend")?;
        Ok(generator)
    }

    /// Time that the clients, and the far end of a tunnel, have spent on the
    /// core.
    pub(crate) fn time_on_core(&self) -> Duration {
        procfs::time_on_core(&[self.process.id()])
    }

    /// The address of the far end for a tunnel.
    pub(crate) fn backend(&self) -> SocketAddr {
        self.backend
    }

    /// Connects all clients.
    pub(crate) fn open(&mut self, server: SocketAddr) -> Result<(), String> {
        self.ask(&format!("open {server}")).map(drop)
    }

    /// Keeps the clients busy for `length`.
    pub(crate) fn slice(&mut self, length: Duration) -> Result<Slice, String> {
        let numbers: Vec<u64> = self.ask_numbers(&format!("slice {}", length.as_millis()))?;
        match numbers[..] {
            [done, elapsed] => Ok(Slice {
                done,
                elapsed: Duration::from_nanos(elapsed),
            }),
            _ => Err("the load answered a slice with something else".into()),
        }
    }

    /// Adds clients that never read, and fills them; returns how many bytes
    /// they sent.
    pub(crate) fn stall(&mut self, count: usize) -> Result<u64, String> {
        self.ask_for(&format!("stall {count}"))
    }

    /// The same with the slow clients of `highwater probe`, which have a send
    /// buffer of `send_bytes` each.
    pub(crate) fn stall_small(&mut self, count: usize, send_bytes: usize) -> Result<u64, String> {
        self.ask_for(&format!("stall-small {count} {send_bytes}"))
    }

    /// Lets the busy clients go on sending without reading, until they are
    /// full.
    pub(crate) fn stop_reading(&mut self) -> Result<(), String> {
        self.ask("deafen").map(drop)
    }

    /// Waits until the stalled clients are disconnected; returns how many were.
    pub(crate) fn watch(&mut self, longest: Duration) -> Result<u64, String> {
        self.ask_for(&format!("watch {}", longest.as_millis()))
    }

    /// Latencies since the last call, if the work measures any.
    pub(crate) fn take_latency(&mut self) -> Result<Option<Latency>, String> {
        let numbers: Vec<u64> = self.ask_numbers("latency")?;
        let at = |place: usize| Duration::from_nanos(numbers.get(place).copied().unwrap_or(0));
        Ok((!numbers.is_empty()).then(|| Latency {
            p50: at(0),
            p99: at(1),
            p999: at(2),
            max: at(3),
        }))
    }

    fn ask_numbers<T: FromStr>(&mut self, question: &str) -> Result<Vec<T>, String> {
        Ok(self
            .ask(question)?
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect())
    }

    fn ask_for<T: FromStr>(&mut self, question: &str) -> Result<T, String> {
        self.ask_numbers(question)?
            .pop()
            .ok_or_else(|| format!("the load did not answer `{question}`"))
    }

    fn ask(&mut self, question: &str) -> Result<String, String> {
        let fail = |error| format!("the load was lost at `{question}`: {error}");
        writeln!(self.to, "{question}").map_err(fail)?;
        let mut answer = String::new();
        self.from.read_line(&mut answer).map_err(fail)?;
        match answer.trim_end().strip_prefix("ok") {
            Some(rest) => Ok(rest.trim().to_owned()),
            None if answer.is_empty() => Err(format!("the load ended at `{question}`")),
            None => Err(answer.trim_end().to_owned()),
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Its sockets are gone when it is; waiting makes that certain.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process's end: answers until the driver closes its pipe.
pub(crate) fn serve(words: impl Iterator<Item = String>) -> Result<(), String> {
    let words: Vec<String> = words.collect();
    let number = |place: usize| {
        words
            .get(place)
            .and_then(|word| word.parse::<usize>().ok())
            .unwrap_or(0)
    };
    let in_flight = u32::try_from(number(2)).unwrap_or(u32::MAX);
    let work = match words.first().map(String::as_str) {
        Some("ping") => Work::Ping {
            size: number(1),
            in_flight,
        },
        Some("bulk") => Work::Bulk {
            frame: (number(1) > 0).then(|| number(1)),
            in_flight,
        },
        Some("crowd") => Work::Crowd { size: number(1) },
        Some("connect") => Work::Connect { size: number(1) },
        Some("flood") => Work::Flood,
        _ => return Err("the load was not told what to do".into()),
    };
    let mut load = Load::new(work, number(3))?;
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| format!("the driver is gone: {error}"))?;
        match answer(&mut load, &line) {
            Ok(answer) => println!("ok {answer}"),
            Err(message) => println!("{message}"),
        }
    }
    Ok(())
}

fn answer(load: &mut Load, line: &str) -> Result<String, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "backend" => Ok(load.backend_address().to_string()),
        "open" => load.open(parse(rest)?).map(|()| String::new()),
        "slice" => {
            let slice = load.slice(Duration::from_millis(parse(rest)?))?;
            Ok(format!("{} {}", slice.done, slice.elapsed.as_nanos()))
        }
        "stall" => load
            .stall(parse(rest)?, Buffers::default(), false)
            .map(|sent| sent.to_string()),
        "stall-small" => {
            let (count, send_bytes) = rest.split_once(' ').unwrap_or((rest, ""));
            let buffers = Buffers::of_slow_client(parse(send_bytes)?);
            load.stall(parse(count)?, buffers, true)
                .map(|sent| sent.to_string())
        }
        "watch" => load
            .watch(Duration::from_millis(parse(rest)?))
            .map(|gone| gone.to_string()),
        "deafen" => load.stop_reading().map(|()| String::new()),
        "latency" => Ok(load.take_latency().map_or_else(String::new, |latency| {
            let at = |share| latency.value_at_quantile(share);
            format!("{} {} {} {}", at(0.5), at(0.99), at(0.999), latency.max())
        })),
        _ => Err(format!("the load does not know `{line}`")),
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error| format!("the load cannot read `{text}`: {error}"))
}
