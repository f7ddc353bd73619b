//! One exchange before the probe: is there a server, and does it speak the protocol?
//!
//! Blocking, with timeouts. Turns an unreachable or unfit server into one clear
//! line instead of a table full of noughts, and learns what an HTTP server
//! answers. Also sees to it that there are descriptors enough.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::probe::error::ProbeError;
use crate::probe::plan::{Plan, Protocol};
use crate::probe::protocol::http::{Body, HttpShared, HttpWire};
use crate::probe::protocol::pattern::Pattern;
use crate::probe::protocol::wire::Wire;
use crate::probe::protocol::wires::Wires;

/// How long the first client waits for its connection, and then for each part of its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a server that need not answer is given to close a connection that it does not want.
const GLANCE: Duration = Duration::from_millis(200);
/// One read or write, small so that neither side can block on the other.
const PIECE_BYTES: usize = 16 << 10;
/// Descriptors beside those of the clients: standard streams, epoll, `/proc`, the plot.
const OTHER_DESCRIPTORS: u64 = 32;

/// Sees whether the server can be probed; completes the wires by what it answers.
pub(crate) fn meet(plan: &Plan, wires: &mut Wires) -> Result<(), ProbeError> {
    if let Protocol::Push { send, .. } = &plan.protocol {
        return listen_for_a_refusal(plan.address, send);
    }
    if let Some(shared) = wires.http_mut() {
        return learn_http(plan.address, shared);
    }
    // A pattern that no client of the probe uses.
    let mut wire = wires.healthy(Pattern::new(u64::MAX - 1));
    let what = format!("{} bytes", wire_bytes(&wire));
    Acquaintance::make(plan.address)?.exchange(&mut wire, &what)
}

fn wire_bytes(wire: &Wire) -> u64 {
    wire.due_after(0)
}

/// Fetches the document twice: what is the same both times must stay the same.
fn learn_http(address: SocketAddr, shared: &mut HttpShared) -> Result<(), ProbeError> {
    let request = String::from_utf8_lossy(&shared.request).into_owned();
    let line = request
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(" HTTP/1.1")
        .to_owned();
    let first = fetch(address, shared, &line)?;
    let second = fetch(address, shared, &line)?;
    shared.answer_bytes = first.1;
    shared.body = (first.0 == second.0).then(|| Arc::new(first.0));
    Ok(())
}

fn fetch(address: SocketAddr, shared: &HttpShared, line: &str) -> Result<(Body, u64), ProbeError> {
    let mut wire = Wire::Http(Box::new(HttpWire::learning(shared.clone())));
    let fetched = Acquaintance::make(address)?.exchange(&mut wire, line);
    fetched.map_err(|error| match error {
        ProbeError::WrongAnswer { address, why } => ProbeError::WrongAnswer {
            address,
            why: format!("{line} got {why}"),
        },
        other => other,
    })?;
    let received = wire.received();
    match wire {
        Wire::Http(wire) => Ok((wire.into_body(), received)),
        _ => Ok((Body::default(), received)),
    }
}

fn listen_for_a_refusal(address: SocketAddr, greeting: &[u8]) -> Result<(), ProbeError> {
    let mut acquaintance = Acquaintance::make(address)?;
    let stream = &mut acquaintance.stream;
    let sent = stream.write_all(greeting);
    sent.and_then(|()| stream.set_read_timeout(Some(GLANCE)))
        .map_err(|error| acquaintance.unanswered("its greeting", &error))?;
    let mut piece = [0; PIECE_BYTES];
    match retry(|| acquaintance.stream.read(&mut piece)) {
        Ok(0) => Err(acquaintance.closed("end of file")),
        Ok(_) => Ok(()),
        Err(error) if is_timeout(&error) => Ok(()),
        Err(_) => Err(acquaintance.closed("connection reset")),
    }
}

/// The first client.
struct Acquaintance {
    address: SocketAddr,
    stream: TcpStream,
}

impl Acquaintance {
    fn make(address: SocketAddr) -> Result<Self, ProbeError> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .map_err(|source| ProbeError::Unreachable { address, source })?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(ProbeError::system("set the timeouts of a socket"))?;
        Ok(Self { address, stream })
    }

    /// Sends one message and reads until it is answered.
    fn exchange(&mut self, wire: &mut Wire, what: &str) -> Result<(), ProbeError> {
        let end = wire_bytes(wire);
        let mut sent = 0;
        let mut piece = vec![0; PIECE_BYTES];
        while sent < end || wire.all_answered(end) == Some(false) {
            if sent < end {
                let len = (end - sent).min(PIECE_BYTES as u64) as usize;
                wire.fill(sent, &mut piece[..len]);
                let written = self.stream.write_all(&piece[..len]);
                written.map_err(|error| self.unanswered(what, &error))?;
                sent += len as u64;
            }
            self.read_some(wire, &mut piece, sent == end, what)?;
        }
        Ok(())
    }

    /// One read; without `wait` only what is there already.
    fn read_some(
        &mut self,
        wire: &mut Wire,
        piece: &mut [u8],
        wait: bool,
        what: &str,
    ) -> Result<(), ProbeError> {
        let switch = |error| ProbeError::System {
            doing: "switch a socket",
            source: error,
        };
        self.stream.set_nonblocking(!wait).map_err(switch)?;
        let read = retry(|| self.stream.read(piece));
        self.stream.set_nonblocking(false).map_err(switch)?;
        match read {
            Ok(0) => Err(self.closed("end of file")),
            Ok(len) => match wire.receive(&piece[..len]) {
                Ok(_) => Ok(()),
                Err(corruption) => Err(ProbeError::WrongAnswer {
                    address: self.address,
                    why: corruption.why,
                }),
            },
            Err(error) if !wait && error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(self.unanswered(what, &error)),
        }
    }

    fn unanswered(&self, what: &str, error: &io::Error) -> ProbeError {
        if is_timeout(error) {
            return ProbeError::NoAnswer {
                address: self.address,
                sent: what.to_owned(),
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
