//! A client with small messages beside a crowd of clients with larger ones, one
//! server after the other.
//!
//! The crowd keeps the server busy all the time, so the wait of a small message
//! tells in which order the server works. The client with small messages runs
//! before all else on its core: otherwise it would wait for the crowd's clients
//! there, which is no fault of the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread::{self, sleep};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::now;
use crate::figure::Figure;
use crate::generator::Generator;
use crate::load::Work;
use crate::method::in_rounds;
use crate::peer::{Workshop, baseline_of};
use crate::statistics::quartiles;

/// The servers, and the crowds beside which each is measured.
pub(crate) struct Crowds {
    pub(crate) peers: &'static [&'static str],
    pub(crate) clients: usize,
    /// Bytes of their messages, one crowd each; the last is what the others are
    /// compared with.
    pub(crate) sizes: &'static [usize],
    pub(crate) rounds: usize,
}

/// Time in which everybody gets a first answer.
const WARM_UP: Duration = Duration::from_millis(500);
/// Time in which waits count: some 1,300 of them.
const SLICE: Duration = Duration::from_secs(3);
/// Time for which the crowd goes on, so that no wait is one beside fewer.
const MARGIN: Duration = Duration::from_millis(200);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const MESSAGE_BYTES: usize = 64;

/// One server beside one crowd, in one round.
#[derive(Clone, Copy)]
struct Sample {
    /// Waits of the small messages, in milliseconds.
    p50: f64,
    p99: f64,
    longest: f64,
    /// Answers to the crowd, per second.
    crowd_rate: f64,
    /// The server's share of its core.
    busy: f64,
}

/// Runs all rounds.
pub(crate) fn run(crowds: &Crowds, workshop: &Workshop, seed: u64) -> Result<Vec<Figure>, String> {
    let peers = crowds.peers.iter().copied();
    let baselines = peers.clone().filter_map(baseline_of);
    let peers = peers.chain(baselines).filter(|peer| workshop.has(peer));
    let trials: Vec<(&str, usize)> = peers
        .flat_map(|peer| crowds.sizes.iter().map(move |&size| (peer, size)))
        .collect();
    let samples = in_rounds("rounds", trials.len(), crowds.rounds, seed, |place| {
        let (peer, size) = trials[place];
        round(workshop, peer, crowds.clients, size).map_err(|why| format!("{peer}: {why}"))
    })?;
    let sizes = crowds.sizes.len();
    let figures = trials.iter().enumerate().flat_map(|(place, &(peer, size))| {
        let last = &samples[place - place % sizes + sizes - 1];
        figures(&format!("{peer}, {size} B"), &samples[place], last)
    });
    Ok(figures.collect())
}

fn round(workshop: &Workshop, peer: &str, clients: usize, size: usize) -> Result<Sample, String> {
    let mut crowd = Generator::start(Work::Crowd { size }, clients)?;
    let server = workshop.start(peer, &[], crowd.backend(), &format!("crowd-{peer}"))?;
    crowd.open(server.address())?;
    thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.slice(WARM_UP + SLICE + MARGIN));
        let small = scope.spawn(|| {
            go_first()?;
            let mut client = connect(server.address())?;
            waits(&mut client, WARM_UP)?;
            let before = server.time_on_core();
            let waits = waits(&mut client, SLICE)?;
            Ok::<_, String>((waits, server.time_on_core() - before))
        });
        let (waits, worked) = small.join().map_err(|_| "a client has panicked")??;
        let crowd = crowd.join().map_err(|_| "the crowd has panicked")??;
        let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        Ok(Sample {
            p50: milliseconds(waits.value_at_quantile(0.5)),
            p99: milliseconds(waits.value_at_quantile(0.99)),
            longest: milliseconds(waits.max()),
            crowd_rate: crowd.done as f64 / crowd.elapsed.as_secs_f64(),
            busy: worked.as_secs_f64() / SLICE.as_secs_f64(),
        })
    })
}

/// Has this thread run before all others of its core. Only root may.
fn go_first() -> Result<(), String> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let status = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("a client may not run before others: only root may".into()),
        Err(error) => Err(format!(
            "cannot run chrt: {error}; Debian's package is util-linux"
        )),
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(server).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    });
    stream.map_err(|error| format!("cannot connect: {error}"))
}

/// Sends a message every 2 ms on the average. Answers how long each waited for
/// its echo, in nanoseconds.
fn waits(client: &mut TcpStream, length: Duration) -> Result<Histogram<u64>, String> {
    let longest = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    let mut waits = Histogram::new_with_max(longest, 3).map_err(|error| format!("no histogram: {error}"))?;
    let mut message = [7; MESSAGE_BYTES];
    let begin = now();
    while now() - begin < length {
        sleep(Duration::from_micros(fastrand::u64(1000..3000)));
        let sent = now();
        client
            .write_all(&message)
            .and_then(|()| client.read_exact(&mut message))
            .map_err(|error| format!("a small message has no answer: {error}"))?;
        waits.saturating_record(u64::try_from((now() - sent).as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(waits)
}

fn figures(label: &str, samples: &[Sample], last: &[Sample]) -> Vec<Figure> {
    let spread = |of: fn(&Sample) -> f64| quartiles(samples.iter().map(of).collect());
    let wait = |what, of: fn(&Sample) -> f64| {
        let wait = spread(of);
        let value = format!("{:.2} ms ({:.2}-{:.2})", wait.median, wait.low, wait.high);
        Figure::new(label, what, value)
    };
    let mut figures = vec![
        wait("wait of a small message, median", |sample| sample.p50),
        wait("wait of a small message, 99 %", |sample| sample.p99),
        wait("longest wait of a small message", |sample| sample.longest),
    ];
    if !std::ptr::eq(samples, last) {
        let pairs = samples.iter().zip(last);
        let to_last = quartiles(pairs.map(|(sample, last)| sample.p99 / last.p99).collect());
        let value = format!("{:.2} ({:.2}-{:.2})", to_last.median, to_last.low, to_last.high);
        figures.push(Figure::new(label, "99 % to that of the last size", value));
    }
    let rate = spread(|sample| sample.crowd_rate).median / 1e3;
    figures.push(Figure::new(
        label,
        "answers to the crowd",
        format!("{rate:.0} k/s"),
    ));
    let busy = spread(|sample| sample.busy).median * 100.0;
    figures.push(Figure::new(label, "busy", format!("{busy:.0} %")));
    figures
}
