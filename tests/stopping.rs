//! Stopping: what is queued arrives, what is cut does not look complete, and
//! nobody keeps the server from its end.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::server::Server;
use support::sockets::{
    Buffers, End, connect, connect_with, fill, fill_up_to, half_close, ping, read_to_end,
};
use support::{pattern, wait_until_all_is_read};

/// A queue that takes much more than the kernel, without being over a limit.
const DEEP_QUEUE: [&str; 2] = ["--high-water-mark", "1MiB"];

/// A server whose client has sent `bytes` and read nothing; everything is in
/// the server's queue and the kernel's.
fn with_queued(options: &[&str], bytes: usize) -> (Server, TcpStream) {
    let server = Server::echo(&[&DEEP_QUEUE[..], options].concat());
    let mut client = connect_with(server.address(), Buffers::SMALL);
    client.write_all(&pattern(bytes)).unwrap();
    wait_until_all_is_read(&client);
    (server, client)
}

#[test]
fn what_is_queued_at_the_signal_arrives_and_then_the_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let (server, mut client) = with_queued(&["--stop-timeout", "20s"], 500_000);
        server.signal(signal);
        let line = server.wait_for_line("stopping: ");
        assert!(line.contains("1 clients have 20s"), "{line}");
        assert!(read_to_end(&mut client) == (pattern(500_000), End::Clean));
        assert!(server.wait_for_exit().success());
        let summary = server.wait_for_line("stopped: ");
        assert!(
            summary.contains("1 clients served, 500000 bytes echoed"),
            "{summary}"
        );
        assert!(summary.contains(" 0 at the stop"), "{summary}");
    }
}

#[test]
fn a_client_that_reads_nothing_after_the_signal_is_reset_after_the_stop_timeout() {
    let (server, mut client) = with_queued(&["--stop-timeout", "800ms"], 500_000);
    let asked = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait_for_exit();
    let took = asked.elapsed();
    assert!(status.success(), "{status}");
    assert!(took >= Duration::from_millis(800), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    let line = server.wait_for_line("disconnecting");
    assert!(line.contains("server stopped, disconnecting"), "{line}");
    let summary = server.wait_for_line("stopped: ");
    assert!(summary.contains(" 1 at the stop"), "{summary}");
}

#[test]
fn a_client_that_was_over_the_limit_already_is_reset_at_its_own_deadline() {
    let server = Server::echo(&["--grace", "1s"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    fill(&mut client);
    server.wait_for_line("write blocked");
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit().success());
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    let line = server.wait_for_line("disconnecting");
    assert!(line.contains("write timeout, disconnecting"), "{line}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let (server, mut client) = with_queued(&["--grace", "1h", "--stop-timeout", "1h"], 500_000);
    server.signal(Signal::TERM);
    server.wait_for_line("stopping: ");
    let asked = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait_for_exit();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    read_to_end(&mut client);
}

#[test]
fn idle_clients_see_a_clean_end_and_delay_nobody() {
    let server = Server::echo(&["--grace", "1h", "--stop-timeout", "1h"]);
    let mut clients: Vec<_> = (0..100).map(|_| connect(server.address())).collect();
    for client in &mut clients {
        ping(client, b"in");
    }
    let summary = server.stop();
    for client in &mut clients {
        assert_eq!(read_to_end(client), (Vec::new(), End::Clean));
    }
    assert!(
        summary.contains("100 clients served, 200 bytes echoed"),
        "{summary}"
    );
}

#[test]
fn what_a_client_has_sent_before_the_signal_is_answered_though_it_was_not_read_yet() {
    let server = Server::echo(&["--grace", "20s", "--stop-timeout", "20s"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    // More than queue and kernel take: the rest is unread in the kernel.
    let sent = fill(&mut client);
    server.signal(Signal::TERM);
    server.wait_for_line("stopping: ");
    let (back, end) = read_to_end(&mut client);
    assert!(back == pattern(sent), "{} of {sent} bytes", back.len());
    assert_eq!(end, End::Clean);
    assert!(server.wait_for_exit().success());
    assert!(server.wait_for_line("stopped: ").contains(" 0 at the stop"));
}

#[test]
fn a_client_that_goes_on_asking_after_the_signal_is_answered_until_it_is_silent() {
    let server = Server::echo(&["--stop-timeout", "20s"]);
    let mut client = connect(server.address());
    let mut silent = connect(server.address());
    ping(&mut client, b"before");
    ping(&mut silent, b"before");
    server.signal(Signal::TERM);
    server.wait_for_line("stopping: ");
    for _ in 0..10 {
        ping(&mut client, b"after");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(read_to_end(&mut silent), (Vec::new(), End::Clean));
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
    assert!(server.wait_for_exit().success());
}

#[test]
fn those_who_wait_to_be_accepted_at_the_signal_are_served_and_nobody_after_them() {
    let server = Server::echo(&["--stop-timeout", "20s"]);
    server.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..200).map(|_| connect(server.address())).collect();
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for client in &mut clients {
        ping(client, b"in time");
    }
    assert!(TcpStream::connect(server.address()).is_err(), "too late");
    for client in &mut clients {
        assert_eq!(read_to_end(client), (Vec::new(), End::Clean));
    }
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_stream_that_is_cut_in_the_middle_does_not_look_complete() {
    let server = Server::echo(&["--grace", "20s", "--stop-timeout", "500ms"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let sent = fill(&mut client);
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit().success());
    let (back, end) = read_to_end(&mut client);
    assert_eq!(end, End::Reset);
    assert!(back.len() < sent && back == pattern(back.len()));
    assert!(server.wait_for_line("stopped: ").contains(" 1 at the stop"));
}

#[test]
fn an_unfinished_frame_is_cut_and_a_whole_one_is_returned() {
    let options = ["--framing", "length", "--grace", "20s", "--stop-timeout", "20s"];
    let server = Server::echo(&options);
    let mut whole = connect_with(server.address(), Buffers::SMALL);
    let mut half = connect(server.address());
    // One frame of many marks: all of it is read before any of it goes back.
    let mut frame = 600_000u32.to_be_bytes().to_vec();
    frame.extend(pattern(600_000));
    whole.write_all(&frame).unwrap();
    server.wait_for_line("write blocked");
    half.write_all(&frame[..1000]).unwrap();
    wait_until_all_is_read(&half);
    server.signal(Signal::TERM);
    server.wait_for_line("stopping: ");
    let (back, end) = read_to_end(&mut whole);
    assert!(
        back == frame && end == End::Clean,
        "{} of {} bytes",
        back.len(),
        frame.len()
    );
    assert_eq!(read_to_end(&mut half), (Vec::new(), End::Reset));
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_client_that_goes_on_sending_does_not_keep_the_server_up() {
    let server = Server::echo(&["--grace", "5s"]);
    let client = connect(server.address());
    let mut sender = client.try_clone().unwrap();
    let mut reader = client.try_clone().unwrap();
    let sending = std::thread::spawn(move || while sender.write_all(&[7; 16_384]).is_ok() {});
    let reading = std::thread::spawn(move || {
        use std::io::Read;
        let mut piece = vec![0; 65_536];
        while matches!(reader.read(&mut piece), Ok(1..)) {}
    });
    std::thread::sleep(Duration::from_millis(100));
    server.stop();
    sending.join().unwrap();
    reading.join().unwrap();
}

#[test]
fn nobody_is_accepted_any_more() {
    let (server, mut client) = with_queued(&["--grace", "1h", "--stop-timeout", "1h"], 500_000);
    server.signal(Signal::TERM);
    server.wait_for_line("stopping: ");
    assert!(TcpStream::connect(server.address()).is_err());
    half_close(&client);
    assert!(read_to_end(&mut client).0 == pattern(500_000));
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_reply_still_on_its_way_when_the_server_exits_is_not_destroyed() {
    // The queue is empty but the kernel's is not, and the client goes on
    // sending: a close too early would reset.
    let server = Server::echo(&["--grace", "20s", "--stop-timeout", "20s", "--log-level", "debug"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let sent = fill_up_to(&mut client, 14_000);
    wait_until_all_is_read(&client);
    server.signal(Signal::TERM);
    server.wait_for_line("stopping: ");
    let _ = client.write_all(b"too late");
    std::thread::sleep(Duration::from_millis(100));
    let (back, _) = read_to_end(&mut client);
    assert!(back.starts_with(&pattern(sent)), "{} of {sent} bytes", back.len());
    assert!(server.wait_for_exit().success());
}
