//! The callers that are being answered: at most so many, and the latest always.
//!
//! Owns who has a seat. A caller that says nothing may be a program that hangs;
//! somebody who starts a successor after it must not wait until it is given up.
//! Refuses to talk with callers, but for the last word to one that loses its seat.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater::limits::MAX_TAKE_OVER_CALLERS;

use super::REFUSED;
use super::channel::Channel;

/// All callers with a seat; the first came first.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers {
    seated: Arc<Mutex<VecDeque<Caller>>>,
}

#[derive(Debug)]
struct Caller {
    channel: Arc<Channel>,
    /// It accepts, so nobody takes its seat any more.
    is_kept: bool,
}

/// The place of one caller, given up when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    callers: Callers,
    channel: Arc<Channel>,
}

impl Callers {
    /// Gives a caller a seat. If all are taken, whoever came first hears that it
    /// is refused, and loses its own.
    pub(super) fn seat(&self, channel: &Arc<Channel>) -> Seat {
        let mut seated = self.lock();
        if seated.len() >= MAX_TAKE_OVER_CALLERS
            && let Some(place) = seated.iter().position(|caller| !caller.is_kept)
            && let Some(first) = seated.remove(place)
        {
            let last_word = format!("{REFUSED}a later caller took its place");
            let _ = first.channel.send(&last_word, &[]);
            first.channel.hang_up();
        }
        seated.push_back(Caller {
            channel: Arc::clone(channel),
            is_kept: false,
        });
        Seat {
            callers: self.clone(),
            channel: Arc::clone(channel),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Caller>> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether a later caller has it.
    pub(super) fn is_lost(&self) -> bool {
        !self.callers.lock().iter().any(|caller| self.is_of(caller))
    }

    /// Keeps later callers from taking it: this one gets the sockets. `false` if
    /// it is lost already.
    pub(super) fn keep(&self) -> bool {
        let mut seated = self.callers.lock();
        let own = seated.iter_mut().find(|caller| self.is_of(caller));
        own.map(|caller| caller.is_kept = true).is_some()
    }

    fn is_of(&self, caller: &Caller) -> bool {
        Arc::ptr_eq(&self.channel, &caller.channel)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.callers.lock().retain(|caller| !self.is_of(caller));
    }
}
