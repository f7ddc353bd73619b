//! The addresses of a name. The resolver of the system blocks, so it has a thread of its own and
//! an interrupt need not wait for it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use highwater::probe::{ProbeError, ProgressSink};

/// Between two looks at whether the probe was interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All addresses of `target`, in the order of the system.
///
/// # Errors
///
/// When the name leads nowhere, does so for longer than `timeout`, or the probe is interrupted.
pub(super) fn resolve(
    target: &str,
    timeout: Duration,
    sink: &dyn ProgressSink,
) -> Result<Vec<SocketAddr>, ProbeError> {
    let (sender, receiver) = channel();
    let name = target.to_owned();
    let thread = std::thread::Builder::new().name("resolver".into());
    let started = thread.spawn(move || {
        let resolved = name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let _ = sender.send(resolved);
    });
    let refuse = |source| ProbeError::NoAddress {
        target: target.to_owned(),
        source,
    };
    started.map_err(|error| refuse(Some(error)))?;
    let mut waited = Duration::ZERO;
    loop {
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(Ok(addresses)) if addresses.is_empty() => return Err(refuse(None)),
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => return Err(refuse(Some(error))),
            Err(RecvTimeoutError::Disconnected) => return Err(refuse(None)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        waited += LOOK_EVERY;
        if sink.is_interrupted() {
            return Err(ProbeError::Interrupted);
        }
        if waited >= timeout {
            return Err(refuse(Some(std::io::ErrorKind::TimedOut.into())));
        }
    }
}
