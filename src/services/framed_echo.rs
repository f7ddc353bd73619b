//! Echo of whole frames.
//!
//! Owns the unfinished frame of each client, and whole frames that found no
//! room below the mark: at most one frame and one read per client. The memory
//! budget counts them. An unfinished frame is never returned, and one that comes
//! too slowly ends its client.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use log::info;

use crate::backpressure::{Answer, Arrival};
use crate::limits::{
    FRAME_LOOKS, FRAME_TIMEOUT, LONG_FRAME_BYTES, MAX_FRAME_CEILING_BYTES, SHORTEST_TIMEOUT,
    SMALLEST_READ_BYTES,
};
use crate::protocol::frame::{self, HEADER_BYTES};
use crate::units::format_size;
use crate::{Actions, ClientId, CloseReason, LateFrame, Service};

/// Returns whole frames, each a 4-byte big-endian length and its payload, to
/// the client that sent them.
#[derive(Debug)]
pub struct FramedEcho {
    max_frame_bytes: usize,
    long_frame_bytes: usize,
    frame_timeout: Duration,
    /// Holds only clients with unfinished bytes.
    unfinished: HashMap<ClientId, Unfinished>,
}

/// The maximum of a frame is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimitError {
    /// The value that was refused.
    pub max_frame_bytes: usize,
}

impl fmt::Display for FrameLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`max_frame_bytes` {} must be between 1 and {MAX_FRAME_CEILING_BYTES}",
            format_size(self.max_frame_bytes)
        )
    }
}

impl std::error::Error for FrameLimitError {}

#[derive(Debug)]
struct Unfinished {
    buffer: Vec<u8>,
    /// Start of the bytes in the buffer that were not sent yet.
    start: usize,
    /// End of the bytes in the buffer that were read.
    end: usize,
    /// Bytes that the last frame still needs, as far as its header tells.
    missing_bytes: usize,
    /// Bytes of whole frames at the start, which wait for room in the queue.
    /// The client is paused while there are any.
    whole_bytes: usize,
    /// How fast the last frame comes.
    arrival: Arrival,
}

impl FramedEcho {
    /// A service for frames with a payload of at most `max_frame_bytes`.
    ///
    /// # Errors
    ///
    /// It is 0, or more than a 4-byte length can say.
    pub fn new(max_frame_bytes: usize) -> Result<Self, FrameLimitError> {
        if max_frame_bytes == 0 || max_frame_bytes > MAX_FRAME_CEILING_BYTES {
            return Err(FrameLimitError { max_frame_bytes });
        }
        Ok(Self {
            max_frame_bytes,
            long_frame_bytes: LONG_FRAME_BYTES,
            frame_timeout: FRAME_TIMEOUT,
            unfinished: HashMap::new(),
        })
    }

    /// Reads frames of at least this many bytes, headers included, into their
    /// own memory, which saves a copy.
    #[must_use]
    pub const fn with_long_frames_from(mut self, long_frame_bytes: usize) -> Self {
        self.long_frame_bytes = long_frame_bytes;
        self
    }

    /// Ends a client whose unfinished frame brings less than 1 KiB/s for this
    /// long, [`FRAME_TIMEOUT`] by default; at least [`SHORTEST_TIMEOUT`]. Time in
    /// which the client was paused does not count.
    #[must_use]
    pub fn with_frame_timeout(mut self, frame_timeout: Duration) -> Self {
        self.frame_timeout = frame_timeout.max(SHORTEST_TIMEOUT);
        self
    }

    /// Examines the `count_bytes` that were appended to the unfinished frame of a
    /// client.
    fn advance(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        let Some(unfinished) = self.unfinished.get_mut(&client) else {
            return;
        };
        let now = actions.now();
        let fresh = &unfinished.held()[unfinished.whole_bytes..];
        match frame::split(fresh, self.max_frame_bytes) {
            Err(refusal) => return actions.reject(client, refusal.to_string()),
            Ok(split) => {
                let rest_bytes = fresh.len() - split.whole_bytes;
                unfinished.whole_bytes += split.whole_bytes;
                unfinished.missing_bytes = split.missing_bytes;
                if split.whole_bytes > 0 {
                    unfinished.arrival = Arrival::begin(now);
                }
                unfinished
                    .arrival
                    .came(count_bytes.min(rest_bytes), self.frame_timeout, now);
            }
        }
        if unfinished.whole_bytes > 0 {
            self.send_whole(client, actions);
        } else {
            unfinished.make_room_for_rest(self.long_frame_bytes);
            actions.hold(client, unfinished.buffer.len());
        }
    }

    /// Sends whole frames while there is room, in pieces, so that a frame
    /// longer than the mark exceeds the mark by less than a smallest read. A
    /// frame of 64 KiB then goes out with its header. Pauses the client while
    /// frames are left or its queue answers *pause*.
    fn send_whole(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let Some(unfinished) = self.unfinished.get_mut(&client) else {
            return actions.resume(client);
        };
        let start = unfinished.start;
        let mut answer = Answer::Continue;
        while unfinished.whole_bytes > 0 && answer == Answer::Continue {
            let room = actions.room(client) + SMALLEST_READ_BYTES - 1;
            let piece = unfinished.whole_bytes.min(room);
            answer = actions.send(client, &unfinished.held()[..piece]);
            unfinished.start += piece;
            unfinished.whole_bytes -= piece;
        }
        match answer {
            Answer::Pause => {
                unfinished.arrival.pause(actions.now());
                actions.pause(client);
            }
            Answer::Continue => {
                unfinished.arrival.resume(actions.now());
                actions.resume(client);
            }
        }
        let is_new = unfinished.start > start && unfinished.whole_bytes == 0;
        if unfinished.held().is_empty() {
            self.unfinished.remove(&client);
            actions.hold(client, 0);
        } else {
            unfinished.make_room_for_rest(self.long_frame_bytes);
            let held_bytes = unfinished.buffer.len();
            match is_new {
                true => actions.hold_anew(client, held_bytes),
                false => actions.hold(client, held_bytes),
            }
        }
    }
}

impl Unfinished {
    fn new(now: Instant) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            missing_bytes: 0,
            whole_bytes: 0,
            arrival: Arrival::begin(now),
        }
    }

    fn held(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The last frame, which did not come in time.
    fn late(&self, now: Instant) -> LateFrame {
        LateFrame {
            frame_bytes: self.held().len() - self.whole_bytes,
            late_bytes: self.arrival.bytes(),
            within: self.arrival.age(now),
        }
    }

    fn extend(&mut self, data: &[u8]) {
        self.make_room(data.len());
        self.buffer[self.end..][..data.len()].copy_from_slice(data);
        self.end += data.len();
    }

    /// Makes room for the rest of a long frame and the next header. In a stream
    /// of long frames each is then read at once, and only headers are moved.
    /// Not for short frames, since one read brings many; and not while few
    /// bytes are there, so that an announced length alone costs nothing.
    fn make_room_for_rest(&mut self, long_frame_bytes: usize) {
        let held = self.held().len();
        if self.is_long(long_frame_bytes) {
            let rest = self.missing_bytes + HEADER_BYTES;
            if self.buffer.len() - held >= rest {
                self.make_room(rest);
            } else if held >= long_frame_bytes / 2 && !self.is_worth_a_read(long_frame_bytes) {
                // Only then: asking for more while there is room would move the
                // whole frame at each read, at a cost of its square.
                self.make_room(rest.min(held));
            }
        }
    }

    /// Whether the room at the end of the buffer holds the whole rest of the
    /// frame, or enough of it for a read of its own.
    fn is_worth_a_read(&self, long_frame_bytes: usize) -> bool {
        let room = self.buffer.len() - self.end;
        room >= self.missing_bytes + HEADER_BYTES || room >= long_frame_bytes / 2
    }

    /// Memory for the rest of a long frame, if it holds the whole rest or
    /// enough to be worth a read.
    fn room_for_rest(&mut self, long_frame_bytes: usize) -> Option<&mut [u8]> {
        if !self.is_long(long_frame_bytes) || !self.is_worth_a_read(long_frame_bytes) {
            return None;
        }
        let room = self.buffer.len() - self.end;
        let room = room.min(self.missing_bytes + HEADER_BYTES);
        Some(&mut self.buffer[self.end..][..room])
    }

    /// Whether the buffer holds one long frame and nothing else.
    fn is_long(&self, long_frame_bytes: usize) -> bool {
        self.whole_bytes == 0 && self.held().len() + self.missing_bytes >= long_frame_bytes
    }

    /// Makes room for `more` bytes at the end. The buffer doubles, but never
    /// beyond the end of the frame and the next header. A buffer that is large
    /// enough serves the next frame too, since fresh memory costs page faults;
    /// one that is far too large does not.
    fn make_room(&mut self, more: usize) {
        let held = self.held().len();
        let needed = held + more;
        let frame_end = held + self.missing_bytes + HEADER_BYTES;
        let wanted = needed.max(frame_end.min(2 * held));
        let fits = (needed..=2 * wanted).contains(&self.buffer.len());
        if fits && self.end + more <= self.buffer.len() {
            return;
        }
        if fits {
            self.buffer.copy_within(self.start..self.end, 0);
        } else if self.start == 0 && wanted > self.buffer.len() {
            // The allocator moves a long buffer by its pages: no byte is copied,
            // and no page of it is faulted in again.
            self.buffer.reserve_exact(wanted - self.buffer.len());
            self.buffer.resize(wanted, 0);
        } else {
            let mut other = vec![0; wanted];
            other[..held].copy_from_slice(self.held());
            self.buffer = other;
        }
        self.start = 0;
        self.end = held;
    }
}

impl Service for FramedEcho {
    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        let mut rest = data;
        let mut is_paused = false;
        // Most reads begin with a frame, whose bytes then need no copy. A read
        // is never longer than the room in the queue, so all of them fit.
        if !self.unfinished.contains_key(&client) {
            let whole_bytes = match frame::split(data, self.max_frame_bytes) {
                Ok(split) => split.whole_bytes,
                Err(refusal) => return actions.reject(client, refusal.to_string()),
            };
            if whole_bytes > 0 && actions.send(client, &data[..whole_bytes]) == Answer::Pause {
                actions.pause(client);
                is_paused = true;
            }
            rest = &data[whole_bytes..];
        }
        if !rest.is_empty() {
            let now = actions.now();
            let unfinished = self.unfinished.entry(client);
            let unfinished = unfinished.or_insert_with(|| Unfinished::new(now));
            if is_paused {
                unfinished.arrival.pause(now);
            }
            unfinished.extend(rest);
            self.advance(client, rest.len(), actions);
        }
    }

    fn read_buffer(&mut self, client: ClientId) -> Option<&mut [u8]> {
        let unfinished = self.unfinished.get_mut(&client)?;
        unfinished.room_for_rest(self.long_frame_bytes)
    }

    fn filled(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        if let Some(unfinished) = self.unfinished.get_mut(&client) {
            unfinished.end += count_bytes;
        }
        self.advance(client, count_bytes, actions);
    }

    fn drained(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.send_whole(client, actions);
    }

    fn ended(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        if let Some(unfinished) = self.unfinished.remove(&client)
            && let Some(name) = actions.name(client)
        {
            info!(
                event = "unfinished_frame",
                held_bytes = unfinished.held().len();
                "{name} ended inside a frame: {} bytes thrown away",
                unfinished.held().len()
            );
        }
        actions.hold(client, 0);
        actions.end(client);
    }

    fn closed(&mut self, client: ClientId, _: &CloseReason, _: &mut Actions<'_>) {
        self.unfinished.remove(&client);
    }

    fn held_words(&self) -> &'static str {
        "an unfinished frame"
    }

    fn tick_interval(&self) -> Option<Duration> {
        (!self.unfinished.is_empty()).then(|| self.frame_timeout / FRAME_LOOKS)
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let (now, time) = (actions.now(), self.frame_timeout);
        let late = self
            .unfinished
            .iter()
            .filter(|(_, unfinished)| unfinished.arrival.is_late(time, now));
        let mut late: Vec<_> = late
            .map(|(&client, unfinished)| (client, unfinished.late(now)))
            .collect();
        // The order of a map changes from run to run.
        late.sort_unstable_by_key(|(client, _)| client.to_token());
        for (client, frame) in late {
            actions.time_out_frame(client, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    const LONG: usize = 1000;

    /// What is left when these bytes of a frame of `frame_bytes` have come.
    fn unfinished(held: usize, frame_bytes: usize) -> Unfinished {
        let mut unfinished = Unfinished::new(start());
        unfinished.extend(&vec![7; held]);
        unfinished.missing_bytes = frame_bytes - held;
        unfinished
    }

    fn room(unfinished: &mut Unfinished) -> Option<usize> {
        unfinished.make_room_for_rest(LONG);
        unfinished.room_for_rest(LONG).map(|room| room.len())
    }

    #[test]
    fn a_short_frame_is_left_to_the_buffer_of_the_loop() {
        assert_eq!(room(&mut unfinished(LONG - 2, LONG - 1)), None);
        assert!(room(&mut unfinished(LONG - 2, LONG)).is_some());
    }

    #[test]
    fn an_announced_length_alone_has_no_room_made_for_it() {
        let mut announced = unfinished(HEADER_BYTES, 1 << 30);
        assert_eq!(room(&mut announced), None);
        assert_eq!(announced.buffer.len(), HEADER_BYTES);
        let mut begun = unfinished(LONG, 1 << 30);
        assert_eq!(room(&mut begun), Some(LONG));
        assert_eq!(begun.buffer.len(), 2 * LONG);
    }

    #[test]
    fn in_a_stream_of_long_frames_each_is_read_at_once_and_only_headers_move() {
        let mut stream = unfinished(LONG - 8, LONG);
        assert_eq!(room(&mut stream), Some(8 + HEADER_BYTES));
        for _ in 0..3 {
            // All of it has come, and the whole frame goes.
            stream.end = stream.buffer.len();
            stream.start = LONG;
            stream.missing_bytes = LONG - HEADER_BYTES;
            assert_eq!(room(&mut stream), Some(LONG));
            assert_eq!(stream.held().len(), HEADER_BYTES);
            assert_eq!(stream.buffer.len(), LONG + HEADER_BYTES);
        }
    }

    #[test]
    fn a_buffer_that_is_far_too_large_for_what_comes_next_is_given_back() {
        let mut after_long = unfinished(100 * LONG, 100 * LONG);
        after_long.start = 100 * LONG - HEADER_BYTES;
        after_long.missing_bytes = LONG;
        assert_eq!(room(&mut after_long), Some(LONG + HEADER_BYTES));
        assert!(after_long.buffer.len() < 2 * LONG);
        assert_eq!(after_long.held(), [7; HEADER_BYTES]);
    }

    /// How often the buffer moves while a frame comes in pieces of this size.
    fn moves(frame_bytes: usize, piece_bytes: usize) -> usize {
        let mut frame = unfinished(HEADER_BYTES, frame_bytes);
        let mut moves = 0;
        while frame.missing_bytes > 0 {
            let place = frame.buffer.as_ptr();
            frame.make_room_for_rest(LONG);
            let piece = piece_bytes.min(frame.missing_bytes);
            let lent = frame.room_for_rest(LONG).map_or(0, |room| room.len().min(piece));
            if lent > 0 {
                frame.end += lent;
                frame.missing_bytes -= lent;
            } else {
                frame.extend(&vec![7; piece]);
                frame.missing_bytes -= piece;
            }
            moves += usize::from(frame.buffer.as_ptr() != place);
        }
        moves
    }

    #[test]
    fn an_unfinished_frame_moves_a_few_times_however_long_it_is_and_small_its_pieces_are() {
        for piece_bytes in [1, 2, 3, 100, LONG / 2, LONG, 10 * LONG] {
            for frame_bytes in [LONG, 10 * LONG, 300 * LONG] {
                // A buffer that doubles moves once for each power of two, and
                // some more around half of a long frame, where lending begins.
                let moves = moves(frame_bytes, piece_bytes);
                assert!(moves <= 40, "{frame_bytes} in {piece_bytes}: {moves} moves");
            }
        }
    }
}
