//! A healthy client: sends messages, reads every answer at once, and verifies it.
//!
//! One receive and one send per message, and all between them in one function: what it calls
//! for an echo is inlined, as calls would cost a twelfth of its instructions. Owns no clock and
//! no socket options; generic over the stream, so that short writes can be tested.

use std::io::{self, Read, Write};

use crate::probe::clients::moment::Moment;
use crate::probe::clients::outstanding::Outstanding;
use crate::probe::clients::tally::Tally;
use crate::probe::kind::Disconnect;
use crate::probe::protocol::{Corruption, Wire};

/// One send at most, so that one buffer does for all clients.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;
/// Reads of one client in one turn; what has more waits for the next turn.
const MOST_READS_PER_TURN: usize = 16;

/// What a turn of a client led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All there was is done; an edge will tell of more.
    Done,
    /// There may be more; come back without waiting for an edge.
    More,
    /// The connection is over.
    Ended(Disconnect),
}

/// A healthy client over any stream: two cache lines, for between two messages of
/// one client the kernel has its own way with the caches.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct HealthyClient<S> {
    stream: S,
    wire: Wire,
    /// Position up to which was sent.
    sent: u64,
    /// Position of the end of the last message that is due.
    due: u64,
    waiting: Outstanding,
    pipeline: u32,
    corruption: Option<Box<Corruption>>,
    end: Option<Disconnect>,
}

impl<S: Read + Write> HealthyClient<S> {
    pub(crate) fn new(stream: S, wire: Wire, pipeline: u32) -> Self {
        Self {
            stream,
            wire,
            sent: 0,
            due: 0,
            waiting: Outstanding::default(),
            pipeline,
            corruption: None,
            end: None,
        }
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// How it ended, once it has.
    pub(crate) fn end(&self) -> Option<Disconnect> {
        self.end
    }

    pub(crate) fn corruption(&self) -> Option<&Corruption> {
        self.corruption.as_deref()
    }

    /// Bytes that are due, from the beginning of the connection.
    pub(crate) fn due_bytes(&self) -> u64 {
        self.due
    }

    /// Bytes that the socket took, from the beginning of the connection.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// Bytes that came back and were verified, from the beginning of the connection.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.wire.received()
    }

    /// When the messages without an answer became due, oldest first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Moment> {
        self.waiting.iter()
    }

    /// Fills the pipeline and sends what the socket takes.
    pub(crate) fn start(&mut self, now: Moment, buffer: &mut [u8]) -> Turn {
        self.fill_pipeline(now);
        self.writable(buffer)
    }

    /// Takes what came before the client began.
    pub(crate) fn receive_first(&mut self, bytes: &[u8], now: Moment, tally: &mut Tally) -> Turn {
        if bytes.is_empty() || self.take(bytes, now, tally) {
            return Turn::Done;
        }
        self.ended(Disconnect::EndOfFile)
    }

    /// Reads what is there, and answers it while `go_on`.
    pub(crate) fn readable(
        &mut self,
        now: Moment,
        closed: bool,
        go_on: bool,
        buffer: &mut [u8],
        tally: &mut Tally,
    ) -> Turn {
        if self.end.is_some() {
            return Turn::Done;
        }
        let mut turn = Turn::More;
        for _ in 0..MOST_READS_PER_TURN {
            match self.stream.read(buffer) {
                Ok(0) => return self.stream_ended(now, tally),
                Ok(len) => {
                    if !self.take(&buffer[..len], now, tally) {
                        return self.ended(Disconnect::EndOfFile);
                    }
                    // A short read has emptied the socket, unless an end waits behind it.
                    if len < buffer.len() && !closed {
                        turn = Turn::Done;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    turn = Turn::Done;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.ended(Disconnect::Reset),
            }
        }
        if self.wire.is_closed_in_order() {
            // To a further request the server would answer with a reset.
            return self.ended(Disconnect::EndOfFile);
        }
        if go_on {
            self.fill_pipeline(now);
        }
        if self.sent < self.due {
            let wrote = self.writable(buffer);
            if wrote != Turn::Done {
                return self.refused(wrote, now, buffer, tally);
            }
        }
        turn
    }

    /// Sends what is due; the socket's next edge says when to call again.
    #[inline(always)]
    pub(crate) fn writable(&mut self, buffer: &mut [u8]) -> Turn {
        if self.end.is_some() {
            return Turn::Done;
        }
        while self.sent < self.due {
            let len = (self.due - self.sent).min(buffer.len() as u64) as usize;
            self.wire.fill(self.sent, &mut buffer[..len]);
            match self.stream.write(&buffer[..len]) {
                Ok(written) => self.sent += written as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.ended(Disconnect::Reset),
            }
        }
        // Records that wait for room; nothing at all without TLS.
        let _ = self.stream.flush();
        Turn::Done
    }

    /// It came back to a server that did not take it again.
    pub(crate) fn give_up(&mut self) {
        self.end = Some(Disconnect::NotConnected);
    }

    /// Whether the server closed it as announced, so that a client would connect again.
    pub(crate) fn is_closed_in_order(&self) -> bool {
        self.end == Some(Disconnect::EndOfFile) && self.corruption.is_none() && self.wire.is_closed_in_order()
    }

    /// Whether every message sent has its answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() || self.end.is_some()
    }

    #[inline(always)]
    fn take(&mut self, bytes: &[u8], now: Moment, tally: &mut Tally) -> bool {
        tally.received(bytes.len());
        match self.wire.receive(bytes) {
            Ok(completed) => {
                self.count_answers(completed, now, tally);
                true
            }
            Err(corruption) => {
                self.corruption = Some(Box::new(corruption));
                false
            }
        }
    }

    #[inline(always)]
    fn count_answers(&mut self, completed: u64, now: Moment, tally: &mut Tally) {
        for _ in 0..completed {
            if let Some(sent) = self.waiting.pop() {
                tally.answered(sent, now);
            }
        }
    }

    /// A request that crosses the end of the stream is refused; what counts is that end.
    #[cold]
    fn refused(&mut self, wrote: Turn, now: Moment, buffer: &mut [u8], tally: &mut Tally) -> Turn {
        match self.stream.read(buffer) {
            Ok(0) => self.stream_ended(now, tally),
            _ => wrote,
        }
    }

    /// What it received first, where nobody can verify it.
    pub(crate) fn first_words(&self) -> &[u8] {
        self.wire.first_words()
    }

    /// The end of the stream may itself be the end of an answer.
    #[cold]
    fn stream_ended(&mut self, now: Moment, tally: &mut Tally) -> Turn {
        let completed = self.wire.any_mut().end_of_stream();
        self.count_answers(completed, now, tally);
        self.ended(Disconnect::EndOfFile)
    }

    #[inline(always)]
    fn fill_pipeline(&mut self, now: Moment) {
        while self.waiting.len() < self.pipeline {
            self.waiting.push(now);
            self.due = self.wire.due_after(self.due);
        }
    }

    fn ended(&mut self, end: Disconnect) -> Turn {
        self.end = Some(end);
        Turn::Ended(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_two_cache_lines() {
        // A stream is a descriptor; only with debug assertions it is more.
        assert_eq!(size_of::<HealthyClient<i32>>(), 128);
    }
}
