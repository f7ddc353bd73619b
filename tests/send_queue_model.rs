//! `SendQueue` against a plain `Vec<u8>`: every input chunk size against every
//! output chunk size, copied and shared pieces mixed.
//!
//! After each step content, order and length have to be the model's, drain
//! comes exactly as often as owed, and the queue pins no more than its length
//! and two segments.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the exemption for tests misses helper functions of a test"
)]

mod send_queue_model {
    pub(crate) mod pair;
}

use fastrand::Rng;
use highwater::backpressure::send_queue::{SEGMENT_BYTES, SHARE_FROM_BYTES};
use send_queue_model::pair::{Pair, Way};

/// Seeds of the test with large pieces.
const SEEDS: u64 = 150;

/// Steps that each of those seeds takes.
const STEPS: usize = 120;

/// What the exhaustive test brings into a queue: more than two of the smallest
/// segments.
const SMALL_TOTAL_BYTES: usize = 600;

/// High-water marks of the random test.
const MARKS: [usize; 6] = [0, 1, 1_000, SEGMENT_BYTES, SEGMENT_BYTES + 1, 64 * 1024];

/// Sizes at which the queue changes its mind, and their neighbours.
const BOUNDARIES: [usize; 15] = [
    0,
    1,
    255,
    256,
    257,
    512,
    SHARE_FROM_BYTES - 1,
    SHARE_FROM_BYTES,
    SHARE_FROM_BYTES + 1,
    SHARE_FROM_BYTES + 256,
    SEGMENT_BYTES - 1,
    SEGMENT_BYTES,
    SEGMENT_BYTES + 1,
    2 * SEGMENT_BYTES + 1,
    100_000,
];

#[test]
fn every_small_input_size_against_every_small_output_size() {
    for way in [Way::Copied, Way::Shared] {
        for input in 1..=48 {
            for output in 1..=48 {
                let mut pair = Pair::new(SMALL_TOTAL_BYTES / 2);
                while pair.pieces * input < SMALL_TOTAL_BYTES {
                    pair.write(input, way);
                    pair.write(input, way);
                    pair.send(output);
                }
                pair.empty(output);
            }
        }
    }
}

#[test]
fn every_size_at_a_boundary_against_every_other() {
    for [first, second] in [[Way::Copied; 2], [Way::Shared; 2], [Way::Copied, Way::Shared]] {
        for input in BOUNDARIES {
            for output in BOUNDARIES.into_iter().filter(|&output| output > 0) {
                let mut pair = Pair::new(SEGMENT_BYTES);
                for _ in 0..4 {
                    pair.write(input, first);
                    pair.write(input, second);
                    pair.write(1, first);
                    pair.send(output);
                }
                pair.empty(output.max(pair.waits.len() / 20));
            }
        }
    }
}

#[test]
fn small_copied_pieces_between_long_shared_ones_pin_no_more_than_two_segments() {
    for small in [1, 4, 255, 256, 257, 1_000] {
        for long in [
            SHARE_FROM_BYTES,
            SHARE_FROM_BYTES + 1,
            2 * SHARE_FROM_BYTES,
            20_000,
        ] {
            let mut pair = Pair::new(64 * 1024);
            for _ in 0..150 {
                pair.write(small, Way::Copied);
                pair.write(long, Way::Shared);
            }
            pair.empty(3 * long + 7);
            assert_eq!(pair.drains, 1);
        }
    }
}

#[test]
fn a_queue_that_never_empties_stays_small() {
    let mut pair = Pair::new(64);
    pair.write(100, Way::Copied);
    for round in 0..20_000 {
        let length = 1 + round % 50;
        pair.write(length, Way::Copied);
        pair.send(length);
    }
    assert_eq!(pair.drains, 0);
    pair.empty(1);
    assert_eq!(pair.drains, 1);
}

#[test]
fn random_sizes_in_and_out_with_drains_discards_and_ends() {
    let (mut drains, mut discards) = (0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let mut pair = Pair::new(MARKS[rng.usize(..MARKS.len())]);
        for _ in 0..STEPS {
            match rng.u8(..64) {
                0 => {
                    pair.discard();
                    discards += 1;
                }
                1..36 => {
                    let way = [Way::Copied, Way::Shared][rng.usize(..2)];
                    pair.write(draw_length(&mut rng), way);
                }
                _ => pair.send(draw_length(&mut rng)),
            }
        }
        drains += pair.drains;
        pair.end();
        pair.empty(pair.waits.len() / 20 + 1 + draw_length(&mut rng));
    }
    assert!(
        drains > SEEDS as usize && discards > SEEDS as usize,
        "{drains} {discards}"
    );
}

fn draw_length(rng: &mut Rng) -> usize {
    match rng.u8(..4) {
        0 => BOUNDARIES[rng.usize(..BOUNDARIES.len())],
        1 => rng.usize(..20_000),
        _ => rng.usize(..600),
    }
}
