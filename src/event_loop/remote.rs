//! What other threads may ask of an event loop.
//!
//! Owns the flags, and the waker that ends a wait. Refuses to act: the loop
//! takes the flags and hands them to the engine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::warn;
use mio::{Registry, Token, Waker};

/// Reaches an event loop from another thread. Clone it freely.
#[derive(Clone, Debug)]
pub struct Remote {
    waker: Arc<Waker>,
    flags: Arc<Flags>,
}

#[derive(Debug, Default)]
struct Flags {
    stop: AtomicBool,
    wake: AtomicBool,
}

impl Remote {
    /// A handle whose calls arrive as events with this token.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            waker: Arc::new(Waker::new(registry, token)?),
            flags: Arc::default(),
        })
    }

    /// Asks the server to stop in order, as SIGTERM does.
    pub fn stop(&self) {
        self.flags.stop.store(true, Ordering::Release);
        self.ring();
    }

    /// Has [`Service::woken`](crate::engine::Service::woken) called soon, once
    /// for any number of calls.
    pub fn wake(&self) {
        self.flags.wake.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether a stop was asked for since this was last called.
    pub(super) fn take_stop(&self) -> bool {
        self.flags.stop.swap(false, Ordering::AcqRel)
    }

    /// Whether a wake was asked for since this was last called.
    pub(super) fn take_wake(&self) -> bool {
        self.flags.wake.swap(false, Ordering::AcqRel)
    }

    fn ring(&self) {
        if let Err(error) = self.waker.wake() {
            warn!("cannot wake the event loop: {error}");
        }
    }
}
