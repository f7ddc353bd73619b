//! Clients that connect, wait for one echo, and close: they half-close first
//! and wait for the server's end of file, so that both ends are surely done.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::polled::Clients;
use super::{latencies, record, would_block};
use crate::clock::now;

enum Step {
    Connecting,
    /// Bytes of the echo received so far.
    Waiting(usize),
    Closing,
}

struct Connect {
    stream: TcpStream,
    step: Step,
    begun: Instant,
}

/// All such clients of one server; each starts again when it is done.
pub(super) struct Connects {
    clients: Vec<Option<Connect>>,
    server: Option<SocketAddr>,
    message: Vec<u8>,
    stopping: bool,
    done: u64,
    latency: Histogram<u64>,
}

impl Connects {
    pub(super) fn new(count: usize, size: usize) -> Result<Self, String> {
        Ok(Self {
            clients: (0..count).map(|_| None).collect(),
            server: None,
            message: (0..size).map(|place| place as u8).collect(),
            stopping: true,
            done: 0,
            latency: latencies()?,
        })
    }

    fn begin(&mut self, index: usize, registry: &Registry) -> Result<(), String> {
        let server = self.server.ok_or("no server was named")?;
        let begun = now();
        let fail = |error| format!("cannot connect to {server}: {error}");
        let mut stream = TcpStream::connect(server).map_err(fail)?;
        registry
            .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(fail)?;
        self.clients[index] = Some(Connect {
            stream,
            step: Step::Connecting,
            begun,
        });
        Ok(())
    }

    /// Advances one client as far as possible; returns whether it is done.
    fn go(client: &mut Connect, message: &[u8]) -> Result<bool, String> {
        let fail = |error| format!("a short connection failed: {error}");
        let mut buffer = [0; 1024];
        loop {
            match client.step {
                Step::Connecting => match client.stream.write(message) {
                    Ok(sent) if sent == message.len() => client.step = Step::Waiting(0),
                    Ok(sent) => {
                        return Err(format!("a socket took {sent} of {} bytes", message.len()));
                    }
                    Err(error) if would_block(&error) => return Ok(false),
                    Err(error) => return Err(fail(error)),
                },
                Step::Waiting(had) => match client.stream.read(&mut buffer) {
                    Ok(0) => return Err("the server closed before it answered".into()),
                    Ok(length) if message.get(had..had + length) != Some(&buffer[..length]) => {
                        return Err("the server answered what was not sent".into());
                    }
                    Ok(length) if had + length == message.len() => {
                        client.stream.shutdown(Shutdown::Write).map_err(fail)?;
                        client.step = Step::Closing;
                        // The end of file cannot be there yet: an event will
                        // tell.
                        return Ok(false);
                    }
                    Ok(length) => client.step = Step::Waiting(had + length),
                    Err(error) if would_block(&error) => return Ok(false),
                    Err(error) => return Err(fail(error)),
                },
                Step::Closing => match client.stream.read(&mut buffer) {
                    Ok(0) => return Ok(true),
                    Ok(_) => return Err("the server answered more than was sent".into()),
                    Err(error) if would_block(&error) => return Ok(false),
                    Err(error) => return Err(fail(error)),
                },
            }
        }
    }
}

impl Clients for Connects {
    fn open(&mut self, _: &Registry, server: SocketAddr) -> Result<(), String> {
        self.server = Some(server);
        Ok(())
    }

    fn start(&mut self, registry: &Registry) -> Result<(), String> {
        self.stopping = false;
        (0..self.clients.len()).try_for_each(|index| self.begin(index, registry))
    }

    fn ready(&mut self, index: usize, registry: &Registry) -> Result<(), String> {
        let Some(client) = &mut self.clients[index] else {
            return Ok(());
        };
        if !Self::go(client, &self.message)? {
            return Ok(());
        }
        record(&mut self.latency, client.begun, now());
        self.done += 1;
        self.clients[index] = None;
        if self.stopping {
            Ok(())
        } else {
            self.begin(index, registry)
        }
    }

    fn go_on(&mut self) -> Result<bool, String> {
        Ok(false)
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn is_quiet(&self) -> bool {
        self.clients.iter().all(Option::is_none)
    }

    fn take_done(&mut self) -> u64 {
        std::mem::take(&mut self.done)
    }

    fn take_latency(&mut self) -> Option<Histogram<u64>> {
        let taken = self.latency.clone();
        self.latency.reset();
        Some(taken)
    }
}
