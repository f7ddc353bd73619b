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

use std::io::IoSlice;

use bytes::Bytes;
use fastrand::Rng;
use highwater::backpressure::send_queue::{SEGMENT_BYTES, SHARE_FROM_BYTES};
use highwater::backpressure::{Answer, SendQueue, Sent};

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

/// How a piece comes into the queue.
#[derive(Clone, Copy, Debug)]
enum Way {
    Copied,
    Shared,
    Alternating,
}

/// A queue and what it should be.
struct Pair {
    queue: SendQueue,
    waits: Vec<u8>,
    mark: usize,
    needs_drain: bool,
    ended: bool,
    next_byte: u8,
    pieces: usize,
    drains: usize,
}

impl Pair {
    fn new(mark: usize) -> Self {
        Self {
            queue: SendQueue::new(mark),
            waits: Vec::new(),
            mark,
            needs_drain: false,
            ended: false,
            next_byte: 0,
            pieces: 0,
            drains: 0,
        }
    }

    /// A piece that looks unlike its neighbours and unlike itself shifted by
    /// any segment size.
    fn piece(&mut self, length: usize) -> Vec<u8> {
        let piece: Vec<u8> = (0..length)
            .map(|_| {
                self.next_byte = if self.next_byte == 250 {
                    0
                } else {
                    self.next_byte + 1
                };
                self.next_byte
            })
            .collect();
        self.waits.extend_from_slice(&piece);
        piece
    }

    fn write(&mut self, length: usize, way: Way) {
        self.pieces += 1;
        let piece = self.piece(length);
        let shared = match way {
            Way::Copied => false,
            Way::Shared => true,
            Way::Alternating => self.pieces.is_multiple_of(2),
        };
        let answer = if shared {
            self.queue.write_shared(Bytes::from(piece))
        } else {
            self.queue.write(&piece)
        };
        let pauses = !self.waits.is_empty() && self.waits.len() >= self.mark;
        self.needs_drain |= pauses;
        assert_eq!(answer == Answer::Pause, pauses);
        self.check();
    }

    fn send(&mut self, length: usize) {
        let length = length.min(self.waits.len());
        self.waits.drain(..length);
        let owes_drain = self.needs_drain && !self.ended;
        let expected = match (self.waits.is_empty(), owes_drain) {
            (false, _) => Sent::Waiting,
            (true, false) => Sent::Empty,
            (true, true) => Sent::Drained,
        };
        assert_eq!(self.queue.sent(length), expected);
        self.needs_drain &= !self.waits.is_empty();
        self.drains += usize::from(expected == Sent::Drained);
        self.check();
    }

    fn discard(&mut self) {
        assert_eq!(self.queue.discard(), self.waits.len());
        self.waits.clear();
        self.needs_drain = false;
        self.check();
    }

    fn end(&mut self) {
        self.queue.end();
        self.ended = true;
        self.check();
    }

    fn check(&self) {
        let queue = &self.queue;
        assert_eq!(queue.len(), self.waits.len());
        assert_eq!(queue.is_empty(), self.waits.is_empty());
        assert_eq!(queue.needs_drain(), self.needs_drain);
        assert_eq!(queue.room(), self.mark.saturating_sub(self.waits.len()));
        assert!(
            queue.pinned_bytes() <= queue.len() + 2 * SEGMENT_BYTES,
            "{} bytes pinned for {} after {} pieces",
            queue.pinned_bytes(),
            queue.len(),
            self.pieces,
        );
        self.check_content(1);
        self.check_content(self.pieces.min(queue.len()) + queue.len() / SEGMENT_BYTES + 2);
    }

    /// The pieces that fit into so many slices are the first bytes that wait.
    fn check_content(&self, slices: usize) {
        let mut slices = vec![IoSlice::new(&[]); slices];
        let filled = self.queue.fill_slices(&mut slices);
        let mut left = &self.waits[..];
        for slice in &slices[..filled] {
            assert!(!slice.is_empty(), "an empty slice ends some vectored writes");
            let same = left.get(..slice.len()).is_some_and(|first| first == &slice[..]);
            assert!(same, "other bytes, or in another order");
            left = &left[slice.len()..];
        }
        assert!(
            filled == slices.len() || left.is_empty(),
            "something was left out"
        );
        assert!(filled > 0 || self.waits.is_empty(), "something waits");
    }

    /// Everything out again, a chunk at a time.
    fn empty(&mut self, out: usize) {
        while !self.waits.is_empty() {
            self.send(out);
        }
        assert_eq!(self.queue.pinned_bytes(), 0);
    }
}

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
    for way in [Way::Copied, Way::Shared, Way::Alternating] {
        for input in BOUNDARIES {
            for output in BOUNDARIES.into_iter().filter(|&output| output > 0) {
                let mut pair = Pair::new(SEGMENT_BYTES);
                for _ in 0..4 {
                    pair.write(input, way);
                    pair.write(input, way);
                    pair.write(1, way);
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
