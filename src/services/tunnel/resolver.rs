//! Looks up the addresses of a name repeatedly, on a thread of its own.
//!
//! Owns that thread and its schedule: once a minute, and sooner after an
//! address failed. Refuses to use the result; hands it over and wakes the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;

use log::error;

use crate::limits::{RESOLVE_INTERVAL, RESOLVE_SPACING};

/// The result of a look-up.
pub(super) type Found = io::Result<Vec<SocketAddr>>;

#[derive(Debug)]
pub(super) struct Resolver {
    requests: SyncSender<()>,
    found: Receiver<Found>,
}

impl Resolver {
    /// Starts a thread that calls `look_up` at once. Each result is announced
    /// by `ring` and fetched by [`take`](Self::take). The thread ends when this
    /// value is dropped.
    pub(super) fn start(
        look_up: impl Fn() -> Found + Send + 'static,
        ring: impl Fn() + Send + 'static,
    ) -> Self {
        let (requests, requested) = sync_channel(1);
        let (finder, found) = channel();
        let started = thread::Builder::new()
            .name("resolver".into())
            .spawn(move || look_up_for_ever(look_up, ring, &requested, &finder));
        if let Err(failure) = started {
            error!("names cannot be resolved: no thread for it: {failure}");
        }
        Self { requests, found }
    }

    /// Asks for a look-up before the minute is over, since an address failed.
    /// Does nothing while one is due already.
    pub(super) fn ask(&self) {
        let _ = self.requests.try_send(());
    }

    /// The latest result since the last call, if there is one.
    pub(super) fn take(&self) -> Option<Found> {
        self.found.try_iter().last()
    }
}

fn look_up_for_ever(
    look_up: impl Fn() -> Found,
    ring: impl Fn(),
    requested: &Receiver<()>,
    finder: &Sender<Found>,
) {
    loop {
        if finder.send(look_up()).is_err() {
            return;
        }
        ring();
        thread::sleep(RESOLVE_SPACING);
        if requested.recv_timeout(RESOLVE_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Longer than a busy machine takes for a look-up and its spacing.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_name_is_looked_up_at_once_and_again_only_when_asked() {
        let (rang, rings) = channel();
        let answer = || Ok(vec![SocketAddr::from(([127, 0, 0, 1], 80))]);
        let resolver = Resolver::start(answer, move || rang.send(()).unwrap());
        rings.recv_timeout(PATIENCE).unwrap();
        assert_eq!(resolver.take().unwrap().unwrap().len(), 1);
        assert!(resolver.take().is_none(), "each is handed over once");
        let unasked = rings.recv_timeout(2 * RESOLVE_SPACING);
        assert_eq!(unasked, Err(RecvTimeoutError::Timeout));
        resolver.ask();
        resolver.ask();
        rings.recv_timeout(PATIENCE).unwrap();
        assert!(resolver.take().is_some());
    }

    #[test]
    fn the_thread_ends_with_its_resolver() {
        let (rang, rings) = channel::<()>();
        let resolver = Resolver::start(|| Ok(vec![]), move || rang.send(()).unwrap());
        rings.recv_timeout(PATIENCE).unwrap();
        drop(resolver);
        assert_eq!(rings.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }
}
