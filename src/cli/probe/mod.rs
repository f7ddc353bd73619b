//! `highwater probe` as a command: arguments in, report out, exit code.

mod args;
mod ci;
mod output;
mod progress;
mod protocols;
mod resolve;
mod steps;
mod values;

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use highwater::probe::{Outcome, ProbeError, Report, choose_address, probe, svg, table};

pub(crate) use args::ProbeArgs;
use output::WholeFile;
use progress::Progress;
use values::{Format, JsonTo};

/// The exit code for wrong usage and for a server that cannot be probed.
const USAGE: u8 = 2;

/// In the place of an address that is not known yet.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Why there is no report.
enum NoReport {
    /// The probe could not be made, or its report not written.
    Failed(String),
    /// It was interrupted before there was a result.
    Interrupted(String),
}

impl From<String> for NoReport {
    fn from(sentence: String) -> Self {
        Self::Failed(sentence)
    }
}

impl From<ProbeError> for NoReport {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Field { field, problem } => Self::Failed(format!("--{field} {problem}")),
            ProbeError::Interrupted => Self::Interrupted(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Runs the command. 0: verdict pass; 1: fail, nothing could be told, or interrupted; 2: no
/// probe could be made, or its report not written.
#[must_use]
pub(crate) fn run(args: &ProbeArgs) -> ExitCode {
    let (sentence, code) = match probe_and_report(args) {
        Ok(Outcome::Pass) => return ExitCode::SUCCESS,
        Ok(_) => return ExitCode::FAILURE,
        Err(NoReport::Failed(sentence)) => (sentence, ExitCode::from(USAGE)),
        Err(NoReport::Interrupted(sentence)) => (sentence, ExitCode::FAILURE),
    };
    let _ = writeln!(std::io::stderr(), "highwater probe: {sentence}");
    code
}

fn probe_and_report(args: &ProbeArgs) -> Result<Outcome, NoReport> {
    let target = args.target()?;
    args.check_protocol()?;
    args.plan(NOWHERE).check()?;
    let tls = args.tls()?;
    if matches!(args.json_to(), JsonTo::StandardOutput) && args.format == Format::Github {
        let both = "--json and --format github both write to standard output; give --json a FILE";
        return Err(NoReport::Failed(both.to_owned()));
    }
    let mut files = Files::prepare(args)?;
    let mut progress = Progress::start().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let addresses = match args.port {
        Some(port) => vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ],
        None => resolve::resolve(&target, args.timeout, &progress)?,
    };
    let address = choose_address(&addresses, args.timeout, &progress)?;
    // A port alone may have led to either family.
    let target = args.port.map_or(target, |_| address.to_string());
    let mut plan = args.plan(address);
    plan.tls = tls;
    let probed = probe(&plan, &target, &mut progress);
    progress.finish();
    let report = probed?;
    files.write(&report)?;
    match print(args, &report) {
        // Who stops reading the report does not change the verdict.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(NoReport::Failed(format!("cannot write the report: {error}")))
        }
        _ => Ok(report.verdict),
    }
}

/// The files that were asked for.
struct Files {
    json: Option<WholeFile>,
    junit: Option<WholeFile>,
    plot: Option<WholeFile>,
}

impl Files {
    fn prepare(args: &ProbeArgs) -> Result<Self, String> {
        let json = match args.json_to() {
            JsonTo::File(path) => Some(path),
            JsonTo::Nowhere | JsonTo::StandardOutput => None,
        };
        let named: Vec<_> = [json, args.junit.as_ref(), args.plot.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        if let Some(twice) = (1..named.len()).find(|&later| named[..later].contains(&named[later])) {
            return Err(format!(
                "two reports are to be written to {}",
                named[twice].display()
            ));
        }
        let prepare =
            |path: Option<&std::path::PathBuf>| path.map(|path| WholeFile::prepare(path)).transpose();
        Ok(Self {
            json: prepare(json)?,
            junit: prepare(args.junit.as_ref())?,
            plot: prepare(args.plot.as_ref())?,
        })
    }

    fn write(&mut self, report: &Report) -> Result<(), String> {
        if let Some(file) = self.plot.take() {
            file.write(svg(report)?.as_bytes())?;
        }
        if let Some(file) = self.junit.take() {
            file.write(ci::junit(report).as_bytes())?;
        }
        if let Some(file) = self.json.take() {
            file.write(&json(report).map_err(|error| format!("cannot write the report: {error}"))?)?;
        }
        Ok(())
    }
}

fn json(report: &Report) -> std::io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(report)?;
    json.push(b'\n');
    Ok(json)
}

fn print(args: &ProbeArgs, report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match (args.json_to(), args.format) {
        (JsonTo::StandardOutput, _) => out.write_all(&json(report)?)?,
        (_, Format::Github) => out.write_all(ci::github(report).as_bytes())?,
        (_, Format::Text) => {
            let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            out.write_all(table(report, colour).as_bytes())?;
        }
    }
    out.flush()
}
