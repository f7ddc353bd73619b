//! From what was measured to named findings and a verdict.
//!
//! Pure. Owns the thresholds. What was not tested is never a pass, and what was seen
//! and decides nothing is unknown.

pub(crate) mod finding;
mod healthy;
pub(crate) mod judgement;
mod kept;
mod kernel;
mod memory;
mod slow;

use crate::probe::kind::{Fate, KINDS, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::Measurement;
use crate::probe::report::verdict::finding::Finding;
use crate::probe::report::verdict::judgement::FINDINGS;

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
    findings.push(healthy::unaffected(plan.protocol.traits(), seen));
    findings.push(memory::bounded(plan, seen));
    findings.push(kernel::nothing_left(seen));
    findings
}
