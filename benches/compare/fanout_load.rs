//! One publisher and many subscribers of one channel, in this process.
//!
//! Owns both protocols as far as the load speaks them: Redis's and NATS's. The
//! publisher sends a batch, waits until every subscriber has read it, and sends
//! the next.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::clock::now;

/// What the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Resp,
    Nats,
}

/// How many subscribers, and which messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) subscribers: usize,
    pub(crate) bytes: usize,
    pub(crate) in_flight: usize,
}

/// What one slice did.
pub(crate) struct Done {
    pub(crate) deliveries: u64,
    pub(crate) elapsed: Duration,
}

/// The time until each batch was done, in seconds.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) all_have_it: Vec<f64>,
    pub(crate) answered: Vec<f64>,
}

const CHANNEL: &str = "bench";

/// Subscribers that never read have a small buffer, so that the server's side
/// fills soon.
const STALLED_RECEIVE_BYTES: usize = 16 * 1024;

/// A batch that takes longer means that the server has lost a message.
const LONGEST_BATCH: Duration = Duration::from_secs(10);

pub(crate) struct Load {
    address: SocketAddr,
    protocol: Protocol,
    shape: Shape,
    poll: Poll,
    events: Events,
    subscribers: Vec<mio::net::TcpStream>,
    publisher: mio::net::TcpStream,
    stalled: Vec<TcpStream>,
    batch: Vec<u8>,
    buffer: Vec<u8>,
    waits: Waits,
}

impl Load {
    pub(crate) fn open(address: SocketAddr, protocol: Protocol, shape: Shape) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut subscribers = Vec::new();
        for index in 0..shape.subscribers {
            let mut stream = TcpStream::connect(address)?;
            subscribe(&mut stream, protocol)?;
            subscribers.push(register(&poll, stream, index)?);
        }
        let mut publisher = TcpStream::connect(address)?;
        publisher.set_nodelay(true)?;
        greet(&mut publisher, protocol)?;
        let publisher = register(&poll, publisher, shape.subscribers)?;
        Ok(Self {
            address,
            protocol,
            shape,
            poll,
            events: Events::with_capacity(1024),
            subscribers,
            publisher,
            stalled: Vec::new(),
            batch: batch(protocol, shape),
            buffer: vec![0; 1 << 20],
            waits: Waits::default(),
        })
    }

    /// Lets this many subscribers join that never read a message.
    pub(crate) fn stall(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
            socket.set_recv_buffer_size(STALLED_RECEIVE_BYTES)?;
            socket.connect(&self.address.into())?;
            let mut stream = TcpStream::from(socket);
            subscribe(&mut stream, self.protocol)?;
            self.stalled.push(stream);
        }
        Ok(())
    }

    /// Publishes for about this long.
    pub(crate) fn slice(&mut self, time: Duration) -> Result<Done, String> {
        let begin = now();
        let mut deliveries = 0;
        loop {
            self.publish_once()?;
            deliveries += (self.shape.in_flight * self.shape.subscribers) as u64;
            let elapsed = now() - begin;
            if elapsed >= time {
                return Ok(Done { deliveries, elapsed });
            }
        }
    }

    /// The waits since the last call.
    pub(crate) fn take_waits(&mut self) -> Waits {
        std::mem::take(&mut self.waits)
    }

    fn publish_once(&mut self) -> Result<(), String> {
        let begin = now();
        let fail = |error: io::Error| format!("the publisher: {error}");
        let mut to_write = 0;
        let mut missing = self.shape.subscribers * self.shape.in_flight * self.delivery_bytes();
        let mut unanswered = match self.protocol {
            Protocol::Resp => self.shape.in_flight,
            Protocol::Nats => 0,
        };
        while missing > 0 || unanswered > 0 {
            if to_write < self.batch.len() {
                match self.publisher.write(&self.batch[to_write..]) {
                    Ok(count) => to_write += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(fail(error)),
                }
            }
            let poll = self.poll.poll(&mut self.events, Some(LONGEST_BATCH));
            poll.map_err(fail)?;
            if self.events.is_empty() {
                return Err(format!("{missing} bytes and {unanswered} answers never came"));
            }
            for event in &self.events {
                let index = event.token().0;
                let is_publisher = index == self.shape.subscribers;
                let stream = match is_publisher {
                    true => &mut self.publisher,
                    false => &mut self.subscribers[index],
                };
                let bytes = read_all(stream, &mut self.buffer, |piece| {
                    let answers = piece.iter().filter(|&&byte| byte == b':').count();
                    unanswered -= if is_publisher { answers.min(unanswered) } else { 0 };
                })
                .map_err(fail)?;
                if is_publisher
                    && unanswered == 0
                    && self.waits.answered.len() == self.waits.all_have_it.len()
                {
                    self.waits.answered.push((now() - begin).as_secs_f64());
                }
                missing -= if is_publisher { 0 } else { bytes.min(missing) };
            }
        }
        self.waits.all_have_it.push((now() - begin).as_secs_f64());
        self.waits.answered.resize(self.waits.all_have_it.len(), 0.0);
        Ok(())
    }

    fn delivery_bytes(&self) -> usize {
        delivery(self.protocol, self.shape.bytes).len()
    }
}

fn register(poll: &Poll, stream: TcpStream, index: usize) -> io::Result<mio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    let mut stream = mio::net::TcpStream::from_std(stream);
    poll.registry()
        .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

/// Reads until the socket is empty.
fn read_all(
    stream: &mut mio::net::TcpStream,
    buffer: &mut [u8],
    mut see: impl FnMut(&[u8]),
) -> io::Result<usize> {
    let mut total = 0;
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                see(&buffer[..count]);
                total += count;
                if count < buffer.len() {
                    return Ok(total);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(total),
            Err(error) => return Err(error),
        }
    }
}

fn greet(stream: &mut TcpStream, protocol: Protocol) -> io::Result<()> {
    if protocol == Protocol::Nats {
        read_until(stream, b"\r\n")?;
        stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
        read_until(stream, b"PONG\r\n")?;
    }
    Ok(())
}

fn subscribe(stream: &mut TcpStream, protocol: Protocol) -> io::Result<()> {
    greet(stream, protocol)?;
    match protocol {
        Protocol::Resp => {
            let name = CHANNEL.len();
            write!(stream, "*2\r\n$9\r\nSUBSCRIBE\r\n${name}\r\n{CHANNEL}\r\n")?;
            read_until(stream, b":1\r\n")
        }
        Protocol::Nats => {
            write!(stream, "SUB {CHANNEL} 1\r\nPING\r\n")?;
            read_until(stream, b"PONG\r\n")
        }
    }
}

/// Reads byte by byte, so that nothing behind it is taken.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> io::Result<()> {
    const MOST_BYTES: usize = 16 * 1024;
    let mut seen = Vec::new();
    while !seen.ends_with(end) && seen.len() < MOST_BYTES {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        seen.push(byte[0]);
    }
    Ok(())
}

fn batch(protocol: Protocol, shape: Shape) -> Vec<u8> {
    let (name, bytes, payload) = (CHANNEL.len(), shape.bytes, "x".repeat(shape.bytes));
    let one = match protocol {
        Protocol::Resp => {
            format!("*3\r\n$7\r\nPUBLISH\r\n${name}\r\n{CHANNEL}\r\n${bytes}\r\n{payload}\r\n")
        }
        Protocol::Nats => format!("PUB {CHANNEL} {bytes}\r\n{payload}\r\n"),
    };
    one.repeat(shape.in_flight).into_bytes()
}

/// A message as a subscriber gets it.
fn delivery(protocol: Protocol, bytes: usize) -> String {
    let (name, payload) = (CHANNEL.len(), "x".repeat(bytes));
    match protocol {
        Protocol::Resp => {
            format!("*3\r\n$7\r\nmessage\r\n${name}\r\n{CHANNEL}\r\n${bytes}\r\n{payload}\r\n")
        }
        Protocol::Nats => format!("MSG {CHANNEL} 1 {bytes}\r\n{payload}\r\n"),
    }
}
