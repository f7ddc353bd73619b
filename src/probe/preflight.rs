//! One exchange before the probe: is there a server, and does it speak the protocol?
//!
//! Blocking, with timeouts. Turns an unreachable or unfit server into one clear
//! line instead of a table full of noughts. Also sees to it that there are descriptors enough.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::ProbeError;
use super::pattern::Pattern;
use super::plan::{Plan, Protocol};
use super::wire::Wire;
use super::wires::Wires;

/// How long the first client waits for its connection, and then for its answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Descriptors beside those of the clients: standard streams, epoll, `/proc`, the plot.
const OTHER_DESCRIPTORS: u64 = 32;

/// Sends one message and waits for its answer.
pub(crate) fn try_one_exchange(plan: &Plan, wires: &Wires) -> Result<(), ProbeError> {
    let address = plan.address;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|source| ProbeError::Unreachable { address, source })?;
    let timeouts = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    timeouts.map_err(ProbeError::system("set the timeouts of a socket"))?;
    if matches!(plan.protocol, Protocol::Push { .. }) {
        return Ok(());
    }
    // A pattern that no client of the probe uses.
    let mut wire = wires.healthy(Pattern::new(u64::MAX - 1));
    let mut message = vec![0; usize::try_from(wire.message_bytes()).unwrap_or(usize::MAX)];
    wire.fill(0, &mut message);
    let unanswered = |error: io::Error| unanswered(address, message.len(), &error);
    for chunk in message.chunks(16 << 10) {
        stream.write_all(chunk).map_err(unanswered)?;
        read_what_is_due(
            &mut stream,
            &mut wire,
            chunk.len() == message.len(),
            address,
            message.len(),
        )?;
    }
    while wire.all_answered(message.len() as u64) == Some(false) {
        read_what_is_due(&mut stream, &mut wire, true, address, message.len())?;
    }
    Ok(())
}

/// One read; without `wait` only what is there already.
fn read_what_is_due(
    stream: &mut TcpStream,
    wire: &mut Wire,
    wait: bool,
    address: SocketAddr,
    sent: usize,
) -> Result<(), ProbeError> {
    let mut buffer = [0; 16 << 10];
    let unblock = |on: bool| {
        stream
            .set_nonblocking(on)
            .map_err(ProbeError::system("switch a socket"))
    };
    if !wait {
        unblock(true)?;
    }
    let read = (&*stream).read(&mut buffer);
    if !wait {
        unblock(false)?;
    }
    match read {
        Ok(0) => Err(ProbeError::ClosedAtOnce {
            address,
            how: "end of file",
        }),
        Ok(len) => match wire.receive(&buffer[..len]) {
            Ok(_) => Ok(()),
            Err(corruption) => Err(ProbeError::WrongAnswer {
                address,
                why: corruption.why,
            }),
        },
        Err(error) if !wait && error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(unanswered(address, sent, &error)),
    }
}

fn unanswered(address: SocketAddr, sent: usize, error: &io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ProbeError::NoAnswer {
            address,
            sent: format!("{sent} bytes"),
            waited: PATIENCE,
        },
        _ => ProbeError::ClosedAtOnce {
            address,
            how: "connection reset",
        },
    }
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
