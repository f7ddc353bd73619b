//! In a container of 256 MiB: whatever clients do, the server disconnects and
//! refuses, and the kernel never has to kill it. Needs root and control groups
//! of either version; skipped with a line elsewhere.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use highwater::raise_descriptor_limit;
use support::server::{BINARY, Server};
use support::sockets::{Buffers, connect, ping, try_connect_with};
use support::tunnel::Upstream;

const CONTAINER_BYTES: usize = 256 * 1024 * 1024;

/// A control group with a limit of memory, removed when dropped.
struct Container {
    folder: PathBuf,
    /// How often the kernel killed one of its processes stands here.
    kills_file: &'static str,
}

impl Container {
    /// `None`, and a line that says why, where such a group cannot be made.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("highwater-test-{}-{number}", std::process::id());
        let roots = [
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.oom_control",
            ),
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
        ];
        for (root, limit_file, kills_file) in roots {
            let folder = Path::new(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let container = Self { folder, kills_file };
            let limit = CONTAINER_BYTES.to_string();
            if fs::write(container.folder.join(limit_file), limit).is_ok() {
                return Some(container);
            }
        }
        eprintln!("SKIPPED: no control group with a limit of memory can be made here (it takes root)");
        None
    }

    fn start(&self, subcommand: &str, options: &[&str]) -> Server {
        let mut launcher = Command::new("sh");
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"",
            self.folder.display()
        );
        launcher.args(["-c", &script, BINARY]);
        Server::start_by(launcher, subcommand, options)
    }

    /// The kernel killed nothing in it, and the server is well.
    fn check_alive(&self, server: &Server) {
        let text = fs::read_to_string(self.folder.join(self.kills_file)).unwrap();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        assert_eq!(kills.map_or("0", str::trim), "0", "{text}");
        assert!(!server.has_exited(), "{}", server.log());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The server may take a moment to be gone.
        support::holds_within(support::PATIENCE, || fs::remove_dir(&self.folder).is_ok());
    }
}

/// Sends up to so many bytes and reads nothing. Answers whether the client is
/// still connected as far as it knows.
fn stuff(client: &TcpStream, bytes: usize) -> bool {
    client.set_nonblocking(true).unwrap();
    let (mut writer, piece) = (client, [7; 64 * 1024]);
    let mut sent = 0;
    while sent < bytes {
        match writer.write(&piece[..piece.len().min(bytes - sent)]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
    true
}

#[test]
fn the_limits_in_force_are_those_of_the_container_and_one_line_tells() {
    let Some(container) = Container::new() else { return };
    let server = container.start("echo", &[]);
    let line = server.wait_for_line("the system offers ");
    assert!(line.contains("offers 256.0MiB of memory ("), "{line}");
    let own = container.folder.file_name().unwrap().to_str().unwrap();
    assert!(line.contains(own), "{line}");
    let line = server.wait_for_line("limits in force: ");
    let clients = line.split_once("max clients ").unwrap().1;
    let clients: usize = clients.split(',').next().unwrap().parse().unwrap();
    assert!(clients < 2000, "{line}");
}

/// Ten thousand clients that send so much and read nothing, beside a healthy
/// one. Answers the summary.
fn ten_thousand(container: &Container, bytes: usize) -> String {
    raise_descriptor_limit().unwrap();
    let server = container.start("echo", &[]);
    let mut healthy = connect(server.address());
    ping(&mut healthy, b"in");
    let mut clients = Vec::new();
    for number in 0..10_000 {
        let client = try_connect_with(server.address(), Buffers::SMALL);
        if let Ok(client) = client
            && stuff(&client, bytes)
        {
            clients.push(client);
        }
        if number % 500 == 0 {
            ping(&mut healthy, b"served as ever");
        }
    }
    for client in &clients {
        stuff(client, bytes);
    }
    ping(&mut healthy, b"served as ever");
    container.check_alive(&server);
    drop(clients);
    server.stop()
}

#[test]
fn of_ten_thousand_stalled_clients_those_with_the_longest_queues_are_disconnected() {
    let Some(container) = Container::new() else { return };
    let summary = ten_thousand(&container, 512 * 1024);
    assert!(!summary.contains(" 0 memory budget"), "{summary}");
}

#[test]
fn of_ten_thousand_that_stall_before_a_queue_shows_it_most_are_refused() {
    let Some(container) = Container::new() else { return };
    let summary = ten_thousand(&container, 16 * 1024);
    let refused = summary
        .split_once(" refused")
        .unwrap()
        .0
        .rsplit(' ')
        .next()
        .unwrap();
    assert!(refused.parse::<usize>().unwrap() > 5_000, "{summary}");
}

#[test]
fn four_hundred_unfinished_frames_lead_to_disconnects() {
    let Some(container) = Container::new() else { return };
    let server = container.start("echo", &["--framing", "length"]);
    let message = [&4_u32.to_be_bytes()[..], b"ping"].concat();
    let mut healthy = connect(server.address());
    ping(&mut healthy, &message);
    let mut clients = Vec::new();
    for number in 0..400 {
        let mut client = connect(server.address());
        client.write_all(&(1_u32 << 20).to_be_bytes()).unwrap();
        // It may be disconnected meanwhile.
        let _ = client.write_all(&[7; 1_000_000]);
        clients.push(client);
        if number % 50 == 0 {
            ping(&mut healthy, &message);
        }
    }
    ping(&mut healthy, &message);
    container.check_alive(&server);
    assert!(!server.stop().contains(" 0 memory budget"));
}

#[test]
fn a_thousand_tunnelled_clients_are_refused_or_disconnected() {
    let Some(container) = Container::new() else { return };
    raise_descriptor_limit().unwrap();
    let upstream = Upstream::listen();
    let to = upstream.address().to_string();
    let server = container.start("tunnel", &["--to", &to]);
    let (mut clients, mut upstreams) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        if let Ok(client) = try_connect_with(server.address(), Buffers::SMALL) {
            stuff(&client, 512 * 1024);
            clients.push(client);
        }
    }
    // The upstream fills every pair from its side too, and reads nothing.
    let patience = std::time::Duration::from_millis(200);
    while let Some(accepted) = upstream.accept_within(patience) {
        stuff(&accepted, 512 * 1024);
        upstreams.push(accepted);
    }
    for client in &clients {
        stuff(client, 512 * 1024);
    }
    container.check_alive(&server);
    drop((clients, upstreams));
    let summary = server.stop();
    let is_bounded = !summary.contains("; 0 refused") || !summary.contains(" 0 memory budget");
    assert!(is_bounded, "{summary}");
}

/// A real group of version 2, in a namespace of mounts. The machine may have the
/// memory in version 1 and then has no files for it in version 2, so the limits
/// lie in a folder that is mounted over the group's.
struct SecondVersion {
    folder: tempfile::TempDir,
    other: tempfile::TempDir,
}

impl SecondVersion {
    fn new() -> Option<Self> {
        let second = Self {
            folder: tempfile::tempdir().unwrap(),
            other: tempfile::tempdir().unwrap(),
        };
        if second
            .shell("mkdir \"$MOUNTED/$GROUP\"")
            .status()
            .is_ok_and(|status| status.success())
        {
            return Some(second);
        }
        eprintln!("SKIPPED: no control group of version 2 can be mounted here (it takes root)");
        None
    }

    /// Runs a script where the hierarchy is mounted.
    fn shell(&self, script: &str) -> Command {
        let mounted = self.folder.path();
        let mut shell = Command::new("unshare");
        let script = format!("set -e; mount -t cgroup2 none \"$MOUNTED\"; {script}");
        shell.args(["--mount", "sh", "-c", &script, BINARY]);
        shell.env("MOUNTED", mounted);
        shell.env("OTHER", self.other.path());
        shell.env(
            "GROUP",
            format!("highwater-test-{}", mounted.file_name().unwrap().display()),
        );
        shell
    }

    /// The line about what the system offers to a server in that group.
    fn offer(&self, script: &str) -> String {
        let launcher = self.shell(&format!("echo $$ > \"$MOUNTED/$GROUP/cgroup.procs\"; {script}"));
        let server = Server::start_by(launcher, "echo", &[]);
        let line = server.wait_for_line("the system offers ");
        server.stop();
        line
    }
}

impl Drop for SecondVersion {
    fn drop(&mut self) {
        // The server may take a moment to be gone.
        support::holds_within(support::PATIENCE, || {
            let removed = self.shell("rmdir \"$MOUNTED/$GROUP\" 2>/dev/null").status();
            removed.is_ok_and(|status| status.success())
        });
    }
}

#[test]
fn a_limit_of_a_group_of_version_2_is_found() {
    let Some(second) = SecondVersion::new() else {
        return;
    };
    let line = second.offer(
        "mount -t tmpfs none \"$MOUNTED/$GROUP\"; echo 268435456 > \"$MOUNTED/$GROUP/memory.max\"; exec \"$0\" \"$@\"",
    );
    assert!(line.contains("offers 256.0MiB of memory ("), "{line}");
    assert!(line.contains("/memory.max"), "{line}");
}

#[test]
fn inside_a_namespace_of_groups_the_limit_of_the_own_one_is_found() {
    let Some(second) = SecondVersion::new() else {
        return;
    };
    // As a container engine does: the namespace, then the hierarchy mounted anew.
    let line = second.offer(
        "export INSIDE='set -e; mount -t cgroup2 none \"$OTHER\"; mount -t tmpfs none \"$OTHER\"; \
         echo max > \"$OTHER/memory.max\"; echo 134217728 > \"$OTHER/memory.high\"; exec \"$0\" \"$@\"'; \
         exec unshare --cgroup --mount sh -c \"$INSIDE\" \"$0\" \"$@\"",
    );
    assert!(line.contains("offers 128.0MiB of memory ("), "{line}");
    assert!(line.contains("/memory.high"), "{line}");
}
