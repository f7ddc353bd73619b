//! A paused client pauses for as long as it says, beside thousands of others that do not read.
//!
//! Its server measures that: how long something waited for the client without a break. That is what
//! a server's own clock would say. `HIGHWATER_STALLED=10000 cargo test --test probe_pause` shows
//! the same beside more than CI has time for.

#![cfg(all(target_os = "linux", feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]
#![allow(clippy::disallowed_methods, reason = "this server measures by the real clock")]

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

const LISTENER: Token = Token(0);
/// As asked of the kernel, for each direction: thousands of clients share its memory.
const BUFFER_BYTES: usize = 8 << 10;
const PAUSE: Duration = Duration::from_secs(4);
/// The server's clock may start a little before the prober sees that nothing moves.
const EARLIEST: Duration = Duration::from_millis(3_700);
/// A pause of 4 s must not look like one of 5 s, which servers disconnect.
const LATEST: Duration = Duration::from_millis(4_950);

/// The longest time in which something waited for the client with this port.
type Waits = Arc<Mutex<HashMap<u16, Duration>>>;

/// An echo that holds one read for a client at most, and disconnects nobody.
struct Echo {
    poll: Poll,
    listener: TcpListener,
    clients: HashMap<Token, Client>,
    waits: Waits,
}

struct Client {
    stream: TcpStream,
    port: u16,
    queue: Vec<u8>,
    waiting_since: Option<Instant>,
}

impl Echo {
    fn start() -> (SocketAddr, Waits) {
        let limits = getrlimit(Resource::Nofile);
        setrlimit(
            Resource::Nofile,
            rustix::process::Rlimit {
                current: limits.maximum,
                ..limits
            },
        )
        .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // What is accepted inherits these.
        SockRef::from(&listener)
            .set_send_buffer_size(BUFFER_BYTES)
            .unwrap();
        SockRef::from(&listener)
            .set_recv_buffer_size(BUFFER_BYTES)
            .unwrap();
        SockRef::from(&listener).listen(4096).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let waits = Waits::default();
        let mut echo = Self {
            poll: Poll::new().unwrap(),
            listener: TcpListener::from_std(listener),
            clients: HashMap::new(),
            waits: Arc::clone(&waits),
        };
        echo.poll
            .registry()
            .register(&mut echo.listener, LISTENER, Interest::READABLE)
            .unwrap();
        thread::spawn(move || echo.run());
        (address, waits)
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.poll.poll(&mut events, None).unwrap();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    token => self.serve(token, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, peer)) = self.listener.accept() {
            let token = Token(usize::from(peer.port()));
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, token, both).unwrap();
            let client = Client {
                stream,
                port: peer.port(),
                queue: Vec::new(),
                waiting_since: None,
            };
            self.clients.insert(token, client);
        }
    }

    fn serve(&mut self, token: Token, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        if !client.turn(buffer, &self.waits) {
            self.clients.remove(&token);
        }
    }
}

impl Client {
    /// Writes and reads as much as goes; whether the connection goes on.
    fn turn(&mut self, buffer: &mut [u8], waits: &Waits) -> bool {
        loop {
            while !self.queue.is_empty() {
                match self.stream.write(&self.queue) {
                    Ok(written) => drop(self.queue.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.waiting_since.get_or_insert_with(Instant::now);
                        return true;
                    }
                    Err(_) => return false,
                }
            }
            if let Some(since) = self.waiting_since.take() {
                let mut waits = waits.lock().unwrap();
                let longest = waits.entry(self.port).or_default();
                *longest = since.elapsed().max(*longest);
            }
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(read) => self.queue.extend_from_slice(&buffer[..read]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

fn stalled() -> usize {
    std::env::var("HIGHWATER_STALLED").map_or(2_000, |number| number.parse().unwrap())
}

#[test]
fn a_pause_beside_thousands_of_stalled_clients_lasts_what_it_says_by_the_servers_clock() {
    let (server, waits) = Echo::start();
    let stalled = stalled().to_string();
    let arguments = [
        "--stalled",
        &stalled,
        "--paused",
        "8",
        "--pause",
        "4s",
        "--quiet",
        "0",
        "--talkers",
        "0",
        "--steady",
        "0",
        "--fast",
        "2",
        "--fill",
        "256KiB",
        "--within",
        "6s",
        "--baseline",
        "500ms",
        "--json",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["probe", &server.to_string()])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&said);
    let slow = report["slow"].as_array().unwrap();
    let connected = slow.iter().filter(|client| client["connected"] == true).count();
    assert_eq!(connected, slow.len(), "some could not connect");
    let paused: Vec<_> = slow.iter().filter(|client| client["kind"] == "paused").collect();
    assert_eq!(paused.len(), 8);
    let waits = waits.lock().unwrap();
    for client in paused {
        let port = u16::try_from(client["local_port"].as_u64().unwrap()).unwrap();
        let waited = waits.get(&port).copied().unwrap_or_default();
        assert!(
            (EARLIEST..LATEST).contains(&waited),
            "{waited:?} instead of {PAUSE:?}: {client}"
        );
        assert_eq!(client["complete"], true, "{client}");
    }
}
