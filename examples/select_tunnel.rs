//! WRONG: the classic tunnel around `select`, known from a hundred tutorials.
//!
//! One thread waits until a socket has bytes, reads them, and writes them to
//! its partner. The write blocks, so one client or upstream that does not read
//! stops the whole tunnel: every other pair, and every new one. Connecting
//! blocks as well. An end of file on either side closes both, so the end of a
//! request can truncate its answer.
//!
//! Symptom: `highwater probe` through this tunnel finds that the healthy
//! clients' rate falls to nothing when the stalled client is full.
//!
//! Missing: `highwater tunnel`, which is two bounded queues, and a pause of one
//! side while the other is full, for at most the grace.

use std::env::args;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};

const READ_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    let typed: Vec<String> = args().skip(1).collect();
    let (port, to) = match typed.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--port", number, "--to", to] | ["--to", to, "--port", number] => (number.parse().ok(), to),
        _ => (None, ""),
    };
    let Some(port) = port else {
        eprintln!("usage: select_tunnel --port N (0 takes a free one) --to HOST:PORT");
        return ExitCode::from(2);
    };
    match serve(port, to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve on 127.0.0.1:{port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16, to: &str) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("listening on {}", listener.local_addr()?);

    let mut pairs: Vec<[TcpStream; 2]> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut watched = vec![PollFd::new(&listener, PollFlags::IN)];
        watched.extend(
            pairs
                .iter()
                .flatten()
                .map(|side| PollFd::new(side, PollFlags::IN)),
        );
        poll(&mut watched, None)?;
        let ready: Vec<bool> = watched.iter().map(|one| !one.revents().is_empty()).collect();

        let mut of_pair = ready[1..].chunks(2);
        pairs.retain_mut(|pair| {
            of_pair
                .next()
                .is_some_and(|ready| forward(pair, ready, &mut buffer).is_ok())
        });
        if ready[0]
            && let Ok((client, _)) = listener.accept()
            && let Ok(upstream) = TcpStream::connect(to)
        {
            pairs.push([client, upstream]);
        }
    }
}

/// Moves one piece from each side that has bytes; an error or the end of either
/// side ends the pair.
fn forward(pair: &mut [TcpStream; 2], ready: &[bool], buffer: &mut [u8]) -> io::Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        if ready[from] {
            match pair[from].read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Here all pairs wait for this one partner: this is the
                // mistake.
                length => pair[to].write_all(&buffer[..length])?,
            }
        }
    }
    Ok(())
}
