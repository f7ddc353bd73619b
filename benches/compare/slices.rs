//! Servers side by side: short slices in random order, compared within a cycle.
//!
//! The speed of a shared machine swings by half within seconds. So nothing is
//! compared across time: in each cycle every server gets one slice, in a new
//! random order, and its ratio to the base is taken inside that cycle. The base
//! takes part twice; if its two entries do not agree, no other figure can be
//! trusted.

use std::time::Duration;

use crate::figure::progress;
use crate::generator::{Generator, Latency};
use crate::load::Work;
use crate::method::Method;
use crate::peer::Workshop;
use crate::scenario::{SLOW_CLIENT_SEND_BYTES, Seat, Team};
use crate::server::Server;
use crate::statistics::median;

/// Largest difference of the two floors.
pub(crate) const AGREEMENT: f64 = 0.03;

/// Number of first seats of a team that are the base.
const BASES: usize = 2;

/// Cycles before counting begins.
const WARM_UP_CYCLES: usize = 2;

/// One server in one cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Messages, bytes or connections per second.
    pub(crate) rate: f64,
    /// Nanoseconds of the server's core for each.
    pub(crate) cost: f64,
    /// Share of the time in which the server was on the core.
    pub(crate) busy: f64,
    /// Rate to the base's in the same cycle.
    pub(crate) rate_ratio: f64,
    /// Cost to the base's in the same cycle.
    pub(crate) cost_ratio: f64,
    /// The same with the cost of the clients included.
    pub(crate) whole_cost_ratio: f64,
}

/// One server in one run.
pub(crate) struct Outcome {
    pub(crate) label: &'static str,
    pub(crate) work: Work,
    pub(crate) samples: Vec<Sample>,
    pub(crate) latency: Option<Latency>,
    pub(crate) resident_bytes: u64,
}

/// The outcome of a run.
pub(crate) struct Run {
    pub(crate) outcomes: Vec<Outcome>,
    /// Difference of the two bases, by rate or by cost; the larger one.
    pub(crate) disagreement: f64,
    pub(crate) tries: usize,
}

impl Run {
    /// Whether the two bases agree, so that the other figures can be trusted.
    pub(crate) fn counts(&self) -> bool {
        self.disagreement <= AGREEMENT
    }
}

/// A server with its load and its measurements.
struct Entry {
    seat: Seat,
    server: Server,
    generator: Generator,
    measured: Vec<Measured>,
}

#[derive(Clone, Copy)]
struct Measured {
    rate: f64,
    cost: f64,
    /// The cost with the clients' included.
    whole_cost: f64,
    busy: f64,
}

/// Runs a team, and repeats it while its two bases do not agree.
pub(crate) fn run(name: &str, team: &Team, workshop: &Workshop, method: &Method) -> Result<Run, String> {
    let mut tries = 1;
    loop {
        let mut run = run_once(name, team, workshop, method, tries)?;
        run.tries = tries;
        if run.counts() || tries >= method.tries {
            return Ok(run);
        }
        println!(
            "{name}: the two bases differ by {:.1} %, so this run does not count; again",
            run.disagreement * 100.0
        );
        tries += 1;
    }
}

fn run_once(
    name: &str,
    team: &Team,
    workshop: &Workshop,
    method: &Method,
    attempt: usize,
) -> Result<Run, String> {
    let mut entries = Vec::with_capacity(team.len());
    for (place, seat) in team.iter().enumerate() {
        match Entry::open(*seat, place, workshop) {
            Ok(entry) => entries.push(entry),
            Err(why) if place < BASES => return Err(format!("{}: {why}", seat.label)),
            // The others can be compared without it.
            Err(why) => println!("without {}: {why}", seat.label),
        }
    }
    // Only now, so that the trouble of one server is felt by all.
    for entry in entries.iter_mut().filter(|entry| entry.seat.stalled > 0) {
        entry
            .generator
            .stall_small(entry.seat.stalled, SLOW_CLIENT_SEND_BYTES)?;
    }
    let cycles = if team.iter().any(|seat| seat.work.swings()) {
        method.bulk_cycles
    } else {
        method.cycles
    };
    let bar = progress(name, cycles);
    let mut random = fastrand::Rng::with_seed(method.seed ^ attempt as u64);
    let mut order: Vec<usize> = (0..entries.len()).collect();
    for cycle in 0..WARM_UP_CYCLES + cycles {
        random.shuffle(&mut order);
        for &place in &order {
            let entry = &mut entries[place];
            let measured = entry
                .measure(method.slice)
                .map_err(|why| format!("{}: {why}", entry.seat.label))?;
            if cycle >= WARM_UP_CYCLES {
                entry.measured.push(measured);
            }
        }
        if cycle >= WARM_UP_CYCLES {
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    conclude(entries)
}

impl Entry {
    fn open(seat: Seat, place: usize, workshop: &Workshop) -> Result<Self, String> {
        let mut generator = Generator::start(seat.work, seat.clients)?;
        let label = format!("{}-{place}", seat.label);
        let mut server = workshop.start(seat.peer, seat.arguments, generator.backend(), &label)?;
        generator.open(server.address())?;
        // Some servers fork for a client only when they get to run.
        generator.slice(Duration::from_millis(20))?;
        server.count_forks();
        Ok(Self {
            seat,
            server,
            generator,
            measured: Vec::new(),
        })
    }

    fn measure(&mut self, length: Duration) -> Result<Measured, String> {
        let before = self.server.time_on_core();
        let before_of_clients = self.generator.time_on_core();
        let slice = self.generator.slice(length)?;
        let since = |before: Duration, now: Duration| now.saturating_sub(before).as_nanos() as f64;
        let spent = since(before, self.server.time_on_core());
        let spent_by_clients = since(before_of_clients, self.generator.time_on_core());
        if slice.done == 0 {
            return Err("it answered nothing in a whole slice".into());
        }
        let elapsed = slice.elapsed.as_nanos() as f64;
        let done = slice.done as f64;
        Ok(Measured {
            rate: done / elapsed * 1e9,
            cost: spent / done,
            whole_cost: (spent + spent_by_clients) / done,
            busy: spent / elapsed,
        })
    }
}

/// Takes the ratios inside each cycle.
fn conclude(entries: Vec<Entry>) -> Result<Run, String> {
    let mean = |cycle: usize, of: fn(&Measured) -> f64| {
        (of(&entries[0].measured[cycle]) + of(&entries[1].measured[cycle])) / 2.0
    };
    let cycles = entries.first().map_or(0, |entry| entry.measured.len());
    let bases: Vec<[f64; 3]> = (0..cycles)
        .map(|cycle| {
            [
                mean(cycle, |measured| measured.rate),
                mean(cycle, |measured| measured.cost),
                mean(cycle, |measured| measured.whole_cost),
            ]
        })
        .collect();
    let disagreement = disagreement(&entries[0].measured, &entries[1].measured);
    let mut outcomes = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let sample = |(measured, [rate, cost, whole_cost]): (&Measured, &[f64; 3])| Sample {
            rate: measured.rate,
            cost: measured.cost,
            busy: measured.busy,
            rate_ratio: measured.rate / rate,
            cost_ratio: measured.cost / cost,
            whole_cost_ratio: measured.whole_cost / whole_cost,
        };
        outcomes.push(Outcome {
            label: entry.seat.label,
            work: entry.seat.work,
            samples: entry.measured.iter().zip(&bases).map(sample).collect(),
            latency: entry.generator.take_latency()?,
            resident_bytes: entry.server.resident_bytes(),
        });
    }
    Ok(Run {
        outcomes,
        disagreement,
        tries: 1,
    })
}

/// Difference of two entries of the same server, cycle by cycle.
fn disagreement(one: &[Measured], other: &[Measured]) -> f64 {
    let ratio = |of: fn(&Measured) -> f64| {
        median(
            one.iter()
                .zip(other)
                .map(|(one, other)| of(one) / of(other))
                .collect(),
        )
    };
    let apart = |ratio: f64| (ratio - 1.0).abs();
    apart(ratio(|measured| measured.rate)).max(apart(ratio(|measured| measured.cost)))
}
