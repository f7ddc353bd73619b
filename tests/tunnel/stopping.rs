//! Stopping: what is queued arrives, for at most the grace, and a stream that
//! is cut in the middle ends with a reset.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::server::Server;
use crate::support::sockets::{Buffers, End, connect, fill_up_to, half_close, read_to_end};
use crate::support::tunnel::{Pair, Silent, Upstream};
use crate::support::{kernel, pattern, wait_until, wait_until_all_is_read};

/// Most of this waits in a queue, as the kernel takes some 20 KiB.
const QUEUED_BYTES: usize = 160 * 1024;
const DEEP_QUEUE: [&str; 2] = ["--high-water-mark", "256KiB"];

#[test]
fn what_is_queued_in_both_directions_arrives_after_the_signal() {
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let tunnel = upstream.tunnel(&DEEP_QUEUE);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    let (up, down) = (pattern(QUEUED_BYTES), pattern(QUEUED_BYTES / 2));
    pair.client.write_all(&up).unwrap();
    pair.upstream.write_all(&down).unwrap();
    wait_until_all_is_read(&pair.client);
    wait_until_all_is_read(&pair.upstream);
    tunnel.signal(Signal::TERM);
    tunnel.wait_for_line("stopping");
    let reading = {
        let mut upstream = pair.upstream.try_clone().unwrap();
        std::thread::spawn(move || read_to_end(&mut upstream))
    };
    let (to_client, client_end) = read_to_end(&mut pair.client);
    let (to_upstream, upstream_end) = reading.join().unwrap();
    assert!(to_client == down, "{} of {} bytes", to_client.len(), down.len());
    assert!(to_upstream == up, "{} of {} bytes", to_upstream.len(), up.len());
    // Neither had ended, so for both the conversation was cut.
    assert_eq!((client_end, upstream_end), (End::Reset, End::Reset));
    assert!(tunnel.wait_for_exit().success());
}

#[test]
fn a_stream_that_had_ended_before_the_signal_ends_cleanly_after_it() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&DEEP_QUEUE);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    let answer = pattern(QUEUED_BYTES);
    pair.upstream.write_all(&answer).unwrap();
    wait_until_all_is_read(&pair.upstream);
    half_close(&pair.upstream);
    let (ours, theirs) = (
        pair.upstream.local_addr().unwrap(),
        pair.upstream.peer_addr().unwrap(),
    );
    wait_until("the tunnel has read the end", || {
        kernel::connection(theirs, ours)
            .is_some_and(|end| end.state == kernel::State::CloseWait && end.receive_queue_bytes == 0)
    });
    tunnel.signal(Signal::TERM);
    tunnel.wait_for_line("stopping");
    let (received, end) = read_to_end(&mut pair.client);
    assert!(received == answer, "{} of {} bytes", received.len(), answer.len());
    assert_eq!(end, End::Clean);
    assert!(tunnel.wait_for_exit().success());
}

#[test]
fn an_idle_pair_is_reset_at_the_stop_timeout_for_its_streams_were_not_at_their_end() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--grace", "20s", "--stop-timeout", "500ms"]);
    let mut pair = Pair::through(&tunnel, &upstream);
    let began = Instant::now();
    tunnel.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(read_to_end(&mut pair.client), (Vec::new(), End::Reset));
    assert_eq!(read_to_end(&mut pair.upstream), (Vec::new(), End::Reset));
}

#[test]
fn a_stalled_client_holds_the_stop_up_for_the_stop_timeout_and_no_longer() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--grace", "1h", "--stop-timeout", "2s"]);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    fill_up_to(&mut pair.upstream, 160 * 1024);
    tunnel.wait_for_line("write blocked");
    let began = Instant::now();
    let summary = tunnel.stop();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(summary.contains("1 clients served"), "{summary}");
    assert_eq!(read_to_end(&mut pair.client).1, End::Reset);
}

#[test]
fn a_client_whose_upstream_is_not_there_yet_is_reset_at_the_stop_timeout_and_never_sees_an_end() {
    let silent = Silent::new();
    let to = silent.address.to_string();
    let options = ["--to", &to, "--connect-timeout", "1h", "--stop-timeout", "500ms"];
    let tunnel = Server::start("tunnel", &options);
    let idle = tunnel.descriptors();
    let mut client = connect(tunnel.address());
    wait_until("the upstream is being connected", || {
        tunnel.descriptors() == idle + 2
    });
    let summary = tunnel.stop();
    assert!(!summary.contains("; 1 upstreams"), "{summary}");
    assert_eq!(read_to_end(&mut client), (Vec::new(), End::Reset));
}

/// Pairs whose conversation goes on when the signal comes: a request without
/// an answer so far, the same after a FIN, and an answer in the middle.
#[test]
fn conversations_under_way_go_on_both_ways_until_they_end() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--stop-timeout", "20s"]);
    let mut waiting = Pair::through(&tunnel, &upstream);
    let mut half = Pair::through(&tunnel, &upstream);
    let mut download = Pair::through(&tunnel, &upstream);
    waiting.client.write_all(b"slow").unwrap();
    half.client.write_all(b"slow").unwrap();
    half_close(&half.client);
    download.upstream.write_all(b"piece").unwrap();
    tunnel.signal(Signal::TERM);
    tunnel.wait_for_line("stopping");
    // Longer than the silence after which a lone client is taken for done.
    std::thread::sleep(Duration::from_millis(500));
    let mut word = [0; 4];
    waiting.upstream.read_exact(&mut word).unwrap();
    waiting.upstream.write_all(b"answer").unwrap();
    let mut answer = [0; 6];
    waiting.client.read_exact(&mut answer).unwrap();
    waiting.client.write_all(b"once more").unwrap();
    drop(waiting.client);
    assert_eq!(read_to_end(&mut waiting.upstream).0, b"once more");
    drop(waiting.upstream);
    assert_eq!(read_to_end(&mut half.upstream), (b"slow".to_vec(), End::Clean));
    half.upstream.write_all(b"answer").unwrap();
    drop(half.upstream);
    assert_eq!(read_to_end(&mut half.client), (b"answer".to_vec(), End::Clean));
    download.upstream.write_all(b"rest").unwrap();
    drop(download.upstream);
    assert_eq!(
        read_to_end(&mut download.client),
        (b"piecerest".to_vec(), End::Clean)
    );
    drop((half.client, download.client));
    assert!(tunnel.wait_for_exit().success());
    let summary = tunnel.wait_for_line("stopped: ");
    assert!(summary.contains(" 0 at the stop"), "{summary}");
}

#[test]
fn a_connect_under_way_at_the_signal_is_finished_and_its_client_served() {
    let upstream = Upstream::listen();
    let address = upstream.address();
    drop(upstream);
    let to = address.to_string();
    let options = ["--to", &to, "--connect-timeout", "1h", "--stop-timeout", "30s"];
    let tunnel = Server::start("tunnel", &options);
    let idle = tunnel.descriptors();
    let mut client = connect(tunnel.address());
    wait_until("the client is in", || tunnel.descriptors() > idle);
    tunnel.signal(Signal::TERM);
    tunnel.wait_for_line("stopping");
    let upstream = Upstream::listen_on(address, Buffers::default());
    let mut server = upstream.accept();
    server.write_all(b"served").unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut client), (b"served".to_vec(), End::Clean));
    drop(client);
    assert!(tunnel.wait_for_exit().success());
}
