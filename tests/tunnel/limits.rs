//! How many clients: both sockets of a pair count, and one client's want of a
//! descriptor is no other's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::support::server::{BINARY, Server};
use crate::support::sockets::{Buffers, is_refused, ping, try_connect_with};
use crate::support::tunnel::{echo_upstream, echo_upstream_at, port_of_its_own};
use crate::support::wait_until;

/// Whether a new client is served rather than turned away.
fn served(tunnel: &Server) -> Option<TcpStream> {
    let mut client = try_connect_with(tunnel.address(), Buffers::default()).ok()?;
    let asked = client.write_all(b"?");
    let answered = asked.and_then(|()| client.read_exact(&mut [0]));
    answered.is_ok().then_some(client)
}

#[test]
fn the_most_clients_are_counted_in_pairs() {
    let to = echo_upstream(Buffers::default()).to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--max-clients", "3"]);
    let mut clients: Vec<_> = (0..3).map(|_| served(&tunnel).unwrap()).collect();
    assert!(served(&tunnel).is_none(), "a fourth was served");
    tunnel.wait_for_line("refused 1 new clients");
    for client in &mut clients {
        ping(client, b"not disturbed");
    }
    clients.pop();
    wait_until("the place of one who left is free", || served(&tunnel).is_some());
}

#[test]
fn by_default_there_are_half_as_many_clients_as_descriptors() {
    let to = echo_upstream(Buffers::default()).to_string();
    let mut launcher = Command::new("sh");
    launcher.args(["-c", "ulimit -n 72; exec \"$0\" \"$@\"", BINARY]);
    let tunnel = Server::start_by(launcher, "tunnel", &["--to", &to]);
    // 72 descriptors, 32 of them kept back, two for each client.
    let clients: Vec<_> = (0..20).map(|_| served(&tunnel).unwrap()).collect();
    assert!(served(&tunnel).is_none(), "a twenty-first was served");
    let line = tunnel.wait_for_line("refused 1 new clients");
    assert!(line.contains("--max-clients 20"), "{line}");
    assert!(tunnel.lines_with("cannot connect").is_empty());
    drop(clients);
}

#[test]
fn running_out_of_descriptors_between_accept_and_connect_drops_that_client_only() {
    let to = echo_upstream(Buffers::default()).to_string();
    let tunnel = Server::start("tunnel", &["--to", &to]);
    let mut other = served(&tunnel).unwrap();
    // Descriptors are the lowest free numbers, and the limit is on the number:
    // this leaves one, enough to accept and not to connect.
    let open = tunnel.descriptor_numbers();
    let lowest_free = (0..).find(|number| !open.contains(number)).unwrap();
    tunnel.set_descriptor_limit(lowest_free + 1);
    assert!(is_refused(tunnel.address()));
    let line = tunnel.wait_for_line("disconnecting");
    assert!(
        line.contains("Too many open files") && line.contains("ulimit -n"),
        "{line}"
    );
    ping(&mut other, b"not disturbed");
    tunnel.set_descriptor_limit(lowest_free + 100);
    assert!(served(&tunnel).is_some(), "it did not recover");
    ping(&mut other, b"still not disturbed");
}

#[test]
fn two_tunnels_that_lead_to_each_other_end_at_the_client_limit_with_a_hint() {
    let port = port_of_its_own();
    let there = format!("127.0.0.1:{port}");
    let first = Server::start("tunnel", &["--to", &there, "--max-clients", "50"]);
    let back = first.address().to_string();
    let options = ["--to", back.as_str(), "--max-clients", "100"];
    let second = Server::start_on_port("tunnel", &port.to_string(), &options);
    assert!(is_refused(first.address()));
    let line = first.wait_for_line("refused 1 new clients");
    assert!(line.contains("--max-clients 50; "), "{line}");
    assert!(
        line.contains(&format!(
            "come from the host of {there}: if that is a tunnel, it may lead back"
        )),
        "{line}"
    );
    for tunnel in [&first, &second] {
        wait_until("all pairs have ended", || tunnel.descriptors() < 50);
    }
    assert!(!first.has_exited() && !second.has_exited());
}

#[test]
fn clients_of_other_hosts_than_the_upstream_s_bring_no_hint_of_a_loop() {
    let to = echo_upstream_at([127, 0, 0, 2].into()).to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--max-clients", "1"]);
    let _in = served(&tunnel).unwrap();
    assert!(served(&tunnel).is_none());
    let line = tunnel.wait_for_line("refused 1 new clients");
    assert!(!line.contains("lead back"), "{line}");
}
