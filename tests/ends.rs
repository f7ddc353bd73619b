//! How a client goes: a disconnect is a reset that leaves nothing in the
//! kernel, an orderly end destroys nothing and lasts no longer than the grace.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that fails should say so at once")]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use highwater::{Actions, ClientId, Limits, Service};
use rustix::process::Signal;
use support::kernel::{self, State};
use support::server::{InThread, Server};
use support::sockets::{
    Buffers, End, connect, connect_with, fill, fill_up_to, half_close, ping, read_to_end, reset,
};
use support::{holds_within, pattern, wait_until, wait_until_all_is_read};

/// Fits between the limit and the mark of a server started with these, so
/// that the whole of it is read and none of it is left in the receive queue:
/// a close with unread input would reset by itself and prove nothing.
const DEEP_QUEUE: [&str; 4] = ["--high-water-mark", "1MiB", "--limit", "64KiB"];
const BELOW_THE_DEEP_MARK_BYTES: usize = 600 * 1024;

/// What the kernel still has of the server's end of this connection.
fn servers_end(server: &Server, client: SocketAddr) -> Option<kernel::Connection> {
    kernel::connection(server.address(), client)
}

/// Waits until the server has closed every client but one.
fn wait_for_descriptors(server: &Server, count: usize) {
    wait_until("the server has closed its clients", || {
        server.descriptors() == count
    });
}

#[test]
fn a_disconnected_client_is_reset_and_the_kernel_keeps_nothing_of_it() {
    // On a busy machine it takes a while until the server has read everything.
    let server = Server::echo(&[&DEEP_QUEUE[..], &["--grace", "3s"]].concat());
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let ours = client.local_addr().unwrap();
    fill_up_to(&mut client, BELOW_THE_DEEP_MARK_BYTES);
    wait_until_all_is_read(&client);
    let line = server.wait_for_line("disconnecting");
    assert!(line.contains("write timeout, disconnecting: slow for "), "{line}");
    assert!(line.contains("window closed, largest "), "{line}");
    // Without a reset the kernel would keep it for minutes.
    let gone = holds_within(Duration::from_secs(10), || servers_end(&server, ours).is_none());
    assert!(gone, "the kernel still has {:?}", servers_end(&server, ours));
    let (_, end) = read_to_end(&mut client);
    assert_eq!(end, End::Reset);
}

#[test]
fn a_reply_on_its_way_survives_the_end_of_a_client_that_reads_slowly() {
    const READ_BYTES: usize = 32 * 1024;
    let server = Server::echo(&["--log-level", "debug", "--grace", "2s"]);
    let mut client = connect_with(server.address(), Buffers::SLOW_READER);
    let data = pattern(2 << 20);
    let sending = {
        let (mut sender, data) = (client.try_clone().unwrap(), data.clone());
        thread::spawn(move || {
            sender.write_all(&data).unwrap();
            half_close(&sender);
        })
    };
    let mut back = Vec::new();
    let mut piece = vec![0; READ_BYTES];
    loop {
        // 640 KiB/s, twenty times what the policy wants: the end stands in
        // the server's queue for most of the time.
        thread::sleep(Duration::from_millis(50));
        match client.read(&mut piece).unwrap() {
            0 => break,
            count => back.extend_from_slice(&piece[..count]),
        }
    }
    sending.join().unwrap();
    assert!(back == data, "{} bytes came back", back.len());
    server.wait_for_line("closed: finished");
}

#[test]
fn a_client_that_ended_and_reads_later_finishes_at_once_when_it_has_read_all() {
    // Less than the kernel takes, then something in the queue, then over the mark.
    for bytes in [3_000, 30_000, 60_000, 120_000] {
        let server = Server::echo(&["--log-level", "debug", "--grace", "1h"]);
        let mut client = connect_with(server.address(), Buffers::SMALL);
        client.write_all(&pattern(bytes)).unwrap();
        half_close(&client);
        // The end has been read where it is not behind a full queue.
        thread::sleep(Duration::from_millis(100));
        let (back, end) = read_to_end(&mut client);
        assert!(back == pattern(bytes) && end == End::Clean, "{bytes} bytes");
        let finished = holds_within(Duration::from_secs(5), || {
            !server.lines_with("closed: finished").is_empty()
        });
        assert!(finished, "{bytes} bytes: still there\n{}", server.log());
    }
}

#[test]
fn an_end_that_is_never_taken_is_reset_after_the_grace_and_leaves_no_orphan() {
    let server = Server::echo(&["--grace", "600ms"]);
    let mut client = connect_with(server.address(), Buffers::SMALL);
    let ours = client.local_addr().unwrap();
    // More than the client's receive buffer, less than the kernel's share on
    // both sides: the server's queue is empty, its kernel's is not.
    client.write_all(&pattern(14_000)).unwrap();
    let began = Instant::now();
    half_close(&client);
    let line = server.wait_for_line("disconnecting");
    assert!(line.contains("end not acknowledged, disconnecting"), "{line}");
    assert!(
        began.elapsed() >= Duration::from_millis(600),
        "{:?}",
        began.elapsed()
    );
    let gone = holds_within(Duration::from_secs(1), || servers_end(&server, ours).is_none());
    assert!(gone, "the kernel still has {:?}", servers_end(&server, ours));
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    let summary = server.stop();
    assert!(summary.contains(" 1 end not acknowledged"), "{summary}");
}

#[test]
fn an_orderly_end_leaves_nothing_in_the_kernel_either() {
    let server = Server::echo(&[]);
    let mut client = connect(server.address());
    let ours = client.local_addr().unwrap();
    ping(&mut client, b"last words");
    half_close(&client);
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Clean));
    wait_until("the server's end is gone", || {
        servers_end(&server, ours).is_none()
    });
    // The client ended first, so the wait for stray segments is its own.
    let left = kernel::connection(ours, server.address());
    assert!(left.is_none_or(|left| left.state == State::TimeWait), "{left:?}");
}

#[test]
fn data_and_end_that_come_in_one_event_are_both_noticed() {
    let server = Server::echo(&["--log-level", "debug", "--grace", "1h"]);
    for bytes in [0, 1, 4_096, 30_000, 65_535, 65_536, 65_537] {
        let mut client = connect(server.address());
        ping(&mut client, b"served");
        server.signal(Signal::STOP);
        client.write_all(&pattern(bytes)).unwrap();
        half_close(&client);
        server.signal(Signal::CONT);
        let (back, end) = read_to_end(&mut client);
        assert!(back == pattern(bytes) && end == End::Clean, "{bytes} bytes");
    }
    server.wait_for_lines(7, "closed: finished");
}

#[test]
fn a_client_that_resets_is_gone_at_once_whatever_was_unread_or_queued() {
    let server = Server::echo(&["--grace", "1h"]);
    let mut neighbour = connect(server.address());
    ping(&mut neighbour, b"hello");
    let descriptors = server.descriptors();

    let mut unread = connect(server.address());
    ping(&mut unread, b"served");
    server.signal(Signal::STOP);
    unread.write_all(&pattern(50_000)).unwrap();
    reset(unread);
    server.signal(Signal::CONT);
    wait_for_descriptors(&server, descriptors);

    let mut queued = connect_with(server.address(), Buffers::SMALL);
    fill(&mut queued);
    reset(queued);
    wait_for_descriptors(&server, descriptors);

    let mut closed = connect_with(server.address(), Buffers::SMALL);
    fill(&mut closed);
    drop(closed);
    wait_for_descriptors(&server, descriptors);

    ping(&mut neighbour, b"still here");
    let summary = server.stop();
    assert!(summary.contains(" 0 write timeout"), "{summary}");
    assert!(summary.contains("3 failed"), "{summary}");
}

#[test]
fn a_descriptor_that_is_taken_again_at_once_belongs_to_the_new_client_alone() {
    let server = Server::echo(&[]);
    let mut neighbour = connect(server.address());
    ping(&mut neighbour, b"hello");
    let descriptors = server.descriptors();
    for round in 0..50 {
        // While the server is stopped, ten clients leave with events pending
        // and ten come, who take their descriptors and places.
        let mut leaving: Vec<_> = (0..10).map(|_| connect(server.address())).collect();
        for client in &mut leaving {
            ping(client, b"served");
        }
        server.signal(Signal::STOP);
        for mut client in leaving {
            client.write_all(b"lost").unwrap();
            if round % 2 == 0 {
                reset(client);
            }
        }
        let mut coming: Vec<_> = (0..10).map(|_| connect(server.address())).collect();
        server.signal(Signal::CONT);
        for client in &mut coming {
            ping(client, b"mine alone");
        }
    }
    ping(&mut neighbour, b"still here");
    wait_for_descriptors(&server, descriptors);
}

#[test]
fn an_end_that_the_network_swallows_leaves_no_orphan_for_longer_than_the_grace() {
    let grace = Duration::from_millis(1_000);
    let server = Server::echo(&["--grace", "1s", "--log-level", "debug"]);
    let mut client = connect(server.address());
    let ours = client.local_addr().unwrap();
    ping(&mut client, b"everything has arrived");
    support::sockets::cut_off(&client);
    half_close(&client);
    server.wait_for_line("closed: finished");
    let began = Instant::now();
    wait_until("the server's end is gone", || {
        servers_end(&server, ours).is_none()
    });
    let stayed = began.elapsed();
    println!("the kernel kept it for {stayed:?}");
    // Left to itself the kernel repeats the end for more than a minute.
    assert!(stayed < 10 * grace, "{stayed:?}");
}

/// Sends to its first client whatever any client says, also once that first
/// one has gone.
struct Grudge {
    first: Option<ClientId>,
}

impl Service for Grudge {
    fn connected(&mut self, client: ClientId, _: &mut Actions<'_>) {
        self.first.get_or_insert(client);
    }

    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        if let Some(first) = self.first
            && first != client
        {
            actions.send(first, b"for the first alone");
            actions.close(first);
        }
        actions.send(client, data);
    }
}

#[test]
fn an_id_that_grew_stale_names_nobody_also_when_its_place_is_taken() {
    let server = InThread::serve(Limits::default(), |_| Grudge { first: None });
    let mut first = connect(server.address());
    ping(&mut first, b"first");
    half_close(&first);
    assert_eq!(read_to_end(&mut first), (Vec::new(), End::Clean));
    // The second takes the place of the first, and the third calls the first.
    let mut second = connect(server.address());
    ping(&mut second, b"second");
    let mut third = connect(server.address());
    for _ in 0..10 {
        ping(&mut third, b"third");
        ping(&mut second, b"second");
    }
    drop((second, third));
    assert_eq!(server.stop().served_clients, 3);
}

#[test]
fn an_idle_client_goes_only_if_there_is_an_idle_timeout() {
    let strict = Server::echo(&["--idle-timeout", "500ms"]);
    let lenient = Server::echo(&[]);
    let mut idle = connect(strict.address());
    let mut kept = connect(lenient.address());
    ping(&mut idle, b"once");
    ping(&mut kept, b"once");
    assert_eq!(read_to_end(&mut idle), (Vec::new(), End::Reset));
    let line = strict.wait_for_line("idle, disconnecting: no byte moved for ");
    assert!(line.contains("4 bytes received, 4 sent"), "{line}");
    ping(&mut kept, b"again");
}
