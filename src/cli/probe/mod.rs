//! `highwater probe` as a command: arguments in, report out, exit code.

mod args;
mod progress;

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use highwater::probe::{Outcome, ProbeError, Report, plot, table};

pub(crate) use args::ProbeArgs;
use progress::Progress;

/// The exit code for wrong usage and for a server that cannot be probed.
const USAGE: u8 = 2;

/// Runs the command. 0: verdict pass; 1: fail, or nothing could be told; 2: no
/// probe could be made, or its report not written.
#[must_use]
pub(crate) fn run(args: &ProbeArgs) -> ExitCode {
    match probe_and_report(args) {
        Ok(Outcome::Pass) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(sentence) => {
            let _ = writeln!(std::io::stderr(), "highwater probe: {sentence}");
            ExitCode::from(USAGE)
        }
    }
}

fn probe_and_report(args: &ProbeArgs) -> Result<Outcome, String> {
    let plan = args.plan().map_err(|error| error.to_string())?;
    if let Some(file) = &args.plot {
        // Before the probe, so that nobody waits 15 s to learn of a wrong name.
        std::fs::File::create(file).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    let mut progress = Progress::start().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let probed = highwater::probe::probe(&plan, &args.target(), &mut progress);
    progress.finish();
    let report = probed.map_err(|error| match error {
        ProbeError::Field { field, problem } => format!("--{field} {problem}"),
        other => other.to_string(),
    })?;
    if let Some(file) = &args.plot {
        plot(&report, file)?;
    }
    match write_report(args, &report) {
        // Who stops reading the report does not change the verdict.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write the report: {error}"))
        }
        _ => Ok(report.verdict),
    }
}

fn write_report(args: &ProbeArgs, report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let json = serde_json::to_vec(report)?;
        out.write_all(&json)?;
        writeln!(out)
    } else {
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        out.write_all(table(report, colour).as_bytes())
    }
}
