//! Compares the speed of `highwater` with the barest server possible and with
//! the servers that people would use instead.
//!
//! Owns the command line and the order of work. `scenario` has the comparisons,
//! `peer` the servers, `load` their clients; `slices`, `memory`, `beside`, `crowd`
//! and `prober` measure; `report` writes.

mod admin;
mod beside;
mod clock;
mod crowd;
mod deadlines;
mod fanout;
mod fanout_load;
mod figure;
mod generator;
mod instructions;
mod launch;
mod load;
mod memory;
mod method;
mod peer;
mod plot;
mod prober;
mod procfs;
mod report;
mod scenario;
mod server;
mod slices;
mod standing;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::method::Method;
use crate::peer::Workshop;
use crate::report::Report;
use crate::scenario::{Measure, Scenario};

/// Fewer cycles tell nothing on a machine whose speed swings by half.
const FEWEST_CYCLES: usize = 40;
/// Cycles of bulk traffic with few bytes in flight, as a multiple of others.
/// Its ratios swing by 10 to 25 %, those of messages by 5: the median of 60
/// cycles is known to 4 %, that of 240 to 2.
const BULK_CYCLES: usize = 4;

/// Measures highwater beside its peers, all of them running at once.
#[derive(Parser)]
#[command(name = "compare", bin_name = "cargo bench --bench compare --")]
struct Arguments {
    /// Measure only this scenario; may be repeated. Without it: all.
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// List the scenarios with their goals.
    #[arg(long)]
    list: bool,
    /// Measure the most telling scenarios against one peer each, in under three
    /// minutes.
    #[arg(long)]
    quick: bool,
    /// Rounds in which every server gets one slice; four times as many for bulk
    /// traffic with few bytes in flight.
    #[arg(long, default_value_t = 60)]
    cycles: usize,
    /// Length of a slice in milliseconds.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(20..=1000))]
    slice: u64,
    /// Tries of a run in which both entries of the floor do not agree.
    #[arg(long, default_value_t = 4)]
    tries: usize,
    /// Repeat the random order of an earlier run.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Write the results as Markdown to this file, and the plots beside it.
    /// Chapters of scenarios that are not measured this time stay.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Measure this program instead of the one just built.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_highwater"))]
    highwater: PathBuf,
    /// Let another build of highwater take part beside this one, as `baseline`.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Measure only these peers, by name; highwater and the floor always take
    /// part.
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<String>,
    /// The argument that cargo adds for every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    // Two helpers are this very program again: the load, and the step between a
    // fork and a server.
    let outcome = match words.next().as_deref() {
        Some(generator::LOAD) => generator::serve(words),
        Some(launch::LAUNCH) => launch::run(words),
        _ => compare(&Arguments::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("compare: {message}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<(), String> {
    if arguments.list {
        scenario::print_list();
        return Ok(());
    }
    if arguments.cycles < FEWEST_CYCLES {
        return Err(format!(
            "{} cycles are too few to tell anything: at least {FEWEST_CYCLES}",
            arguments.cycles
        ));
    }
    let chosen = scenario::choose(&arguments.scenarios, arguments.quick)?;
    launch::keep_to(launch::LOAD_CORE)?;
    let (cycles, bulk_cycles) = if arguments.quick {
        (FEWEST_CYCLES, FEWEST_CYCLES)
    } else {
        (arguments.cycles, BULK_CYCLES * arguments.cycles)
    };
    let method = Method {
        cycles,
        bulk_cycles,
        slice: Duration::from_millis(if arguments.quick { 60 } else { arguments.slice }),
        tries: arguments.tries.clamp(1, 20),
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
    };
    let workshop = Workshop::build(&arguments.highwater, arguments.baseline.as_deref())?;
    let mut report = Report::new(&workshop, &method);
    for scenario in chosen {
        let result = carry_out(scenario, arguments, &workshop, &method, &mut report);
        if let Err(message) = result {
            report.failed(scenario, &message);
        }
        if let Some(path) = &arguments.write {
            report.write(path)?;
        }
    }
    println!("the order of slices repeats with --seed {}", method.seed);
    Ok(())
}

fn carry_out(
    scenario: &'static Scenario,
    arguments: &Arguments,
    workshop: &Workshop,
    method: &Method,
    report: &mut Report,
) -> Result<(), String> {
    println!("\n{}: {}", scenario.name, scenario.title);
    match &scenario.measure {
        Measure::Speed(contest) => {
            for team in contest.teams(&arguments.peers, arguments.quick, workshop) {
                let run = slices::run(scenario.name, &team, workshop, method)?;
                report.add_run(scenario, run);
            }
            Ok(())
        }
        Measure::Memory(trial) => {
            for line in memory::run(trial, workshop, arguments.quick)? {
                report.add_figure(scenario, line);
            }
            Ok(())
        }
        Measure::Beside(beside) => {
            for line in beside::run(beside, workshop, method.seed)? {
                report.add_figure(scenario, line);
            }
            Ok(())
        }
        Measure::Crowds(crowds) => {
            for line in crowd::run(crowds, workshop, method.seed)? {
                report.add_figure(scenario, line);
            }
            Ok(())
        }
        Measure::Fanout(fanout) => {
            for line in fanout::run(fanout, workshop, method)? {
                report.add_figure(scenario, line);
            }
            Ok(())
        }
    }
}
