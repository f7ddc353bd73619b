//! Clients that saturate their socket, read as fast as they can and verify
//! every byte, until they read no more.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use mio::Registry;
use mio::net::TcpStream;

use super::polled::Clients;
use super::socket::{Buffers, connect_watched};
use super::would_block;

/// Bytes that a client sends, and receives, before the next one gets its turn.
const BYTES_A_VISIT: usize = 256 * 1024;

/// Length after which the stream repeats.
const PERIOD_BYTES: usize = 1 << 20;

struct Flood {
    stream: TcpStream,
    sent: usize,
    received: usize,
    /// Whether the client waits in the queue of those that go on without an
    /// event.
    is_queued: bool,
}

/// All such clients of one server.
pub(super) struct Floods {
    clients: Vec<Flood>,
    count: usize,
    /// One period of the stream; it begins again at its end.
    pattern: Vec<u8>,
    buffer: Vec<u8>,
    queue: VecDeque<usize>,
    stopping: bool,
    is_deaf: bool,
    done: u64,
}

impl Floods {
    pub(super) fn new(count: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(count as u64);
        Self {
            clients: Vec::with_capacity(count),
            count,
            pattern: (0..PERIOD_BYTES).map(|_| random.u8(..)).collect(),
            buffer: vec![0; BYTES_A_VISIT],
            queue: VecDeque::with_capacity(count),
            stopping: false,
            is_deaf: false,
            done: 0,
        }
    }

    /// Sends at most one visit's worth; returns whether the socket might take
    /// more.
    fn send(&mut self, index: usize) -> Result<bool, String> {
        if self.stopping {
            return Ok(false);
        }
        let client = &mut self.clients[index];
        let place = client.sent % self.pattern.len();
        let length = BYTES_A_VISIT.min(self.pattern.len() - place);
        match client.stream.write(&self.pattern[place..place + length]) {
            Ok(sent) => {
                client.sent += sent;
                Ok(sent == length)
            }
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(format!("a client could not send: {error}")),
        }
    }

    /// Receives at most one visit's worth; returns whether there might be more.
    fn receive(&mut self, index: usize) -> Result<bool, String> {
        let client = &mut self.clients[index];
        let place = client.received % self.pattern.len();
        let room = BYTES_A_VISIT.min(self.pattern.len() - place);
        match client.stream.read(&mut self.buffer[..room]) {
            Ok(0) => Err("the server closed the connection of a busy client".into()),
            Ok(length) if self.buffer[..length] != self.pattern[place..place + length] => Err(format!(
                "the server answered wrong bytes after {} right ones",
                client.received
            )),
            Ok(length) => {
                client.received += length;
                self.done += length as u64;
                // A read may also be short because the period ends, so ask
                // until EAGAIN.
                Ok(true)
            }
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(format!("a client could not receive: {error}")),
        }
    }

    fn visit(&mut self, index: usize) -> Result<(), String> {
        let more = self.send(index)? | (!self.is_deaf && self.receive(index)?);
        if more && !self.clients[index].is_queued {
            self.clients[index].is_queued = true;
            self.queue.push_back(index);
        }
        Ok(())
    }
}

impl Clients for Floods {
    fn open(&mut self, registry: &Registry, server: SocketAddr) -> Result<(), String> {
        for index in 0..self.count {
            let stream = connect_watched(server, Buffers::default(), registry, index)?;
            self.clients.push(Flood {
                stream,
                sent: 0,
                received: 0,
                is_queued: false,
            });
        }
        self.stopping = true;
        Ok(())
    }

    fn start(&mut self, _: &Registry) -> Result<(), String> {
        self.stopping = false;
        (0..self.count).try_for_each(|index| self.visit(index))
    }

    fn ready(&mut self, index: usize, _: &Registry) -> Result<(), String> {
        self.visit(index)
    }

    fn go_on(&mut self) -> Result<bool, String> {
        for _ in 0..self.queue.len() {
            if let Some(index) = self.queue.pop_front() {
                self.clients[index].is_queued = false;
                self.visit(index)?;
            }
        }
        Ok(!self.queue.is_empty())
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn stop_reading(&mut self) -> Result<(), String> {
        self.is_deaf = true;
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.clients.iter().all(|client| client.sent == client.received)
    }

    fn take_done(&mut self) -> u64 {
        std::mem::take(&mut self.done)
    }

    fn take_latency(&mut self) -> Option<Histogram<u64>> {
        None
    }
}
