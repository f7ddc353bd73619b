//! A slow network: real packets of 1500 bytes over a link that is slow, far,
//! lossy, and sometimes gone. Needs root, `ip` and /dev/net/tun; `make
//! slow-network` runs it. Elsewhere each test says that it is skipped.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests may, and these run against the real clock; the lints' exemption does not reach helpers"
)]

mod support;

#[path = "slow_network/link.rs"]
mod link;
#[path = "slow_network/namespace.rs"]
mod namespace;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use link::{Link, Quality};
use namespace::Network;
use support::server::{Server, number_before};
use support::sockets::{End, connect, ping, read_to_end};
use support::{PATIENCE, pattern, pattern_at, wait_until};

/// 256 kbit/s to the client, as an old mobile link has it: 50 ms each way, and
/// now and then a packet is lost.
const MOBILE: Quality = Quality {
    bytes_per_s: 32_000,
    delay: Duration::from_millis(50),
    loss: 0.01,
    queue_bytes: 10 * 1500,
};

/// What the client sends on: fast enough to keep the server's queue full.
const UPLINK: Quality = Quality {
    bytes_per_s: 1_250_000,
    delay: Duration::from_millis(50),
    loss: 0.0,
    queue_bytes: 100 * 1500,
};

/// A link that is not the bottleneck of anything here: 1 Mbit/s.
const FASTER: Quality = Quality {
    bytes_per_s: 125_000,
    ..MOBILE
};

/// Runs `test` with a server on the near side of a link and the clients on
/// the far side, or says why not.
fn over(down: Quality, test: impl FnOnce(&Server, &Link) + Send) {
    over_with(&[], down, test);
}

/// As [`over`], with options of the server.
fn over_with(options: &[&str], down: Quality, test: impl FnOnce(&Server, &Link) + Send) {
    match Network::new(down, UPLINK) {
        Err(reason) => println!("SKIPPED, needs root, ip and /dev/net/tun: {reason}"),
        Ok(network) => {
            let host = namespace::SERVER_ADDRESS.to_string();
            let all = [&["--host", &host, "--log-level", "debug"], options].concat();
            let server = network.on_server_side(|| Server::echo(&all));
            network.on_client_side(|| test(&server, &network.link));
        }
    }
}

/// Sends the test pattern on a thread of its own, and then the end.
fn send_all(client: &TcpStream, length: usize) -> thread::JoinHandle<bool> {
    let mut sender = client.try_clone().unwrap();
    sender.set_write_timeout(Some(2 * PATIENCE)).unwrap();
    thread::spawn(move || {
        let sent = sender.write_all(&pattern(length)).is_ok();
        sent && sender.shutdown(Shutdown::Write).is_ok()
    })
}

/// Reads and verifies until so many bytes have come back.
fn read_and_verify(client: &mut TcpStream, from: usize, to: usize) {
    let mut back = vec![0; to - from];
    client.read_exact(&mut back).unwrap();
    assert!(back == pattern_at(from, to - from), "other bytes came back");
}

#[test]
#[ignore = "needs root: `make slow-network`"]
fn a_reader_on_a_link_of_256_kbit_is_kept_by_the_defaults_and_loses_nothing() {
    const LENGTH: usize = 640_000;
    over(MOBILE, |server, link| {
        let mut client = connect(server.address());
        let sending = send_all(&client, LENGTH);
        let began = Instant::now();
        let (back, end) = read_to_end(&mut client);
        let time = began.elapsed();
        println!(
            "{} bytes in {time:.1?}, {:.0} B/s; {link}; {}",
            back.len(),
            back.len() as f64 / time.as_secs_f64(),
            server.lines_with("write blocked").join("; "),
        );
        assert_eq!(end, End::Clean, "{}", server.log());
        assert!(sending.join().unwrap());
        assert!(back == pattern(LENGTH), "{} bytes came back", back.len());
        assert!(
            time > 3 * Duration::from_secs(5),
            "slow for several graces: {time:?}"
        );
        assert!(
            !server.lines_with("write blocked").is_empty(),
            "its queue was full"
        );
        assert!(server.lines_with("disconnecting").is_empty(), "{}", server.log());
        assert!(link.lost() > 0, "the link lost something");
        server.stop();
    });
}

#[test]
#[ignore = "needs root: `make slow-network`"]
fn a_client_that_stalls_on_a_slow_link_goes_as_one_that_does_not_read() {
    over(MOBILE, |server, link| {
        let mut neighbour = connect(server.address());
        let stalled = connect(server.address());
        let sending = send_all(&stalled, 4 << 20);
        let mut longest = Duration::ZERO;
        wait_until("it is thrown out", || {
            longest = longest.max(ping(&mut neighbour, &[7; 64]));
            !server.lines_with("disconnecting").is_empty()
        });
        let line = server.wait_for_line("write timeout, disconnecting");
        println!("{line}; {link}; the neighbour's longest ping {longest:.2?}");
        assert!(line.contains("window closed, largest "), "{line}");
        assert!((5.0..5.3).contains(&number_before(&line, "s, ")), "{line}");
        assert!(!sending.join().unwrap(), "it was reset");
        assert_eq!(server.lines_with("disconnecting").len(), 1);
        ping(&mut neighbour, b"unharmed");
    });
}

#[test]
#[ignore = "needs root: `make slow-network`"]
fn a_client_whose_network_goes_while_data_is_under_way_is_told_from_one_that_does_not_read() {
    over(MOBILE, |server, link| {
        let mut client = connect(server.address());
        let sending = send_all(&client, 1 << 20);
        let mut back = 0;
        while server.lines_with("write blocked").is_empty() {
            read_and_verify(&mut client, back, back + 5_000);
            back += 5_000;
        }
        link.cut();
        let cut = Instant::now();
        let line = server.wait_for_line("write timeout, disconnecting");
        let after = cut.elapsed();
        println!("{after:.2?} after the cut: {line}; {link}");
        assert!(line.contains("network gone for "), "{line}");
        let (_, gone) = line.split_once("network gone for ").unwrap();
        let gone_s: f64 = gone.split_once(' ').unwrap().0.parse().unwrap();
        assert!(
            (gone_s - after.as_secs_f64()).abs() < 1.0,
            "{gone_s} of {after:?}"
        );
        assert!(after < Duration::from_millis(5500), "{after:?}");
        // The reset is lost as everything else is.
        client.set_nonblocking(true).unwrap();
        let mut rest = vec![0; 1 << 20];
        while client.read(&mut rest).is_ok_and(|count| count > 0) {}
        assert_eq!(client.read(&mut rest).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.shutdown(Shutdown::Both).unwrap();
        assert!(!sending.join().unwrap());
    });
}

#[test]
#[ignore = "needs root: `make slow-network`"]
fn an_outage_of_up_to_four_seconds_costs_nobody_anything() {
    const PART: usize = 300_000;
    // Without a bound on retransmissions, 3.3 s last 6.2 s for the sender.
    const OUTAGES_MS: [u64; 3] = [1500, 3300, 4000];
    over(FASTER, |server, link| {
        let mut client = connect(server.address());
        let length = PART * (OUTAGES_MS.len() + 1);
        let sending = send_all(&client, length);
        read_and_verify(&mut client, 0, PART);
        for (index, outage) in OUTAGES_MS.into_iter().enumerate() {
            link.cut();
            thread::sleep(Duration::from_millis(outage));
            link.mend();
            let mended = Instant::now();
            read_and_verify(&mut client, PART * (index + 1), PART * (index + 2));
            println!(
                "the next part came {:.1?} after {outage} ms; {link}",
                mended.elapsed()
            );
        }
        assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
        assert!(sending.join().unwrap());
        assert!(server.lines_with("disconnecting").is_empty(), "{}", server.log());
    });
}

#[test]
#[ignore = "needs root: `make slow-network`"]
fn an_outage_that_is_shorter_than_a_long_grace_costs_nobody_anything() {
    const PART: usize = 300_000;
    // With a second between them the kernel gives up after its retransmissions, at 15 s.
    const OUTAGE: Duration = Duration::from_secs(20);
    over_with(&["--grace", "60s"], FASTER, |server, link| {
        let mut client = connect(server.address());
        let sending = send_all(&client, 2 * PART);
        read_and_verify(&mut client, 0, PART);
        link.cut();
        thread::sleep(OUTAGE);
        link.mend();
        let mended = Instant::now();
        read_and_verify(&mut client, PART, 2 * PART);
        println!(
            "the next part came {:.1?} after the outage; {link}",
            mended.elapsed()
        );
        assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
        assert!(sending.join().unwrap());
        assert!(server.lines_with("disconnecting").is_empty(), "{}", server.log());
    });
}
