//! Listening sockets by what they are for, and the names that say so to other
//! processes.
//!
//! Refuses to accept, and to know where the sockets come from.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};

/// The name of sockets on which clients are served.
const SERVING: &str = "listen";

/// The name of sockets on which operators are answered.
const ADMIN: &str = "admin";

/// Sockets that listen.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Clients are served on these.
    pub(crate) serving: Vec<TcpListener>,
    /// Operators are answered on these.
    pub(crate) admin: Vec<TcpListener>,
}

impl Sockets {
    /// Adds a socket of a service manager: any name but `admin` is for clients.
    pub(crate) fn add(&mut self, name: &str, listener: TcpListener) {
        if name == ADMIN {
            self.admin.push(listener);
        } else {
            self.serving.push(listener);
        }
    }

    /// Adds a socket of another server. A newer one may have sockets for
    /// purposes that we do not know; they are closed.
    pub(crate) fn add_known(&mut self, name: &str, listener: TcpListener) {
        if matches!(name, SERVING | ADMIN) {
            self.add(name, listener);
        }
    }

    /// All sockets with their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        let named = |name| move |listener| (name, TcpListener::as_fd(listener));
        let admin = self.admin.iter().map(named(ADMIN));
        self.serving.iter().map(named(SERVING)).chain(admin)
    }
}
