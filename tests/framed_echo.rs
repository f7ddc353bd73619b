//! Framed echo: whole frames come back and nothing else does.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::server::{Server, number_before};
use support::sockets::{Buffers, End, connect, connect_with, half_close, ping, read_to_end};
use support::{pattern, pattern_at, wait_until, wait_until_all_is_read};

fn framed(options: &[&str]) -> Server {
    Server::echo(&[&["--framing", "length"], options].concat())
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_be_bytes()[..], payload].concat()
}

/// Whether nothing comes for a while.
fn is_silent(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let silent = client.read(&mut [0]).is_err();
    client.set_read_timeout(Some(support::PATIENCE)).unwrap();
    silent
}

#[test]
fn frames_of_every_length_come_back_whole() {
    let server = framed(&[]);
    let mut client = connect(server.address());
    for length in [
        0, 1, 2, 3, 4, 5, 4091, 4092, 4096, 65_531, 65_532, 65_536, 300_000,
    ] {
        ping(&mut client, &frame(&pattern(length)));
    }
    half_close(&client);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
}

#[test]
fn a_frame_comes_back_only_when_its_last_byte_is_there() {
    let server = framed(&[]);
    let mut client = connect(server.address());
    let message = frame(b"all or nothing");
    for cut in [1, 3, 4, 5, message.len() - 1] {
        client.write_all(&message[..cut]).unwrap();
        assert!(is_silent(&mut client), "after {cut} bytes");
        client.write_all(&message[cut..]).unwrap();
        let mut back = vec![0; message.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, message, "cut at {cut}");
    }
}

#[test]
fn a_whole_frame_does_not_wait_for_the_half_one_behind_it() {
    let server = framed(&[]);
    let mut client = connect(server.address());
    let (first, second) = (frame(b"first"), frame(&pattern(100_000)));
    client
        .write_all(&[&first[..], &second[..50_000]].concat())
        .unwrap();
    let mut back = vec![0; first.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, first);
    assert!(is_silent(&mut client));
    client.write_all(&second[50_000..]).unwrap();
    let mut back = vec![0; second.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == second);
}

#[test]
fn many_frames_of_many_lengths_survive_a_client_that_reads_late() {
    let server = framed(&["--log-level", "debug"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let mut stream = Vec::new();
    let mut random = fastrand::Rng::with_seed(2);
    while stream.len() < 3 << 20 {
        let longest = [10, 1_000, 70_000, 500_000][random.usize(..4)];
        stream.extend(frame(&pattern_at(stream.len(), random.usize(..longest))));
    }
    let sending = {
        let (mut sender, stream) = (client.try_clone().unwrap(), stream.clone());
        thread::spawn(move || {
            sender.write_all(&stream).unwrap();
            half_close(&sender);
        })
    };
    // The queue is full long before; then everything has to come.
    server.wait_for_line("write blocked");
    let (back, end) = read_to_end(&mut client);
    sending.join().unwrap();
    assert!(
        back == stream,
        "{} of {} bytes came back",
        back.len(),
        stream.len()
    );
    assert_eq!(end, End::Clean);
    server.wait_for_line("closed: finished");
}

#[test]
fn a_frame_longer_than_the_mark_keeps_the_mark() {
    let server = framed(&["--grace", "700ms"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let message = frame(&pattern(1 << 20));
    ping_slowly(&mut client, &message);
    // Now nothing is read: the peak of the queue is in the line.
    client.write_all(&message).unwrap();
    let line = server.wait_for_line("write timeout, disconnecting");
    let peak = number_before(&line.replace(')', " "), ", limit");
    assert!((65_536.0..=65_536.0 + 4_096.0).contains(&peak), "{line}");
}

/// As `ping`, for a message that does not fit into the socket's buffers.
fn ping_slowly(client: &mut TcpStream, message: &[u8]) {
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| sender.write_all(message).unwrap());
        let mut back = vec![0; message.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == message);
    });
}

#[test]
fn an_oversize_frame_ends_that_client_at_once_with_its_length_and_the_limit_in_the_log() {
    let server = framed(&["--max-frame", "1000"]);
    let mut neighbour = connect(server.address());
    ping(&mut neighbour, &frame(&pattern(1_000)));
    let mut client = connect(server.address());
    ping(&mut client, &frame(b"fine"));
    let began = Instant::now();
    // The header alone tells.
    client.write_all(&1_001u32.to_be_bytes()).unwrap();
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let line = server.wait_for_line("disconnecting");
    assert!(
        line.contains("frame too long: 1001 bytes announced, limit 1000"),
        "{line}"
    );
    assert!(line.contains(&client.local_addr().unwrap().to_string()), "{line}");
    ping(&mut neighbour, &frame(b"unharmed"));
    let summary = server.stop();
    assert!(summary.contains(" 1 rejected"), "{summary}");
}

#[test]
fn the_end_inside_a_frame_is_logged_and_the_half_frame_is_not_returned() {
    let server = framed(&[]);
    let mut client = connect(server.address());
    let (whole, half) = (frame(b"whole"), frame(b"half"));
    client.write_all(&[&whole[..], &half[..6]].concat()).unwrap();
    half_close(&client);
    assert_eq!(read_to_end(&mut client), (whole, End::Clean));
    let line = server.wait_for_line("ended inside a frame");
    assert!(line.contains("6 bytes thrown away"), "{line}");

    let mut complete = connect(server.address());
    complete.write_all(&frame(b"complete")).unwrap();
    half_close(&complete);
    assert_eq!(read_to_end(&mut complete), (frame(b"complete"), End::Clean));
    assert_eq!(server.lines_with("inside a frame").len(), 1);
}

#[test]
fn unfinished_frames_count_in_the_memory_budget_and_the_longest_goes_first() {
    const FRAME_BYTES: usize = 1 << 20;
    let server = framed(&["--memory-budget", "3MiB", "--grace", "1h"]);
    let unfinished = |bytes: usize| {
        let mut client = connect(server.address());
        let header = u32::try_from(FRAME_BYTES).unwrap().to_be_bytes();
        client.write_all(&header).unwrap();
        client.write_all(&pattern(bytes)).unwrap();
        client
    };
    // Most of the budget, were a frame's buffer twice its length.
    let mut longest = unfinished(FRAME_BYTES - 1);
    let mut short = unfinished(100_000);
    thread::sleep(Duration::from_millis(100));
    assert!(server.lines_with("disconnecting").is_empty(), "{}", server.log());
    // A frame of the largest length that is allowed fits in.
    let mut sender = short.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            sender
                .write_all(&pattern_at(100_000, FRAME_BYTES - 100_000))
                .unwrap()
        });
        let mut back = vec![0; 4 + FRAME_BYTES];
        short.read_exact(&mut back).unwrap();
        assert!(back[4..] == pattern(FRAME_BYTES));
    });
    assert!(server.lines_with("disconnecting").is_empty(), "{}", server.log());
    let crowd: Vec<_> = (0..20).map(|_| unfinished(100_000)).collect();
    let line = server.wait_for_line("memory budget, disconnecting");
    assert!(
        line.contains(&longest.local_addr().unwrap().to_string()),
        "{line}"
    );
    assert_eq!(read_to_end(&mut longest).1, End::Reset);
    drop(crowd);
    ping(&mut short, &frame(b"unharmed"));
}

#[test]
fn a_buffered_frame_costs_its_length_and_not_twice_that() {
    // Three frames of a megabyte that lack a byte each, and not one byte more
    // than a read beside.
    let server = framed(&["--memory-budget", "3200KiB", "--grace", "1h"]);
    let message = frame(&pattern(1 << 20));
    let mut clients: Vec<_> = (0..3).map(|_| connect(server.address())).collect();
    for client in &mut clients {
        client.write_all(&message[..message.len() - 1]).unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    assert!(server.lines_with("disconnecting").is_empty(), "{}", server.log());
    for client in &mut clients {
        client.write_all(&message[message.len() - 1..]).unwrap();
        let mut back = vec![0; message.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == message);
    }
}

#[test]
fn memory_of_unfinished_frames_is_given_back_when_their_clients_go() {
    let server = framed(&[]);
    let mut neighbour = connect(server.address());
    ping(&mut neighbour, &frame(b"warm"));
    let before = server.resident_bytes();
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let mut client = connect(server.address());
            client.write_all(&frame(&pattern(1_000_000))[..900_000]).unwrap();
            client
        })
        .collect();
    wait_until("the frames are in memory", || {
        server.resident_bytes() > before + 50 * 850_000
    });
    drop(clients);
    wait_until("the memory is given back", || {
        server.resident_bytes() < before + 8 * 1024 * 1024
    });
    ping(&mut neighbour, &frame(b"unharmed"));
}

#[test]
fn a_frame_that_comes_too_slowly_ends_its_client_and_whoever_goes_on_is_kept() {
    let server = framed(&["--frame-timeout", "1s"]);
    let long = frame(&pattern(900_000));
    // Two bytes of a header; some of a frame; little by little.
    let mut late: Vec<_> = (0..3).map(|_| connect(server.address())).collect();
    late[0].write_all(&long[..2]).unwrap();
    late[1].write_all(&long[..5000]).unwrap();
    late[2].write_all(&long[..4]).unwrap();
    // One that brings 16 KiB/s of a frame, one that sends whole ones, and one
    // that sends nothing.
    let mut steady = connect(server.address());
    let mut healthy = connect(server.address());
    let mut idle = connect(server.address());
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(4) {
        let due = (16_384.0 * began.elapsed().as_secs_f64()) as usize;
        if due > sent {
            steady.write_all(&long[sent..due]).unwrap();
            sent = due;
        }
        // 100 bytes a second at most.
        let _ = late[2].write(b"x");
        ping(&mut healthy, &frame(b"in time"));
        thread::sleep(Duration::from_millis(10));
    }
    let lines = server.wait_for_lines(3, "frame timeout, disconnecting: ");
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (client, bytes) in late.iter().zip(["2 bytes", "5000 bytes", ""]) {
        let address = client.local_addr().unwrap().to_string();
        let line = lines.iter().find(|line| line.contains(&address)).unwrap();
        assert!(line.contains(&format!("disconnecting: {bytes}")), "{line}");
        assert!(line.contains("bytes of an unfinished frame, "), "{line}");
        let within = number_before(line, "s, ");
        assert!((1.0..2.0).contains(&within), "{line}");
    }
    // The last hears of the reset as it sends.
    for client in &mut late[..2] {
        assert_eq!(read_to_end(client).1, End::Reset);
    }
    steady.write_all(&long[sent..]).unwrap();
    let mut back = vec![0; long.len()];
    steady.read_exact(&mut back).unwrap();
    assert!(back == long);
    ping(&mut idle, &frame(b"still here"));
    let summary = server.stop();
    assert!(summary.ends_with("; 3 frame timeout"), "{summary}");
}

#[test]
fn time_in_which_a_client_is_paused_does_not_count_for_its_frame() {
    let server = framed(&[
        "--frame-timeout",
        "500ms",
        "--grace",
        "1h",
        "--max-frame",
        "32KiB",
    ]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let message = frame(&pattern(30_000));
    let mut sender = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        for _ in 0..100 {
            sender.write_all(&message).unwrap();
        }
        half_close(&sender);
    });
    server.wait_for_line("write blocked");
    // Three times as long as a frame may take; some frame is unfinished.
    thread::sleep(Duration::from_millis(1500));
    let (back, end) = read_to_end(&mut client);
    sending.join().unwrap();
    assert_eq!((back.len(), end), (100 * 30_004, End::Clean), "{}", server.log());
    assert!(server.lines_with("frame timeout").is_empty(), "{}", server.log());
}

#[test]
fn time_in_which_the_server_was_stopped_does_not_count_for_a_frame() {
    let server = framed(&["--frame-timeout", "2s"]);
    let mut client = connect(server.address());
    let message = frame(&pattern(1000));
    client.write_all(&message[..500]).unwrap();
    wait_until_all_is_read(&client);
    server.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(3));
    client.write_all(&message[500..]).unwrap();
    server.signal(Signal::CONT);
    let mut back = vec![0; message.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == message);
}

#[test]
fn over_the_memory_budget_whoever_keeps_unfinished_frames_goes_and_a_healthy_client_never() {
    let server = framed(&["--memory-budget", "8MiB"]);
    let mut healthy = connect(server.address());
    let message = frame(&pattern(1 << 20));
    let ping_frame = |healthy: &mut TcpStream| {
        let mut sender = healthy.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| sender.write_all(&message).unwrap());
            let mut back = vec![0; message.len()];
            healthy.read_exact(&mut back).unwrap();
            assert!(back == message);
        });
    };
    ping_frame(&mut healthy);
    let holders: Vec<_> = (0..12)
        .map(|_| {
            let mut client = connect(server.address());
            // The last may be reset while it sends.
            let _ = client.write_all(&message[..900 << 10]);
            client
        })
        .collect();
    server.wait_for_lines(4, "memory budget, disconnecting: ");
    // Whoever began in the same moment weighs the same.
    thread::sleep(Duration::from_millis(300));
    for _ in 0..20 {
        ping_frame(&mut healthy);
    }
    let healthy_name = healthy.local_addr().unwrap().to_string();
    let lines = server.lines_with("memory budget, disconnecting: ");
    assert!(lines.len() > 4, "its frames needed room: {lines:?}");
    for line in &lines {
        assert!(!line.contains(&healthy_name), "{line}");
        assert!(line.contains(" bytes of an unfinished frame for "), "{line}");
        assert!(!line.contains("slow for"), "{line}");
    }
    drop(holders);
}
