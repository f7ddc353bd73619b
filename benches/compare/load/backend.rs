//! The far end of a tunnel: whatever comes is sent back.
//!
//! It lives in the loop of the clients, so that a tunnel is loaded by one core
//! and its own core does nothing but the tunnel.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Socket, Type};

use super::{BACKEND, token, would_block};

const BACKLOG: i32 = 4096;
const READ_BYTES: usize = 64 * 1024;
const LISTENER: usize = 0;

/// How often one connection is read before the next has its turn.
const READS_A_VISIT: usize = 4;

struct Connection {
    stream: TcpStream,
    /// What the socket refused; nothing is read until it is gone.
    refused: Vec<u8>,
    is_queued: bool,
}

/// The listener and its connections.
pub(super) struct Backend {
    listener: TcpListener,
    address: SocketAddr,
    /// By number less one; those that closed leave a gap.
    connections: Vec<Option<Connection>>,
    queue: VecDeque<usize>,
    buffer: Vec<u8>,
}

impl Backend {
    pub(super) fn new(registry: &Registry) -> Result<Self, String> {
        let (mut listener, address) = listen().map_err(|error| format!("no far end for tunnels: {error}"))?;
        registry
            .register(&mut listener, token(BACKEND, LISTENER), Interest::READABLE)
            .map_err(|error| format!("cannot watch the far end: {error}"))?;
        Ok(Self {
            listener,
            address,
            connections: Vec::new(),
            queue: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn ready(&mut self, index: usize, registry: &Registry) {
        if index == LISTENER {
            self.accept_all(registry);
        } else {
            self.visit(index);
        }
    }

    /// Goes on with connections that need no event; true when there are more.
    pub(super) fn go_on(&mut self) -> bool {
        for _ in 0..self.queue.len() {
            if let Some(index) = self.queue.pop_front() {
                if let Some(Some(connection)) = self.connections.get_mut(index - 1) {
                    connection.is_queued = false;
                }
                self.visit(index);
            }
        }
        !self.queue.is_empty()
    }

    fn accept_all(&mut self, registry: &Registry) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let index = self.connections.len() + 1;
            let wanted = Interest::READABLE | Interest::WRITABLE;
            let is_watched = registry
                .register(&mut stream, token(BACKEND, index), wanted)
                .is_ok();
            self.connections.push(is_watched.then_some(Connection {
                stream,
                refused: Vec::new(),
                is_queued: false,
            }));
        }
    }

    fn visit(&mut self, index: usize) {
        let Some(place) = self.connections.get_mut(index - 1) else {
            return;
        };
        let Some(connection) = place else { return };
        match connection.echo(&mut self.buffer) {
            Ok(true) if !connection.is_queued => {
                connection.is_queued = true;
                self.queue.push_back(index);
            }
            Ok(_) => {}
            Err(()) => *place = None,
        }
    }
}

impl Connection {
    /// True when there may be more to read at once; an error when it is over.
    fn echo(&mut self, buffer: &mut [u8]) -> Result<bool, ()> {
        for _ in 0..READS_A_VISIT {
            if !self.refused.is_empty() {
                let sent = send(&mut self.stream, &self.refused)?;
                self.refused.drain(..sent);
                if !self.refused.is_empty() {
                    return Ok(false);
                }
            }
            let length = match self.stream.read(buffer) {
                Ok(0) => return Err(()),
                Ok(length) => length,
                Err(error) if would_block(&error) => return Ok(false),
                Err(_) => return Err(()),
            };
            let sent = send(&mut self.stream, &buffer[..length])?;
            self.refused.extend_from_slice(&buffer[sent..length]);
            if length < buffer.len() && self.refused.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize, ()> {
    match stream.write(bytes) {
        Ok(sent) => Ok(sent),
        Err(error) if would_block(&error) => Ok(0),
        Err(_) => Err(()),
    }
}

fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into());
    let address = listener.local_addr()?;
    Ok((listener, address))
}
