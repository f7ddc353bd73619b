//! The metrics: each has something that moves it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::operator::{Watched, request, sample};
use crate::support::server::Server;
use crate::support::sockets::{Buffers, connect, connect_with, fill_up_to, is_refused, ping, reset};
use crate::support::{PATIENCE, holds_within};

#[test]
fn clients_bytes_and_seats_are_counted() {
    let watched = Watched::start("echo", &["--max-clients", "2"]);
    assert_eq!(
        watched.sample("highwater_clients"),
        0.0,
        "operators are no clients"
    );
    assert_eq!(watched.sample("highwater_max_clients"), 2.0);
    let mut one = connect(watched.server.address());
    let mut other = connect(watched.server.address());
    ping(&mut one, b"one");
    ping(&mut other, b"other");
    assert_eq!(watched.sample("highwater_clients"), 2.0);
    assert_eq!(watched.sample("highwater_accepted_clients_total"), 2.0);
    assert_eq!(watched.sample("highwater_received_bytes_total"), 8.0);
    assert_eq!(watched.sample("highwater_sent_bytes_total"), 8.0);
    assert!(is_refused(watched.server.address()));
    watched.wait_for("highwater_refused_clients_total", 1.0);
    drop(one);
    watched.wait_for("highwater_disconnects_total{reason=\"finished\"}", 1.0);
    reset(other);
    watched.wait_for("highwater_disconnects_total{reason=\"failed\"}", 1.0);
    assert_eq!(
        watched.sample("highwater_sent_bytes_total"),
        8.0,
        "also of those who left"
    );
    assert_eq!(watched.sample("highwater_accepted_clients_total"), 2.0);
    watched.wait_for("highwater_loop_lag_seconds_count", 1.0);
}

#[test]
fn the_process_is_measured() {
    let watched = Watched::start("echo", &[]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = now.unwrap().as_secs_f64() - watched.sample("process_start_time_seconds");
    assert!((-5.0..300.0).contains(&age), "{age}");
    let resident = watched.sample("process_resident_memory_bytes");
    assert!(resident > 1e6);
    assert!(watched.sample("process_virtual_memory_bytes") > resident);
    let descriptors = watched.sample("process_open_fds");
    let mut clients: Vec<_> = (0..20).map(|_| connect(watched.server.address())).collect();
    for client in &mut clients {
        ping(client, b"in");
    }
    // The connection of the operator may be open or not at each look.
    assert!(watched.sample("process_open_fds") >= descriptors + 18.0);
    watched.server.leave_descriptors(50);
    let most = watched.sample("process_max_fds");
    assert!((descriptors + 60.0..descriptors + 80.0).contains(&most), "{most}");
    let before = watched.sample("process_cpu_seconds_total");
    let works = holds_within(PATIENCE, || {
        for _ in 0..1000 {
            ping(&mut clients[0], b"work");
        }
        watched.sample("process_cpu_seconds_total") > before
    });
    assert!(works, "a server that answers uses the processor");
}

#[test]
fn clients_that_wait_for_want_of_descriptors_are_counted() {
    let watched = Watched::start("echo", &[]);
    assert_eq!(watched.sample("highwater_accept_failures_total"), 0.0);
    watched.server.leave_descriptors(3);
    let clients: Vec<_> = (0..8).map(|_| connect(watched.server.address())).collect();
    watched.server.wait_for_line("cannot accept: ");
    drop(clients);
    watched.wait_for("highwater_accept_failures_total", 1.0);
}

#[test]
fn a_server_without_work_sleeps_though_operators_may_look() {
    let watched = Watched::start("echo", &[]);
    watched.wait_for("highwater_loop_lag_seconds_count", 1.0);
    let status = format!("/proc/{}/status", watched.server.pid().as_raw_nonzero());
    // Of the first thread, which is the loop.
    let naps = || -> u64 {
        let text = std::fs::read_to_string(&status).unwrap();
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt"));
        line.unwrap().split_whitespace().last().unwrap().parse().unwrap()
    };
    // The last question brought one more beat.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let before = naps();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let woken = naps() - before;
    assert!(woken <= 2, "it woke {woken} times in 2 s with nothing to do");
}

#[test]
fn a_slow_client_is_seen_while_it_is_slow_and_counted_when_it_is_gone() {
    let watched = Watched::start("echo", &["--grace", "3s", "--memory-budget", "64MiB"]);
    let mut stalled = connect_with(watched.server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 160 << 10);
    watched.wait_for("highwater_over_limit_episodes_total", 1.0);
    assert!(watched.sample("highwater_queued_bytes") >= 65_536.0);
    assert!(watched.sample("highwater_kernel_bytes") >= 16_384.0);
    assert_eq!(watched.sample("highwater_memory_budget_bytes"), 67_108_864.0);
    watched.wait_for("highwater_disconnects_total{reason=\"write timeout\"}", 1.0);
    assert_eq!(watched.sample("highwater_over_limit_seconds_count"), 1.0);
    assert!(watched.sample("highwater_over_limit_seconds_sum") >= 3.0);
    assert_eq!(
        watched.sample("highwater_over_limit_seconds_bucket{le=\"2.5\"}"),
        0.0
    );
    assert_eq!(watched.sample("highwater_queued_bytes"), 0.0);
}

#[test]
fn upstreams_are_counted_and_those_that_cannot_be_reached() {
    let upstream = Server::echo(&[]);
    let to = upstream.address().to_string();
    let watched = Watched::start("tunnel", &["--to", &to, "--connect-timeout", "300ms"]);
    let mut client = connect(watched.server.address());
    ping(&mut client, b"through");
    assert_eq!(watched.sample("highwater_upstreams"), 1.0);
    assert_eq!(
        watched.sample("highwater_clients"),
        1.0,
        "an upstream is no client"
    );
    assert_eq!(watched.sample("highwater_upstream_connects_total"), 1.0);
    upstream.stop();
    let _lost = connect(watched.server.address());
    watched.wait_for("highwater_upstream_connect_failures_total", 1.0);
}

#[test]
fn a_loop_that_stands_still_shows_as_lag_and_lost_lines_are_counted() {
    let watched = Watched::start("echo", &[]);
    watched.wait_for("highwater_loop_lag_seconds_count", 1.0);
    let slow = |watched: &Watched| {
        watched.sample("highwater_loop_lag_seconds_count")
            - watched.sample("highwater_loop_lag_seconds_bucket{le=\"0.5\"}")
    };
    let before = slow(&watched);
    let mut client = connect(watched.server.address());
    let is_seen = holds_within(PATIENCE, || {
        // Work, on which the next beat follows. On a busy machine it may come
        // before the stop.
        ping(&mut client, b"work");
        watched.server.signal(rustix::process::Signal::STOP);
        std::thread::sleep(std::time::Duration::from_millis(900));
        watched.server.signal(rustix::process::Signal::CONT);
        ping(&mut client, b"on it goes");
        slow(&watched) > before
    });
    assert!(is_seen, "0.9 s without a turn are no lag");
    assert_eq!(watched.sample("highwater_log_lines_dropped_total"), 0.0);
}

#[test]
fn lines_that_standard_error_does_not_take_are_counted() {
    let (unread, stderr) = std::io::pipe().unwrap();
    let server = Server::echo_writing_to(
        &["--admin", "127.0.0.1:0", "--log-level", "trace"],
        Stdio::null(),
        Stdio::from(stderr),
    );
    let watched = Watched::of(server);
    let dropped = |watched: &Watched| watched.sample("highwater_log_lines_dropped_total");
    let fills = holds_within(PATIENCE, || {
        for _ in 0..500 {
            let mut client = connect(watched.server.address());
            ping(&mut client, b"!");
            reset(client);
        }
        dropped(&watched) > 0.0
    });
    assert!(fills, "no line was lost");
    drop(unread);
}

#[test]
fn both_formats_say_the_same_and_promtool_has_nothing_to_add() {
    let watched = Watched::start("echo", &[]);
    let mut client = connect(watched.server.address());
    ping(&mut client, b"counted");
    let ask = |accept: &str| {
        request(
            watched.admin,
            &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"),
        )
    };
    let open = ask("application/openmetrics-text; version=1.0.0");
    let text = ask("text/plain");
    assert!(
        open.head.contains("application/openmetrics-text; version=1.0.0"),
        "{open:?}"
    );
    assert!(open.body.ends_with("# EOF\n"));
    assert!(text.head.contains("text/plain; version=0.0.4"), "{text:?}");
    // OpenMetrics writes bounds as `1.0`, the other format as `1`.
    let names = |body: &str| -> Vec<String> {
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<_> = lines
            .map(|line| line.rsplit_once(' ').unwrap().0.replace(".0\"}", "\"}"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&open.body), names(&text.body));
    assert_eq!(sample(&open.body, "highwater_received_bytes_total"), Some(7.0));
    assert!(!text.body.contains("127.0.0.1"), "no address is a label");
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("skipped: promtool is not installed");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.body.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.is_empty(), "{told}");
}

#[test]
fn clients_that_shadow_mode_keeps_are_counted_and_the_list_has_its_recommendation() {
    let watched = Watched::start("echo", &["--shadow", "--grace", "300ms"]);
    let would = "highwater_would_disconnects_total{reason=\"write timeout\"}";
    assert_eq!(watched.sample(would), 0.0);
    let mut stalled = connect_with(watched.server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 128 << 10);
    watched.wait_for(would, 1.0);
    assert_eq!(
        watched.sample("highwater_disconnects_total{reason=\"write timeout\"}"),
        0.0
    );
    let clients = watched.json("/clients");
    assert_eq!(
        clients["shadow"]["recommendation"], "--limit 64KiB --grace 300ms",
        "{clients}"
    );
    drop(stalled);
    watched.server.wait_for_line("left by itself after");
    assert_eq!(
        watched.json("/clients")["shadow"]["kept"][0]["ending"],
        "left by itself"
    );
    let plain = Watched::start("echo", &[]);
    assert!(plain.json("/clients")["shadow"].is_null());
}

/// Metrics that are the same for the life of a process.
const CONSTANT: [&str; 1] = ["highwater_build"];

#[test]
fn every_metric_is_moved_by_a_test_and_stands_in_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let to = ["--to", "127.0.0.1:1"];
    let servers = [
        Watched::start("echo", &[]),
        Watched::start("tunnel", &to),
        Watched::start("broadcast", &[]),
        Watched::serving(folder.path()),
    ];
    let tests = concat!(include_str!("metrics.rs"), include_str!("services.rs"));
    let table = include_str!("../../docs/operations.md");
    for watched in &servers {
        let metrics = watched.get("/metrics").body;
        let kinds = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: Vec<_> = kinds.map(|line| line.split(' ').next().unwrap()).collect();
        assert!(names.len() > 20, "{metrics}");
        for name in names {
            let name = name.trim_end_matches("_info");
            let is_looked_at =
                tests.matches(&format!("\"{name}")).count() + usize::from(CONSTANT.contains(&name));
            assert!(is_looked_at > 0, "no test here looks at {name}");
            assert!(table.contains(&format!("`{name}")), "the table has no {name}");
        }
    }
}
