//! A restart that loses no connection: the successor gets the listening sockets
//! of the server that runs, which serves its clients to their end.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};
use support::server::{BINARY, Server};
use support::sockets::{connect, ping};
use support::{PATIENCE, kernel, wait_until};

/// A folder with a path for the socket.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("take-over")
    }

    fn start(&self, options: &[&str]) -> Server {
        let path = self.path();
        Server::echo(&[&["--take-over", path.to_str().unwrap()], options].concat())
    }

    /// A server that ends by itself, with what it says.
    fn output(&self, options: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command
            .args(["echo", "--port", "0", "--take-over"])
            .arg(self.path());
        command.args(options).output().unwrap()
    }

    /// A caller that is no server.
    fn call(&self) -> Socket {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(self.path()).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// Clients that connect at an even rate, each with one question; some think
/// for longer than a silence counts at a stop.
struct Load {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

/// Threads that keep up the rate: also where a conversation takes 60 ms, as on a busy
/// machine. With 16 of them it fell to 550 a second there.
const LOAD_THREADS: usize = 64;
/// Threads whose clients think, beside these.
const THINKING_THREADS: usize = 2;
const CONNECTIONS_PER_SECOND: u32 = 1000;

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, connections) = (Arc::default(), Arc::default());
        let threads = (0..LOAD_THREADS + THINKING_THREADS).map(|thread| {
            let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
            thread::spawn(move || {
                let think = Duration::from_millis(if thread < LOAD_THREADS { 0 } else { 600 });
                drive(address, think, &stop, &connections)
            })
        });
        let threads = threads.collect();
        Self {
            stop,
            connections,
            threads,
        }
    }

    /// Ends it. Answers how many connections there were, and every trouble.
    fn finish(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let troubles = self.threads.into_iter().flat_map(|thread| thread.join().unwrap());
        let troubles = troubles.collect();
        (self.connections.load(Ordering::Relaxed), troubles)
    }
}

fn drive(address: SocketAddr, think: Duration, stop: &AtomicBool, connections: &AtomicUsize) -> Vec<String> {
    let interval = Duration::from_secs(1) * LOAD_THREADS as u32 / CONNECTIONS_PER_SECOND;
    let mut troubles = Vec::new();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Err(trouble) = converse(address, think) {
            troubles.push(trouble);
        }
        connections.fetch_add(1, Ordering::Relaxed);
        // What waited while nobody accepted is made up for.
        due += interval;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    troubles
}

fn converse(address: SocketAddr, think: Duration) -> Result<(), String> {
    let at = |step: &str, error: std::io::Error| format!("{step}: {error}");
    let mut client = TcpStream::connect(address).map_err(|error| at("connect", error))?;
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::sleep(think);
    client
        .write_all(b"is it there?")
        .map_err(|error| at("write", error))?;
    let mut back = [0; 12];
    client.read_exact(&mut back).map_err(|error| at("read", error))?;
    client
        .shutdown(std::net::Shutdown::Write)
        .map_err(|error| at("end", error))?;
    match client.read(&mut back) {
        Ok(0) => Ok(()),
        Ok(more) => Err(format!("{more} bytes too many")),
        Err(error) => Err(at("last read", error)),
    }
}

/// Restarts in a test; `HIGHWATER_RESTARTS=20` for more.
fn restarts() -> usize {
    let asked = std::env::var("HIGHWATER_RESTARTS").ok();
    asked.map_or(4, |count| count.parse().unwrap())
}

#[test]
fn no_connection_is_lost_over_restarts_by_take_over() {
    let place = Place::new();
    // A machine that does other things may take long over a conversation.
    let options = ["--stop-timeout", "30s"];
    let mut server = place.start(&options);
    let address = server.address();
    let (load, began) = (Load::start(address), Instant::now());
    for restart in 0..restarts() {
        thread::sleep(Duration::from_millis(300));
        let successor = place.start(&options);
        assert_eq!(successor.address(), address, "restart {restart}");
        let taken = successor.wait_for_line("has left its listening sockets to us");
        assert!(
            taken.contains(&format!("process {}", server.pid().as_raw_nonzero())),
            "{taken}"
        );
        server.wait_for_line("accepts now: leaving it the listening sockets");
        assert!(server.wait_for_exit().success());
        let summary = server.wait_for_line("stopped: ");
        assert!(summary.contains(" 0 at the stop; 0 refused"), "{summary}");
        server = successor;
    }
    assert_none_lost(load, began);
    server.stop();
    assert!(
        !place.path().exists(),
        "the path of a server that has ended is removed"
    );
}

/// Ends the load, and demands that it was one and that every connection was answered.
fn assert_none_lost(load: Load, began: Instant) {
    let (connections, troubles) = load.finish();
    println!(
        "{} restarts, {connections} connections, {:.0} a second",
        restarts(),
        connections as f64 / began.elapsed().as_secs_f64()
    );
    assert!(connections > 100, "only {connections} connections");
    assert!(
        troubles.is_empty(),
        "{} of {connections}: {troubles:?}",
        troubles.len()
    );
}

#[test]
fn no_connection_is_lost_over_restarts_under_socket_activation() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let start = || {
        let copy = OwnedFd::from(socket.try_clone().unwrap());
        Server::start_with_sockets("echo", vec![copy], &["--stop-timeout", "30s"])
    };
    let mut server = start();
    let (load, began) = (Load::start(address), Instant::now());
    for _ in 0..restarts() {
        thread::sleep(Duration::from_millis(300));
        // The service manager starts the next one when the first has ended.
        server.signal(Signal::TERM);
        assert!(server.wait_for_exit().success());
        let summary = server.wait_for_line("stopped: ");
        assert!(summary.contains(" 0 at the stop; 0 refused"), "{summary}");
        server = start();
    }
    assert_none_lost(load, began);
    server.stop();
}

/// Subcommand, options, request, answer.
type Row<'a> = (&'a str, Vec<&'a str>, &'a [u8], &'a [u8]);

#[test]
fn every_service_answers_who_was_accepted_before_and_asks_afterwards() {
    let upstream = Server::echo(&[]);
    let to = upstream.address().to_string();
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().to_str().unwrap();
    let frame = b"\0\0\0\x02hi";
    let services: [Row<'_>; 4] = [
        ("echo", vec!["--framing", "length"], frame, frame),
        ("tunnel", vec!["--to", &to], b"through", b"through"),
        (
            "serve",
            vec![files],
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HTTP/1.1 ",
        ),
        ("broadcast", vec![], b"PING\r\n", b"+PONG\r\n"),
    ];
    for (subcommand, options, request, expected) in services {
        let place = Place::new();
        let path = place.path();
        let common = ["--take-over", path.to_str().unwrap(), "--stop-timeout", "30s"];
        let start = || Server::start(subcommand, &[&options[..], &common].concat());
        let first = start();
        let descriptors = kernel::descriptors(first.pid());
        let before = connect(first.address());
        wait_until("it is accepted", || {
            kernel::descriptors(first.pid()) > descriptors
        });
        let second = start();
        assert_eq!(second.address(), first.address());
        first.wait_for_line("stopping: 1 clients");
        for mut client in [before, connect(second.address())] {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(request).unwrap();
            let mut answer = vec![0; expected.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, expected, "{subcommand}");
        }
        assert!(first.wait_for_exit().success());
    }
}

/// The port on which operators are answered.
fn admin_address(server: &Server) -> SocketAddr {
    let line = server.wait_for_line("admin page on http://");
    let (_, rest) = line.split_once("http://").unwrap();
    rest.trim_end_matches('/').parse().unwrap()
}

fn is_healthy(address: SocketAddr) -> bool {
    let mut operator = connect(address);
    operator.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /healthz HTTP/1.0\r\nHost: {address}\r\n\r\n");
    operator.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    operator.read_to_string(&mut answer).unwrap();
    answer.contains(" 200 ")
}

#[test]
fn the_socket_of_operators_is_taken_over_too() {
    let place = Place::new();
    let options = ["--admin", "127.0.0.1:0"];
    let first = place.start(&options);
    let address = admin_address(&first);
    assert!(is_healthy(address));
    let second = place.start(&options);
    second.wait_for_line("taking 2 listening sockets over");
    assert_eq!(admin_address(&second), address);
    assert!(first.wait_for_exit().success());
    assert!(is_healthy(address));
    let third = place.start(&[]);
    third.wait_for_line(&format!(
        "leaving {address}, which is not asked for any more: see --admin"
    ));
    assert!(second.wait_for_exit().success());
    assert!(TcpStream::connect(address).is_err());
}

/// It might be the successor's by then: a server that looks first and removes
/// then removes the new one now and then, and the next restart finds nobody.
#[test]
fn a_server_that_was_taken_over_leaves_the_path_to_its_successor() {
    let place = Place::new();
    let server = place.start(&[]);
    let successor = place.call();
    successor.send(b"highwater take-over 1").unwrap();
    server.wait_for_line("asked for the listening sockets, and has them");
    successor.send(b"accepting").unwrap();
    assert!(server.wait_for_exit().success());
    assert!(place.path().exists());
    let alone = place.start(&[]);
    alone.signal(Signal::TERM);
    assert!(alone.wait_for_exit().success());
    assert!(!place.path().exists(), "without a successor the path is removed");
}

#[test]
fn a_caller_that_hangs_up_or_speaks_nonsense_changes_nothing() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut client = connect(server.address());
    drop(place.call());
    server.wait_for_line("it hung up");
    let nonsense = place.call();
    nonsense.send(b"GET / HTTP/1.1\r\n").unwrap();
    server.wait_for_line("it said \"GET / HTTP/1.1");
    let binary = place.call();
    binary.send(&[0xff; 64]).unwrap();
    server.wait_for_line("its message is no text");
    let long = place.call();
    long.send(&[b'x'; 5000]).unwrap();
    server.wait_for_line("its message is too long");
    // One that has the sockets, and ends before it accepts.
    let gives_up = place.call();
    gives_up.send(b"highwater take-over 1").unwrap();
    server.wait_for_line("asked for the listening sockets, and has them");
    drop(gives_up);
    server.wait_for_lines(2, "it hung up");
    for line in server.lines_with("has not taken over") {
        assert!(line.contains("going on as before"), "{line}");
    }
    ping(&mut client, b"as before");
    ping(&mut connect(server.address()), b"as before");
    let successor = place.start(&[]);
    assert_eq!(successor.address(), server.address());
    drop(client);
    assert!(server.wait_for_exit().success());
}

#[test]
fn callers_that_say_nothing_or_never_accept_take_few_seats_and_keep_no_successor_out() {
    let place = Place::new();
    let server = place.start(&[]);
    // These may take a minute to start, and the last of them says nothing at all.
    let waiting: Vec<_> = (0..3).map(|_| place.call()).collect();
    for caller in &waiting {
        caller.send(b"highwater take-over 1").unwrap();
    }
    server.wait_for_lines(3, "asked for the listening sockets, and has them");
    let silent = place.call();
    let successor = place.start(&[]);
    assert_eq!(successor.address(), server.address());
    server.wait_for_line("made room for a later caller");
    let told = first_words(&waiting[0], 2);
    assert_eq!(told[1], "refused: a later caller took its place");
    assert!(server.wait_for_exit().success());
    ping(&mut connect(successor.address()), b"accepted");
    drop((waiting, silent));
}

/// The next messages to a caller, with the first line of each.
fn first_words(caller: &Socket, count: usize) -> Vec<String> {
    let next = |_| {
        let (mut message, mut reader) = ([0; 4096], caller);
        let length = reader.read(&mut message).unwrap();
        let text = std::str::from_utf8(&message[..length]).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    (0..count).map(next).collect()
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let place = Place::new();
    let server = place.start(&[]);
    // An address that no machine has.
    let failed = place.output(&["--host", "127.0.0.1", "--host", "192.0.2.1"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    server.wait_for_line("has not taken over, going on as before: it hung up");
    ping(&mut connect(server.address()), b"as before");
    let successor = place.start(&[]);
    assert_eq!(successor.address(), server.address());
    ping(&mut connect(server.address()), b"the successor");
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_server_that_stops_already_is_not_taken_over() {
    let place = Place::new();
    let server = place.start(&["--stop-timeout", "30s"]);
    let mut client = connect(server.address());
    let slow = place.call();
    slow.send(b"highwater take-over 1").unwrap();
    server.wait_for_line("and has them");
    // So that it does not end at once.
    let busy = std::sync::Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&busy);
    let talking = thread::spawn(move || {
        while goes_on.load(Ordering::Relaxed) {
            ping(&mut client, b"busy");
            thread::sleep(Duration::from_millis(20));
        }
    });
    server.signal(Signal::TERM);
    server.wait_for_line("stopping: ");
    slow.send(b"accepting").unwrap();
    server.wait_for_line("asked to take over, too late: the server stops already");
    let refused = place.output(&[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("the server stops already"), "{said}");
    busy.store(false, Ordering::Relaxed);
    talking.join().unwrap();
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_stale_path_is_no_obstacle_and_any_other_file_is_left_alone() {
    let place = Place::new();
    let server = place.start(&[]);
    let mode = fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.signal(Signal::KILL);
    server.wait_for_exit();
    assert!(place.path().exists(), "a killed server leaves it");
    let next = place.start(&[]);
    next.wait_for_line("no server to take over from");
    ping(&mut connect(next.address()), b"it starts");
    next.stop();
    fs::write(place.path(), "precious").unwrap();
    let refused = place.output(&[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("another kind of file"), "{said}");
    assert_eq!(fs::read_to_string(place.path()).unwrap(), "precious");
    let names = fs::read_dir(place.folder.path()).unwrap().count();
    assert_eq!(names, 1, "nothing is left beside it");
}

#[test]
fn addresses_that_the_successor_does_not_name_are_left_and_new_ones_are_listened_on() {
    let place = Place::new();
    let first = place.start(&["--host", "127.0.0.1", "--host", "127.0.0.2"]);
    let second = place.start(&["--host", "127.0.0.3", "--host", "127.0.0.1"]);
    assert_eq!(second.address(), first.address());
    second.wait_for_line(&format!(
        "leaving 127.0.0.2:{}, which is not asked for any more: see --host",
        first.port()
    ));
    assert!(first.wait_for_exit().success());
    let address = |host: [u8; 4]| SocketAddr::from((host, first.port()));
    ping(&mut connect(address([127, 0, 0, 1])), b"taken over");
    ping(&mut connect(address([127, 0, 0, 3])), b"new");
    assert!(TcpStream::connect(address([127, 0, 0, 2])).is_err());
}

/// Runs the server as the user nobody; `None` if this is not root.
fn as_nobody(path: &Path) -> Option<Output> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("skipped: only root can run a program as another user");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "--", BINARY]);
    command.args(["echo", "--port", "0", "--take-over"]).arg(path);
    Some(command.output().unwrap())
}

#[test]
fn another_user_gets_nothing() {
    let place = Place::new();
    let server = place.start(&[]);
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    open(place.folder.path());
    let Some(output) = as_nobody(&place.path()) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    // Even if somebody opened the socket to all.
    open(&place.path());
    let output = as_nobody(&place.path()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("runs as user 0 and not as user 65534"), "{said}");
    server.wait_for_line("refused a caller of --take-over: the other side runs as user 65534");
    ping(&mut connect(server.address()), b"as before");
    wait_until("nobody asked with success", || {
        server.lines_with("and has them").is_empty()
    });
}
