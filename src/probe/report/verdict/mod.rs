//! From what was measured to named findings and a verdict.
//!
//! Pure. Owns the thresholds. What was not tested is never a pass, and what was seen
//! and decides nothing is unknown.

pub(crate) mod finding;
mod healthy;
mod kept;
mod memory;
mod slow;

use crate::probe::error::ProbeError;
use crate::probe::kind::{Fate, KINDS, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::Measurement;
use crate::probe::report::verdict::finding::{Finding, Outcome};

/// Healthy clients keep at least this part of the rate that they had alone, or
/// of what was left of it where other programs took more of the machine than
/// before, or the slow clients the time of the prober.
pub const LEAST_RATE_KEPT: f64 = 0.5;
/// No more than this factor is put down to other programs and to the prober.
pub const MOST_PUT_DOWN_TO_OTHERS: f64 = 4.0;
/// Rates fail nobody on a machine of which other programs left less than this part in any phase.
pub const LEAST_LEFT: f64 = 0.1;
/// Their p99 grows at most by this factor, or stays below [`HARMLESS_WAIT_US`].
pub const MOST_P99_GROWTH: f64 = 10.0;
/// A p99 below this many microseconds harms nobody, whatever it was before.
pub const HARMLESS_WAIT_US: f64 = 20_000.0;
/// No healthy client waits longer than this for any answer, in microseconds,
/// unless it did so before the slow clients came: a fifth of the shortest
/// grace in common use (5 s).
pub const LONGEST_WAIT_US: f64 = 1_000_000.0;
/// The server's memory may grow by this much per slow client, in bytes: some
/// 16 queues of 64 KiB.
pub const RSS_PER_SLOW_CLIENT_BYTES: u64 = 1 << 20;
/// And by this much whatever their number, for allocators and caches.
pub const RSS_ALLOWANCE_BYTES: u64 = 8 << 20;

/// The names of all findings, in the order of the report.
pub const FINDINGS: [&str; 10] = [
    "stalled-disconnected",
    "stalled-in-time",
    "talkers-disconnected",
    "tricklers-disconnected",
    "paused-kept",
    "steady-kept",
    "healthy-served",
    "healthy-unaffected",
    "memory-bounded",
    "nothing-left-in-kernel",
];

/// All findings, always all of them and in the same order.
#[must_use]
pub(crate) fn findings(plan: &Plan, seen: &Measurement) -> Vec<Finding> {
    let mut findings = Vec::with_capacity(FINDINGS.len());
    for row in KINDS.iter().filter(|row| row.finding.is_some()) {
        findings.push(match row.fate {
            Fate::Kept => kept::kept(plan, seen, row.kind),
            _ => slow::disconnected(plan, seen, row.kind),
        });
        if row.kind == SlowKind::Stalled {
            findings.push(slow::in_time(plan, seen));
        }
    }
    findings.push(healthy::served(plan.protocol.traits(), seen));
    findings.push(healthy::unaffected(seen));
    findings.push(memory::bounded(plan, seen));
    findings.push(memory::nothing_left(seen));
    findings
}

/// Which findings decide the verdict, beside those that fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Findings that must pass, by name: one that was not tested fails the probe, and one that
    /// is unknown leaves it unknown.
    pub require: Vec<String>,
    /// A finding about slow clients may be unknown.
    pub allow_unknown: bool,
}

impl Judgement {
    /// Whether there are such findings.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Field`] names the first that there is not.
    pub fn check(&self) -> Result<(), ProbeError> {
        let is_known = |name: &&String| FINDINGS.contains(&name.as_str());
        match self.require.iter().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(ProbeError::Field {
                field: "require",
                problem: format!("{name}: no such finding; there are {}", FINDINGS.join(", ")),
            }),
        }
    }

    /// Fail when a finding failed or a required one was not tested; unknown when one about slow
    /// clients that took part, or a required one, is; pass when one passed. A probe that was
    /// ended early does not pass.
    #[must_use]
    pub(crate) fn verdict(&self, findings: &[Finding], interrupted: bool) -> Outcome {
        let is_required = |finding: &Finding| self.require.iter().any(|name| name == finding.name);
        let fails = |finding: &Finding| match finding.outcome {
            Outcome::Fail => true,
            Outcome::NotTested => is_required(finding) && !interrupted,
            _ => false,
        };
        let is_open = |finding: &Finding| {
            let decides = is_required(finding) || !self.allow_unknown && is_about_slow(finding.name);
            finding.outcome == Outcome::Unknown && decides
        };
        if findings.iter().any(fails) {
            Outcome::Fail
        } else if interrupted || findings.iter().any(is_open) {
            Outcome::Unknown
        } else if findings.iter().any(|finding| finding.outcome == Outcome::Pass) {
            Outcome::Pass
        } else {
            Outcome::Unknown
        }
    }
}

/// Whether a finding is about what becomes of slow clients.
fn is_about_slow(finding: &str) -> bool {
    finding == "stalled-in-time" || KINDS.iter().any(|row| row.finding == Some(finding))
}
