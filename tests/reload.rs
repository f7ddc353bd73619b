//! The file of options is read again while the server runs: what changes for
//! clients that are there, what does not, and what a bad file does.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that fails should say so at once, and these run against the real clock"
)]

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::server::{Server, number_before, second_of};
use support::sockets::{Buffers, End, connect, connect_with, fill_up_to, half_close, ping, read_to_end};
use support::tunnel::Upstream;
use support::{PATIENCE, holds_within, wait_until};
use tempfile::TempDir;

/// Sent by a client that reads nothing: more than its sockets and the queue
/// hold.
const SENT_BYTES: usize = 128 << 10;

/// A file of options that changes.
struct Config {
    path: PathBuf,
    _directory: TempDir,
}

impl Config {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("highwater.toml");
        std::fs::write(&path, text).unwrap();
        Self {
            path,
            _directory: directory,
        }
    }

    fn start(&self, subcommand: &str, options: &[&str]) -> Server {
        let own = ["--config", self.path.to_str().unwrap()];
        Server::start(subcommand, &[&own, options].concat())
    }

    /// Writes another text, and has the server read it. Answers the first line
    /// about that.
    fn change(&self, server: &Server, text: &str) -> String {
        std::fs::write(&self.path, text).unwrap();
        let before = server.lines_with("reload: ").len();
        server.signal(Signal::HUP);
        server.wait_for_lines(before + 1, "reload: ").remove(before)
    }
}

/// A client over the limit.
fn stalled(server: &Server) -> TcpStream {
    let before = server.lines_with("write blocked").len();
    let mut client = connect_with(server.address(), Buffers::SMALL);
    fill_up_to(&mut client, SENT_BYTES);
    server.wait_for_lines(before + 1, "write blocked");
    client
}

fn is_there_for(server: &Server, time: Duration, line: &str) -> bool {
    holds_within(time, || !server.lines_with(line).is_empty())
}

#[test]
fn a_grace_that_is_lowered_acts_on_a_client_that_is_stalled_already_and_all_of_it_is_left() {
    for options in [&["--framing", "none"][..], &["--framing", "length"]] {
        let config = Config::new("grace = \"10m\"\ndrain-timeout = \"20m\"\n");
        let server = config.start("echo", options);
        let mut client = connect_with(server.address(), Buffers::SMALL);
        if options[1] == "length" {
            // One long frame, of which the answer waits.
            use std::io::Write;
            client.write_all(&(SENT_BYTES as u32 * 4).to_be_bytes()).unwrap();
            fill_up_to(&mut client, SENT_BYTES * 4);
        } else {
            fill_up_to(&mut client, SENT_BYTES);
        }
        server.wait_for_line("write blocked");
        // Longer than the grace that comes.
        std::thread::sleep(Duration::from_millis(1200));
        let line = config.change(&server, "grace = \"1s\"\ndrain-timeout = \"20m\"\n");
        assert!(line.contains("grace = 1s"), "{line}");
        let cut = server.wait_for_line("write timeout, disconnecting");
        let allowed = second_of(&cut) - second_of(&server.wait_for_line("grace 1s"));
        assert!(allowed > 0.99, "only {allowed} s after the reload: {cut}");
        let slow_for = number_before(&cut, "s, ");
        assert!(slow_for < allowed + 0.1, "it has the grace once more: {cut}");
    }
}

#[test]
fn a_mark_and_limit_that_are_raised_keep_a_client_that_was_over_them() {
    let config = Config::new("grace = \"4s\"\n");
    let server = config.start("echo", &[]);
    let mut client = stalled(&server);
    config.change(&server, "grace = \"4s\"\nhigh-water-mark = \"1MiB\"\n");
    assert!(
        !is_there_for(&server, Duration::from_secs(6), "disconnecting"),
        "it is below the limit now"
    );
    half_close(&client);
    let (read, end) = read_to_end(&mut client);
    assert_eq!((read.len(), end), (SENT_BYTES, End::Clean), "it has lost nothing");
}

#[test]
fn a_limit_that_is_lowered_acts_on_a_client_that_was_below_it() {
    let config = Config::new("high-water-mark = \"1MiB\"\nlimit = \"1MiB\"\n");
    let server = config.start("echo", &["--grace", "500ms"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    fill_up_to(&mut client, SENT_BYTES);
    assert!(!is_there_for(&server, Duration::from_secs(1), "write blocked"));
    config.change(&server, "high-water-mark = \"1MiB\"\nlimit = \"16KiB\"\n");
    server.wait_for_line("write blocked");
    server.wait_for_line("write timeout, disconnecting");
}

#[test]
fn fewer_clients_are_admitted_and_those_that_are_there_stay() {
    let config = Config::new("max-clients = 2\n");
    let server = config.start("echo", &[]);
    let mut clients = vec![connect(server.address()), connect(server.address())];
    for client in &mut clients {
        ping(client, b"here");
    }
    let refused = |count: usize| {
        let mut one_too_many = connect(server.address());
        let outcome = one_too_many.read(&mut [0; 1]);
        assert!(outcome.is_err(), "{outcome:?}: client {count} is refused");
    };
    refused(3);
    server.wait_for_line("2 are served, --max-clients 2");
    config.change(&server, "max-clients = 3\n");
    let mut third = connect(server.address());
    ping(&mut third, b"a seat more");
    clients.push(third);
    config.change(&server, "max-clients = 1\nmax-clients-per-address = 1\n");
    for client in &mut clients {
        ping(client, b"still here");
    }
    refused(4);
    // As long as its address has too many, nobody gets a seat.
    config.change(&server, "max-clients = 9\nmax-clients-per-address = 3\n");
    refused(5);
    drop(clients.pop());
    wait_until("there is a seat again", || {
        let mut client = connect(server.address());
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        std::io::Write::write_all(&mut client, b"x").is_ok() && client.read_exact(&mut [0; 1]).is_ok()
    });
}

#[test]
fn the_level_of_the_log_changes_in_both_directions() {
    const REOPENED: &str = "opening the log file anew";
    let config = Config::new("");
    let server = config.start("echo", &[]);
    let line = config.change(&server, "log-level = \"error\"\n");
    assert!(line.contains("log-level = error"), "{line}");
    assert_eq!(server.lines_with(REOPENED).len(), 1);
    let line = config.change(&server, "\n");
    assert!(line.contains("log-level is back to its default"), "{line}");
    assert_eq!(server.lines_with(REOPENED).len(), 1, "it was at level error");
    config.change(&server, "\n");
    server.wait_for_lines(2, REOPENED);
}

#[test]
fn a_bad_file_changes_nothing_and_is_named_with_line_and_key() {
    let config = Config::new("grace = \"7s\"\n");
    let server = config.start("echo", &[]);
    for (text, words) in [
        ("grace = 5\n", ":1: `grace`: invalid value '5'"),
        (
            "port = 1\n\ngrce = \"5s\"\n",
            ":3: unknown key `grce`: did you mean `grace`?",
        ),
        ("grace = \"1s\"\ngrace = \"2s\"\n", ":2: `grace` stands twice"),
        (
            "grace = \"1s\"\nlimit = \"128KiB\"\n",
            ":2: --limit 128KiB is above --high-water-mark 64KiB",
        ),
        (
            "\nmax-clients = 0\n",
            ":2: --max-clients 0 would refuse everybody",
        ),
    ] {
        let line = config.change(&server, text);
        let named = format!("{}{words}", config.path.display());
        assert!(line.contains(&named), "{named}: {line}");
        assert!(line.ends_with("; nothing has changed"), "{line}");
    }
    std::fs::remove_file(&config.path).unwrap();
    let before = server.lines_with("reload: ").len();
    server.signal(Signal::HUP);
    let line = server.wait_for_lines(before + 1, "reload: ").remove(before);
    assert!(
        line.contains("No such file") && line.contains("nothing has changed"),
        "{line}"
    );
    let in_force = server.lines_with("limits in force: ");
    assert!(
        in_force.len() == 1 && in_force[0].contains("grace 7s"),
        "{in_force:?}"
    );
    let line = config.change(&server, "grace = \"3s\"\n");
    assert!(line.ends_with("grace = 3s"), "the next good file counts: {line}");
}

#[test]
fn a_key_that_is_taken_out_returns_to_its_default_and_one_that_was_typed_stays() {
    let config = Config::new("grace = \"9s\"\nlimit = \"8KiB\"\nport = 1\n");
    let server = config.start("echo", &["--limit", "32KiB"]);
    let line = config.change(&server, "max-clients = 5\n");
    assert!(
        line.contains("grace is back to its default, max-clients = 5"),
        "{line}"
    );
    server.wait_for_line("the command line has limit, port, and goes before the file");
    let line = server.wait_for_lines(2, "limits in force: ").remove(1);
    for part in ["grace 5s", "limit 32KiB", "max clients 5"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn what_only_a_restart_changes_is_named_in_one_line_and_the_rest_changes() {
    let config = Config::new("grace = \"9s\"\nlog-rate = 0\n");
    let server = config.start("echo", &[]);
    let text = "grace = \"2s\"\nhost = \"127.0.0.2\"\nunsent = \"32KiB\"\nto = \"other:1\"\n";
    for count in 1..=2 {
        config.change(&server, text);
        let lines = server.wait_for_lines(count, "only a restart changes");
        assert!(
            lines[0].ends_with("only a restart changes host, unsent"),
            "{lines:?}"
        );
    }
    let line = server.wait_for_lines(2, "limits in force: ").remove(1);
    assert!(
        line.contains("grace 2s") && line.contains("unsent 16KiB"),
        "{line}"
    );
    ping(&mut connect(server.address()), b"where it was");
}

#[test]
fn a_budget_that_is_lowered_acts_at_once() {
    let config = Config::new("");
    let server = config.start("echo", &["--grace", "10m"]);
    let (_first, _second) = (stalled(&server), stalled(&server));
    config.change(&server, "memory-budget = \"100KiB\"\n");
    let line = server.wait_for_line("memory budget, disconnecting");
    assert!(line.contains("budget 102400"), "{line}");
    assert!(!is_there_for(
        &server,
        Duration::from_millis(300),
        "write timeout"
    ));
    assert_eq!(
        server.lines_with("memory budget, disconnecting").len(),
        1,
        "one is enough"
    );
}

#[test]
fn more_than_a_hundred_that_would_go_together_are_spread_over_a_second_grace() {
    const CLIENTS: usize = 150;
    let config = Config::new("grace = \"10m\"\ndrain-timeout = \"20m\"\n");
    let server = config.start("echo", &[]);
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = connect_with(server.address(), Buffers::SMALL);
        // In one piece, so that filling 150 takes no long time.
        client.set_nonblocking(true).unwrap();
        clients.push(client.try_clone().unwrap());
        wait_until("it is full", || {
            while std::io::Write::write(&mut client, &[0; 16 << 10]).is_ok() {}
            server.lines_with("write blocked").len() >= clients.len()
        });
    }
    config.change(&server, "grace = \"2s\"\ndrain-timeout = \"20m\"\n");
    let begun = second_of(&server.wait_for_line("grace 2s"));
    let lines = server.wait_for_lines(CLIENTS, "write timeout, disconnecting");
    let times: Vec<f64> = lines.iter().map(|line| second_of(line) - begun).collect();
    let (first, last) = (times[0], times[CLIENTS - 1]);
    assert!(first > 1.99, "the first after {first} s");
    assert!(last - first > 1.0, "all within {} s", last - first);
    let together = times.iter().filter(|&&time| time < first + 0.2).count();
    assert!(together < 100, "{together} went within 0.2 s");
}

#[test]
fn shadow_mode_ends_without_a_restart_and_who_is_stuck_has_the_grace_once_more() {
    let config = Config::new("shadow = true\n");
    let server = config.start("echo", &["--grace", "500ms"]);
    let _client = stalled(&server);
    server.wait_for_line("would disconnect, write timeout");
    config.change(&server, "shadow = false\n");
    server.wait_for_line("shadow: --limit 64KiB --grace");
    let cut = server.wait_for_line("write timeout, disconnecting");
    let allowed = second_of(&cut) - second_of(&server.lines_with("limits in force: ")[1]);
    assert!(allowed > 0.49, "{allowed} s");
    config.change(&server, "shadow = true\n");
    let _other = stalled(&server);
    server.wait_for_lines(2, "would disconnect, write timeout");
    assert_eq!(server.lines_with("disconnecting").len(), 1);
}

#[test]
fn a_grace_for_upstreams_that_is_lowered_cuts_off_an_upstream_that_does_not_read() {
    let config = Config::new("upstream-grace = \"10m\"\n");
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let to = upstream.address().to_string();
    let server = config.start("tunnel", &["--to", &to, "--drain-timeout", "20m"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let _served = upstream.accept();
    fill_up_to(&mut client, 4 * SENT_BYTES);
    server.wait_for_line("write blocked");
    config.change(&server, "upstream-grace = \"300ms\"\n");
    let line = server.wait_for_line("write timeout, disconnecting");
    assert!(line.contains("upstream"), "{line}");
}

#[test]
fn a_grace_that_is_lowered_acts_on_a_reader_of_a_file_who_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), vec![0; 16 << 20]).unwrap();
    let config = Config::new("grace = \"10m\"\n");
    let server = config.start("serve", &[folder.path().to_str().unwrap()]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    std::io::Write::write_all(&mut client, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut begun = [0; 1];
    client.read_exact(&mut begun).unwrap();
    // The first look, a second after the start, still saw it acknowledge something.
    std::thread::sleep(Duration::from_millis(1900));
    config.change(&server, "grace = \"600ms\"\n");
    let cut = server.wait_for_line("write timeout, disconnecting");
    let allowed = second_of(&cut) - second_of(&server.lines_with("limits in force: ")[1]);
    assert!(allowed > 0.59, "only {allowed} s: {cut}");
}

#[test]
fn an_idle_timeout_begins_acts_on_who_is_there_and_ends() {
    let config = Config::new("");
    let server = config.start("echo", &[]);
    let mut idle = connect(server.address());
    ping(&mut idle, b"and nothing more");
    config.change(&server, "idle-timeout = \"300ms\"\n");
    let (_, end) = read_to_end(&mut idle);
    assert_ne!(end, End::Clean, "an idle client is reset");
    config.change(&server, "\n");
    let mut kept = connect(server.address());
    ping(&mut kept, b"and nothing more");
    kept.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let outcome = kept.read(&mut [0; 1]);
    assert!(outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_hundred_reloads_under_traffic_lose_no_byte() {
    let config = Config::new("");
    let server = config.start("echo", &[]);
    let mut client = connect(server.address());
    let mut changes = 0;
    let began = Instant::now();
    while changes < 100 && began.elapsed() < PATIENCE {
        let mark = ["4KiB", "64KiB", "1MiB", "100"][changes % 4];
        std::fs::write(
            &config.path,
            format!("high-water-mark = \"{mark}\"\ngrace = \"{}s\"\n", changes % 7 + 5),
        )
        .unwrap();
        server.signal(Signal::HUP);
        ping(&mut client, &support::pattern(100_000));
        changes += 1;
    }
    assert_eq!(changes, 100);
    assert!(server.lines_with("disconnecting").is_empty());
}
