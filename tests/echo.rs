//! Every byte comes back, in order, to the client that sent it.

mod support;

use std::io::{Read, Write};

use support::server::Server;
use support::sockets::{End, connect, half_close, ping, read_to_end};
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
    for host in ["127.0.0.1", "::1"] {
        let server = Server::echo(&["--host", host]);
        ping(&mut connect(server.address()), b"hello");
    }
}
