//! One exchange before the probe: is there a server, and does it speak the protocol?
//!
//! Blocking, with timeouts. Turns an unreachable or unfit server into one clear
//! line instead of a table full of noughts, and learns what an HTTP server
//! answers. Also sees to it that there are descriptors enough.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::probe::error::ProbeError;
use crate::probe::plan::Plan;
use crate::probe::printable::printable;
use crate::probe::protocol::{Conversation, Conversations, FirstExchange};

/// How long the first client waits for its connection, and then for each part of its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a server that need not answer is given to close a connection that it does not want.
const GLANCE: Duration = Duration::from_millis(200);
/// One read or write, small so that neither side can block on the other.
const PIECE_BYTES: usize = 16 << 10;
/// Descriptors beside those of the clients: standard streams, epoll, `/proc`, the plot.
const OTHER_DESCRIPTORS: u64 = 32;

/// Sees whether the server can be probed, and makes the conversations of its clients.
pub(crate) fn first_exchange(plan: &Plan) -> Result<Box<dyn Conversations>, ProbeError> {
    plan.protocol.first_exchange(&mut FirstClients {
        address: plan.address,
        message_bytes: plan.size,
    })
}

/// Clients that come before the probe, one for each exchange.
struct FirstClients {
    address: SocketAddr,
    message_bytes: usize,
}

impl FirstExchange for FirstClients {
    fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    fn exchange(&mut self, conversation: &mut dyn Conversation, message: &str) -> Result<(), ProbeError> {
        FirstClient::connect(self.address)?.exchange(conversation, message)
    }
}

/// One client that connects, asks once, and is gone.
struct FirstClient {
    address: SocketAddr,
    stream: TcpStream,
}

impl FirstClient {
    fn connect(address: SocketAddr) -> Result<Self, ProbeError> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .map_err(|source| ProbeError::Unreachable { address, source })?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(ProbeError::system("set the timeouts of a socket"))?;
        Ok(Self { address, stream })
    }

    /// Sends one message and reads until it is answered.
    fn exchange(&mut self, conversation: &mut dyn Conversation, message: &str) -> Result<(), ProbeError> {
        let end = conversation.due_after(0);
        let mut sent = 0;
        let mut piece = vec![0; PIECE_BYTES];
        while sent < end || conversation.all_answered(end) == Some(false) {
            if sent < end {
                let len = (end - sent).min(PIECE_BYTES as u64) as usize;
                conversation.fill(sent, &mut piece[..len]);
                let written = self.stream.write_all(&piece[..len]);
                written.map_err(|error| self.unanswered(message, &error))?;
                sent += len as u64;
            }
            let wait = sent == end;
            let can_tell = conversation.all_answered(end).is_some();
            if can_tell && !self.read_some(conversation, &mut piece, wait, message)? {
                return Ok(());
            }
        }
        if conversation.all_answered(end).is_none() {
            return self.listen_for_a_refusal();
        }
        Ok(())
    }

    /// One read; without `wait` only what is there already. Whether there may be more.
    fn read_some(
        &mut self,
        conversation: &mut dyn Conversation,
        piece: &mut [u8],
        wait: bool,
        message: &str,
    ) -> Result<bool, ProbeError> {
        self.stream
            .set_nonblocking(!wait)
            .map_err(ProbeError::system("switch a socket"))?;
        let read = retry(|| self.stream.read(piece));
        self.stream
            .set_nonblocking(false)
            .map_err(ProbeError::system("switch a socket"))?;
        match read {
            Ok(0) if conversation.end_of_stream() > 0 => Ok(false),
            Ok(0) => Err(self.closed("end of file")),
            Ok(len) => match conversation.receive(&piece[..len]) {
                Ok(_) => Ok(true),
                Err(corruption) => Err(ProbeError::WrongAnswer {
                    address: self.address,
                    why: printable(&corruption.why),
                }),
            },
            Err(error) if !wait && error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(self.unanswered(message, &error)),
        }
    }

    /// A server that need not answer may still close a connection that it does not want.
    fn listen_for_a_refusal(&mut self) -> Result<(), ProbeError> {
        self.stream
            .set_read_timeout(Some(GLANCE))
            .map_err(ProbeError::system("set the timeouts of a socket"))?;
        let mut piece = [0; PIECE_BYTES];
        match retry(|| self.stream.read(&mut piece)) {
            Ok(0) => Err(self.closed("end of file")),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => Ok(()),
            Err(_) => Err(self.closed("connection reset")),
        }
    }

    fn unanswered(&self, message: &str, error: &io::Error) -> ProbeError {
        if is_timeout(error) {
            return ProbeError::NoAnswer {
                address: self.address,
                sent: message.to_owned(),
                waited: PATIENCE,
            };
        }
        self.closed("connection reset")
    }

    fn closed(&self, how: &'static str) -> ProbeError {
        ProbeError::ClosedAtOnce {
            address: self.address,
            how,
        }
    }
}

/// A socket with a timeout does not go on by itself after a signal (signal(7)).
fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Raises this process's descriptor limit as far as it may, and sees whether that is enough.
pub(crate) fn ensure_descriptors(clients: usize) -> Result<(), ProbeError> {
    let needed = clients as u64 + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let allowed = |current: Option<u64>| current.is_none_or(|current| current >= needed);
    if allowed(limit.current) {
        return Ok(());
    }
    if allowed(limit.maximum) {
        let raised = Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        };
        return setrlimit(Resource::Nofile, raised).map_err(|errno| ProbeError::System {
            doing: "raise the descriptor limit",
            source: errno.into(),
        });
    }
    Err(ProbeError::TooManyClients {
        clients,
        needed,
        allowed: limit.maximum.unwrap_or(u64::MAX),
    })
}
