//! What a service manager does with a server: it is told the state, watches the
//! event loop, and passes listening sockets.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use highwater::{Actions, ClientId, EventLoop, Limits, Service};
use rustix::process::Signal;
use support::server::{BINARY, Server, activated};
use support::sockets::{End, connect, ping, read_to_end};
use support::{PATIENCE, wait_until};

/// A service manager that hears messages.
struct Manager {
    socket: UnixDatagram,
    variable: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new(is_abstract: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let (socket, variable) = if is_abstract {
            let name = path.to_str().unwrap();
            let address = UnixAddr::from_abstract_name(name).unwrap();
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
        } else {
            (
                UnixDatagram::bind(&path).unwrap(),
                path.to_str().unwrap().to_owned(),
            )
        };
        Self {
            socket,
            variable,
            _folder: folder,
        }
    }

    /// The next message; `None` if none comes within `time`.
    fn next(&self, time: Duration) -> Option<String> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(time)).unwrap();
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// The next message with this line.
    fn wait_for(&self, line: &str) -> String {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if let Some(message) = self.next(PATIENCE)
                && message.lines().any(|said| said == line)
            {
                return message;
            }
        }
        panic!("the service manager waited in vain for {line}");
    }

    fn start(&self, variables: &[(&str, &str)], options: &[&str]) -> Server {
        let mut launcher = Command::new("env");
        launcher.arg(format!("NOTIFY_SOCKET={}", self.variable));
        launcher.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        launcher.arg(BINARY);
        Server::start_by(launcher, "echo", options)
    }
}

#[test]
fn the_manager_hears_when_it_accepts_reloads_and_stops() {
    for is_abstract in [false, true] {
        let manager = Manager::new(is_abstract);
        let server = manager.start(&[], &[]);
        let ready = manager.wait_for("READY=1");
        assert!(
            ready.contains(&format!("STATUS=listening on {}", server.address())),
            "{ready}"
        );
        ping(&mut connect(server.address()), b"accepted");
        server.signal(Signal::HUP);
        let reloading = manager.wait_for("RELOADING=1");
        let usec = reloading
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let said = Duration::from_micros(usec.unwrap().parse().unwrap());
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap());
        assert!(
            said <= now && now - said < PATIENCE,
            "{said:?} is not just before {now:?}"
        );
        manager.wait_for("READY=1");
        server.signal(Signal::TERM);
        manager.wait_for("STOPPING=1");
        assert!(server.wait_for_exit().success());
    }
}

#[test]
fn the_manager_hears_of_the_end_of_a_reload_once_it_is_in_force_and_also_after_a_bad_file() {
    let manager = Manager::new(false);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("highwater.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("grace = \"9s\"\n");
    let server = manager.start(&[], &["--config", path.to_str().unwrap()]);
    manager.wait_for("READY=1");
    for (text, line) in [
        ("grace = \"7s\"\n", "reload: "),
        ("grace = 7\n", "; nothing has changed"),
        ("grace = \"6s\"\n", "grace = 6s"),
    ] {
        write(text);
        server.signal(Signal::HUP);
        let reloading = manager.wait_for("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        manager.wait_for("READY=1");
        server.wait_for_line(line);
    }
    let in_force = server.wait_for_lines(3, "limits in force: ");
    assert!(
        in_force[1].contains("grace 7s") && in_force[2].contains("grace 6s"),
        "{in_force:?}"
    );
}

#[test]
fn a_reload_without_a_log_file_ends_nobody_under_a_manager() {
    let manager = Manager::new(false);
    let mut command = Command::new(BINARY);
    command.args(["echo", "--port", "0", "--log-level", "off"]);
    command.env("NOTIFY_SOCKET", &manager.variable);
    let mut server = Ended(command.spawn().unwrap());
    let pid = rustix::process::Pid::from_child(&server.0);
    let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
    manager.wait_for("READY=1");
    signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn the_loop_beats_for_the_manager_that_watches_it_and_for_no_other() {
    let manager = Manager::new(false);
    let server = manager.start(&[("WATCHDOG_USEC", "200000")], &[]);
    for _ in 0..5 {
        let beat = manager.wait_for("WATCHDOG=1");
        assert!(beat.contains("STATUS="), "{beat}");
    }
    let _client = connect(server.address());
    wait_until("the status counts a client", || {
        manager
            .wait_for("WATCHDOG=1")
            .contains("STATUS=1 connections, 1 clients served")
    });
    let manager = Manager::new(false);
    let _server = manager.start(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")], &[]);
    manager.wait_for("READY=1");
    while let Some(message) = manager.next(Duration::from_millis(800)) {
        assert!(!message.contains("WATCHDOG"), "{message}");
    }
}

#[test]
fn a_manager_that_reads_nothing_stalls_nobody() {
    let manager = Manager::new(false);
    let server = manager.start(&[("WATCHDOG_USEC", "2000")], &[]);
    // Its socket is full after some ten messages, and a beat comes each millisecond.
    let mut client = connect(server.address());
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(10));
        ping(&mut client, b"still here");
    }
    drop(client);
    server.stop();
}

/// Hangs while it serves, until it is released.
struct Hangs(Receiver<()>);

impl Service for Hangs {
    fn received(&mut self, _: ClientId, _: &[u8], _: &mut Actions<'_>) {
        let _ = self.0.recv_timeout(PATIENCE);
    }
}

#[test]
fn a_loop_that_hangs_beats_no_more_and_beats_again_when_it_runs() {
    let (release, hangs) = channel();
    let mut server = EventLoop::listen(([127, 0, 0, 1], 0).into(), Limits::default(), Hangs(hangs)).unwrap();
    let beats = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&beats);
    server.set_heartbeat(Duration::from_millis(20), move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let (address, remote) = (server.local_addr(), server.remote());
    let running = thread::spawn(move || server.run());
    let count = || beats.load(Ordering::Relaxed);
    wait_until("it beats", || count() >= 3);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hang").unwrap();
    // At most the beats of the time until the loop reads it.
    let mut before = count();
    wait_until("it has stopped beating for 200 ms", || {
        thread::sleep(Duration::from_millis(200));
        let stood = count() == before;
        before = count();
        stood
    });
    release.send(()).unwrap();
    wait_until("it beats again", || count() > before + 2);
    drop(release);
    remote.stop();
    running.join().unwrap().unwrap();
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What comes back for `request`, at least `length` bytes.
fn answer(address: SocketAddr, request: &[u8], length: usize) -> Vec<u8> {
    let mut client = connect(address);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(request).unwrap();
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

/// Subcommand, options, request, answer.
type Row<'a> = (&'a str, Vec<&'a str>, &'a [u8], &'a [u8]);

#[test]
fn every_service_serves_on_all_sockets_that_it_is_passed() {
    let upstream = Server::echo(&[]);
    let to = upstream.address().to_string();
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().to_str().unwrap();
    let frame = b"\0\0\0\x02hi";
    let services: [Row<'_>; 5] = [
        ("echo", vec![], b"plain", b"plain"),
        ("echo", vec!["--framing", "length"], frame, frame),
        ("tunnel", vec!["--to", &to], b"through", b"through"),
        ("serve", vec![files], b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1."),
        ("broadcast", vec![], b"PING\r\n", b"+PONG\r\n"),
    ];
    for (subcommand, options, request, expected) in services {
        let ((first, first_address), (second, second_address)) = (listener(), listener());
        let sockets = vec![OwnedFd::from(first), OwnedFd::from(second)];
        let server = Server::start_with_sockets(subcommand, sockets, &options);
        let line = server.wait_for_line("from the service manager");
        assert!(line.contains("2 listening sockets come"), "{line}");
        for address in [first_address, second_address] {
            server.wait_for_line(&format!("listening on {address}"));
            assert_eq!(answer(address, request, expected.len()), expected, "{subcommand}");
        }
    }
}

#[test]
fn the_socket_that_is_named_admin_is_for_operators() {
    let ((first, serving), (second, admin)) = (listener(), listener());
    let sockets = || {
        vec![
            OwnedFd::from(first.try_clone().unwrap()),
            OwnedFd::from(second.try_clone().unwrap()),
        ]
    };
    let mut command = activated(sockets());
    command.args(["echo", "--log-level", "off", "--admin", &admin.to_string()]);
    let _server = Ended(command.env("LISTEN_FDNAMES", "web:admin").spawn().unwrap());
    assert_eq!(answer(serving, b"a client", 8), b"a client");
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    assert_eq!(answer(admin, request.as_bytes(), 12), b"HTTP/1.1 200");
    let without = activated(sockets())
        .arg("echo")
        .env("LISTEN_FDNAMES", "web:admin")
        .output()
        .unwrap();
    assert_eq!(without.status.code(), Some(1));
    assert!(
        String::from_utf8(without.stderr)
            .unwrap()
            .contains("there is no --admin: add it")
    );
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (passed, address) = listener();
    let mut launcher = Command::new("env");
    launcher.args(["LISTEN_FDS=1", "LISTEN_PID=1", BINARY]);
    let server = Server::start_by(launcher, "echo", &[]);
    assert_ne!(server.address(), address);
    ping(&mut connect(server.address()), b"as without");
    assert!(server.lines_with("from the service manager").is_empty());
    drop(passed);
}

#[test]
fn sockets_that_nobody_can_connect_to_are_refused_in_one_line() {
    let (connected, _) = listener();
    let connected = TcpStream::connect(connected.local_addr().unwrap()).unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let wrong: [(OwnedFd, &str); 2] = [
        (datagrams.into(), "not a valid tcp socket"),
        (connected.into(), "Accept=no"),
    ];
    for (socket, why) in wrong {
        let output = activated(vec![socket]).arg("echo").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.contains("ListenStream"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let script = "LISTEN_FDS=many LISTEN_PID=$$ exec \"$0\" echo";
    let output = Command::new("sh").args(["-c", script, BINARY]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("LISTEN_FDS=many")
    );
}

#[test]
fn after_the_signal_a_passed_socket_keeps_who_waits_for_the_next_server() {
    let (socket, address) = listener();
    let copy = || vec![OwnedFd::from(socket.try_clone().unwrap())];
    let first = Server::start_with_sockets("echo", copy(), &["--stop-timeout", "30s"]);
    let mut late = connect(address);
    ping(&mut late, b"served by the first");
    first.signal(Signal::TERM);
    first.wait_for_line("stopping: ");
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting.write_all(b"for the second").unwrap();
    // Without a successor it would be closed after 0.3 s of silence.
    thread::sleep(Duration::from_millis(700));
    ping(&mut late, b"still the first");
    let second = Server::start_with_sockets("echo", copy(), &[]);
    let mut back = [0; 14];
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    waiting.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"for the second");
    late.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut late), (Vec::new(), End::Clean));
    assert!(first.wait_for_exit().success());
    drop(waiting);
    second.stop();
}

#[test]
fn who_says_nothing_until_the_stop_timeout_sees_an_orderly_end() {
    let (socket, address) = listener();
    let server = Server::start_with_sockets("echo", vec![socket.into()], &["--stop-timeout", "3s"]);
    let mut client = connect(address);
    ping(&mut client, b"in");
    server.signal(Signal::TERM);
    let asked = Instant::now();
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
    assert!(
        asked.elapsed() > Duration::from_millis(1500),
        "{:?}",
        asked.elapsed()
    );
    drop(client);
    assert!(server.wait_for_exit().success());
}

/// A child that is ended when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn systemd_passes_its_sockets() {
    let program = "/usr/bin/systemd-socket-activate";
    if !std::path::Path::new(program).exists() {
        eprintln!("skipped: {program} is not installed");
        return;
    }
    // An address of its own, so that no other test takes the port meanwhile.
    let host = format!("127.{}.9.1", 100 + std::process::id() % 100);
    let ports = [0, 0].map(|port| TcpListener::bind((host.as_str(), port)).unwrap());
    let addresses = ports.each_ref().map(|port| port.local_addr().unwrap());
    drop(ports);
    let mut command = Command::new(program);
    command.args(addresses.map(|address| format!("--listen={address}")));
    command.args(["--fdname=one:two", BINARY, "echo"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _systemd = Ended(child.unwrap());
    for address in addresses {
        wait_until("it listens", || TcpStream::connect(address).is_ok());
        assert_eq!(answer(address, b"activated", 9), b"activated");
    }
}
