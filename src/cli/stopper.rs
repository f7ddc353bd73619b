//! The end of a server: by a signal, or because a successor accepts.
//!
//! Owns the copies of the listening sockets that a successor may get: a socket
//! listens until its last copy is closed, so they go first. Refuses to know who
//! asks.

use std::sync::{Arc, Mutex, PoisonError};

use highwater::Remote;

use super::notify::Notify;
use super::sockets::Sockets;

/// Ends the server. Clones end the same one.
#[derive(Clone, Debug)]
pub(crate) struct Stopper {
    remote: Remote,
    /// The loop that answers operators.
    admin: Option<Remote>,
    notify: Notify,
    /// The service manager keeps the sockets, and starts the next server on
    /// them.
    is_activated: bool,
    /// `None` once the server stops.
    sockets: Arc<Mutex<Option<Sockets>>>,
}

impl Stopper {
    /// Ends the server that `remote` reaches. `copies` of its sockets may go
    /// to a successor.
    pub(crate) fn new(
        remote: Remote,
        admin: Option<Remote>,
        notify: Notify,
        is_activated: bool,
        copies: Sockets,
    ) -> Self {
        Self {
            remote,
            admin,
            notify,
            is_activated,
            sockets: Arc::new(Mutex::new(Some(copies))),
        }
    }

    /// Has shadow mode tell what it recommends.
    pub(crate) fn tell_shadow(&self) {
        self.remote.tell_shadow();
    }

    /// Stops in order.
    pub(crate) fn stop(&self) {
        self.take_sockets();
        self.notify.stopping("stopping");
        if self.is_activated {
            self.remote.hand_over();
        } else {
            self.remote.stop();
        }
    }

    /// Stops in favour of a successor that accepts on the same sockets. Answers
    /// `false`, and does nothing, if the server stops already.
    pub(crate) fn hand_over(&self) -> bool {
        let is_first = self.take_sockets().is_some();
        if is_first {
            self.notify.stopping("stopping: a successor accepts");
            self.remote.hand_over();
            // Operators ask the successor from now on.
            if let Some(admin) = &self.admin {
                admin.hand_over();
            }
        }
        is_first
    }

    /// Calls `send` with the listening sockets; `None` if the server stops.
    pub(crate) fn with_sockets<T>(&self, send: impl FnOnce(&Sockets) -> T) -> Option<T> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.as_ref().map(send)
    }

    fn take_sockets(&self) -> Option<Sockets> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.take()
    }
}
