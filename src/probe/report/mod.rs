//! The result of a probe: verdict, findings, and the numbers behind them.

pub(crate) mod measurement;
#[cfg(feature = "plot")]
pub(crate) mod plot;
pub(crate) mod table;
pub(crate) mod verdict;

use serde::Serialize;

use crate::probe::kind::Disconnect;
use crate::probe::kind::{KINDS, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::{Measurement, SlowClientSeen};
use crate::probe::report::verdict::finding::{Finding, Outcome};

/// The version of the JSON form; it grows when a field changes its meaning or goes.
pub const SCHEMA: &str = "highwater-probe/1";

/// Everything a probe has to say. Written out by serde it is the documented JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whom it was about.
    pub target: String,
    /// The name of the protocol.
    pub protocol: &'static str,
    /// What it comes to.
    pub verdict: Outcome,
    /// One by one, always all of them.
    pub findings: Vec<Finding>,
    /// The slow clients, by kind.
    pub groups: Vec<SlowGroup>,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measurement,
}

/// All slow clients of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlowGroup {
    /// In which way they are slow.
    pub kind: SlowKind,
    /// How many.
    pub clients: usize,
    /// How many connected.
    pub connected: usize,
    /// How many filled up.
    pub full: usize,
    /// How many were reset.
    pub reset: usize,
    /// How many saw a clean end of file.
    pub end_of_file: usize,
    /// How many were closed but are still held by the server's kernel.
    pub left_in_kernel: usize,
    /// How many were never disconnected.
    pub never: usize,
    /// How many received wrong bytes.
    pub corrupt: usize,
    /// How many got back all that they sent.
    pub complete: usize,
    /// From full to disconnected.
    pub seconds_to_end: Option<Spread>,
    /// Bytes that the server's side took of each.
    pub absorbed_bytes: Option<Spread>,
}

/// Smallest, middle and largest of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub minimum: f64,
    /// The middle one (the lower of two).
    pub median: f64,
    /// The largest.
    pub maximum: f64,
}

impl Spread {
    /// Of no numbers there is none.
    #[must_use]
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        Some(Self {
            minimum: *numbers.first()?,
            median: *numbers.get((numbers.len() - 1) / 2)?,
            maximum: *numbers.last()?,
        })
    }
}

impl Report {
    /// Judges what was measured.
    #[must_use]
    pub fn new(plan: &Plan, target: &str, seen: Measurement) -> Self {
        let findings = verdict::findings(plan, &seen);
        Self {
            schema: SCHEMA,
            target: target.to_owned(),
            protocol: plan.protocol.traits().name,
            verdict: plan.judgement.verdict(&findings, seen.interrupted),
            findings,
            groups: groups(&seen.slow),
            measured: seen,
        }
    }

    /// The finding of this name.
    #[must_use]
    pub fn finding(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.name == name)
    }
}

fn groups(clients: &[SlowClientSeen]) -> Vec<SlowGroup> {
    KINDS
        .iter()
        .map(|row| {
            clients
                .iter()
                .filter(|client| client.kind == row.kind)
                .collect::<Vec<_>>()
        })
        .filter_map(|clients| group(&clients))
        .collect()
}

fn group(clients: &[&SlowClientSeen]) -> Option<SlowGroup> {
    let count = |test: &dyn Fn(&SlowClientSeen) -> bool| clients.iter().filter(|client| test(client)).count();
    let ended = |end| count(&|client| client.end == Some(end));
    Some(SlowGroup {
        kind: clients.first()?.kind,
        clients: clients.len(),
        connected: count(&|client| client.connected),
        full: count(&|client| client.full_at.is_some()),
        reset: ended(Disconnect::Reset),
        end_of_file: ended(Disconnect::EndOfFile),
        left_in_kernel: ended(Disconnect::LeftInKernel),
        never: count(&|client| client.connected && client.end.is_none()),
        corrupt: count(&|client| client.intact == Some(false)),
        complete: count(&|client| client.complete),
        seconds_to_end: Spread::of(
            clients
                .iter()
                .filter_map(|client| client.seconds_to_end)
                .collect(),
        ),
        absorbed_bytes: Spread::of(
            clients
                .iter()
                .filter(|client| client.connected)
                .map(|client| client.absorbed_bytes as f64)
                .collect(),
        ),
    })
}
