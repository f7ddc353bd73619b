//! Faults on real sockets: a crowd that comes, talks, stalls and goes at
//! random, while the server is stopped, runs out of descriptors, has little
//! memory and logs to a reader that is asleep. The short form runs with all
//! other tests; `make torture` runs the long one.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests may, and these run against the real clock; the lints' exemption does not reach helpers"
)]

mod support;

#[path = "torture/books.rs"]
mod books;
#[path = "torture/crowd.rs"]
mod crowd;
#[path = "torture/faults.rs"]
mod faults;
#[path = "torture/member.rs"]
mod member;
#[path = "torture/ordeal.rs"]
mod ordeal;
#[path = "torture/stream.rs"]
mod stream;
#[path = "torture/witness.rs"]
mod witness;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use ordeal::Ordeal;
use rustix::process::{Resource, Rlimit, prlimit};
use support::server::Server;
use support::sockets::{Buffers, End, connect, connect_with, fill_up_to, ping, read_to_end};
use support::wait_until;

#[test]
fn a_small_crowd_and_every_fault_once_leave_no_trace_and_harm_no_innocent() {
    Ordeal::short().run();
}

#[test]
#[ignore = "takes minutes: `make torture`"]
fn ten_thousand_clients_and_all_faults_leave_no_trace_and_harm_no_innocent() {
    Ordeal::long().run();
}

#[test]
fn a_log_disk_that_is_full_harms_nobody_and_the_policy_goes_on() {
    let server = Server::echo_with_log_file("/dev/full", &["--grace", "2s", "--log-level", "debug"]);
    let mut neighbour = connect(server.address());
    let mut stalled = connect_with(server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 400_000);
    for _ in 0..200 {
        ping(&mut neighbour, b"unharmed");
        ping(&mut connect(server.address()), b"in and out");
    }
    // Standard error has its own backlog, and a disk with room.
    server.wait_for_line("write timeout, disconnecting");
    assert_eq!(read_to_end(&mut stalled).1, End::Reset);
    ping(&mut neighbour, b"still here");
    server.stop();
}

/// Address space left to the server beyond what it has when it is idle: far
/// more than the budget of its queues, far less than unlimited queues take.
const SPARE_ADDRESS_SPACE_BYTES: u64 = 64 << 20;

#[test]
fn with_little_memory_the_longest_queues_go_and_the_server_stays() {
    const STALLED: usize = 160;
    // The grace is no help here, and a mark as high as this is no bound.
    let server = Server::echo(&[
        "--high-water-mark",
        "1MiB",
        "--memory-budget",
        "16MiB",
        "--grace",
        "1h",
        "--drain-timeout",
        "1h",
    ]);
    let mut neighbour = connect(server.address());
    ping(&mut neighbour, b"in");
    let occupied = server.descriptors();
    let limit = Rlimit {
        current: Some(faults::address_space_bytes(server.pid()) + SPARE_ADDRESS_SPACE_BYTES),
        maximum: None,
    };
    prlimit(Some(server.pid()), Resource::As, limit).unwrap();
    let mut stalled: Vec<_> = (0..STALLED)
        .map(|_| connect_with(server.address(), Buffers::SMALL))
        .collect();
    let piece = support::pattern(64 * 1024);
    for client in &mut stalled {
        client.set_nonblocking(true).unwrap();
    }
    for _ in 0..60 {
        for client in &mut stalled {
            match client.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                ),
            }
        }
        ping(&mut neighbour, &piece[..1000]);
        thread::sleep(Duration::from_millis(20));
    }
    server.wait_for_line("memory budget, disconnecting");
    assert!(!server.has_exited());
    let gone = server.lines_with("disconnecting").len();
    println!("{gone} of {STALLED} stalled clients went for memory");
    assert!(gone < STALLED, "those who fit are kept");
    drop(stalled);
    // What they leave is free for others.
    wait_until("all who stalled are gone", || server.descriptors() == occupied);
    ping(&mut connect(server.address()), &piece[..10_000]);
    let mut rest = [0];
    neighbour.set_nonblocking(true).unwrap();
    assert_eq!(
        neighbour.read(&mut rest).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    server.stop();
}
