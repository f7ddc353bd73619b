//! Echo of whole frames.
//!
//! Owns the unfinished frame of each client, and whole ones that found no
//! room below the mark: at most one frame and one read for each client, which
//! the memory budget counts. A half frame is never returned.

use std::collections::HashMap;

use bytes::{Buf, BytesMut};
use log::info;

use crate::backpressure::Answer;
use crate::error::CloseReason;
use crate::event_loop::{Actions, ClientId, Service};
use crate::limits::{MAX_FRAME_CEILING_BYTES, SMALLEST_READ_BYTES};
use crate::protocol::frame::{self, FrameTooLong};
use crate::units::format_size;

/// Returns whole frames, each a 4-byte big-endian length and its payload, to
/// the client that sent them.
#[derive(Debug)]
pub struct FramedEcho {
    max_frame_bytes: usize,
    /// Only clients with something unfinished are here.
    unfinished: HashMap<ClientId, Unfinished>,
}

#[derive(Debug, Default)]
struct Unfinished {
    buffer: BytesMut,
    /// What the buffer takes in memory, also where its front is sent already.
    allocated_bytes: usize,
    /// What the frame at its end still needs, as far as its header tells.
    missing_bytes: usize,
    /// Bytes of whole frames at the beginning of the buffer, which wait for
    /// room in the queue. While there are any, the client is paused.
    whole_bytes: usize,
}

impl FramedEcho {
    /// Frames with a payload of up to `max_frame_bytes`.
    ///
    /// # Errors
    ///
    /// One sentence, if that is nothing or more than four bytes can say.
    pub fn new(max_frame_bytes: usize) -> Result<Self, String> {
        if max_frame_bytes == 0 || max_frame_bytes > MAX_FRAME_CEILING_BYTES {
            return Err(format!(
                "--max-frame {} is out of range: it must be between 1 and {MAX_FRAME_CEILING_BYTES} bytes, such as 1MiB",
                format_size(max_frame_bytes)
            ));
        }
        Ok(Self {
            max_frame_bytes,
            unfinished: HashMap::new(),
        })
    }

    /// Takes a piece of a stream behind what is unfinished.
    fn extend(
        &mut self,
        client: ClientId,
        data: &[u8],
        actions: &mut Actions<'_>,
    ) -> Result<(), FrameTooLong> {
        let unfinished = self.unfinished.entry(client).or_default();
        unfinished.extend(data);
        let fresh = &unfinished.buffer[unfinished.whole_bytes..];
        let cut = frame::cut(fresh, self.max_frame_bytes)?;
        unfinished.whole_bytes += cut.whole_bytes;
        unfinished.missing_bytes = cut.missing_bytes;
        if unfinished.whole_bytes > 0 {
            self.send_whole(client, actions);
        } else {
            actions.hold(client, unfinished.allocated_bytes);
        }
        Ok(())
    }

    /// Sends whole frames as far as there is room, in pieces, so that a frame
    /// longer than the mark does not break the mark by as much as a smallest
    /// read: one of 64 KiB then goes with its header, not behind it. Pauses the
    /// client while some are left, and as long as its queue says so.
    fn send_whole(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let Some(unfinished) = self.unfinished.get_mut(&client) else {
            return actions.resume(client);
        };
        let mut answer = Answer::Continue;
        while unfinished.whole_bytes > 0 && answer == Answer::Continue {
            let room = actions.room(client) + SMALLEST_READ_BYTES - 1;
            let piece = unfinished.whole_bytes.min(room);
            answer = actions.send(client, &unfinished.buffer[..piece]);
            unfinished.buffer.advance(piece);
            unfinished.whole_bytes -= piece;
        }
        match answer {
            Answer::Pause => actions.pause(client),
            Answer::Continue => actions.resume(client),
        }
        if unfinished.buffer.is_empty() {
            self.unfinished.remove(&client);
            actions.hold(client, 0);
        } else {
            actions.hold(client, unfinished.allocated_bytes);
        }
    }
}

impl Unfinished {
    /// Appends `data`. The buffer grows by doubling, so that an announced
    /// length alone costs nothing, but never past the end of the frame. One
    /// that is large enough goes on with the next frame, as fresh memory costs
    /// page faults; one that is far too large does not.
    fn extend(&mut self, data: &[u8]) {
        let needed_bytes = self.buffer.len() + data.len();
        if needed_bytes > self.buffer.capacity() {
            let frame_end = self.buffer.len() + self.missing_bytes;
            let capacity = needed_bytes.max(frame_end.min(2 * needed_bytes));
            let is_worth_keeping = self.allocated_bytes <= 2 * capacity;
            if !is_worth_keeping || !self.buffer.try_reclaim(data.len()) {
                let mut other = BytesMut::with_capacity(capacity);
                other.extend_from_slice(&self.buffer);
                self.buffer = other;
                self.allocated_bytes = capacity;
            }
        }
        self.buffer.extend_from_slice(data);
    }
}

impl Service for FramedEcho {
    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        let mut rest = data;
        // Most reads begin with a frame; its bytes then need no copy. A read
        // is never longer than the room in the queue, so all of them fit.
        if !self.unfinished.contains_key(&client) {
            let whole_bytes = match frame::cut(data, self.max_frame_bytes) {
                Ok(cut) => cut.whole_bytes,
                Err(refusal) => return actions.reject(client, refusal.to_string()),
            };
            if whole_bytes > 0 && actions.send(client, &data[..whole_bytes]) == Answer::Pause {
                actions.pause(client);
            }
            rest = &data[whole_bytes..];
        }
        if !rest.is_empty()
            && let Err(refusal) = self.extend(client, rest, actions)
        {
            actions.reject(client, refusal.to_string());
        }
    }

    fn drained(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.send_whole(client, actions);
    }

    fn ended(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        if let Some(unfinished) = self.unfinished.remove(&client)
            && let Some(name) = actions.name(client)
        {
            info!(
                "{name} ended inside a frame: {} bytes thrown away",
                unfinished.buffer.len()
            );
        }
        actions.hold(client, 0);
        actions.end(client);
    }

    fn closed(&mut self, client: ClientId, _: &CloseReason, _: &mut Actions<'_>) {
        self.unfinished.remove(&client);
    }
}
