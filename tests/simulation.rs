//! The engine under deterministic simulation, seed by seed. `make simulate`
//! runs many more seeds than this.

#[path = "simulation/mod.rs"]
mod simulation;

use simulation::plan::{Kind, Plan};

/// Seeds for each service.
const SEEDS: u64 = 1000;

fn run_seeds(kind: Kind) {
    for seed in 0..SEEDS {
        if let Err(fault) = simulation::run_and_shrink(&Plan::with_kind(seed, kind)) {
            panic!("{fault}");
        }
    }
}

#[test]
fn echo_keeps_every_invariant_for_thousands_of_seeds() {
    run_seeds(Kind::Echo);
}

#[test]
fn framed_echo_keeps_every_invariant_for_thousands_of_seeds() {
    run_seeds(Kind::FramedEcho);
}

#[test]
fn the_tunnel_keeps_every_invariant_for_thousands_of_seeds() {
    run_seeds(Kind::Tunnel);
}

#[test]
fn a_service_that_cannot_pause_keeps_every_invariant_for_thousands_of_seeds() {
    run_seeds(Kind::Herald);
}
