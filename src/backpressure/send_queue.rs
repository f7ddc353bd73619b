//! Bytes that wait in our memory for one socket, with Node's write and drain.
//!
//! Owns the bytes that a socket refused, their order, the high-water mark, and
//! the need for drain. Refuses to know the socket: the caller tries it first,
//! queues the rest, and later reports how much the socket took.
//!
//! The contract is that of Node 20's `stream.Writable`, with one deviation: a
//! partly sent chunk counts byte by byte, where Node counts it whole until its
//! callback.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// The largest piece of memory that a queue allocates. A queue pins at most
/// two of these beyond its length: the partly sent first and the partly
/// filled last.
pub const SEGMENT_BYTES: usize = 16 * 1024;

/// The smallest piece of memory that a queue allocates.
const SMALLEST_SEGMENT_BYTES: usize = 256;

/// Shared bytes of at least this length are held by reference; shorter ones
/// are cheaper to copy than to track.
pub const SHARE_FROM_BYTES: usize = 4 * 1024;

/// The answer to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on writing (`write()` returns `true` in Node).
    Continue,
    /// The queue is at or over its high-water mark: write no more until
    /// drain (`write()` returns `false` in Node). What was written is kept.
    Pause,
}

/// The state of a queue after bytes were taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Bytes still wait.
    Waiting,
    /// The queue is empty, and no answer *pause* stands.
    Empty,
    /// The queue is empty, and drain is due: say it, once.
    Drained,
}

/// Bytes waiting for one socket.
///
/// ```
/// use highwater::backpressure::{Answer, SendQueue, Sent};
///
/// let mut queue = SendQueue::new(8);
/// assert_eq!(queue.write(b"seven b"), Answer::Continue);
/// assert_eq!(queue.write(b"!"), Answer::Pause); // exactly at the mark
/// assert_eq!(queue.sent(7), Sent::Waiting);
/// assert_eq!(queue.write(b"?"), Answer::Continue); // the need for drain stands
/// assert_eq!(queue.sent(2), Sent::Drained);
/// ```
#[derive(Debug)]
pub struct SendQueue {
    /// No segment is empty; their lengths add up to `length_bytes`.
    segments: VecDeque<Segment>,
    length_bytes: usize,
    high_water_mark_bytes: usize,
    needs_drain: bool,
    ended: bool,
}

#[derive(Debug)]
enum Segment {
    Copied(BytesMut),
    Shared(Bytes),
}

impl Segment {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Copied(bytes) => bytes.advance(count),
            Self::Shared(bytes) => bytes.advance(count),
        }
    }
}

impl SendQueue {
    /// An empty queue, which owns no memory until something must wait.
    #[must_use]
    pub const fn new(high_water_mark_bytes: usize) -> Self {
        Self {
            segments: VecDeque::new(),
            length_bytes: 0,
            high_water_mark_bytes,
            needs_drain: false,
            ended: false,
        }
    }

    /// Copies the bytes that the socket refused to the end of the queue, and
    /// answers the write. `rest` may be empty: the socket took everything, or
    /// nothing was written.
    pub fn write(&mut self, rest: &[u8]) -> Answer {
        self.copy_in(rest);
        self.answer()
    }

    /// Queues bytes as [`write`](Self::write) does, but holds long pieces by
    /// reference, so that a broadcast to many clients holds its bytes once.
    /// Each queue counts them in full.
    pub fn write_shared(&mut self, mut rest: Bytes) -> Answer {
        // The last segment is filled first: only the last segment of a queue may
        // be partly filled, or alternating pieces of both kinds would pin a
        // segment each.
        let fits = self.spare_bytes().min(rest.len());
        if rest.len() - fits < SHARE_FROM_BYTES {
            self.copy_in(&rest);
        } else {
            self.copy_in(&rest.split_to(fits));
            self.length_bytes += rest.len();
            self.segments.push_back(Segment::Shared(rest));
            self.check_invariants();
        }
        self.answer()
    }

    /// Takes the first `count` bytes out, because the socket took them. Say
    /// drain to the source when the answer is [`Sent::Drained`].
    ///
    /// # Panics
    ///
    /// In debug builds, if `count` is more than waits.
    pub fn sent(&mut self, count: usize) -> Sent {
        debug_assert!(count <= self.length_bytes, "more sent than waits");
        let mut left = count.min(self.length_bytes);
        self.length_bytes -= left;
        while let Some(first) = self.segments.front_mut() {
            let length = first.as_slice().len();
            if left < length {
                first.advance(left);
                break;
            }
            left -= length;
            self.segments.pop_front();
        }
        if self.length_bytes > 0 {
            self.check_invariants();
            return Sent::Waiting;
        }
        self.segments = VecDeque::new();
        let drained = std::mem::take(&mut self.needs_drain) && !self.ended;
        self.check_invariants();
        if drained { Sent::Drained } else { Sent::Empty }
    }

    /// Gives the queue another high-water mark, which the next write goes by. An
    /// answer *pause* stands until drain, whatever the mark is now.
    pub const fn set_high_water_mark(&mut self, high_water_mark_bytes: usize) {
        self.high_water_mark_bytes = high_water_mark_bytes;
    }

    /// Ends the queue: no further write comes, and no drain is due any more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Drops all queued bytes, and answers how many they were.
    pub fn discard(&mut self) -> usize {
        self.segments = VecDeque::new();
        self.needs_drain = false;
        std::mem::take(&mut self.length_bytes)
    }

    /// Fills `slices` with the queued pieces, from the first on, and answers
    /// how many pieces that are.
    pub fn fill_slices<'queue>(&'queue self, slices: &mut [IoSlice<'queue>]) -> usize {
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(segment.as_slice());
            filled += 1;
        }
        filled
    }

    /// The number of queued bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length_bytes
    }

    /// Whether no bytes are queued.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length_bytes == 0
    }

    /// Whether drain is due for an answer *pause*.
    #[must_use]
    pub const fn needs_drain(&self) -> bool {
        self.needs_drain
    }

    /// Whether [`end`](Self::end) was called.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Bytes that may still be written before a write answers *pause*.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.high_water_mark_bytes.saturating_sub(self.length_bytes)
    }

    /// Memory that the queue keeps allocated, in bytes: at most its length plus
    /// two segments. Of shared bytes the unsent ones count.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| match segment {
                // The part already sent is still allocated in front.
                Segment::Copied(bytes) => bytes.capacity().max(SMALLEST_SEGMENT_BYTES),
                Segment::Shared(bytes) => bytes.len(),
            })
            .sum()
    }

    fn answer(&mut self) -> Answer {
        if self.length_bytes < self.high_water_mark_bytes || self.length_bytes == 0 {
            Answer::Continue
        } else {
            self.needs_drain = true;
            Answer::Pause
        }
    }

    fn copy_in(&mut self, mut rest: &[u8]) {
        self.length_bytes += rest.len();
        while !rest.is_empty() {
            let count = self.spare_bytes().min(rest.len());
            if count == 0 {
                self.segments.push_back(Segment::Copied(BytesMut::with_capacity(
                    self.next_segment_bytes(rest.len()),
                )));
                continue;
            }
            if let Some(Segment::Copied(last)) = self.segments.back_mut() {
                last.extend_from_slice(&rest[..count]);
            }
            rest = &rest[count..];
        }
        self.check_invariants();
    }

    /// The free bytes of the last segment.
    fn spare_bytes(&self) -> usize {
        match self.segments.back() {
            Some(Segment::Copied(last)) => last.capacity() - last.len(),
            _ => 0,
        }
    }

    /// The size of the next segment. A queue that keeps growing by small pieces
    /// gets larger segments. A partly sent segment has less capacity left,
    /// possibly very little.
    fn next_segment_bytes(&self, wanted: usize) -> usize {
        let grown = match self.segments.back() {
            Some(Segment::Copied(last)) => last.capacity().saturating_mul(2),
            _ => SMALLEST_SEGMENT_BYTES,
        };
        wanted.max(grown).clamp(SMALLEST_SEGMENT_BYTES, SEGMENT_BYTES)
    }

    #[inline]
    fn check_invariants(&self) {
        debug_assert_eq!(
            self.segments
                .iter()
                .map(|segment| segment.as_slice().len())
                .sum::<usize>(),
            self.length_bytes,
        );
        debug_assert!(self.segments.iter().all(|segment| !segment.as_slice().is_empty()));
        debug_assert!(self.length_bytes > 0 || !self.needs_drain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(queue: &SendQueue) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 4096];
        let filled = queue.fill_slices(&mut slices);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }

    #[test]
    fn a_write_below_the_mark_continues_and_one_that_reaches_it_pauses() {
        for mark in [1, 2, 255, 16 * 1024, 64 * 1024] {
            let mut below = SendQueue::new(mark);
            assert_eq!(below.write(&vec![0; mark - 1]), Answer::Continue, "mark {mark}");
            assert!(!below.needs_drain());
            let mut at = SendQueue::new(mark);
            assert_eq!(at.write(&vec![0; mark]), Answer::Pause, "mark {mark}");
            assert!(at.needs_drain());
        }
    }

    #[test]
    fn a_write_larger_than_the_mark_is_kept_whole() {
        let mut queue = SendQueue::new(16);
        let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        assert_eq!(queue.write(&data), Answer::Pause);
        assert_eq!(content(&queue), data);
    }

    #[test]
    fn a_write_of_nothing_pauses_at_the_mark_and_continues_when_empty() {
        let mut queue = SendQueue::new(4);
        assert_eq!(queue.write(b""), Answer::Continue);
        assert_eq!(queue.write(b"1234"), Answer::Pause);
        assert_eq!(queue.write(b""), Answer::Pause);
        queue.sent(1);
        assert_eq!(queue.write(b""), Answer::Continue);
        assert!(queue.needs_drain());
    }

    #[test]
    fn a_mark_of_zero_still_continues_while_nothing_waits() {
        let mut queue = SendQueue::new(0);
        assert_eq!(queue.write(b""), Answer::Continue);
        assert_eq!(queue.write(b"1"), Answer::Pause);
        assert_eq!(queue.sent(1), Sent::Drained);
        assert_eq!(queue.write(b""), Answer::Continue);
    }

    #[test]
    fn drain_is_said_once_when_empty_and_not_before() {
        let mut queue = SendQueue::new(4);
        queue.write(b"123456");
        assert_eq!(queue.sent(5), Sent::Waiting);
        assert_eq!(queue.sent(1), Sent::Drained);
        queue.write(b"1");
        assert_eq!(queue.sent(1), Sent::Empty);
    }

    #[test]
    fn the_need_for_drain_stands_when_a_later_write_continues() {
        let mut queue = SendQueue::new(4);
        queue.write(b"1234");
        queue.sent(3);
        assert_eq!(queue.write(b"2"), Answer::Continue);
        assert!(queue.needs_drain());
        assert_eq!(queue.sent(2), Sent::Drained);
    }

    #[test]
    fn drain_is_not_said_after_the_end() {
        let mut queue = SendQueue::new(4);
        queue.write(b"1234");
        queue.end();
        assert_eq!(queue.sent(4), Sent::Empty);
    }

    #[test]
    fn tiny_writes_do_not_pin_more_than_their_length_and_two_segments() {
        let mut queue = SendQueue::new(64 * 1024);
        for _ in 0..100_000 {
            queue.write(b"x");
            assert!(queue.pinned_bytes() <= queue.len() + 2 * SEGMENT_BYTES);
        }
        while !queue.is_empty() {
            queue.sent(97.min(queue.len()));
            assert!(queue.pinned_bytes() <= queue.len() + 2 * SEGMENT_BYTES);
        }
        assert_eq!(queue.pinned_bytes(), 0);
    }

    #[test]
    fn long_shared_bytes_are_held_by_reference_and_short_ones_are_copied() {
        let long = Bytes::from(vec![7; SHARE_FROM_BYTES]);
        let mut queue = SendQueue::new(64);
        queue.write_shared(long.clone());
        let short = long.slice(..SHARE_FROM_BYTES - 1);
        queue.write_shared(short.clone());
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(queue.fill_slices(&mut slices), 2);
        assert!(std::ptr::eq(slices[0].as_ptr(), long.as_ptr()));
        assert!(!std::ptr::eq(slices[1].as_ptr(), short.as_ptr()));
        assert_eq!(queue.len(), 2 * SHARE_FROM_BYTES - 1);
    }

    #[test]
    fn a_shared_piece_fills_the_last_segment_before_it_is_held_by_reference() {
        let long = Bytes::from(vec![7; 3 * SHARE_FROM_BYTES]);
        let mut queue = SendQueue::new(64);
        queue.write(b"header");
        queue.write_shared(long.clone());
        let mut slices = [IoSlice::new(&[]); 3];
        assert_eq!(queue.fill_slices(&mut slices), 2);
        assert_eq!(slices[0].len(), SMALLEST_SEGMENT_BYTES);
        let copied = SMALLEST_SEGMENT_BYTES - b"header".len();
        assert!(std::ptr::eq(slices[1].as_ptr(), &raw const long[copied]));
    }

    #[test]
    fn copied_and_shared_pieces_in_turn_do_not_pin_a_segment_each() {
        let mut queue = SendQueue::new(64);
        let long = Bytes::from(vec![7; SHARE_FROM_BYTES]);
        for _ in 0..100 {
            queue.write(&[1; SEGMENT_BYTES + 1]);
            queue.write_shared(long.clone());
            assert!(queue.pinned_bytes() <= queue.len() + 2 * SEGMENT_BYTES);
        }
    }

    #[test]
    fn a_queue_that_never_empties_does_not_fall_to_tiny_segments() {
        let mut queue = SendQueue::new(64 * 1024);
        queue.write(b"1");
        for _ in 0..10 * SMALLEST_SEGMENT_BYTES {
            queue.write(b"2");
            queue.sent(1);
        }
        for _ in 1..SMALLEST_SEGMENT_BYTES {
            queue.write(b"3");
        }
        assert!(queue.segments.len() <= 2, "{} segments", queue.segments.len());
    }

    #[test]
    fn order_is_kept_between_copied_and_shared_bytes() {
        let mut queue = SendQueue::new(64);
        let mut expected = Vec::new();
        for round in 0..20u8 {
            queue.write(&[round; 100]);
            expected.extend([round; 100]);
            queue.write_shared(Bytes::from(vec![round ^ 0x80; 5_000]));
            expected.extend(vec![round ^ 0x80; 5_000]);
        }
        assert_eq!(content(&queue), expected);
    }

    #[test]
    fn what_is_discarded_is_counted_and_owes_no_drain() {
        let mut queue = SendQueue::new(4);
        queue.write(b"12345");
        assert_eq!(queue.discard(), 5);
        assert!(queue.is_empty() && !queue.needs_drain());
    }

    #[test]
    fn room_is_what_is_left_below_the_mark() {
        let mut queue = SendQueue::new(10);
        assert_eq!(queue.room(), 10);
        queue.write(b"123");
        assert_eq!(queue.room(), 7);
        queue.write(b"12345678");
        assert_eq!(queue.room(), 0);
    }
}
