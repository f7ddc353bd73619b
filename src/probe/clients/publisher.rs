//! The connection that makes a server push: sends one line again and again at a rate.
//!
//! Reads what it is answered, and keeps the first words of it. Generic over the stream; knows no clock.

use std::io;
use std::time::Instant;

use crate::probe::clients::opening::{Greet, Opening};
use crate::probe::clients::pace::Pace;
use crate::probe::printable::keep_first_words;
use crate::probe::protocol::Publishing;
use crate::probe::protocol::push::numbers::NumberedLine;

/// A publisher over any stream.
#[derive(Debug)]
pub(crate) struct Publisher<S> {
    stream: S,
    /// The steps that are still to be taken.
    opening: Option<Opening>,
    /// What is still to be sent first.
    greeting: Vec<u8>,
    line: NumberedLine,
    /// Offset in the line that goes next.
    offset: usize,
    pace: Pace,
    published: u64,
    first_words: Vec<u8>,
    is_gone: bool,
}

/// Reads and writes of one turn.
const MOST_CALLS_PER_TURN: usize = 64;

impl<S: Greet> Publisher<S> {
    /// The line is not empty.
    pub(crate) fn new(stream: S, opening: Opening, publishing: Publishing, now: Instant) -> Self {
        Self {
            stream,
            opening: Some(opening),
            greeting: publishing.greeting,
            line: NumberedLine::new(&publishing.line),
            offset: 0,
            pace: Pace::new(publishing.bytes_per_second, now),
            published: 0,
            first_words: Vec::new(),
            is_gone: false,
        }
    }

    /// Whether the server ended it.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Lines sent whole.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// The beginning of what it was answered.
    pub(crate) fn first_words(&self) -> &[u8] {
        &self.first_words
    }

    /// Sends what is due, reads what is there. Call again at the next tick.
    pub(crate) fn turn(&mut self, now: Instant, buffer: &mut [u8]) {
        if !self.is_gone {
            self.is_gone = match self.open() {
                Ok(true) => {
                    let is_refused = self.send(now).is_err();
                    // What it was answered last may say why.
                    self.listen(buffer).is_err() || is_refused
                }
                Ok(false) => false,
                Err(_) => true,
            };
        }
    }

    /// Sends what comes first; whether all of it is sent.
    fn greet(&mut self) -> io::Result<bool> {
        while !self.greeting.is_empty() {
            match self.stream.write(&self.greeting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.greeting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_too_early(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether the steps before the protocol are taken.
    fn open(&mut self) -> io::Result<bool> {
        if let Some(opening) = &mut self.opening {
            match opening.drive(&mut self.stream) {
                Ok(true) => self.opening = None,
                Ok(false) => return Ok(false),
                Err(error) if is_too_early(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn send(&mut self, now: Instant) -> io::Result<()> {
        if !self.greet()? {
            return Ok(());
        }
        let mut allowed = self.pace.allowed(now);
        // A line may be longer than one tick's share; it goes out whole, and the pace catches up later.
        while allowed > 0 || self.offset > 0 {
            if self.offset == 0 {
                self.line.set_number(self.published + 1);
            }
            match self.stream.write(&self.line.bytes()[self.offset..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.pace.take(written);
                    allowed = allowed.saturating_sub(written);
                    self.offset += written;
                    if self.offset == self.line.bytes().len() {
                        self.offset = 0;
                        self.published += 1;
                    }
                }
                Err(error) if is_too_early(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn listen(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..MOST_CALLS_PER_TURN {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => keep_first_words(&mut self.first_words, &buffer[..len]),
                Err(error) if is_too_early(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether there is only no room yet, or no connection.
fn is_too_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
