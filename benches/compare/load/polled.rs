//! Clients that `highwater probe` does not have, driven by a poll of our own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::{Events, Poll, Registry};

use super::{EVENTS_A_WAIT, LONGEST_DRAIN, LONGEST_WAIT, STALL_FOR, Slice};
use crate::clock::now;

/// One kind of clients.
pub(super) trait Clients {
    /// Opens all clients.
    fn open(&mut self, registry: &Registry, server: SocketAddr) -> Result<(), String>;
    /// Makes every client busy.
    fn start(&mut self, registry: &Registry) -> Result<(), String>;
    /// Handles an event of one client.
    fn ready(&mut self, index: usize, registry: &Registry) -> Result<(), String>;
    /// Advances clients that need no event; returns whether there are more.
    fn go_on(&mut self) -> Result<bool, String>;
    /// Stops sending new messages.
    fn stop(&mut self);
    /// Stops reading, for ever.
    fn stop_reading(&mut self) -> Result<(), String> {
        Err("these clients cannot send without reading".into())
    }
    /// Whether everything sent has been answered.
    fn is_quiet(&self) -> bool;
    /// Work done since the last call.
    fn take_done(&mut self) -> u64;
    /// Times from sending to answer since the last call, in nanoseconds.
    fn take_latency(&mut self) -> Option<Histogram<u64>>;
}

/// All clients of one kind, and their poll.
pub(super) struct Polled {
    poll: Poll,
    events: Events,
    clients: Box<dyn Clients>,
}

impl Polled {
    pub(super) fn new(clients: Box<dyn Clients>) -> Result<Self, String> {
        Ok(Self {
            poll: Poll::new().map_err(|error| format!("no poll for the clients: {error}"))?,
            events: Events::with_capacity(EVENTS_A_WAIT),
            clients,
        })
    }

    pub(super) fn open(&mut self, server: SocketAddr) -> Result<(), String> {
        self.clients.open(self.poll.registry(), server)
    }

    pub(super) fn slice(&mut self, length: Duration) -> Result<Slice, String> {
        let begin = now();
        self.clients.start(self.poll.registry())?;
        let mut stopped = false;
        loop {
            self.turn()?;
            let elapsed = now() - begin;
            if !stopped && elapsed >= length {
                self.clients.stop();
                stopped = true;
            }
            if stopped && self.clients.is_quiet() {
                return Ok(Slice {
                    done: self.clients.take_done(),
                    elapsed,
                });
            }
            if elapsed >= length + LONGEST_DRAIN {
                return Err(format!(
                    "answers are still missing {} s after the end of a slice",
                    LONGEST_DRAIN.as_secs()
                ));
            }
        }
    }

    pub(super) fn stop_reading(&mut self) -> Result<(), String> {
        self.clients.stop_reading()?;
        let begin = now();
        self.clients.start(self.poll.registry())?;
        while now() - begin < STALL_FOR {
            self.turn()?;
        }
        Ok(())
    }

    pub(super) fn take_latency(&mut self) -> Option<Histogram<u64>> {
        self.clients.take_latency()
    }

    fn turn(&mut self) -> Result<(), String> {
        let more = self.clients.go_on()?;
        let wait = if more { Duration::ZERO } else { LONGEST_WAIT };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(format!("cannot wait for the clients: {error}"));
            }
            _ => {}
        }
        for event in &self.events {
            self.clients.ready(event.token().0, self.poll.registry())?;
        }
        Ok(())
    }
}
