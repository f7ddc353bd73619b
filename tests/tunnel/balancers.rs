//! Behind a balancer: PROXY headers that clients come with, and what log and
//! upstream then know of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::server::Server;
use crate::support::sockets::{End, connect, half_close, read_to_end, reset};
use crate::support::tunnel::{Pair, Upstream};
use crate::support::wait_until;

const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n";

/// A header of version 2 for the same client, with a TLV behind.
fn binary() -> Vec<u8> {
    let client: SocketAddr = "203.0.113.9:5555".parse().unwrap();
    let local: SocketAddr = "192.0.2.1:443".parse().unwrap();
    ppp::v2::Builder::with_addresses(
        ppp::v2::Version::Two | ppp::v2::Command::Proxy,
        ppp::v2::Protocol::Stream,
        (client, local),
    )
    .write_tlv(ppp::v2::Type::Authority, b"example.org")
    .unwrap()
    .build()
    .unwrap()
}

/// A client that comes with these bytes, through a tunnel with these options.
fn come_with(tunnel: &Server, first: &[u8]) -> TcpStream {
    let mut client = connect(tunnel.address());
    client.write_all(first).unwrap();
    client
}

fn is_refused(tunnel: &Server, mut client: TcpStream, why: &str) {
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset), "{why}");
    let line = tunnel.wait_for_line("disconnecting");
    assert!(line.contains(why), "{line}");
}

#[test]
fn the_client_of_the_header_is_named_to_the_upstream_and_in_the_log_and_loses_no_byte() {
    for header in [LINE.to_vec(), binary()] {
        let upstream = Upstream::listen();
        let options = [
            "--accept-proxy-protocol",
            "--proxy-protocol",
            "v1",
            "--log-level",
            "debug",
        ];
        let tunnel = upstream.tunnel(&options);
        let client = come_with(&tunnel, &[&header, &b"hello"[..]].concat());
        let mut pair = Pair {
            client,
            upstream: upstream.accept(),
        };
        pair.client.write_all(b" world").unwrap();
        half_close(&pair.client);
        let (received, end) = read_to_end(&mut pair.upstream);
        let expected = [LINE, b"hello world"].concat();
        assert_eq!(
            String::from_utf8_lossy(&received),
            String::from_utf8_lossy(&expected)
        );
        assert_eq!(end, End::Clean);
        drop(pair.upstream);
        assert_eq!(read_to_end(&mut pair.client), (Vec::new(), End::Clean));
        drop(pair.client);
        let line = tunnel.wait_for_line("client ");
        assert!(line.contains("(203.0.113.9:5555)"), "{line}");
    }
}

#[test]
fn a_header_may_come_byte_by_byte_and_bytes_behind_it_are_the_stream() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--accept-proxy-protocol"]);
    let mut client = connect(tunnel.address());
    for byte in binary() {
        client.write_all(&[byte]).unwrap();
    }
    client.write_all(b"stream").unwrap();
    let mut server = upstream.accept();
    half_close(&client);
    assert_eq!(read_to_end(&mut server), (b"stream".to_vec(), End::Clean));
}

#[test]
fn a_header_of_the_balancer_itself_leaves_the_client_as_it_is() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--accept-proxy-protocol", "--proxy-protocol", "v1"]);
    let client = come_with(&tunnel, b"PROXY UNKNOWN\r\n");
    let port = client.local_addr().unwrap().port();
    let mut server = upstream.accept();
    half_close(&client);
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n", tunnel.port());
    assert_eq!(read_to_end(&mut server).0, line.as_bytes());
}

#[test]
fn without_a_sound_header_a_client_is_refused_with_one_line_and_the_upstream_sees_nobody() {
    let mut too_long = binary();
    too_long[14..16].copy_from_slice(&5000u16.to_be_bytes());
    for (first, why) in [
        (&b"GET / HTTP/1.0\r\n\r\n"[..], "no PROXY header"),
        (b"PROXY TCP4 1.2.3.4\r\n", "malformed PROXY header"),
        (&too_long, "PROXY header of 5016 bytes, at most 4096"),
    ] {
        let upstream = Upstream::listen();
        let tunnel = upstream.tunnel(&["--accept-proxy-protocol"]);
        is_refused(&tunnel, come_with(&tunnel, first), why);
        assert!(upstream.accept_within(Duration::from_millis(100)).is_none());
    }
}

#[test]
fn a_header_that_is_not_whole_in_time_or_at_the_end_is_refused() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--accept-proxy-protocol"]);
    let slow = come_with(&tunnel, &LINE[..20]);
    is_refused(&tunnel, slow, "PROXY header not whole after 5s: 20 bytes came");
    let tunnel = upstream.tunnel(&["--accept-proxy-protocol"]);
    let cut = come_with(&tunnel, &LINE[..20]);
    half_close(&cut);
    is_refused(&tunnel, cut, "the client ended after 20 bytes");
}

#[test]
fn from_any_other_address_a_client_is_refused_also_with_a_sound_header() {
    let upstream = Upstream::listen();
    let options = [
        "--accept-proxy-protocol",
        "--proxy-from",
        "10.0.0.0/8",
        "--proxy-from",
        "127.0.0.2",
    ];
    let tunnel = upstream.tunnel(&options);
    is_refused(&tunnel, come_with(&tunnel, LINE), "may not send a PROXY header");
    let options = [
        "--accept-proxy-protocol",
        "--proxy-from",
        "127.0.0.0/8",
        "--host",
        "::",
    ];
    let tunnel = upstream.tunnel(&options);
    let mapped = SocketAddr::from(([127, 0, 0, 1], tunnel.port()));
    let mut client = connect(mapped);
    client.write_all(LINE).unwrap();
    upstream.accept();
}

#[test]
fn health_checks_that_say_nothing_harm_nobody_and_leave_no_line() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--accept-proxy-protocol"]);
    let idle = tunnel.descriptors();
    // Before they are accepted, and after.
    tunnel.signal(Signal::STOP);
    for _ in 0..10 {
        reset(connect(tunnel.address()));
        drop(connect(tunnel.address()));
    }
    tunnel.signal(Signal::CONT);
    for _ in 0..10 {
        reset(connect(tunnel.address()));
        let mut checked = connect(tunnel.address());
        half_close(&checked);
        assert_eq!(read_to_end(&mut checked), (Vec::new(), End::Clean));
    }
    let mut served = come_with(&tunnel, LINE);
    let mut server = upstream.accept();
    server.write_all(b"!").unwrap();
    served.read_exact(&mut [0]).unwrap();
    wait_until("only the pair is left", || tunnel.descriptors() == idle + 2);
    assert!(tunnel.lines_with("WARN").is_empty(), "{}", tunnel.log());
    assert!(tunnel.lines_with("disconnecting").is_empty(), "{}", tunnel.log());
}

#[test]
fn options_about_headers_that_would_have_no_effect_are_refused() {
    let refused = std::process::Command::new(crate::support::server::BINARY)
        .args(["tunnel", "--to", "127.0.0.1:1", "--proxy-from", "10.0.0.0/8"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("--proxy-from 10.0.0.0/8"), "{text}");
    assert!(text.contains("add --accept-proxy-protocol"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn clients_of_one_address_are_counted_by_the_address_in_their_header() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--accept-proxy-protocol", "--max-clients-per-address", "1"]);
    let first = come_with(&tunnel, LINE);
    let first_upstream = upstream.accept();
    // The same client by its IPv6 name, through the same balancer.
    let same = b"PROXY TCP6 ::ffff:203.0.113.9 ::1 5556 443\r\n";
    let mut second = come_with(&tunnel, same);
    assert_eq!(read_to_end(&mut second), (Vec::new(), End::Reset));
    let line = tunnel.wait_for_line("refused 1 new clients");
    assert!(line.contains("203.0.113.9"), "{line}");
    assert!(line.contains("--max-clients-per-address 1"), "{line}");
    let other = come_with(&tunnel, b"PROXY TCP4 203.0.113.10 192.0.2.1 5555 443\r\n");
    let other_upstream = upstream.accept();
    // The balancer itself is a client like any other.
    let health = come_with(&tunnel, b"PROXY UNKNOWN\r\n");
    let health_upstream = upstream.accept();
    drop((first, first_upstream));
    wait_until("the seat of one that left is free", || {
        let mut next = come_with(&tunnel, LINE);
        next.write_all(b"?").is_ok() && upstream.accept_within(Duration::from_millis(500)).is_some()
    });
    drop((other, other_upstream, health, health_upstream));
    assert!(tunnel.stop().contains("refused by address"));
}
