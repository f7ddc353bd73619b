//! Clients that saturate their socket and never read.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll};

use super::socket::{Buffers, connect_watched};
use super::{EVENTS_A_WAIT, FULL_AFTER, LONGEST_FILL, LONGEST_WAIT, would_block};
use crate::clock::now;

const WRITE_BYTES: usize = 64 * 1024;

/// Fewer bytes are no progress: a kernel short of memory still lets some
/// through.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The stalled clients of one server.
pub(super) struct Stalled {
    poll: Poll,
    events: Events,
    server: Option<SocketAddr>,
    clients: Vec<Option<TcpStream>>,
    sent: u64,
    gone: usize,
}

impl Stalled {
    pub(super) fn new() -> Result<Self, String> {
        Ok(Self {
            poll: Poll::new().map_err(|error| format!("no poll for stalled clients: {error}"))?,
            events: Events::with_capacity(EVENTS_A_WAIT),
            server: None,
            clients: Vec::new(),
            sent: 0,
            gone: 0,
        })
    }

    pub(super) fn set_server(&mut self, server: SocketAddr) {
        self.server = Some(server);
    }

    /// Adds `count` clients and runs until they are full. Returns how many
    /// bytes all of them sent.
    pub(super) fn fill(&mut self, count: usize, buffers: Buffers, is_eager: bool) -> Result<u64, String> {
        self.open(count, buffers)?;
        let begin = now();
        let (mut sent, mut progress) = (0, begin);
        loop {
            self.turn()?;
            // The kernel announces room only when a third is free; eager
            // clients try earlier.
            if is_eager {
                for index in 0..self.clients.len() {
                    self.ready(index, false);
                }
            }
            let time = now();
            if self.sent >= sent + PROGRESS_BYTES {
                (sent, progress) = (self.sent, time);
            }
            if time - progress >= FULL_AFTER || time - begin >= LONGEST_FILL {
                return Ok(self.sent);
            }
        }
    }

    /// Waits until all are disconnected, or `longest` has passed. Returns how
    /// many were.
    pub(super) fn watch(&mut self, longest: Duration) -> Result<usize, String> {
        let begin = now();
        while self.gone < self.clients.len() && now() - begin < longest {
            self.turn()?;
        }
        Ok(self.gone)
    }

    fn turn(&mut self) -> Result<(), String> {
        match self.poll.poll(&mut self.events, Some(LONGEST_WAIT)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(format!("cannot wait for stalled clients: {error}"));
            }
            _ => {}
        }
        let over: Vec<(usize, bool)> = self
            .events
            .iter()
            .map(|event| (event.token().0, is_over(event)))
            .collect();
        for (index, is_over) in over {
            self.ready(index, is_over);
        }
        Ok(())
    }

    fn open(&mut self, count: usize, buffers: Buffers) -> Result<(), String> {
        let server = self.server.ok_or("no server was named")?;
        for _ in 0..count {
            let index = self.clients.len();
            let stream = connect_watched(server, buffers, self.poll.registry(), index)?;
            self.clients.push(Some(stream));
        }
        Ok(())
    }

    /// Goes on filling, or records that the server has disconnected this
    /// client.
    fn ready(&mut self, index: usize, is_over: bool) {
        let Some(place) = self.clients.get_mut(index) else {
            return;
        };
        let Some(stream) = place else { return };
        let mut lost = is_over;
        while !lost {
            match stream.write(&[0x55; WRITE_BYTES]) {
                Ok(sent) => self.sent += sent as u64,
                Err(error) if would_block(&error) => break,
                Err(_) => lost = true,
            }
        }
        if lost {
            *place = None;
            self.gone += 1;
        }
    }
}

fn is_over(event: &Event) -> bool {
    event.is_error() || event.is_read_closed() || event.is_write_closed()
}
