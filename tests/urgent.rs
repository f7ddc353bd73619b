//! Urgent bytes (`MSG_OOB`) stay at their place in the stream, in every server:
//! telnet's Synch and FTP's ABOR send them, and a byte that is missing is a
//! stream that is broken.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use socket2::SockRef;
use support::server::Server;
use support::sockets::{End, connect, half_close, read_to_end};
use support::tunnel::{Upstream, echo_upstream};
use support::{pattern, sockets::Buffers, wait_until};

/// A piece of a stream; of an urgent one the last byte is marked.
type Piece<'a> = (&'a [u8], bool);

fn send(client: &TcpStream, pieces: &[Piece<'_>]) {
    for &(bytes, is_urgent) in pieces {
        if is_urgent {
            assert_eq!(
                SockRef::from(client).send_out_of_band(bytes).unwrap(),
                bytes.len()
            );
        } else {
            let mut writer = client;
            writer.write_all(bytes).unwrap();
        }
    }
}

fn joined(pieces: &[Piece<'_>]) -> Vec<u8> {
    pieces
        .iter()
        .flat_map(|(bytes, _)| bytes.iter().copied())
        .collect()
}

fn check_echo(server: &Server, pieces: &[Piece<'_>]) {
    let client = connect(server.address());
    let expected = joined(pieces);
    let echoed = thread::scope(|scope| {
        let mut reader = client.try_clone().unwrap();
        let reading = scope.spawn(move || read_to_end(&mut reader));
        send(&client, pieces);
        half_close(&client);
        reading.join().unwrap()
    });
    assert_eq!((echoed.0.len(), echoed.1), (expected.len(), End::Clean));
    assert!(echoed.0 == expected);
}

/// Streams with urgent bytes at every kind of place.
fn check_streams(server: &Server) {
    let bulk = pattern(400_000);
    for pieces in [
        &[(&b"before"[..], false), (b"!", true), (b"behind", false)][..],
        &[(b"!", true), (b"behind", false)],
        &[(b"before", false), (b"!", true)],
        &[(b"\xff\xf4\xff", false), (b"\xf2", true), (b"ABOR\r\n", false)],
        &[
            (b"a", false),
            (b"1234", true),
            (b"b", false),
            (b"!", true),
            (b"c", true),
        ],
        &[
            (&bulk, false),
            (b"!", true),
            (&bulk, false),
            (b"!", true),
            (&bulk, false),
        ],
    ] {
        check_echo(server, pieces);
    }
}

#[test]
fn echo_returns_urgent_bytes_at_their_place() {
    check_streams(&Server::echo(&[]));
}

#[test]
fn a_tunnel_carries_urgent_bytes_whether_it_copies_or_splices() {
    let to = echo_upstream(Buffers::default()).to_string();
    for splice_from in ["0", "1", "32KiB"] {
        let options = ["--to", to.as_str(), "--splice-from", splice_from];
        check_streams(&Server::start("tunnel", &options));
    }
}

#[test]
fn what_follows_an_urgent_byte_in_the_middle_of_spliced_bulk_is_not_forgotten() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--splice-from", "1"]);
    let client = connect(tunnel.address());
    let mut far = upstream.accept();
    let bulk = pattern(60_000);
    for _ in 0..20 {
        // The next is sent only when this has arrived: a splice that stops at the
        // mark would wait for an edge that never comes.
        let pieces = [(&bulk[..], false), (b"!", true), (&bulk[..], false)];
        send(&client, &pieces);
        let mut arrived = vec![0; 2 * bulk.len() + 1];
        far.read_exact(&mut arrived).unwrap();
        assert!(arrived == joined(&pieces));
    }
}

#[test]
fn a_frame_with_an_urgent_byte_comes_back_whole() {
    let server = Server::echo(&["--framing", "length"]);
    let payload = pattern(100_000);
    let header = 100_000_u32.to_be_bytes();
    for urgent_at in [0, 1, 50_000, 99_999] {
        let (before, behind) = payload.split_at(urgent_at);
        let pieces = [
            (&header[..], false),
            (before, false),
            (&behind[..1], true),
            (&behind[1..], false),
        ];
        check_echo(&server, &pieces);
    }
}

/// Sends a request whose last byte is urgent, and waits for this answer.
fn check_answer(server: &Server, request: &[u8], answer: &[u8]) {
    let client = connect(server.address());
    let (rest, last) = request.split_at(request.len() - 1);
    send(&client, &[(rest, false), (last, true)]);
    let mut reader = &client;
    let mut received = Vec::new();
    wait_until("the answer is there", || {
        let mut buffer = [0; 1024];
        let count = reader.read(&mut buffer).unwrap();
        received.extend_from_slice(&buffer[..count]);
        received.windows(answer.len()).any(|part| part == answer)
    });
}

#[test]
fn a_request_whose_last_byte_is_urgent_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.txt"), "0123456789").unwrap();
    let server = Server::start("serve", &[folder.path().to_str().unwrap()]);
    check_answer(
        &server,
        b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n",
        b"0123456789",
    );
    let server = Server::start("broadcast", &[]);
    check_answer(&server, b"PING\r\n", b"+PONG\r\n");
}
