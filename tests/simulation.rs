//! The engine under deterministic simulation, seed by seed. `make simulate`
//! runs many more seeds than this.
#![cfg(feature = "cli")]

#[path = "simulation/mod.rs"]
mod simulation;

use simulation::Report;
use simulation::plan::{Kind, Plan};

/// Seeds for each service.
const SEEDS: u64 = 700;

fn run_seeds(kind: Kind) -> Vec<Report> {
    let run = |seed| match simulation::run_and_shrink(&Plan::with_kind(seed, kind)) {
        Ok(report) => report,
        Err(fault) => panic!("{fault}"),
    };
    (0..SEEDS).map(run).collect()
}

/// Whether something happened in any run: a trouble that never comes up
/// proves nothing.
fn any(reports: &[Report], count: impl Fn(&Report) -> u64) -> bool {
    reports.iter().any(|report| count(report) > 0)
}

/// What every service must have been through.
fn assert_common_troubles(reports: &[Report]) {
    assert!(any(reports, |report| report.seen.finished));
    assert!(any(reports, |report| report.seen.failed));
    assert!(any(reports, |report| report.seen.not_acknowledged));
    assert!(any(reports, |report| report.seen.stopped));
    assert!(any(reports, |report| report.seen.idle));
    assert!(any(reports, |report| report.seen.pauses));
    assert!(any(reports, |report| report.seen.drains));
    assert!(any(reports, |report| report.seen.slow[0]), "over limit");
    assert!(any(reports, |report| report.seen.slow[1]), "not drained");
    assert!(any(reports, |report| report.refused_accepts));
    assert!(any(reports, |report| report.seen.address_refused));
    assert!(any(reports, |report| report.stale_events));
    assert!(any(reports, |report| report.jumps));
    assert!(any(reports, |report| report.reloads));
    assert!(any(reports, |report| report.shadowed), "shadow mode");
}

#[test]
fn echo_keeps_every_invariant_for_hundreds_of_seeds() {
    let reports = run_seeds(Kind::Echo);
    assert_common_troubles(&reports);
    assert!(any(&reports, |report| report.seen.slow[3]), "memory budget");
}

#[test]
fn framed_echo_keeps_every_invariant_for_hundreds_of_seeds() {
    let reports = run_seeds(Kind::FramedEcho);
    assert_common_troubles(&reports);
    assert!(any(&reports, |report| report.seen.rejected));
    assert!(any(&reports, |report| report.seen.slow[3]), "memory budget");
    assert!(any(&reports, |report| report.seen.lent_reads));
}

#[test]
fn the_tunnel_keeps_every_invariant_for_hundreds_of_seeds() {
    let reports = run_seeds(Kind::Tunnel);
    assert_common_troubles(&reports);
    assert!(any(&reports, |report| report.spliced_bytes));
    assert!(any(&reports, |report| report.seen.half_closed));
    assert!(any(&reports, |report| report.seen.rejected), "a PROXY header");
    assert!(any(&reports, |report| report.seen.reset));
    assert!(any(&reports, |report| report.seen.connect_timed_out));
    assert!(any(&reports, |report| report.seen.slow[3]), "memory budget");
}

#[test]
fn a_service_that_asks_for_anything_from_every_callback_never_keeps_a_turn_or_the_stop_from_ending() {
    let reports = run_seeds(Kind::Meddler);
    assert!(any(&reports, |report| report.seen.finished));
    assert!(any(&reports, |report| report.seen.failed));
    assert!(any(&reports, |report| report.seen.stopped));
    assert!(any(&reports, |report| report.seen.rejected));
    assert!(any(&reports, |report| report.seen.reset));
    assert!(any(&reports, |report| report.seen.connect_timed_out));
    assert!(any(&reports, |report| report.seen.refused_connects));
    for reason in 0..4 {
        assert!(any(&reports, |report| report.seen.slow[reason]), "{reason}");
    }
}

#[test]
fn a_service_that_cannot_pause_keeps_every_invariant_for_hundreds_of_seeds() {
    let reports = run_seeds(Kind::Herald);
    assert_common_troubles(&reports);
    assert!(any(&reports, |report| report.seen.slow[2]), "hard limit");
    assert!(any(&reports, |report| report.seen.slow[3]), "memory budget");
    assert!(any(&reports, |report| report.seen.rejected));
    assert!(any(&reports, |report| report.seen.reset));
    assert!(any(&reports, |report| report.seen.connect_timed_out));
}

/// Each was a fault of the engine or of the books, and too rare for the seeds above; 5730 is the first
/// that shows the known fault 18.
const FORMER_FAULTS: [u64; 25] = [
    3372, 5087, 5730, 8232, 11_115, 16_973, 28_608, 34_649, 37_406, 54_948, 57_178, 79_112, 127_517, 141_137,
    148_862, 152_320, 328_832, 452_842, 476_807, 597_157, 599_026, 707_763, 747_927, 904_193, 915_528,
];

#[test]
fn seeds_that_once_showed_a_fault_show_none() {
    for seed in FORMER_FAULTS {
        if let Err(fault) = simulation::run_and_shrink(&Plan::new(seed)) {
            panic!("{fault}");
        }
    }
}

#[test]
fn a_seed_repeats_exactly_and_another_does_not() {
    let digest = |seed| {
        let report = simulation::run(&Plan::new(seed)).unwrap();
        (report.digest, report.events, report.turns)
    };
    for seed in 0..20 {
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
    assert_ne!(digest(1), digest(5));
}
