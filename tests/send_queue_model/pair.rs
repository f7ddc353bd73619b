//! A queue beside a plain `Vec<u8>`, compared after each step.
//!
//! Shared by the tests of the model and by fuzzing. Panics where the two
//! differ.

use std::io::IoSlice;

use bytes::Bytes;
use highwater::Answer;
use highwater::backpressure::send_queue::SEGMENT_BYTES;
use highwater::backpressure::{SendQueue, Sent};

/// How a piece comes into the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Copied,
    Shared,
}

/// A queue and what it should be.
pub(crate) struct Pair {
    queue: SendQueue,
    pub(crate) waits: Vec<u8>,
    mark: usize,
    needs_drain: bool,
    ended: bool,
    next_byte: u8,
    pub(crate) pieces: usize,
    pub(crate) drains: usize,
}

impl Pair {
    pub(crate) fn new(mark: usize) -> Self {
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

    pub(crate) fn write(&mut self, length: usize, way: Way) {
        self.pieces += 1;
        let piece = self.piece(length);
        let answer = match way {
            Way::Copied => self.queue.write(&piece),
            Way::Shared => self.queue.write_shared(Bytes::from(piece)),
        };
        let pauses = !self.waits.is_empty() && self.waits.len() >= self.mark;
        self.needs_drain |= pauses;
        assert_eq!(answer == Answer::Pause, pauses);
        self.check();
    }

    pub(crate) fn send(&mut self, length: usize) {
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

    pub(crate) fn discard(&mut self) {
        assert_eq!(self.queue.discard(), self.waits.len());
        self.waits.clear();
        self.needs_drain = false;
        self.check();
    }

    pub(crate) fn end(&mut self) {
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
    pub(crate) fn empty(&mut self, out: usize) {
        while !self.waits.is_empty() {
            self.send(out);
        }
        assert_eq!(self.queue.pinned_bytes(), 0);
    }
}
