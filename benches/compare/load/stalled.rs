//! Clients that send as much as they can and never read.

use std::io::Write;
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry};

use super::{STALLED, connect, token, would_block};

const WRITE_BYTES: usize = 64 * 1024;

/// The stalled clients of one server.
#[derive(Default)]
pub(super) struct Stalled {
    server: Option<SocketAddr>,
    clients: Vec<Option<TcpStream>>,
    sent: u64,
    gone: usize,
}

impl Stalled {
    pub(super) fn set_server(&mut self, server: SocketAddr) {
        self.server = Some(server);
    }

    /// Connects `count` more; they fill up in the turns that follow.
    pub(super) fn open(&mut self, registry: &Registry, count: usize) -> Result<(), String> {
        let server = self.server.ok_or("no server was named")?;
        for _ in 0..count {
            let mut stream = connect(server)?;
            let index = self.clients.len();
            registry
                .register(
                    &mut stream,
                    token(STALLED, index),
                    Interest::READABLE | Interest::WRITABLE,
                )
                .map_err(|error| format!("cannot watch a client: {error}"))?;
            self.clients.push(Some(stream));
        }
        Ok(())
    }

    /// Goes on filling, or notes that the server has had enough of this client.
    pub(super) fn ready(&mut self, index: usize, is_over: bool) {
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

    /// Bytes that all of them sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// How many there were.
    pub(super) fn count(&self) -> usize {
        self.clients.len()
    }

    /// How many the server has disconnected.
    pub(super) fn gone(&self) -> usize {
        self.gone
    }
}
