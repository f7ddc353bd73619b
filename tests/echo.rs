//! Every byte comes back, in order, to the client that sent it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod support;

use std::io::{Read, Write};

use std::net::TcpStream;
use std::thread;

use highwater::raise_descriptor_limit;
use support::server::Server;
use support::sockets::{Buffers, End, connect, connect_with, fill, half_close, ping, read_to_end};
use support::{pattern, pattern_at};

#[test]
fn bytes_come_back_in_order_however_they_were_cut() {
    let server = Server::echo(&[]);
    let mut client = connect(server.address());
    let mut offset = 0;
    for length in [
        1, 2, 3, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536, 65_537, 300_000,
    ] {
        let piece = pattern_at(offset, length);
        let mut sender = client.try_clone().unwrap();
        let sending = {
            let piece = piece.clone();
            std::thread::spawn(move || sender.write_all(&piece).unwrap())
        };
        let mut back = vec![0; length];
        client.read_exact(&mut back).unwrap();
        sending.join().unwrap();
        assert!(back == piece, "a piece of {length} bytes came back changed");
        offset += length;
    }
    half_close(&client);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
}

#[test]
fn a_client_that_sends_8_mib_ends_and_then_reads_gets_all_of_it_and_the_end() {
    let server = Server::echo(&[]);
    let mut client = connect(server.address());
    let data = pattern(8 << 20);
    let sending = {
        let (mut sender, data) = (client.try_clone().unwrap(), data.clone());
        std::thread::spawn(move || {
            sender.write_all(&data).unwrap();
            half_close(&sender);
        })
    };
    let (back, end) = read_to_end(&mut client);
    sending.join().unwrap();
    assert_eq!(end, End::Clean);
    assert!(back == data, "{} bytes came back", back.len());
    let summary = server.stop();
    assert!(
        summary.contains("1 clients served, 8388608 bytes echoed"),
        "{summary}"
    );
    assert!(summary.contains(" 0 end not acknowledged"), "{summary}");
}

#[test]
fn both_families_are_served() {
    for host in ["127.0.0.1", "::1", "localhost"] {
        let server = Server::echo(&["--host", host]);
        assert!(server.address().ip().is_loopback());
        ping(&mut connect(server.address()), b"hello");
    }
}

#[test]
fn with_small_buffers_on_all_sides_every_write_is_short_and_nothing_is_lost() {
    let server = Server::echo(&[
        "--unsent",
        "4KiB",
        "--receive-buffer",
        "8KiB",
        "--high-water-mark",
        "1KiB",
    ]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let data = pattern(256 * 1024);
    let mut random = fastrand::Rng::with_seed(1);
    let mut sender = client.try_clone().unwrap();
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            let mut rest = &data[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(1 + random.usize(..20_000)));
                sender.write_all(piece).unwrap();
                rest = behind;
            }
            half_close(&sender);
        });
        let mut random = fastrand::Rng::with_seed(2);
        let mut piece = vec![0; 20_000];
        let mut back = Vec::new();
        loop {
            let wanted = 1 + random.usize(..20_000);
            match client.read(&mut piece[..wanted]).unwrap() {
                0 => return back,
                count => back.extend_from_slice(&piece[..count]),
            }
        }
    });
    assert!(back == data, "{} bytes came back", back.len());
}

#[test]
fn a_client_that_was_paused_is_read_again_from_where_it_stood() {
    let server = Server::echo(&["--grace", "1h"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    for round in 0..5 {
        // Everything is full: queue, both kernels, and the client is paused.
        let taken = fill(&mut client);
        let mut back = vec![0; taken];
        client.read_exact(&mut back).unwrap();
        assert!(back == pattern(taken), "round {round}, {taken} bytes");
    }
    half_close(&client);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
}

#[test]
fn five_thousand_clients_are_served_together_each_with_its_own_bytes() {
    const CLIENTS: usize = 5_000;
    raise_descriptor_limit().unwrap();
    let server = Server::echo(&[]);
    let message = |number: usize| format!("client number {number}").into_bytes();
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.address())).collect();
    for _ in 0..2 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(&message(number)).unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut back = message(0);
            back.resize(message(number).len(), 0);
            client.read_exact(&mut back).unwrap();
            assert_eq!(back, message(number));
        }
    }
    let summary = server.stop();
    assert!(summary.contains("5000 clients served"), "{summary}");
}
