//! The far end of a tunnel: an echo.
//!
//! Runs as a thread beside the clients on their core, so that the tunnel's own
//! core runs nothing but the tunnel.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Socket, Type};

use super::{EVENTS_A_WAIT, would_block};

const BACKLOG: i32 = 4096;
const READ_BYTES: usize = 64 * 1024;
const LISTENER: usize = 0;

/// Reads of one connection before the next gets its turn.
const READS_A_VISIT: usize = 4;

struct Connection {
    stream: TcpStream,
    /// Bytes that the socket refused; nothing is read until they are gone.
    refused: Vec<u8>,
    is_queued: bool,
}

/// The listener and its connections.
struct Backend {
    listener: TcpListener,
    /// By number less one; those that closed leave a gap.
    connections: Vec<Option<Connection>>,
    queue: VecDeque<usize>,
    buffer: Vec<u8>,
}

/// Starts the far end, which lives as long as this process. Returns its
/// address.
pub(super) fn start() -> Result<SocketAddr, String> {
    let fail = |error| format!("no far end for tunnels: {error}");
    let (mut listener, address) = listen().map_err(fail)?;
    let poll = Poll::new().map_err(fail)?;
    poll.registry()
        .register(&mut listener, Token(LISTENER), Interest::READABLE)
        .map_err(fail)?;
    let backend = Backend {
        listener,
        connections: Vec::new(),
        queue: VecDeque::new(),
        buffer: vec![0; READ_BYTES],
    };
    std::thread::Builder::new()
        .name("far end".into())
        .spawn(move || backend.run(poll))
        .map_err(fail)?;
    Ok(address)
}

impl Backend {
    /// Serves until the poll fails. Its connections are closed then, and the
    /// clients report it.
    fn run(mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(EVENTS_A_WAIT);
        loop {
            let wait = self.go_on().then_some(Duration::ZERO);
            match poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
                _ => {}
            }
            for event in &events {
                match event.token().0 {
                    LISTENER => self.accept_all(poll.registry()),
                    index => self.visit(index),
                }
            }
        }
    }

    /// Serves connections that need no event; returns whether there are more.
    fn go_on(&mut self) -> bool {
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
            let is_watched = registry.register(&mut stream, Token(index), wanted).is_ok();
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
    /// Whether there may be more to read at once; an error at the end of the
    /// connection.
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
