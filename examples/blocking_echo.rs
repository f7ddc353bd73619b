//! WRONG: one thread for all clients, which waits until it can read but not
//! until it can write.
//!
//! `poll` tells which clients have sent bytes, so a read never waits. A write
//! does: `write_all` on a blocking socket returns when the kernel has room, and
//! for a client that does not read there is none. Most bugs of this kind look
//! harmless, since the kernel takes some 4 MB before the first write waits.
//!
//! Symptom: all is well, for weeks. Then one client stalls, and the thread
//! waits in `write_all`. No client is served, no connection is accepted, and no
//! line is logged until that one client reads on or leaves.
//!
//! Missing: non-blocking writes, a bounded queue for bytes that the socket
//! refuses, and a time after which a client that does not drain is
//! disconnected.

use std::env::args;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};

const READ_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    let typed: Vec<String> = args().skip(1).collect();
    let port = match typed.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--port", number] => number.parse().ok(),
        _ => None,
    };
    let Some(port) = port else {
        eprintln!("usage: blocking_echo --port N (0 takes a free one)");
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

    let mut clients: Vec<TcpStream> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut ready = wait_readable(&listener, &clients)?.into_iter();
        let listener_ready = ready.next() == Some(true);
        // The readiness comes in the clients' order, and `retain_mut` visits
        // them in that order.
        clients.retain_mut(|client| ready.next() != Some(true) || echo(client, &mut buffer).unwrap_or(false));
        if listener_ready && let Ok((client, _)) = listener.accept() {
            clients.push(client);
        }
    }
}

/// Waits until a socket is readable; answers for the listener first, then for
/// each client.
fn wait_readable(listener: &TcpListener, clients: &[TcpStream]) -> io::Result<Vec<bool>> {
    let mut watched = vec![PollFd::new(listener, PollFlags::IN)];
    watched.extend(clients.iter().map(|client| PollFd::new(client, PollFlags::IN)));
    poll(&mut watched, None)?;
    Ok(watched.iter().map(|one| !one.revents().is_empty()).collect())
}

/// Returns one piece to the client that sent it; false at its end of file.
fn echo(client: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    let length = client.read(buffer)?;
    // Here all clients wait for this one: this is the mistake.
    client.write_all(&buffer[..length])?;
    Ok(length > 0)
}
