//! RIGHT, and simple: a thread for each client, and no write may take longer
//! than 5 s.
//!
//! `SO_SNDTIMEO` bounds how long a blocking `send` waits. Three details decide
//! whether that works:
//!
//! - The option bounds one call, not one message. A call that times out after
//!   moving a few bytes returns their number, and `write_all` would start again
//!   with a fresh 5 s: a trickling client would stretch one message for ever. So
//!   each message has one absolute deadline, and each call gets the time that is
//!   left.
//! - The kernel wakes a blocked writer only when a third of its send buffer is
//!   free, 1.5 MB by default. A healthy reader of 64 KiB/s needs 24 s for that.
//!   With `TCP_NOTSENT_LOWAT` the kernel holds few unsent bytes, so progress
//!   shows while it happens.
//! - A plain `close` does not end a client that does not read. The kernel keeps
//!   the undelivered bytes (up to 4 MB by default, some 50 KB here) and retries
//!   for about 340 s. `SO_LINGER` of 0 turns the close into a reset, which frees
//!   all of them at once. `--plain-close` leaves that out, so that a tester sees
//!   what stays: an orphan in `/proc/net/sockstat`, FIN-WAIT-1 in
//!   `/proc/net/tcp`. (Not after a flood: a socket that is closed with unread
//!   input resets by itself, which hides the mistake from most tests.)
//!
//! Result: stalled and trickling clients are reset after 5 s, steady readers of
//! 64 KiB/s are kept, other clients notice nothing, and memory is bounded by
//! one buffer and one stack per client. The price is a thread per client, which
//! is why `highwater` does the same with one thread for all.

use std::env::args;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use log::{LevelFilter, info, warn};
use simplelog::{Config, WriteLogger};
use socket2::SockRef;

/// Time in which a message must be written. With 64 KiB per message, a client
/// must take 13 KiB/s.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Size of one read, which is one message: all the memory that a client has
/// here.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Unsent bytes that the kernel may hold: few, so that a slow reader's progress
/// shows within a second.
const UNSENT_BYTES: u32 = 16 * 1024;
/// Pause after a failed accept (descriptors or threads ran out), so that the
/// loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a client that is too slow is closed.
#[derive(Clone, Copy)]
enum Disconnect {
    Reset,
    PlainClose,
}

fn main() -> ExitCode {
    let typed: Vec<String> = args().skip(1).collect();
    let (port, disconnect) = match typed.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--port", number] => (number.parse().ok(), Disconnect::Reset),
        ["--port", number, "--plain-close"] | ["--plain-close", "--port", number] => {
            (number.parse().ok(), Disconnect::PlainClose)
        }
        _ => (None, Disconnect::Reset),
    };
    let Some(port) = port else {
        eprintln!("usage: timeout_echo --port N (0 takes a free one) [--plain-close]");
        return ExitCode::from(2);
    };
    // Without a logger the server still serves; there is nowhere to report it.
    let _ = WriteLogger::init(LevelFilter::Info, Config::default(), io::stderr());
    match serve(port, disconnect) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve on 127.0.0.1:{port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16, disconnect: Disconnect) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    // Set on a listener, so every accepted socket inherits it.
    SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let started = listener
            .accept()
            .and_then(|(stream, _)| thread::Builder::new().spawn(move || client(stream, disconnect)));
        if let Err(error) = started {
            warn!("cannot take a client: {error}");
            thread::sleep(ACCEPT_PAUSE);
        }
    }
}

/// Serves one client to its end; its errors are no other client's trouble.
fn client(mut stream: TcpStream, disconnect: Disconnect) {
    let number = stream.as_raw_fd();
    match echo(&mut stream) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            warn!("client {number} write timeout, disconnecting");
            if let Disconnect::Reset = disconnect
                && let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO))
            {
                warn!("client {number} cannot be reset: {error}");
            }
        }
        Err(error) => info!("client {number}: {error}"),
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => write_by(stream, &buffer[..length], deadline())?,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a blocking thread has no loop that reads the clock for it"
)]
fn now() -> Instant {
    Instant::now()
}

fn deadline() -> Instant {
    now() + WRITE_TIMEOUT
}

/// Writes the whole message before the deadline, or fails with `TimedOut`.
fn write_by(stream: &mut TcpStream, mut message: &[u8], deadline: Instant) -> io::Result<()> {
    while !message.is_empty() {
        let left = deadline.saturating_duration_since(now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(message) {
            Ok(length) => message = &message[length..],
            // The time may be up, or nearly so: the clock above decides.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
