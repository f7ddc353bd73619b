//! The examples do what their heads say: the wrong ones harm everybody in the way that they
//! teach, and the right one harms only the client that deserves it.
//!
//! The examples are run as programs. `cargo test` builds them; after `cargo test --test examples`
//! alone they may be missing, which the message says.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests watch other processes by the real clock"
)]

use std::env::current_exe;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Far longer than anything here takes, even on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Silence after which we call a server stopped; an answer takes well under a millisecond.
const SILENCE: Duration = Duration::from_secs(1);
/// The pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const MIB: usize = 1024 * 1024;
/// More than the kernel's buffers of two connections, and a bound for servers without one.
const FLOOD_MAX_BYTES: usize = 64 * MIB;

/// An example that runs until it is dropped.
struct Example {
    process: Child,
    address: SocketAddr,
    log: Receiver<String>,
}

impl Example {
    fn start(name: &str, options: &[&str]) -> Example {
        let mut process = Command::new(binary(name))
            .args(["--port", "0"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let address = first
            .trim()
            .strip_prefix("listening on ")
            .expect("the first line names the address");
        let address = address.parse().unwrap();
        let (sender, log) = mpsc::channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Example {
            process,
            address,
            log,
        }
    }

    fn client(&self) -> Client {
        Client(TcpStream::connect(self.address).unwrap())
    }

    /// A client that reads through a receive buffer of 4 KiB, so that the window opens in small steps.
    fn client_with_small_window(&self) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.address.into()).unwrap();
        Client(socket.into())
    }

    /// Memory of the process that is in RAM, as the kernel counts it.
    fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    fn kernel_send_queue(&self, client: &Client) -> Option<usize> {
        kernel_queues(self.address, client.address()).map(|queues| queues.send)
    }
}

/// What the kernel holds for one end of a connection.
struct KernelQueues {
    /// Sent and not yet acknowledged, or not yet sent.
    send: usize,
    /// Received and not yet read.
    receive: usize,
}

/// Looks up one end of a connection, whether or not a process still has the socket; nothing when the
/// kernel has forgotten it.
fn kernel_queues(local: SocketAddr, remote: SocketAddr) -> Option<KernelQueues> {
    let ends_with = |field: &str, address: SocketAddr| field.ends_with(&format!(":{:04X}", address.port()));
    let bytes = |hexadecimal: &str| usize::from_str_radix(hexadecimal, 16).unwrap();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let found = ends_with(fields[1], local) && ends_with(fields[2], remote);
        let (send, receive) = fields[4].split_once(':').unwrap();
        found.then(|| KernelQueues {
            send: bytes(send),
            receive: bytes(receive),
        })
    })
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The examples stand beside the directory of the test binaries.
fn binary(name: &str) -> PathBuf {
    let test = current_exe().unwrap();
    let path = test
        .parent()
        .and_then(|deps| deps.parent())
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --examples` first",
        path.display()
    );
    path
}

struct Client(TcpStream);

impl Client {
    /// Sends some bytes and gets them back, or does not within the time.
    fn echoes_within(&mut self, patience: Duration) -> bool {
        self.send_greeting();
        self.greeting_comes_within(patience)
    }

    fn send_greeting(&mut self) {
        self.0.write_all(b"hello").unwrap();
    }

    fn greeting_comes_within(&mut self, patience: Duration) -> bool {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut back = [0; 5];
        match self.0.read_exact(&mut back) {
            Ok(()) => back == *b"hello",
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("the server ended a healthy client: {error}"),
        }
    }

    /// Sends until the server has taken nothing for a while, or the bound is reached; answers how much went
    /// in, and when the last of it did.
    fn flood(&mut self) -> (usize, Instant) {
        self.0.set_write_timeout(Some(SILENCE)).unwrap();
        let piece = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        let mut last = Instant::now();
        while sent < FLOOD_MAX_BYTES {
            match self.0.write(&piece) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the server ended the client while it still sent: {error}"),
            }
            last = Instant::now();
        }
        (sent, last)
    }

    /// Sends little by little and never reads, until the server has read a piece that it cannot give back. It has
    /// then read everything, so that a reset is the server's will: closing with unread input resets by itself.
    fn stall_with_nothing_unread(&mut self, server: SocketAddr) -> Instant {
        let piece = [b'x'; 4096];
        for sent in (piece.len()..FLOOD_MAX_BYTES).step_by(piece.len()) {
            self.0.write_all(&piece).unwrap();
            let last = Instant::now();
            let is_back = || {
                let on_its_way = kernel_queues(server, self.address()).unwrap().send;
                on_its_way + kernel_queues(self.address(), server).unwrap().receive == sent
            };
            while !is_back() {
                if last.elapsed() > SILENCE {
                    assert_eq!(kernel_queues(server, self.address()).unwrap().receive, 0);
                    return last;
                }
            }
        }
        panic!("the server took {FLOOD_MAX_BYTES} bytes and did not block");
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Told without reading, for reading would help the server.
    fn was_reset(&self) -> bool {
        matches!(self.0.take_error().unwrap(), Some(error) if error.kind() == ErrorKind::ConnectionReset)
    }
}

/// Looks until the condition holds; the answer is how long that took.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(LOOK_AGAIN);
    }
    start.elapsed()
}

/// An echo server inside the test, for what needs an upstream.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn select_tunnel() -> Example {
    Example::start("select_tunnel", &["--to", &upstream().to_string()])
}

/// Sends bytes that differ, and checks that the same come back.
fn an_ordinary_client_gets_its_bytes_back(example: &Example) {
    let client = example.client().0;
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..4 * MIB).map(|place| (place * 31 / 7) as u8).collect();
    let mut back = vec![0; sent.len()];
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&sent).unwrap());
        (&client).read_exact(&mut back).unwrap();
    });
    assert!(back == sent, "the bytes came back changed");
}

#[test]
fn an_ordinary_client_gets_its_bytes_back_from_every_example() {
    an_ordinary_client_gets_its_bytes_back(&Example::start("unbounded_echo", &[]));
    an_ordinary_client_gets_its_bytes_back(&Example::start("blocking_echo", &[]));
    an_ordinary_client_gets_its_bytes_back(&Example::start("timeout_echo", &[]));
    an_ordinary_client_gets_its_bytes_back(&select_tunnel());
}

/// One stalled client stops those that were there and those that come, and they go on when it leaves.
fn one_stalled_client_stops_all(example: &Example) {
    let mut earlier = example.client();
    assert!(earlier.echoes_within(PATIENCE), "served before anybody stalls");

    let mut stalled = example.client();
    let (sent, _) = stalled.flood();
    assert!(
        sent < FLOOD_MAX_BYTES,
        "the server took {sent} bytes and did not block"
    );
    assert!(
        !earlier.echoes_within(SILENCE),
        "an earlier client is still served"
    );
    let mut later = example.client();
    assert!(!later.echoes_within(SILENCE), "a later client is served");

    drop(stalled);
    assert!(
        earlier.greeting_comes_within(PATIENCE),
        "the stalled client was what stopped the earlier one"
    );
    assert!(
        later.greeting_comes_within(PATIENCE),
        "the stalled client was what stopped the later one"
    );
}

#[test]
fn one_stalled_client_stops_blocking_echo_for_everybody() {
    one_stalled_client_stops_all(&Example::start("blocking_echo", &[]));
}

#[test]
fn one_stalled_client_stops_select_tunnel_for_everybody() {
    one_stalled_client_stops_all(&select_tunnel());
}

#[test]
fn unbounded_echo_keeps_in_memory_all_that_a_client_floods_and_serves_the_others() {
    let example = Example::start("unbounded_echo", &[]);
    let mut other = example.client();
    assert!(other.echoes_within(PATIENCE));
    let before = example.resident_bytes();

    let mut stalled = example.client();
    let (sent, _) = stalled.flood();
    assert_eq!(sent, FLOOD_MAX_BYTES, "the server stopped reading");
    // The kernel's buffers may hold some of it, both ways.
    wait_until("memory grows by what was sent", || {
        example.resident_bytes() > before + sent - 16 * MIB
    });
    assert!(other.echoes_within(PATIENCE), "no client waits for another here");
}

#[test]
fn timeout_echo_resets_a_stalled_client_after_five_seconds_and_serves_the_others_throughout() {
    let example = Example::start("timeout_echo", &[]);
    let mut other = example.client();
    assert!(other.echoes_within(PATIENCE));

    let mut stalled = example.client();
    let full = stalled.stall_with_nothing_unread(example.address);
    assert!(!stalled.was_reset(), "too early");
    wait_until("the stalled client is reset", || {
        assert!(other.echoes_within(SILENCE), "the others are served");
        stalled.was_reset()
    });
    let took = full.elapsed();
    assert!(took >= WRITE_TIMEOUT, "reset after only {took:?}");
    assert!(took < WRITE_TIMEOUT + SILENCE, "reset after {took:?}");

    let line = example.log.recv_timeout(PATIENCE).unwrap();
    assert!(
        line.contains("client ") && line.contains(" write timeout, disconnecting"),
        "{line}"
    );
    assert_eq!(
        example.kernel_send_queue(&stalled),
        None,
        "a reset leaves nothing in the kernel"
    );
    assert!(
        other.echoes_within(PATIENCE) && example.client().echoes_within(PATIENCE),
        "it goes on"
    );
}

#[test]
fn timeout_echo_does_not_let_a_trickling_client_stretch_its_message() {
    let example = Example::start("timeout_echo", &[]);
    let mut trickling = example.client_with_small_window();
    let (_, full) = trickling.flood();
    let mut read = 0;
    let mut some = [0; 512];
    wait_until("the trickling client is reset", || {
        // 512 B at most five times a second: each is progress, and all of them are too slow.
        thread::sleep(Duration::from_millis(200));
        let reset = trickling.was_reset();
        read += trickling.0.read(&mut some).unwrap_or(0);
        reset
    });
    let took = full.elapsed();
    assert!(read > 0, "this client was not a trickling one");
    assert!(took < WRITE_TIMEOUT + SILENCE * 2, "reset after {took:?}");
}

#[test]
fn timeout_echo_keeps_a_slow_client_that_reads_steadily() {
    let example = Example::start("timeout_echo", &[]);
    let steady = example.client().0;
    steady.set_read_timeout(Some(PATIENCE)).unwrap();
    // More than the kernel takes, so that the server has to wait for this client all the time.
    let sent = vec![b'x'; 8 * MIB];
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| (&steady).write_all(&sent).unwrap());
        // 128 KiB/s for longer than the timeout, then the rest at once.
        let mut some = [0; 16 * 1024];
        let mut read = 0;
        while start.elapsed() < WRITE_TIMEOUT * 3 / 2 {
            (&steady)
                .read_exact(&mut some)
                .expect("a client that reads is kept");
            read += some.len();
            thread::sleep(Duration::from_millis(125));
        }
        let mut rest = vec![0; sent.len() - read];
        (&steady)
            .read_exact(&mut rest)
            .expect("a client that reads is kept, and loses nothing");
    });
}

#[test]
fn a_plain_close_of_a_stalled_client_leaves_its_bytes_in_the_kernel() {
    let example = Example::start("timeout_echo", &["--plain-close"]);
    let mut stalled = example.client();
    stalled.stall_with_nothing_unread(example.address);
    let line = example.log.recv_timeout(PATIENCE).unwrap();
    assert!(line.contains("write timeout, disconnecting"), "{line}");
    wait_until("the process has closed its socket", || {
        open_sockets(&example) == 1
    });
    let left = example.kernel_send_queue(&stalled);
    assert!(!stalled.was_reset(), "a plain close is none");
    assert!(
        left.is_some_and(|bytes| bytes > 16 * 1024),
        "left in the kernel: {left:?}"
    );
}

fn open_sockets(example: &Example) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", example.process.id())).unwrap();
    let targets = descriptors.filter_map(|one| fs::read_link(one.unwrap().path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn wrong_arguments_get_one_usage_line_and_exit_code_two() {
    for name in ["unbounded_echo", "blocking_echo", "timeout_echo", "select_tunnel"] {
        for typed in [&["--port"][..], &["--port", "many"], &["--size", "1"], &[]] {
            let output = Command::new(binary(name)).args(typed).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name} {typed:?}");
            assert!(
                said.starts_with(&format!("usage: {name} ")) && said.lines().count() == 1,
                "{said}"
            );
            assert!(output.stdout.is_empty());
        }
    }
}
