//! Runs the simulation for many seeds, with a progress bar and the speed.
//!
//! `cargo run --release --example simulate -- --seeds 100000`

#[path = "mod.rs"]
mod simulation;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use simulation::plan::Plan;

/// Runs the engine under deterministic simulation.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed; with `--seeds 1` it repeats one run.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// The seed that is being run.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Seeds between two looks at the progress bar.
const SEEDS_PER_LOOK: u64 = 16;

#[expect(
    clippy::disallowed_methods,
    reason = "the speed of the simulation is measured in real time"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bar = ProgressBar::new(arguments.seeds);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} seeds, {eta} left, {msg}")
    {
        bar.set_style(style);
    }
    // In a build that aborts at a panic, this is the last line.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        eprintln!("the panic came in seed {}", SEED.load(Ordering::Relaxed));
    }));
    let start = Instant::now();
    let (mut events, mut turns) = (0, 0);
    for seed in arguments.from..arguments.from.saturating_add(arguments.seeds) {
        SEED.store(seed, Ordering::Relaxed);
        match simulation::run_and_shrink(&Plan::new(seed)) {
            Ok(report) => {
                events += report.events;
                turns += report.turns;
            }
            Err(fault) => {
                bar.abandon();
                println!("{fault}");
                println!("repeat it with --from {seed} --seeds 1");
                return ExitCode::FAILURE;
            }
        }
        if seed % SEEDS_PER_LOOK == 0 {
            bar.set_position(seed - arguments.from);
            let speed = events as f64 / start.elapsed().as_secs_f64();
            bar.set_message(format!("{} events per second", HumanCount(speed as u64)));
        }
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} events in {} turns, no fault; {seconds:.1} s, {} events per second",
        HumanCount(arguments.seeds),
        HumanCount(events),
        HumanCount(turns),
        HumanCount((events as f64 / seconds) as u64),
    );
    ExitCode::SUCCESS
}
