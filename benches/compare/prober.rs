//! The cost of `highwater probe` beside the server that it loads: a load that
//! costs more than its server cannot saturate it.
//!
//! On a core of its own each, the two tell little: the faster one finds fewer
//! events at a time and spends its savings on more waits, so the ratio is drawn
//! to 1 from both sides. In turn on one core, each finds all clients ready, and
//! only the work per message differs. Instructions are counted as well, without
//! the kernel's.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::figure::{CALLGRIND, Figure, collected, nowhere, progress, ratio};
use crate::launch;
use crate::peer::Workshop;
use crate::procfs;
use crate::statistics::quartiles;

const ROUNDS: usize = 40;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE_FOR: Duration = Duration::from_millis(800);
/// Longest run of the prober, which is ended once it was measured.
const LONGEST: &str = "10s";

/// First in, first out: a thread runs until it has no work (sched(7)). Only
/// root may ask for that; others ask not to be interrupted by each event.
const IN_TURN: [&str; 3] = ["chrt", "--fifo", "1"];
const IN_TURN_UNPRIVILEGED: [&str; 3] = ["chrt", "--batch", "0"];

/// The cores of the server and of the prober in one round.
#[derive(Clone, Copy)]
struct Cores {
    server: usize,
    prober: usize,
}

/// Runs all rounds: in turn on one core, and side by side on two.
pub(crate) fn run(workshop: &Workshop, clients: usize) -> Result<Vec<Figure>, String> {
    let in_turn: &[&str] = match rustix::process::geteuid().is_root() {
        true => &IN_TURN,
        false => &IN_TURN_UNPRIVILEGED,
    };
    let bar = progress("rounds", ROUNDS);
    let (mut taking_turns, mut side_by_side) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let one = Cores {
            server: launch::SERVER_CORE,
            prober: launch::SERVER_CORE,
        };
        taking_turns.push(cost_ratio(workshop, clients, one, in_turn)?);
        let two = [launch::SERVER_CORE, launch::LOAD_CORE];
        // Cores differ: other programs may run on one of them.
        let two = Cores {
            server: two[round % 2],
            prober: two[1 - round % 2],
        };
        side_by_side.push(cost_ratio(workshop, clients, two, &[])?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let figure = |what, ratios| Figure::new("highwater probe", what, ratio(quartiles(ratios)));
    Ok(vec![
        figure("CPU to the server's, in turn on one core", taking_turns),
        figure("CPU to the server's, each on its own core", side_by_side),
    ])
}

/// CPU time of all threads of the prober to that of the server, over the same messages.
fn cost_ratio(workshop: &Workshop, clients: usize, cores: Cores, tool: &[&str]) -> Result<f64, String> {
    let server = workshop.start_on(cores.server, tool, "highwater", &[], nowhere(), "prober")?;
    let program = workshop.program("highwater").ok_or("highwater is not here")?;
    let words: Vec<String> = tool
        .iter()
        .map(|&word| word.to_owned())
        .chain([program.to_string_lossy().into_owned()])
        .chain(arguments(&server.address().to_string(), clients, LONGEST))
        .collect();
    let (first, rest) = words.split_first().ok_or("no program was named")?;
    let mut prober = launch::command(cores.prober, first, rest)?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start the prober: {error}"))?;
    let spent = || [prober.id(), server.pid()].map(|pid| procfs::time_on_core(&[pid]));
    std::thread::sleep(WARM_UP);
    let before = spent();
    std::thread::sleep(MEASURE_FOR);
    let after = spent();
    let is_running = matches!(prober.try_wait(), Ok(None));
    let _ = prober.kill();
    let _ = prober.wait();
    let [of_prober, of_server] = [0, 1].map(|who| (after[who] - before[who]).as_secs_f64());
    if !is_running || of_server == 0.0 {
        return Err("the prober ended before it was measured".into());
    }
    Ok(of_prober / of_server)
}

/// Healthy clients alone, for this long.
fn arguments(address: &str, clients: usize, baseline: &str) -> Vec<String> {
    let clients = clients.to_string();
    [
        &["probe", address, "--json", "--size", "64", "--fast", &clients][..],
        &["--baseline", baseline, "--stalled", "0", "--talkers", "0"],
        &["--paused", "0", "--steady", "0"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// Instructions per message, by the difference of two runs.
pub(crate) fn instructions(workshop: &Workshop, clients: usize) -> Result<Figure, String> {
    let server = workshop.start("highwater", &[], nowhere(), "instructions-prober")?;
    let program = workshop.program("highwater").ok_or("highwater is not here")?;
    let count = |baseline: &str| -> Result<(f64, f64), String> {
        let output = Command::new(CALLGRIND[0])
            .args(&CALLGRIND[1..])
            .arg(program)
            .args(arguments(&server.address().to_string(), clients, baseline))
            .output()
            .map_err(|error| format!("cannot run valgrind: {error}"))?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("no report of the probe: {error}"))?;
        let messages = report["healthy"]["before"]["messages"].as_f64();
        let instructions = collected(&String::from_utf8_lossy(&output.stderr))?;
        Ok((instructions, messages.ok_or("the probe counted no messages")?))
    };
    let (few, short) = count("2s")?;
    let (many, long) = count("6s")?;
    Ok(Figure::new(
        "highwater probe",
        "instructions per message, kernel excluded",
        format!("{:.0}", (many - few) / (long - short)),
    ))
}
