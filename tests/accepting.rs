//! Accepting: many at once, none for want of descriptors, and no more than
//! was asked for.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use highwater::limits::ACCEPT_RETRY;
use highwater::raise_descriptor_limit;
use rustix::process::Signal;
use support::server::Server;
use support::sockets::{Buffers, connect, connect_from, half_close, is_refused, ping, try_connect_with};
use support::{holds_within, wait_until};

/// More than the 128 that a listener usually has, fewer than our backlog.
const STORM_CLIENTS: usize = 3_000;

#[test]
fn a_storm_of_connects_waits_in_the_backlog_and_is_served_whole() {
    raise_descriptor_limit().unwrap();
    let server = Server::echo(&[]);
    server.signal(Signal::STOP);
    let began = Instant::now();
    // Nobody accepts, so all of these are in the backlog together. A client
    // that finds it full would be kept waiting for a second.
    let mut storm: Vec<_> = (0..STORM_CLIENTS)
        .map(|_| TcpStream::connect_timeout(&server.address(), Duration::from_secs(5)).unwrap())
        .collect();
    let connected = began.elapsed();
    server.signal(Signal::CONT);
    for client in &mut storm {
        client.set_read_timeout(Some(support::PATIENCE)).unwrap();
        ping(client, b"in");
    }
    println!(
        "{STORM_CLIENTS} connected in {connected:?}, served after {:?}",
        began.elapsed()
    );
    let summary = server.stop();
    assert!(summary.contains("3000 clients served"), "{summary}");
}

/// Whether this client is served: its byte comes back within `time`.
fn is_served_within(client: &mut TcpStream, time: Duration) -> bool {
    client.set_read_timeout(Some(time)).unwrap();
    matches!(client.read(&mut [0]), Ok(1))
}

/// A server that can open five more descriptors, and ten clients that each
/// sent a byte: five of them wait.
fn out_of_descriptors(options: &[&str]) -> (Server, Vec<TcpStream>, Vec<TcpStream>) {
    let server = Server::echo(options);
    server.leave_descriptors(5);
    let mut clients: Vec<_> = (0..10).map(|_| connect(server.address())).collect();
    for client in &mut clients {
        client.write_all(b"?").unwrap();
    }
    let mut waiting = clients.split_off(5);
    for client in &mut clients {
        assert!(is_served_within(client, support::PATIENCE));
    }
    server.wait_for_line("cannot accept: ");
    for client in &mut waiting {
        assert!(!is_served_within(client, Duration::from_millis(10)));
    }
    (server, clients, waiting)
}

#[test]
fn out_of_descriptors_the_server_rests_and_goes_on_once_there_are_some_again() {
    const WATCHED: Duration = Duration::from_secs(2);
    let (server, mut served, mut waiting) = out_of_descriptors(&[]);
    let before = server.cpu_time();
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        for client in &mut served {
            ping(client, b"those who are in are served");
        }
        thread::sleep(Duration::from_millis(100));
    }
    let used = server.cpu_time() - before;
    println!("{used:?} of processor time in {:?}", began.elapsed());
    assert!(used < began.elapsed() / 20, "{used:?} of processor time");

    let left = Instant::now();
    drop(served.split_off(3));
    for client in &mut waiting[..2] {
        assert!(is_served_within(client, Duration::from_secs(2)));
    }
    let served_after = left.elapsed();
    println!("those who waited were served {served_after:?} after others left");
    assert!(served_after < 20 * ACCEPT_RETRY, "{served_after:?}");
    assert!(!is_served_within(&mut waiting[2], Duration::from_millis(100)));

    // Nobody leaves now: only the timer can tell that there is room.
    server.leave_descriptors(1000);
    for client in &mut waiting[2..] {
        assert!(is_served_within(client, 20 * ACCEPT_RETRY));
    }
    server.wait_for_line("accepting again after");
    assert_eq!(server.lines_with("cannot accept").len(), 1, "{}", server.log());
    assert_eq!(server.lines_with("accepting again").len(), 1, "{}", server.log());
}

#[test]
fn at_the_edge_of_the_descriptors_many_who_come_and_go_are_no_flood_in_the_log() {
    let (server, mut served, waiting) = out_of_descriptors(&[]);
    drop(waiting);
    let full = server.descriptors();
    for _ in 0..50 {
        // There is room for a moment, and then there is none again.
        drop(served.remove(0));
        wait_until("one has left", || server.descriptors() < full);
        let mut next = connect(server.address());
        next.write_all(b"?").unwrap();
        assert!(is_served_within(&mut next, support::PATIENCE));
        served.push(next);
    }
    let lines = server.lines_with("accept");
    assert!(lines.len() <= 4, "{lines:?}");
}

#[test]
fn over_the_most_clients_a_new_one_is_refused_at_once_and_counted() {
    let server = Server::echo(&["--max-clients", "3"]);
    let mut served: Vec<_> = (0..3).map(|_| connect(server.address())).collect();
    for client in &mut served {
        ping(client, b"in");
    }
    for _ in 0..20 {
        let began = Instant::now();
        assert!(is_refused(server.address()));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    // The log has a thread of its own, and its line may come after the reset.
    let lines = server.wait_for_lines(1, "refused");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("--max-clients 3"), "{lines:?}");
    for client in &mut served {
        ping(client, b"unharmed");
    }
    // A place that is left is taken again.
    drop(served.pop());
    let admitted = holds_within(Duration::from_secs(5), || {
        try_connect_with(server.address(), Buffers::default()).is_ok_and(|mut next| is_answered(&mut next))
    });
    assert!(admitted);
    let summary = server.stop();
    let refused: usize = summary
        .split_once(" refused")
        .and_then(|(front, _)| front.rsplit(' ').next()?.parse().ok())
        .unwrap();
    assert!(refused >= 20, "{summary}");
}

#[test]
fn at_the_client_limit_whoever_connects_right_after_another_has_left_is_served() {
    let server = Server::echo(&["--max-clients", "2"]);
    let mut staying = connect(server.address());
    ping(&mut staying, b"in");
    let mut leaving = connect(server.address());
    for round in 0..300 {
        ping(&mut leaving, b"in");
        match round % 3 {
            0 => support::sockets::reset(leaving),
            1 => drop(leaving),
            _ => {
                half_close(&leaving);
                drop(leaving);
            }
        }
        leaving = connect(server.address());
    }
    ping(&mut leaving, b"in");
    ping(&mut staying, b"not disturbed");
    let summary = server.stop();
    assert!(summary.contains("302 clients served"), "{summary}");
    assert!(summary.contains("; 0 refused, "), "{summary}");
}

#[test]
fn many_who_leave_at_once_are_followed_by_as_many() {
    const CLIENTS: usize = 200;
    let server = Server::echo(&["--max-clients", &CLIENTS.to_string()]);
    let mut clients = Vec::new();
    for round in 0..5 {
        clients.clear();
        clients.extend((0..CLIENTS).map(|_| connect(server.address())));
        for client in &mut clients {
            assert!(is_answered(client), "round {round}");
        }
    }
    let summary = server.stop();
    assert!(summary.contains("; 0 refused, "), "{summary}");
}

/// Whether this client is served: its byte comes back.
fn is_answered(client: &mut TcpStream) -> bool {
    client.write_all(b"?").is_ok() && matches!(client.read(&mut [0]), Ok(1))
}

#[test]
fn one_address_has_only_so_many_clients_and_another_has_its_own() {
    let server = Server::echo(&["--host", "::", "--max-clients-per-address", "2"]);
    let to = |ip: [u8; 4]| SocketAddr::from((ip, server.port()));
    let mut served: Vec<_> = (0..2).map(|_| connect(to([127, 0, 0, 1]))).collect();
    for client in &mut served {
        assert!(is_answered(client));
    }
    for _ in 0..5 {
        assert!(is_refused(to([127, 0, 0, 1])));
    }
    let line = server.wait_for_line("refused 1 new clients");
    assert!(
        line.contains("2 of its address are served, --max-clients-per-address 2"),
        "{line}"
    );
    let mut other = connect_from([127, 0, 0, 2].into(), to([127, 0, 0, 1]));
    assert!(is_answered(&mut other), "another address");
    let mut other = connect(SocketAddr::from((Ipv6Addr::LOCALHOST, server.port())));
    assert!(is_answered(&mut other), "another family");
    // Who comes right after another of his address has left is served.
    for _ in 0..20 {
        drop(served.pop());
        let mut next = connect(to([127, 0, 0, 1]));
        assert!(is_answered(&mut next));
        served.push(next);
    }
    let summary = server.stop();
    assert!(summary.contains("; 5 refused by address"), "{summary}");
    assert!(summary.contains("; 0 refused, "), "{summary}");
    let lines = server.lines_with("refused");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("of its address"))
            .count(),
        2,
        "{lines:?}"
    );
}

#[test]
fn a_client_that_was_gone_before_it_was_accepted_is_nobodys_trouble() {
    let server = Server::echo(&[]);
    let idle = server.descriptors();
    server.signal(Signal::STOP);
    for number in 0..200 {
        let client = connect(server.address());
        if number % 2 == 0 {
            support::sockets::reset(client);
        }
    }
    server.signal(Signal::CONT);
    ping(&mut connect(server.address()), b"served");
    wait_until("all who left are gone", || server.descriptors() == idle);
}

#[test]
fn several_hosts_are_served_on_one_port_and_one_given_twice_once() {
    let hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.1"].map(|host| format!("--host={host}"));
    let server = Server::echo(&hosts.each_ref().map(String::as_str));
    for host in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let address = (host, server.port()).into();
        server.wait_for_line(&format!("listening on {address}"));
        ping(&mut connect(address), b"served");
    }
    assert_eq!(server.lines_with("listening on ").len(), 2);
    server.stop();
}
