//! Ends and resets: each direction ends by itself, and an error on one side
//! is an error on the other, never an end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::server::number_before;
use crate::support::sockets::{
    Buffers, End, connect, fill, fill_up_to, half_close, is_reset, read_to_end, reset,
};
use crate::support::tunnel::{Pair, Upstream};
use crate::support::{kernel, pattern, wait_until};

/// More than the kernel holds on the way, so that pausing takes part.
const LONG_BYTES: usize = 6 * 1024 * 1024;
/// No policy interferes where only a reset may end a pair.
const PATIENT: [&str; 2] = ["--grace", "1h"];

fn exchange(from: &mut TcpStream, to: &mut TcpStream, word: &[u8]) {
    from.write_all(word).unwrap();
    let mut heard = vec![0; word.len()];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(heard, word);
}

/// Sends a long stream and its end while the other side reads it to the end.
fn finish(from: &TcpStream, to: &mut TcpStream) {
    let data = pattern(LONG_BYTES);
    let sending = {
        let (mut from, data) = (from.try_clone().unwrap(), data.clone());
        thread::spawn(move || {
            from.write_all(&data).unwrap();
            half_close(&from);
        })
    };
    let (received, end) = read_to_end(to);
    sending.join().unwrap();
    assert!(received == data, "{} of {LONG_BYTES} bytes", received.len());
    assert_eq!(end, End::Clean);
}

#[test]
fn a_client_that_has_ended_still_hears_the_whole_answer() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&[]);
    let Pair {
        mut client,
        upstream: mut server,
    } = Pair::through(&tunnel, &upstream);
    finish(&client, &mut server);
    exchange(&mut server, &mut client, b"a word in between");
    finish(&server, &mut client);
}

#[test]
fn an_upstream_that_has_ended_still_hears_all_that_the_client_says() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&[]);
    let Pair {
        mut client,
        upstream: mut server,
    } = Pair::through(&tunnel, &upstream);
    finish(&server, &mut client);
    exchange(&mut client, &mut server, b"a word in between");
    finish(&client, &mut server);
}

#[test]
fn both_may_end_at_the_same_time() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--log-level", "debug"]);
    let Pair {
        mut client,
        upstream: server,
    } = Pair::through(&tunnel, &upstream);
    let other = {
        let (client, mut server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || finish(&client, &mut server))
    };
    finish(&server, &mut client);
    other.join().unwrap();
    tunnel.wait_for_lines(2, "closed: finished");
}

#[test]
fn an_end_is_not_passed_on_before_it_was_said() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&[]);
    let Pair {
        mut client,
        upstream: mut server,
    } = Pair::through(&tunnel, &upstream);
    half_close(&client);
    assert_eq!(read_to_end(&mut server), (Vec::new(), End::Clean));
    // Had the client been ended with it, this would not arrive.
    for _ in 0..3 {
        exchange(&mut server, &mut client, b"still here");
    }
}

#[test]
fn ends_of_an_empty_conversation_leave_nothing_behind() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&[]);
    let idle = tunnel.descriptors();
    for _ in 0..20 {
        let mut pair = Pair::through(&tunnel, &upstream);
        half_close(&pair.client);
        half_close(&pair.upstream);
        assert_eq!(read_to_end(&mut pair.client).1, End::Clean);
        assert_eq!(read_to_end(&mut pair.upstream).1, End::Clean);
    }
    wait_until("all sockets are closed", || tunnel.descriptors() == idle);
}

#[test]
fn a_reset_of_an_idle_client_resets_its_upstream_and_no_other() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&PATIENT);
    let mut other = Pair::through(&tunnel, &upstream);
    let mut pair = Pair::through(&tunnel, &upstream);
    reset(pair.client);
    assert_eq!(read_to_end(&mut pair.upstream), (Vec::new(), End::Reset));
    exchange(&mut other.client, &mut other.upstream, b"untouched");
}

#[test]
fn a_reset_of_an_idle_upstream_resets_its_client_and_no_other() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&PATIENT);
    let mut other = Pair::through(&tunnel, &upstream);
    let mut pair = Pair::through(&tunnel, &upstream);
    reset(pair.upstream);
    assert_eq!(read_to_end(&mut pair.client), (Vec::new(), End::Reset));
    exchange(&mut other.upstream, &mut other.client, b"untouched");
}

/// One side sends all that fits to another that does not read, and then
/// resets: the other gets a beginning of it, and a reset.
fn a_reset_behind_bytes(mut sender: TcpStream, mut receiver: TcpStream) {
    let taken = fill(&mut sender);
    let sent = pattern(taken);
    reset(sender);
    // No byte of it has been read yet, so no wait for its turn is in this.
    wait_until("the reset is passed on", || is_closed(&receiver));
    let (received, end) = read_to_end(&mut receiver);
    assert_eq!(end, End::Reset);
    assert!(received.len() < sent.len(), "nothing was in flight");
    assert!(sent.starts_with(&received), "other bytes than were sent");
}

/// Whether the kernel has nothing left of this connection.
fn is_closed(stream: &TcpStream) -> bool {
    let (ours, theirs) = (stream.local_addr().unwrap(), stream.peer_addr());
    theirs.is_err() || kernel::connection(ours, theirs.unwrap()).is_none()
}

#[test]
fn a_client_that_is_reset_with_bytes_in_flight_resets_its_upstream_at_once() {
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let tunnel = upstream.tunnel(&PATIENT);
    let pair = Pair::through(&tunnel, &upstream);
    a_reset_behind_bytes(pair.client, pair.upstream);
}

#[test]
fn an_upstream_that_is_reset_with_bytes_in_flight_resets_its_client_at_once() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&PATIENT);
    let pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    a_reset_behind_bytes(pair.upstream, pair.client);
}

#[test]
fn a_client_that_reads_after_its_upstream_was_reset_never_sees_a_clean_end() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&PATIENT);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    let taken = fill(&mut pair.upstream);
    let tunnels_end = pair.client.local_addr().unwrap();
    reset(pair.upstream);
    wait_until("the tunnel has let go of the client", || {
        kernel::connection(tunnel.address(), tunnels_end).is_none()
    });
    let (received, end) = read_to_end(&mut pair.client);
    assert_eq!(end, End::Reset);
    assert!(received.len() < taken, "nothing was in flight");
}

#[test]
fn a_client_that_closes_while_its_upstream_still_sends_has_it_reset() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&PATIENT);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    fill(&mut pair.upstream);
    drop(pair.client);
    wait_until("the upstream is reset", || is_reset(&pair.upstream));
}

#[test]
fn after_all_kinds_of_ends_every_descriptor_is_free_again() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&PATIENT);
    let idle = tunnel.descriptors();
    for round in 0..40 {
        let pair = Pair::through(&tunnel, &upstream);
        match round % 4 {
            0 => reset(pair.client),
            1 => reset(pair.upstream),
            2 => drop(pair),
            _ => {
                half_close(&pair.client);
                half_close(&pair.upstream);
            }
        }
    }
    wait_until("all sockets are closed", || tunnel.descriptors() == idle);
    drop(connect(tunnel.address()));
}

#[test]
fn a_half_closed_pair_goes_once_nothing_has_moved_for_its_time_and_not_while_bytes_do() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--half-closed-timeout", "1s"]);
    let mut silent = Pair::through(&tunnel, &upstream);
    let mut talking = Pair::through(&tunnel, &upstream);
    let mut open = Pair::through(&tunnel, &upstream);
    half_close(&silent.upstream);
    half_close(&talking.client);
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(250));
        talking.upstream.write_all(b"!").unwrap();
        talking.client.read_exact(&mut [0]).unwrap();
    }
    // The silent one got an end, and a reset behind it.
    assert_eq!(read_to_end(&mut silent.client), (Vec::new(), End::Clean));
    let line = tunnel.wait_for_line("half-closed, disconnecting: no byte moved for ");
    let silence = number_before(&line, "s,");
    assert!(silence >= 1.0, "{line}");
    assert_eq!(read_to_end(&mut silent.upstream).1, End::Reset);
    talking.upstream.write_all(b"still here").unwrap();
    talking.client.read_exact(&mut [0; 10]).unwrap();
    open.client.write_all(b"open").unwrap();
    open.upstream.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(tunnel.lines_with("disconnecting").len(), 1, "{}", tunnel.log());
}

/// Its bytes wait in the upstream's queue, so it is waited for and not silent.
#[test]
fn a_half_closed_client_has_its_whole_time_once_its_upstream_reads_on() {
    let upstream = Upstream::listen();
    // All of these bytes are read, and more than the upstream's kernel takes wait.
    let tunnel = upstream.tunnel(&["--half-closed-timeout", "1s", "--high-water-mark", "1MiB"]);
    let sent = 600_000;
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    half_close(&pair.upstream);
    assert_eq!(read_to_end(&mut pair.client), (Vec::new(), End::Clean));
    assert_eq!(fill_up_to(&mut pair.client, sent), sent);
    std::thread::sleep(Duration::from_millis(2500));
    pair.upstream.read_exact(&mut vec![0; sent]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    pair.client.write_all(b"still here").unwrap();
    let mut after = [0; 10];
    pair.upstream.read_exact(&mut after).unwrap();
    assert_eq!(&after, b"still here");
    tunnel.wait_for_line("half-closed, disconnecting: no byte moved for ");
}

#[test]
fn an_idle_pair_goes_after_the_idle_timeout_and_a_talking_one_stays() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--idle-timeout", "1s"]);
    let mut idle = Pair::through(&tunnel, &upstream);
    let mut talking = Pair::through(&tunnel, &upstream);
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(250));
        talking.upstream.write_all(b"!").unwrap();
        talking.client.read_exact(&mut [0]).unwrap();
    }
    let line = tunnel.wait_for_line("idle, disconnecting: no byte moved for ");
    assert!(number_before(&line, "s,") >= 1.0, "{line}");
    assert_eq!(read_to_end(&mut idle.client), (Vec::new(), End::Reset));
    assert_eq!(read_to_end(&mut idle.upstream), (Vec::new(), End::Reset));
    talking.client.write_all(b"!").unwrap();
    talking.upstream.read_exact(&mut [0]).unwrap();
    drop(talking);
    let summary = tunnel.stop();
    assert!(summary.contains("; 1 idle, 0 half-closed"), "{summary}");
}
