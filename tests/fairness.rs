//! Floods do not starve a neighbour.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use support::pattern;
use support::server::Server;
use support::sockets::{connect, ping};

const FLOODING_CLIENTS: usize = 4;
const PINGS: usize = 1_000;

/// Sends and reads as fast as it can until the connection is shut down;
/// answers how many bytes came back.
fn flood(client: &TcpStream) -> u64 {
    let mut sender = client.try_clone().unwrap();
    let mut reader = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        let piece = pattern(256 * 1024);
        while sender.write_all(&piece).is_ok() {}
    });
    let mut piece = vec![0; 256 * 1024];
    let mut count = 0;
    while let Ok(got @ 1..) = reader.read(&mut piece) {
        count += got as u64;
    }
    sending.join().unwrap();
    count
}

#[test]
fn four_clients_that_flood_do_not_keep_a_fifth_waiting() {
    // With all the receive buffer that the kernel gives, a flood can bring
    // megabytes between two looks.
    let server = Server::echo(&["--receive-buffer", "0"]);
    let floods: Vec<_> = (0..FLOODING_CLIENTS).map(|_| connect(server.address())).collect();
    let mut waits = Vec::new();
    let flooded: Vec<u64> = thread::scope(|scope| {
        let flooding: Vec<_> = floods
            .iter()
            .map(|client| scope.spawn(move || flood(client)))
            .collect();
        let mut client = connect(server.address());
        for _ in 0..PINGS {
            waits.push(ping(&mut client, &[7; 64]));
            thread::sleep(Duration::from_millis(1));
        }
        for client in &floods {
            client.shutdown(Shutdown::Both).unwrap();
        }
        flooding.into_iter().map(|flood| flood.join().unwrap()).collect()
    });
    waits.sort();
    let median = waits[PINGS / 2];
    println!(
        "median {median:?}, 99 % {:?}, longest {:?}; flooded {flooded:?} bytes",
        waits[PINGS * 99 / 100],
        waits[PINGS - 1],
    );
    // What the machine's own scheduling adds falls on the longest waits; a
    // loop that serves a flood until it pauses makes every wait a long one.
    assert!(median < Duration::from_millis(5), "{median:?}");
    let (least, most) = (flooded.iter().min().unwrap(), flooded.iter().max().unwrap());
    assert!(
        *least > 0 && least * 20 > *most,
        "floods are served evenly: {flooded:?}"
    );
}
