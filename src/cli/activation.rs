//! Socket activation: listening sockets that the service manager made
//! (sd_listen_fds(3)).
//!
//! Owns what is believed of the environment. Refuses sockets that clients
//! cannot connect to over TCP.

use std::env;
use std::net::TcpListener;

use highwater::limits::MAX_PASSED_SOCKETS;
use listenfd::ListenFd;
use socket2::SockRef;

use super::sockets::Sockets;

/// The sockets that were passed to this very process (`LISTEN_PID`), in the
/// order of the unit file. One that is named `admin` (`LISTEN_FDNAMES`) is for
/// operators; clients are served on all others. Call this before threads are
/// started.
///
/// # Errors
///
/// One sentence, if a socket cannot be accepted from or the count makes no
/// sense.
pub(crate) fn passed_sockets() -> Result<Sockets, String> {
    let is_ours = |pid: String| pid.parse() == Ok(std::process::id());
    if !env::var("LISTEN_PID").is_ok_and(is_ours) {
        return Ok(Sockets::default());
    }
    let typed = env::var("LISTEN_FDS").unwrap_or_default();
    let count: usize = typed
        .parse()
        .ok()
        .filter(|&count| count <= MAX_PASSED_SOCKETS)
        .ok_or_else(|| {
            format!(
                "LISTEN_FDS={typed}: it must be the number of passed sockets, at most {MAX_PASSED_SOCKETS}"
            )
        })?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Sockets::default();
    for index in 0..count {
        let listener = listener(&mut passed, index).map_err(|why| refusal(index, &why))?;
        sockets.add(names.next().unwrap_or_default(), listener);
    }
    Ok(sockets)
}

fn listener(passed: &mut ListenFd, index: usize) -> Result<TcpListener, String> {
    let listener = passed
        .take_tcp_listener(index)
        .map_err(|error| error.to_string())?
        .ok_or("it is missing")?;
    match SockRef::from(&listener).is_listener() {
        Ok(true) => Ok(listener),
        Ok(false) => Err("it does not listen; write Accept=no in the socket unit".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn refusal(index: usize, why: &str) -> String {
    format!(
        "socket {} of those that the service manager passed cannot be accepted from: {why}; \
         the socket unit must have ListenStream=ADDRESS:PORT",
        index + 1,
    )
}
