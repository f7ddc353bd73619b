//! How late stalled clients are disconnected, thousands at about the same time.
//!
//! Owns the rounds: each server in turn, with clients of its own. The lateness
//! stands in the server's own log. The kernel's work after a reset, and other
//! programs on its core, make any server late, so the floor takes part.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::clock::now;
use crate::figure::{Figure, MESSAGE, SETTLE, nowhere, progress};
use crate::generator::Generator;
use crate::peer::Workshop;
use crate::server::Server;
use crate::statistics::quartiles;

const ROUNDS: usize = 5;
const GRACE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
const LOG_POLL: Duration = Duration::from_millis(10);

/// The results of all rounds of one server.
#[derive(Default)]
struct Outcome {
    gone: u64,
    late_ms: Vec<f64>,
    most_late_ms: Vec<f64>,
}

/// Runs all rounds.
pub(crate) fn run(workshop: &Workshop, peers: &[&str], clients: usize) -> Result<Vec<Figure>, String> {
    let peers: Vec<_> = peers.iter().filter(|peer| workshop.has(peer)).collect();
    let mut outcomes: Vec<_> = peers.iter().map(|_| Outcome::default()).collect();
    let bar = progress("rounds", ROUNDS);
    for _ in 0..ROUNDS {
        for (peer, outcome) in peers.iter().zip(&mut outcomes) {
            let (gone, late_ms) = round(workshop, peer, clients)?;
            let most = late_ms.iter().copied().fold(f64::MIN, f64::max);
            outcome.gone += gone;
            outcome.late_ms.extend(late_ms);
            outcome.most_late_ms.push(most);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let figures = peers.iter().zip(outcomes);
    Ok(figures
        .flat_map(|(peer, outcome)| outcome.figures(peer, clients))
        .collect())
}

fn round(workshop: &Workshop, peer: &str, clients: usize) -> Result<(u64, Vec<f64>), String> {
    let mut generator = Generator::start(MESSAGE, 0)?;
    let server = workshop.start(peer, &[], nowhere(), &format!("deadlines-{peer}"))?;
    generator.open(server.address())?;
    generator.stall(clients)?;
    let gone = generator.watch(LONGEST)?;
    let late_ms = lateness(&server, gone)?;
    if late_ms.is_empty() {
        return Err(format!(
            "the log names no disconnect; {gone} of {clients} clients have gone"
        ));
    }
    Ok((gone, late_ms))
}

/// The lateness of each disconnect in a log. The log may take a moment longer
/// than the resets.
fn lateness(server: &Server, gone: u64) -> Result<Vec<f64>, String> {
    let begin = now();
    loop {
        let log =
            fs::read_to_string(server.output()).map_err(|error| format!("cannot read the log: {error}"))?;
        let slow_for = |line: &str| -> Option<f64> {
            let (_, rest) = line.split_once("write timeout, disconnecting: slow for ")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let late: Vec<f64> = log
            .lines()
            .filter_map(slow_for)
            .map(|slow_for| (slow_for - GRACE.as_secs_f64()) * 1000.0)
            .collect();
        if late.len() as u64 >= gone || now() - begin >= SETTLE {
            return Ok(late);
        }
        sleep(LOG_POLL);
    }
}

impl Outcome {
    fn figures(self, peer: &str, clients: usize) -> [Figure; 3] {
        let logged = self.late_ms.len();
        let spread = quartiles(self.late_ms);
        let most: Vec<_> = self
            .most_late_ms
            .iter()
            .map(|most| format!("{most:.0}"))
            .collect();
        [
            Figure::new(
                peer,
                "disconnected",
                format!("{} of {}, {logged} in the log", self.gone, ROUNDS * clients),
            ),
            Figure::new(
                peer,
                "late, median and quartiles",
                format!("{:.0} ms ({:.0}-{:.0})", spread.median, spread.low, spread.high),
            ),
            Figure::new(
                peer,
                "late, at most, round by round",
                format!("{} ms", most.join(", ")),
            ),
        ]
    }
}
