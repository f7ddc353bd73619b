//! Clients that send a message and wait for its echo, again and again.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Interest, Registry};

use super::{CLIENT, Clients, connect, latencies, record, token, would_block};
use crate::clock::now;

/// The most that one client may have under way, so that no send is ever refused.
const MOST_UNDER_WAY_BYTES: usize = 16 * 1024;

struct Ping {
    stream: TcpStream,
    /// Bytes received of the message that is under way.
    part: usize,
    /// When each message under way was sent.
    sent_at: VecDeque<Instant>,
}

/// All such clients of one server.
pub(super) struct Pings {
    clients: Vec<Ping>,
    count: usize,
    size: usize,
    in_flight: usize,
    /// Messages one behind the other, all alike.
    pattern: Vec<u8>,
    buffer: Vec<u8>,
    stopping: bool,
    under_way: u64,
    done: u64,
    latency: Histogram<u64>,
}

impl Pings {
    pub(super) fn new(count: usize, size: usize, in_flight: usize) -> Result<Self, String> {
        let under_way = size * in_flight;
        if under_way == 0 || under_way > MOST_UNDER_WAY_BYTES {
            return Err(format!(
                "{under_way} bytes under way: between 1 and {MOST_UNDER_WAY_BYTES} are possible"
            ));
        }
        let message: Vec<u8> = (0..size).map(|place| (place * 31 + 7) as u8).collect();
        Ok(Self {
            clients: Vec::with_capacity(count),
            count,
            size,
            in_flight,
            pattern: message.repeat(in_flight + 1),
            buffer: vec![0; under_way + 1],
            stopping: false,
            under_way: 0,
            done: 0,
            latency: latencies()?,
        })
    }

    /// Sends `messages` new messages of a client.
    fn send(&mut self, index: usize, messages: usize, time: Instant) -> Result<(), String> {
        let client = &mut self.clients[index];
        let bytes = &self.pattern[..messages * self.size];
        let sent = client
            .stream
            .write(bytes)
            .map_err(|error| format!("a client could not send: {error}"))?;
        if sent < bytes.len() {
            return Err(format!("a socket took {sent} of {} bytes", bytes.len()));
        }
        client.sent_at.extend(std::iter::repeat_n(time, messages));
        self.under_way += messages as u64;
        Ok(())
    }

    /// One read. How many messages it completed, and whether there may be more.
    fn receive(&mut self, index: usize) -> Result<(usize, bool), String> {
        let client = &mut self.clients[index];
        let length = match client.stream.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed the connection of a busy client".into()),
            Ok(length) => length,
            Err(error) if would_block(&error) => return Ok((0, false)),
            Err(error) => return Err(format!("a client could not receive: {error}")),
        };
        let expected = self.pattern.get(client.part..client.part + length);
        if expected != Some(&self.buffer[..length]) {
            return Err("the server answered what was not sent".into());
        }
        client.part += length;
        let completed = client.part / self.size;
        client.part %= self.size;
        Ok((completed, length == self.buffer.len()))
    }
}

impl Clients for Pings {
    fn open(&mut self, registry: &Registry, server: SocketAddr) -> Result<(), String> {
        for index in 0..self.count {
            let mut stream = connect(server)?;
            registry
                .register(&mut stream, token(CLIENT, index), Interest::READABLE)
                .map_err(|error| format!("cannot watch a client: {error}"))?;
            self.clients.push(Ping {
                stream,
                part: 0,
                sent_at: VecDeque::with_capacity(self.in_flight),
            });
        }
        Ok(())
    }

    fn start(&mut self, _: &Registry) -> Result<(), String> {
        self.stopping = false;
        for index in 0..self.count {
            self.send(index, self.in_flight, now())?;
        }
        Ok(())
    }

    fn ready(&mut self, index: usize, _: &Registry) -> Result<(), String> {
        loop {
            let (completed, more) = self.receive(index)?;
            if completed > 0 {
                let time = now();
                for sent in self.clients[index].sent_at.drain(..completed) {
                    record(&mut self.latency, sent, time);
                }
                self.done += completed as u64;
                self.under_way -= completed as u64;
                if !self.stopping {
                    self.send(index, completed, time)?;
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn go_on(&mut self) -> Result<bool, String> {
        Ok(false)
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn is_quiet(&self) -> bool {
        self.under_way == 0
    }

    fn take_done(&mut self) -> u64 {
        std::mem::take(&mut self.done)
    }

    fn latency(&self) -> Option<&Histogram<u64>> {
        Some(&self.latency)
    }
}
