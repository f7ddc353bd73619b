//! What a stalled client costs: a bounded share of the kernel's memory and of
//! ours, all of it given back.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]

mod support;

use std::net::TcpStream;

use support::server::Server;
use support::sockets::{Buffers, connect, connect_with, fill, ping};
use support::{kernel, pattern, wait_until};

/// Payload that the kernel holds for the server's end of a connection: sent
/// and not acknowledged, and received and not read.
fn servers_share(server: &Server, client: &TcpStream) -> usize {
    let ours = client.local_addr().unwrap();
    kernel::connection(server.address(), ours).map_or(0, |end| end.send_queue_bytes + end.receive_queue_bytes)
}

#[test]
fn the_kernel_holds_little_for_a_stalled_client_and_the_options_are_what_bounds_it() {
    const BOUND_BYTES: usize = 400 * 1024;
    let share = |options: &[&str], warm_up: bool| {
        let server = Server::echo(&[options, &["--grace", "1h"]].concat());
        let mut client = connect(server.address());
        if warm_up {
            // Fast traffic makes the kernel size its buffers up.
            for _ in 0..200 {
                ping_along(&mut client, 256 * 1024);
            }
        }
        fill(&mut client);
        servers_share(&server, &client)
    };
    let (cold, warm) = (share(&[], false), share(&[], true));
    let unbounded = share(&["--unsent", "0", "--receive-buffer", "0"], true);
    println!("{cold} bytes cold, {warm} after fast traffic, {unbounded} without bounds");
    assert!(cold <= BOUND_BYTES, "{cold} bytes");
    assert!(warm <= BOUND_BYTES, "{warm} bytes after fast traffic");
    assert!(unbounded > 2 * BOUND_BYTES, "{unbounded} bytes without bounds");
}

/// Sends and reads at once, as the message may be longer than the buffers.
fn ping_along(client: &mut TcpStream, length: usize) {
    use std::io::{Read, Write};
    let mut sender = client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&pattern(length)).unwrap());
        let mut back = vec![0; length];
        client.read_exact(&mut back).unwrap();
    });
}

#[test]
fn memory_is_where_it_was_once_slow_clients_have_gone() {
    const CLIENTS: usize = 400;
    let server = Server::echo(&["--grace", "4s", "--receive-buffer", "16KiB"]);
    let mut neighbour = connect(server.address());
    ping(&mut neighbour, b"warm");
    let before = server.resident_bytes();
    let descriptors = server.descriptors();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let client = connect_with(server.address(), Buffers::SMALL);
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let piece = pattern(64 * 1024);
    wait_until("everybody is over the limit", || {
        for client in &mut clients {
            let _ = std::io::Write::write(client, &piece);
        }
        server.lines_with("write blocked").len() == CLIENTS
    });
    let during = server.resident_bytes();
    assert!(during > before + CLIENTS * 60 * 1024, "the queues are real");
    // Twice the mark for each, for pieces that are not full, is the most.
    assert!(
        during < before + CLIENTS * 128 * 1024,
        "{} bytes",
        during - before
    );
    server.wait_for_lines(CLIENTS, "write timeout, disconnecting");
    wait_until("the descriptors are closed", || {
        server.descriptors() == descriptors
    });
    wait_until("the memory is given back", || {
        server.resident_bytes() < before + 4 * 1024 * 1024
    });
    println!(
        "{} KiB before, {} with {CLIENTS} stalled, {} after",
        before / 1024,
        during / 1024,
        server.resident_bytes() / 1024
    );
    // The neighbour's own connection is the one that is left.
    let left = kernel::connections_of(server.address());
    assert_eq!(left.len(), 1, "{left:?}");
    ping(&mut neighbour, b"unharmed");
}
