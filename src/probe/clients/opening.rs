//! What a client says and waits for before its protocol begins, such as a greeting or a login.
//!
//! Generic over the stream; knows no clock. The protocol begins at the byte after the last match.

use std::io::{self, Read, Write};
use std::sync::Arc;

use regex::bytes::Regex;

use crate::probe::printable::printable;

/// One step before the protocol begins; steps are taken in order.
#[derive(Debug, Clone)]
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Read until this matches what came since the last match.
    Expect(Regex),
}

/// What came without a match is refused from here on.
const MOST_UNMATCHED_BYTES: usize = 64 << 10;
/// One read.
const READ_BYTES: usize = 4 << 10;

/// A stream on which a client begins.
pub(crate) trait Greet: Read + Write {
    /// Sends bytes that come before all else, TLS included.
    fn write_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    /// Does what the stream itself needs before it carries anything.
    fn handshake(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Greet for std::net::TcpStream {}

/// How far one client has come with its steps.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Sent before all steps, not yet sent.
    header: Vec<u8>,
    steps: Arc<[Step]>,
    at: usize,
    /// Bytes of the present step that were sent.
    sent: usize,
    /// What came and was not matched.
    received: Vec<u8>,
}

impl Opening {
    pub(crate) fn new(header: Vec<u8>, steps: Arc<[Step]>) -> Self {
        Self {
            header,
            steps,
            at: 0,
            sent: 0,
            received: Vec::new(),
        }
    }

    /// Goes as far as the stream lets it; whether all steps are done. If not, call again once
    /// there is something to read or room to write.
    ///
    /// # Errors
    ///
    /// What the stream says, an end before the last step, or too much without a match.
    pub(crate) fn drive(&mut self, stream: &mut impl Greet) -> io::Result<bool> {
        match self.take_steps(stream) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn take_steps(&mut self, stream: &mut impl Greet) -> io::Result<()> {
        while !self.header.is_empty() {
            let written = retry(|| stream.write_header(&self.header))?;
            self.header.drain(..written);
        }
        stream.handshake()?;
        while let Some(step) = self.steps.get(self.at) {
            match step {
                Step::Send(bytes) => {
                    while self.sent < bytes.len() {
                        self.sent += retry(|| stream.write(&bytes[self.sent..]))?;
                    }
                }
                Step::Expect(pattern) => loop {
                    if let Some(found) = pattern.find(&self.received) {
                        self.received.drain(..found.end());
                        break;
                    }
                    read_more(stream, &mut self.received)?;
                },
            }
            self.sent = 0;
            self.at += 1;
        }
        Ok(())
    }

    /// What came after the last match: the beginning of the protocol.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        self.received
    }

    /// What it waits for, in words.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let Step::Expect(pattern) = self.steps.get(self.at)? else {
            return Some("the steps before the protocol".to_owned());
        };
        let came = match &self.received[..] {
            [] => "nothing came".to_owned(),
            came => format!("it sent \"{}\"", printable(&String::from_utf8_lossy(came))),
        };
        Some(format!("`{pattern}`: {came}"))
    }
}

fn read_more(stream: &mut impl Read, received: &mut Vec<u8>) -> io::Result<()> {
    if received.len() > MOST_UNMATCHED_BYTES {
        return Err(io::Error::other("64 KiB came without a match"));
    }
    let mut buffer = [0; READ_BYTES];
    match retry(|| stream.read(&mut buffer))? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        len => {
            received.extend_from_slice(&buffer[..len]);
            Ok(())
        }
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Gives what is there, piece by piece, and takes everything.
    #[derive(Default)]
    struct Peer {
        pieces: VecDeque<&'static [u8]>,
        taken: Vec<u8>,
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.pieces.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.taken.extend_from_slice(&bytes[..1]);
            Ok(1)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Greet for Peer {}

    fn smtp() -> Opening {
        let steps = [
            Step::Expect(Regex::new("^220 .*\r\n").unwrap()),
            Step::Send(b"EHLO x\r\n".to_vec()),
            Step::Expect(Regex::new("250 ").unwrap()),
        ];
        Opening::new(b"PROXY\r\n".to_vec(), steps.into())
    }

    #[test]
    fn steps_are_taken_in_order_and_the_rest_belongs_to_the_protocol() {
        let mut peer = Peer::default();
        let mut opening = smtp();
        assert!(!opening.drive(&mut peer).unwrap());
        assert_eq!(peer.taken, b"PROXY\r\n");
        peer.pieces = [&b"220 rea"[..], b"dy\r\n"].into();
        assert!(!opening.drive(&mut peer).unwrap());
        assert_eq!(peer.taken, b"PROXY\r\nEHLO x\r\n");
        assert!(opening.waits_for().unwrap().contains("`250 `: nothing came"));
        peer.pieces = [&b"250-a\r\n250 okhello"[..]].into();
        assert!(opening.drive(&mut peer).unwrap());
        assert_eq!(opening.into_rest(), b"okhello");
    }

    #[test]
    fn an_end_before_the_last_step_is_an_error() {
        let mut opening = smtp();
        let mut peer = Peer {
            pieces: [&b""[..]].into(),
            ..Peer::default()
        };
        assert_eq!(
            opening.drive(&mut peer).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
