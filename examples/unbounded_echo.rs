//! WRONG: an echo server that never blocks and never stops reading.
//!
//! One thread, non-blocking sockets, and for each client a queue of bytes that
//! the socket refused. No client waits for another. But nothing pauses the
//! reading side, so a client that sends and never reads stores its bytes in the
//! server's memory.
//!
//! Symptom: `highwater probe` finds the healthy clients unharmed and the
//! stalled ones never disconnected. The memory of this process grows by every
//! byte they send, until the kernel kills it and all clients are gone at once.
//!
//! Missing: a mark at which reading pauses, and a time after which a client
//! that does not drain is disconnected.

use std::collections::VecDeque;
use std::env::args;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};

const READ_BYTES: usize = 64 * 1024;

struct Client {
    stream: TcpStream,
    /// Bytes read and not yet written. Nothing bounds it: this is the mistake.
    queue: VecDeque<u8>,
    at_end: bool,
}

fn main() -> ExitCode {
    let typed: Vec<String> = args().skip(1).collect();
    let port = match typed.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--port", number] => number.parse().ok(),
        _ => None,
    };
    let Some(port) = port else {
        eprintln!("usage: unbounded_echo --port N (0 takes a free one)");
        return ExitCode::from(2);
    };
    match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve on 127.0.0.1:{port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("listening on {}", listener.local_addr()?);

    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut ready = wait(&listener, &clients)?.into_iter();
        let listener_ready = ready.next() == Some(true);
        // The readiness comes in the clients' order, and `retain_mut` visits
        // them in that order.
        clients.retain_mut(|client| ready.next() != Some(true) || client.echo(&mut buffer).unwrap_or(false));
        if listener_ready && let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            clients.push(Client {
                stream,
                queue: VecDeque::new(),
                at_end: false,
            });
        }
    }
}

/// Waits until a socket is ready; answers for the listener first, then for each
/// client.
fn wait(listener: &TcpListener, clients: &[Client]) -> io::Result<Vec<bool>> {
    let mut watched = vec![PollFd::new(listener, PollFlags::IN)];
    watched.extend(clients.iter().map(|client| {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, !client.at_end);
        interest.set(PollFlags::OUT, !client.queue.is_empty());
        PollFd::new(&client.stream, interest)
    }));
    poll(&mut watched, None)?;
    Ok(watched.iter().map(|one| !one.revents().is_empty()).collect())
}

impl Client {
    /// Reads once, even if bytes wait already, then writes as much as the
    /// socket takes; false at the end of the client.
    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.at_end {
            let length = or_nothing(self.stream.read(buffer))?;
            self.at_end = length == Some(0);
            self.queue.extend(&buffer[..length.unwrap_or(0)]);
        }
        while !self.queue.is_empty()
            && let Some(length) = or_nothing(self.stream.write(self.queue.as_slices().0))?
        {
            self.queue.drain(..length);
        }
        Ok(!self.at_end || !self.queue.is_empty())
    }
}

/// A socket without bytes, or without room, is no error.
fn or_nothing(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        outcome => outcome.map(Some),
    }
}
