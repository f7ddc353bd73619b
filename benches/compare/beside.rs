//! Servers beside stalled clients of their own, one server after the other.
//!
//! Stalled clients hold kernel memory, which belongs to the whole machine: two
//! servers at once would share it. So each server has the machine alone, in
//! rounds of random order, and its ratio to the base is taken inside a round.

use std::thread::sleep;
use std::time::Duration;

use crate::clock::now;
use crate::figure::{Figure, ratio, server_side_bytes};
use crate::generator::Generator;
use crate::load::Work;
use crate::method::in_rounds;
use crate::peer::Workshop;
use crate::procfs;
use crate::statistics::{median, quartiles};

/// The servers, and the number of stalled clients beside each.
pub(crate) struct Beside {
    /// The servers; the first is the base.
    pub(crate) peers: &'static [(&'static str, &'static [&'static str])],
    pub(crate) work: Work,
    pub(crate) clients: usize,
    pub(crate) stalled: usize,
    /// The send buffer of a stalled client. It is the client's own end, which a
    /// client on another machine would not hold here.
    pub(crate) send_bytes: usize,
    pub(crate) rounds: usize,
}

/// Slices before the stalled clients join, and beside them.
const SLICES: usize = 10;
const SLICE: Duration = Duration::from_millis(150);
const WARM_UP: Duration = Duration::from_millis(100);

/// The kernel has its memory back when TCP holds no more than this.
const FREE_BYTES: u64 = 32 << 20;
const LONGEST_FREEING: Duration = Duration::from_secs(20);

/// One server in one round.
struct Sample {
    alone: Stretch,
    beside: Stretch,
    kernel_bytes: u64,
}

/// Several slices in a row.
struct Stretch {
    /// The rate of each slice, per second.
    rate: f64,
    longest_wait_ms: f64,
}

/// Runs all rounds.
pub(crate) fn run(beside: &Beside, workshop: &Workshop, seed: u64) -> Result<Vec<Figure>, String> {
    let peers: Vec<_> = beside
        .peers
        .iter()
        .filter(|(peer, _)| workshop.has(peer))
        .collect();
    let samples = in_rounds("rounds", peers.len(), beside.rounds, seed, |place| {
        let (peer, arguments) = peers[place];
        round(beside, workshop, peer, arguments).map_err(|why| format!("{peer}: {why}"))
    })?;
    let base: Vec<f64> = samples[0].iter().map(|sample| sample.beside.rate).collect();
    Ok(peers
        .iter()
        .zip(&samples)
        .flat_map(|((peer, _), samples)| figures(peer, samples, &base, beside))
        .collect())
}

fn round(beside: &Beside, workshop: &Workshop, peer: &str, arguments: &[&str]) -> Result<Sample, String> {
    let mut generator = Generator::start(beside.work, beside.clients)?;
    let server = workshop.start(peer, arguments, generator.backend(), &format!("beside-{peer}"))?;
    generator.open(server.address())?;
    generator.slice(WARM_UP)?;
    let alone = stretch(&mut generator)?;
    generator.stall_small(beside.stalled, beside.send_bytes)?;
    generator.slice(WARM_UP)?;
    let kernel_bytes = server_side_bytes(&server, &generator)?;
    let beside = stretch(&mut generator)?;
    drop(generator);
    drop(server);
    wait_until_free()?;
    Ok(Sample {
        alone,
        beside,
        kernel_bytes,
    })
}

fn stretch(generator: &mut Generator) -> Result<Stretch, String> {
    generator.take_latency()?;
    let (mut done, mut elapsed) = (0, Duration::ZERO);
    for _ in 0..SLICES {
        let slice = generator.slice(SLICE)?;
        done += slice.done;
        elapsed += slice.elapsed;
    }
    let latency = generator.take_latency()?;
    Ok(Stretch {
        rate: done as f64 / elapsed.as_secs_f64(),
        longest_wait_ms: latency.map_or(0.0, |latency| latency.max.as_secs_f64() * 1e3),
    })
}

fn wait_until_free() -> Result<(), String> {
    let begin = now();
    while procfs::tcp_bytes() > FREE_BYTES {
        if now() - begin > LONGEST_FREEING {
            return Err("the kernel still holds what the stalled clients took".into());
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn figures(peer: &str, samples: &[Sample], base: &[f64], beside: &Beside) -> Vec<Figure> {
    let unit = |value: f64| match beside.work {
        Work::Ping { .. } => format!("{:.1} k/s", value / 1e3),
        _ => format!("{:.0} MB/s", value / 1e6),
    };
    let each = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<f64>>();
    let to_base = samples
        .iter()
        .zip(base)
        .map(|(sample, base)| sample.beside.rate / base);
    let longest = |of: fn(&Sample) -> f64| {
        let spread = quartiles(each(of));
        format!("{:.1} ms ({:.1}-{:.1})", spread.median, spread.low, spread.high)
    };
    let kernel = median(each(|sample| sample.kernel_bytes as f64)) / beside.stalled as f64;
    vec![
        Figure::new(peer, "rate alone", unit(median(each(|sample| sample.alone.rate)))),
        Figure::new(
            peer,
            "rate beside them",
            unit(median(each(|sample| sample.beside.rate))),
        ),
        Figure::new(
            peer,
            "beside them, to alone",
            ratio(quartiles(each(|sample| sample.beside.rate / sample.alone.rate))),
        ),
        Figure::new(
            peer,
            "beside them, to the floor beside its own",
            ratio(quartiles(to_base.collect())),
        ),
        Figure::new(
            peer,
            "longest wait of a round, alone",
            longest(|sample| sample.alone.longest_wait_ms),
        ),
        Figure::new(
            peer,
            "longest wait of a round, beside them",
            longest(|sample| sample.beside.longest_wait_ms),
        ),
        Figure::new(
            peer,
            "kernel memory per stalled client",
            format!("{:.0} KB", kernel / 1e3),
        ),
    ]
}
