//! Where a server listens: on sockets that the service manager passed, on those
//! of the server that it replaces, or on addresses that nobody listens on yet.
//!
//! Refuses to accept: the event loop does.

use std::net::SocketAddr;
use std::path::Path;

use log::info;

use super::sockets::Sockets;
use super::take_over::{self, Predecessor};

/// What to listen on.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Sockets that listen already.
    pub(crate) sockets: Sockets,
    /// Addresses to listen on beside them.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The server that waits for us to accept.
    pub(crate) predecessor: Option<Predecessor>,
    /// The service manager keeps the sockets when this server has ended.
    pub(crate) is_activated: bool,
}

impl Listening {
    /// Sockets that were passed come first; they leave `addresses` without a
    /// use. Else a server that answers at `path` passes what it has of
    /// `addresses`, and of `admin` for operators.
    ///
    /// # Errors
    ///
    /// One sentence: options and sockets do not fit together, or the server at
    /// `path` gives no usable answer.
    pub(crate) fn find(
        passed: Sockets,
        mut addresses: Vec<SocketAddr>,
        admin: Option<SocketAddr>,
        path: Option<&Path>,
    ) -> Result<Self, String> {
        let count = passed.named().count();
        if count > 0 && path.is_some() {
            return Err(ALREADY_KEPT.to_owned());
        }
        if !passed.admin.is_empty() && admin.is_none() {
            return Err(NO_ADMIN.to_owned());
        }
        let is_activated = !passed.serving.is_empty();
        if is_activated {
            info!(
                event = "activated";
                "{count} listening sockets come from the service manager, in place of --host and --port"
            );
            addresses.clear();
        }
        let mut predecessor = path.map(take_over::find).transpose()?.flatten();
        let mut admin: Vec<_> = admin.into_iter().collect();
        let taken = predecessor
            .as_mut()
            .map(|predecessor| predecessor.take(&mut addresses, &mut admin));
        Ok(Self {
            sockets: taken.unwrap_or(passed),
            addresses,
            predecessor,
            is_activated,
        })
    }
}

const ALREADY_KEPT: &str = "--take-over has nothing to take: the service manager passes the listening sockets, \
                            and keeps them over a restart; leave it out";

const NO_ADMIN: &str = "the service manager passes a socket named `admin`, and there is no --admin: add it, \
                        or take FileDescriptorName=admin out of the socket unit";
