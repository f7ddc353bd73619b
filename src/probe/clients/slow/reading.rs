//! What a slow client reads, and what the end of its stream means.

use std::io::{self, Read, Write};
use std::time::Instant;

use super::{SlowClient, Stage};
use crate::probe::clients::healthy::Turn;
use crate::probe::kind::Disconnect;

/// Reads of one client in one turn.
const MOST_READS_PER_TURN: usize = 16;
/// Reads of what is left for a client that ended; its receive buffer is bounded by the kernel,
/// this only bounds the loop.
const MOST_LAST_READS: usize = 4096;

impl<S: Read + Write> SlowClient<S> {
    /// Whether it reads at all at this moment.
    pub(crate) fn is_reading(&self) -> bool {
        self.pace.is_some() || matches!(self.stage, Stage::Draining | Stage::Complete)
    }

    /// Reads what this client reads by `now`.
    pub(crate) fn read(&mut self, now: Instant, buffer: &mut [u8]) -> Turn {
        // One that listens to a server that never ends goes on reading.
        let has_all = self.is_complete() && self.traits.verifies;
        if self.end.is_some() || !self.is_connected() || !self.is_reading() || has_all {
            return Turn::Done;
        }
        for _ in 0..MOST_READS_PER_TURN {
            let most = match &mut self.pace {
                Some(pace) if self.stage == Stage::Filling => pace.allowed(now).min(buffer.len()),
                _ => buffer.len(),
            };
            if most == 0 {
                return Turn::Done;
            }
            match self.stream.read(&mut buffer[..most]) {
                Ok(0) => {
                    self.wire.any_mut().end_of_stream();
                    return self.ended(now, Disconnect::EndOfFile);
                }
                Ok(len) => {
                    if !self.take(&buffer[..len]) {
                        return Turn::Done;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.caught_up();
                    return Turn::Done;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.ended(now, Disconnect::Reset),
            }
        }
        Turn::More
    }

    /// Where nobody knows what is still to come, having read all there is must do.
    fn caught_up(&mut self) {
        if self.stage == Stage::Draining && self.wire.all_answered(self.sent).is_none() {
            self.stage = Stage::Complete;
        }
    }

    /// Reads what is left in the receive buffer of a client that ended, so that all it was given is
    /// verified, and says what the end was.
    pub(crate) fn settle_end(&mut self, now: Instant, buffer: &mut [u8]) {
        for _ in 0..MOST_LAST_READS {
            match self.stream.read(buffer) {
                Ok(0) => {
                    // A look at the socket's error uses it up: a reset reads as an end.
                    match self.end {
                        Some((_, Disconnect::Reset)) => self.wire.any_mut().reset(),
                        _ => _ = self.wire.any_mut().end_of_stream(),
                    }
                    break;
                }
                Ok(len) => {
                    if !self.take(&buffer[..len]) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Only one that was owed something was thrown out.
        if self.end.is_some() && self.corruption.is_none() && self.wire.owes(self.sent) == Some(false) {
            self.end = None;
            self.closed_in_order += 1;
            if self.is_finishing || self.resumed.is_some() {
                self.stage = Stage::Complete;
            } else {
                self.stay_away(now);
            }
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        if self.corruption.is_some() {
            return false;
        }
        if let Err(corruption) = self.wire.receive(bytes) {
            // A client that is to go anyway may miss what is pushed meanwhile.
            if self.traits.verifies || self.kind.is_kept() {
                self.corruption = Some(corruption);
                return false;
            }
        }
        if let Some(pace) = &mut self.pace {
            pace.take(bytes.len());
        }
        if self.stage == Stage::Draining && self.wire.all_answered(self.sent) == Some(true) {
            self.stage = Stage::Complete;
        }
        true
    }
}
