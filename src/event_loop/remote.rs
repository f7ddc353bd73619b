//! What other threads may ask of an event loop.
//!
//! Owns the flags, and the waker that ends a wait. Refuses to act: the loop
//! takes the flags and hands them to the engine.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::warn;
use mio::{Registry, Token, Waker};

use crate::engine::{Question, Reply, Report};
use crate::error::ServerError;
use crate::limits::Limits;

/// Reaches an event loop from another thread. Clone it freely.
#[derive(Clone, Debug)]
pub struct Remote {
    waker: Arc<Waker>,
    flags: Arc<Flags>,
}

#[derive(Default)]
struct Flags {
    stop: AtomicBool,
    /// A stop was asked for at any time.
    is_stopping: AtomicBool,
    hand_over: AtomicBool,
    wake: AtomicBool,
    tell_shadow: AtomicBool,
    asked: AtomicBool,
    reload: Mutex<Option<Reload>>,
    questions: Mutex<Vec<(Question, Reply)>>,
}

/// Hears that limits are in force, or why they are not.
pub(super) type Done = Box<dyn FnOnce(Result<(), ServerError>) + Send>;

/// Limits that another thread wants in force.
pub(super) struct Reload {
    pub(super) limits: Limits,
    pub(super) done: Done,
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").finish_non_exhaustive()
    }
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
        self.flags.is_stopping.store(true, Ordering::Release);
        self.flags.stop.store(true, Ordering::Release);
        self.ring();
    }

    /// Asks the server to stop as [`stop`](Self::stop) does, and to leave the
    /// connections that wait to another process, which accepts on the same
    /// listening sockets. Clients are served until they end, for at most
    /// [`Limits::stop_timeout`](crate::Limits).
    pub fn hand_over(&self) {
        self.flags.is_stopping.store(true, Ordering::Release);
        self.flags.is_stopping.store(true, Ordering::Release);
        self.flags.hand_over.store(true, Ordering::Release);
        self.ring();
    }

    /// Has [`Service::woken`](crate::engine::Service::woken) called soon, once
    /// for any number of calls.
    pub fn wake(&self) {
        self.flags.wake.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether [`stop`](Self::stop) or [`hand_over`](Self::hand_over) was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.flags.is_stopping.load(Ordering::Acquire)
    }

    /// Asks a server that is [watched](crate::EventLoop::watch). `reply` gets
    /// the answer after a few turns, on the thread of the loop: it must not wait.
    pub fn ask(&self, question: Question, reply: impl FnOnce(Report) + Send + 'static) {
        if let Ok(mut questions) = self.flags.questions.lock() {
            questions.push((question, Box::new(reply)));
        }
        self.flags.asked.store(true, Ordering::Release);
        self.ring();
    }

    /// Puts other limits in force, for clients that are connected too: a client
    /// whose time becomes shorter has all of it once more, and where more than
    /// [`TOGETHER_CLIENTS`](crate::limits::TOGETHER_CLIENTS) would go together
    /// they go within a second such time. What belongs to sockets stays
    /// ([`Limits::while_running`]). Then
    /// [`Service::reloaded`](crate::Service::reloaded) is called, and `done`, on
    /// the thread of the loop: it must not wait. Of several calls that come
    /// before a turn the last one counts, and the `done` of the others is dropped.
    ///
    /// `done` gets an error, and nothing changes, if the limits contradict each
    /// other.
    pub fn reload(&self, limits: Limits, done: impl FnOnce(Result<(), ServerError>) + Send + 'static) {
        let done = Box::new(done);
        *self.reload_slot() = Some(Reload { limits, done });
        self.ring();
    }

    /// The limits that somebody wants in force. Threads hold the lock for a move.
    pub(super) fn take_reload(&self) -> Option<Reload> {
        self.reload_slot().take()
    }

    fn reload_slot(&self) -> MutexGuard<'_, Option<Reload>> {
        self.flags.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what shadow mode recommends written into the log.
    pub fn tell_shadow(&self) {
        self.flags.tell_shadow.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether that was asked for since this was last called.
    pub(super) fn take_tell_shadow(&self) -> bool {
        self.flags.tell_shadow.swap(false, Ordering::AcqRel)
    }

    /// Whether somebody has asked something that was not taken yet.
    pub(super) fn is_asked(&self) -> bool {
        self.flags.asked.load(Ordering::Relaxed)
    }

    /// What was asked. Nothing while another thread adds to it: the loop does
    /// not wait for that thread, but comes back.
    pub(super) fn take_questions(&self) -> Vec<(Question, Reply)> {
        let Ok(mut questions) = self.flags.questions.try_lock() else {
            return Vec::new();
        };
        self.flags.asked.store(false, Ordering::Release);
        std::mem::take(&mut questions)
    }

    /// Whether a stop was asked for since this was last called.
    pub(super) fn take_stop(&self) -> bool {
        self.flags.stop.swap(false, Ordering::AcqRel)
    }

    /// Whether handing over was asked for since this was last called.
    pub(super) fn take_hand_over(&self) -> bool {
        self.flags.hand_over.swap(false, Ordering::AcqRel)
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
