//! `highwater probe` as a command: arguments in, report out, exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

pub use super::args::ProbeArgs;
use super::error::ProbeError;
use super::report::Report;
use super::table::table;
use super::verdict::Outcome;
use super::watcher::NoWatcher;

/// The exit code for wrong usage and for a server that cannot be probed.
const USAGE: u8 = 2;

/// Runs the command. 0: verdict pass; 1: fail, or nothing could be told; 2: no probe could be made.
#[must_use]
pub fn run(args: &ProbeArgs) -> ExitCode {
    match probe_and_report(args) {
        Ok(Outcome::Pass) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "highwater probe: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn probe_and_report(args: &ProbeArgs) -> Result<Outcome, ProbeError> {
    let plan = args.plan()?;
    let report = super::probe(&plan, &args.target(), &mut NoWatcher)?;
    write_report(args, &report).map_err(ProbeError::system("write the report"))?;
    Ok(report.verdict)
}

fn write_report(args: &ProbeArgs, report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)
    } else {
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        out.write_all(table(report, colour).as_bytes())
    }
}
