//! TLS between a client of the probe and the server.
//!
//! Owns a stream that hides the records. A client that is slow under TLS reads nothing of the
//! connection below either: what counts is the TCP window.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use rustls::ClientConnection;

use crate::probe::clients::opening::Greet;
use crate::probe::driver::socket::ClientStream;
use crate::probe::plan::Plan;
use crate::probe::trust::Tls;

/// A stream under TLS; blocks if and only if the one below does.
#[derive(Debug)]
pub(crate) struct TlsStream<T> {
    below: T,
    /// `None` where the plan wants no TLS, or a session could not be made.
    session: Option<Box<ClientConnection>>,
}

impl<T: Read + Write> TlsStream<T> {
    pub(crate) fn new(below: T, tls: Option<&Tls>) -> Self {
        let session = tls.and_then(|tls| tls.session().ok());
        Self {
            below,
            session: session.map(Box::new),
        }
    }

    /// Gives the stream below what waits for it.
    fn push(session: &mut ClientConnection, below: &mut T) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(below)?;
        }
        Ok(())
    }

    /// Takes records off the stream below; 0 at its end.
    fn pull(session: &mut ClientConnection, below: &mut T) -> io::Result<usize> {
        let len = session.read_tls(below)?;
        if let Err(error) = session.process_new_packets() {
            // The server learns why.
            let _ = Self::push(session, below);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(len)
    }
}

impl<T: Read + Write> Read for TlsStream<T> {
    /// Fills `buffer` as far as there is something, so that less than a full buffer means that the
    /// socket is empty. An end without close_notify is an end: the protocol knows whether all came.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut filled = 0;
        while filled < buffer.len() {
            match session.reader().read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(len) => {
                    filled += len;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match Self::pull(session, &mut self.below) {
                Ok(_) => {}
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
            // Answers of TLS itself, such as to a key update.
            let _ = Self::push(session, &mut self.below);
        }
        Ok(filled)
    }
}

impl<T: Read + Write> Write for TlsStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut written = 0;
        while written < bytes.len() {
            match Self::push(session, &mut self.below) {
                Ok(()) => {}
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
            match session.writer().write(&bytes[written..])? {
                0 => break,
                taken => written += taken,
            }
        }
        // What the socket does not take now is pushed by the next write, read or flush.
        let _ = Self::push(session, &mut self.below);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => Self::push(session, &mut self.below),
            None => Ok(()),
        }
    }
}

impl<T: Read + Write> Greet for TlsStream<T> {
    fn write_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.below.write(bytes)
    }

    fn handshake(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.session else {
            return Err(io::Error::other("TLS could not be set up"));
        };
        while session.is_handshaking() {
            Self::push(session, &mut self.below)?;
            if session.is_handshaking() && Self::pull(session, &mut self.below)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Self::push(session, &mut self.below)
    }
}

impl ClientStream for TlsStream<TcpStream> {
    fn over(tcp: TcpStream, plan: &Plan) -> Self {
        Self::new(tcp, plan.tls.as_ref())
    }

    fn tcp(&self) -> &TcpStream {
        &self.below
    }
}
