//! Publish and subscribe: CPU and rate for each delivery, servers side by side.
//!
//! All servers of a scenario run at once and take turns in random order, as in
//! `slices`. A delivery counts when a subscriber has read it. The first seat is
//! the base and stands twice, so that the spread of the method is seen.

use std::net::SocketAddr;
use std::time::Duration;

use crate::fanout_load::{Load, Protocol, Shape, Waits};
use crate::figure::{Figure, nowhere, ratio};
use crate::method::{Method, in_rounds};
use crate::peer::Workshop;
use crate::server::Server;
use crate::statistics::{median, percentile, quartiles};

/// Servers with the same subscribers and messages.
pub(crate) struct Fanout {
    /// The first is the base; it is measured twice.
    pub(crate) seats: &'static [Seat],
    pub(crate) shape: Shape,
}

/// One server with its stalled subscribers.
#[derive(Clone, Copy)]
pub(crate) struct Seat {
    pub(crate) label: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) protocol: Protocol,
    /// Subscribers of the same channel that never read.
    pub(crate) stalled: usize,
}

/// The server of the others, with no limit on what waits.
const REDIS_WITHOUT_LIMIT: &[&str] = &["--client-output-buffer-limit", "pubsub 0 0 0"];

/// The service that is measured, with its stalled subscribers kept.
const fn ours(label: &'static str, arguments: &'static [&'static str], stalled: usize) -> Seat {
    Seat {
        label,
        peer: "highwater-broadcast",
        arguments,
        protocol: Protocol::Resp,
        stalled,
    }
}

const fn seat(peer: &'static str, protocol: Protocol) -> Seat {
    Seat {
        label: peer,
        peer,
        arguments: &[],
        protocol,
        stalled: 0,
    }
}

/// All servers, nobody stalled.
pub(crate) const fn side_by_side(subscribers: usize, bytes: usize, in_flight: usize) -> Fanout {
    const SEATS: &[Seat] = &[
        seat("floor-fanout", Protocol::Resp),
        seat("highwater-broadcast", Protocol::Resp),
        seat("baseline-broadcast", Protocol::Resp),
        seat("redis", Protocol::Resp),
        seat("nats", Protocol::Nats),
    ];
    Fanout {
        seats: SEATS,
        shape: Shape {
            subscribers,
            bytes,
            in_flight,
        },
    }
}

/// Our server without stalled subscribers, and with 100 under each action.
/// Limits are far, so that none is disconnected while it is measured.
pub(crate) const fn beside_stalled(subscribers: usize, bytes: usize, in_flight: usize) -> Fanout {
    const SEATS: &[Seat] = &[
        ours("alone", &["--slow=disconnect", FAR[0], FAR[1], FAR[2], FAR[3]], 0),
        ours(
            "disconnect",
            &["--slow=disconnect", FAR[0], FAR[1], FAR[2], FAR[3]],
            100,
        ),
        ours(
            "drop-oldest",
            &["--slow=drop-oldest", FAR[0], FAR[1], FAR[2], FAR[3]],
            100,
        ),
        ours("latest", &["--slow=latest", FAR[0], FAR[1], FAR[2], FAR[3]], 100),
        Seat {
            label: "redis alone",
            ..seat("redis", Protocol::Resp)
        },
        Seat {
            label: "redis",
            arguments: REDIS_WITHOUT_LIMIT,
            stalled: 100,
            ..seat("redis", Protocol::Resp)
        },
    ];
    const FAR: [&str; 4] = [
        "--grace=1h",
        "--drain-timeout=1h",
        "--hard-limit=4GiB",
        "--memory-budget=8GiB",
    ];
    Fanout {
        seats: SEATS,
        shape: Shape {
            subscribers,
            bytes,
            in_flight,
        },
    }
}

/// A lone message beside 1,000 stalled subscribers.
pub(crate) const fn beside_a_thousand() -> Fanout {
    const PATIENT: &[&str] = &["--grace=1h", "--drain-timeout=1h"];
    const DROPPING: &[&str] = &["--grace=1h", "--drain-timeout=1h", "--slow=drop-oldest"];
    const LATEST: &[&str] = &["--grace=1h", "--drain-timeout=1h", "--slow=latest"];
    const SEATS: &[Seat] = &[
        ours("alone", PATIENT, 0),
        ours("disconnect", PATIENT, 1000),
        ours("drop-oldest", DROPPING, 1000),
        ours("latest", LATEST, 1000),
    ];
    Fanout {
        seats: SEATS,
        shape: Shape {
            subscribers: 100,
            bytes: 128,
            in_flight: 1,
        },
    }
}

const WARM_UP: Duration = Duration::from_millis(200);

/// Slices in a row whose waits together give one p99: of one slice, it would be
/// that of a hundred messages.
const SLICES_PER_P99: usize = 20;

/// Time for the sockets of stalled subscribers to fill.
const FILL: Duration = Duration::from_millis(600);

struct Entry {
    seat: Seat,
    server: Server,
    load: Load,
    rates: Vec<f64>,
    costs: Vec<f64>,
    /// One for each slice.
    waits: Vec<Waits>,
}

/// Runs all cycles.
pub(crate) fn run(fanout: &Fanout, workshop: &Workshop, method: &Method) -> Result<Vec<Figure>, String> {
    let present = fanout.seats.iter().filter(|seat| workshop.has(seat.peer));
    let twice = fanout.seats.iter().take(1).filter(|seat| workshop.has(seat.peer));
    let mut entries = Vec::new();
    for (place, seat) in twice.chain(present).enumerate() {
        entries.push(enter(place, seat, fanout.shape, workshop)?);
    }
    in_rounds("cycles", entries.len(), method.cycles, method.seed, |place| {
        entries[place].measure(method.slice)
    })?;
    Ok(entries
        .iter()
        .enumerate()
        .flat_map(|(place, entry)| entry.figures(place, &entries[0]))
        .collect())
}

fn enter(place: usize, seat: &Seat, shape: Shape, workshop: &Workshop) -> Result<Entry, String> {
    let name = format!("fanout-{place}-{}", seat.label);
    let server = workshop.start(seat.peer, seat.arguments, nowhere(), &name)?;
    let fail = |why: String| format!("{}: {why}", seat.label);
    let mut load = open(server.address(), seat, shape).map_err(fail)?;
    load.slice(if seat.stalled > 0 { FILL } else { WARM_UP })
        .map_err(fail)?;
    load.take_waits();
    Ok(Entry {
        seat: *seat,
        server,
        load,
        rates: Vec::new(),
        costs: Vec::new(),
        waits: Vec::new(),
    })
}

fn open(address: SocketAddr, seat: &Seat, shape: Shape) -> Result<Load, String> {
    let text = |error: std::io::Error| format!("the load: {error}");
    let mut load = Load::open(address, seat.protocol, shape).map_err(text)?;
    load.stall(seat.stalled).map_err(text)?;
    Ok(load)
}

impl Entry {
    fn measure(&mut self, slice: Duration) -> Result<(), String> {
        let before = self.server.time_on_core();
        let done = self
            .load
            .slice(slice)
            .map_err(|why| format!("{}: {why}", self.seat.label))?;
        let cost = self.server.time_on_core() - before;
        self.costs.push(cost.as_secs_f64() / done.deliveries as f64);
        self.rates
            .push(done.deliveries as f64 / done.elapsed.as_secs_f64());
        self.waits.push(self.load.take_waits());
        Ok(())
    }

    fn figures(&self, place: usize, base: &Self) -> Vec<Figure> {
        let label = match place {
            0 => format!("{} (a)", self.seat.label),
            1 => format!("{} (b)", self.seat.label),
            _ => self.seat.label.to_owned(),
        };
        let to = |own: &[f64], base: &[f64]| {
            let pairs = own.iter().zip(base);
            ratio(quartiles(pairs.map(|(own, base)| own / base).collect()))
        };
        let p99_to_base = |of: Of| to(&self.p99s(of), &base.p99s(of));
        let kib = self.server.resident_bytes() / 1024;
        let (all, answered): (Of, Of) = (|waits| &waits.all_have_it, |waits| &waits.answered);
        vec![
            Figure::new(
                &label,
                "CPU for a delivery",
                format!("{:.3} us", median(self.costs.clone()) * 1e6),
            ),
            Figure::new(
                &label,
                "CPU for a delivery, to base",
                to(&self.costs, &base.costs),
            ),
            Figure::new(&label, "deliveries, to base", to(&self.rates, &base.rates)),
            Figure::new(&label, "until all have it, p50 / p99", self.wait(all)),
            Figure::new(&label, "until all have it, p99 to base", p99_to_base(all)),
            Figure::new(
                &label,
                "until PUBLISH is answered, p50 / p99",
                self.wait(answered),
            ),
            Figure::new(
                &label,
                "until PUBLISH is answered, p99 to base",
                p99_to_base(answered),
            ),
            Figure::new(&label, "resident", format!("{:.1} MB", kib as f64 / 1024.0)),
        ]
    }

    /// Median and p99 of all waits of this kind.
    fn wait(&self, of: Of) -> String {
        let times = || together(&self.waits, of);
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(times(), share) * 1e6);
        format!("{p50:.0} / {p99:.0} us")
    }

    /// The p99 of each group of slices.
    fn p99s(&self, of: Of) -> Vec<f64> {
        let groups = self.waits.chunks_exact(SLICES_PER_P99);
        groups
            .map(|group| percentile(together(group, of), 0.99))
            .collect()
    }
}

/// Which of the waits.
type Of = fn(&Waits) -> &Vec<f64>;

fn together(waits: &[Waits], of: Of) -> Vec<f64> {
    waits.iter().flat_map(of).copied().collect()
}
