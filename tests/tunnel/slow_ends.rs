//! Slow ends: whoever does not take what it is sent pauses its partner, and
//! goes with it once the grace is over; nobody else does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::server::{Server, check_reader_grace, number_before};
use crate::support::sockets::{
    Buffers, End, PatternReader, connect_with, fill, fill_up_to, ping, read_to_end, send_until,
};
use crate::support::tunnel::{Pair, Upstream, echo_upstream};
use crate::support::{holds_within, pattern, wait_until};

const MARK_BYTES: f64 = 65536.0;
/// A queue ends at most one small read past its mark.
const LONGEST_QUEUE_BYTES: f64 = MARK_BYTES + 4096.0;
/// More than a queue and the kernel's buffers for a small client behind it.
const FILLS_A_QUEUE_BYTES: usize = 160 * 1024;
const STRICT: [&str; 4] = ["--grace", "1s", "--upstream-grace", "1s"];
/// So long a ping would take if the loop waited for a stalled pair.
const STRICT_GRACE: Duration = Duration::from_secs(1);

fn is_reset(stream: &mut TcpStream) -> bool {
    read_to_end(stream).1 == End::Reset
}

/// Pings the pair for longer than the grace, and answers the longest.
fn ping_on(pair: &mut Pair, time: Duration) -> Duration {
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    while began.elapsed() < time {
        let sent = Instant::now();
        let mut word = [0; 4];
        pair.client.write_all(b"ping").unwrap();
        pair.upstream.read_exact(&mut word).unwrap();
        pair.upstream.write_all(b"pong").unwrap();
        pair.client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"pong");
        longest = longest.max(sent.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    longest
}

#[test]
fn a_stalled_client_pauses_its_upstream_and_goes_with_it_and_the_others_do_not_notice() {
    let upstream = Upstream::listen_with(Buffers {
        send: Some(64 * 1024),
        receive: None,
    });
    let tunnel = upstream.tunnel(&STRICT);
    let mut other = Pair::through(&tunnel, &upstream);
    let mut stalled = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    fill(&mut stalled.upstream);
    let longest = ping_on(&mut other, Duration::from_secs(2));
    assert!(longest < STRICT_GRACE, "a ping took {longest:?}");
    let line = tunnel.wait_for_line("disconnecting");
    assert!(line.contains(" client ") && !line.contains("upstream"), "{line}");
    assert!(
        line.contains("write timeout") && line.contains("window closed, largest "),
        "{line}"
    );
    assert!(number_before(&line, "s,") >= 1.0, "{line}");
    let queued = number_before(&line, "bytes queued");
    assert!((MARK_BYTES..=LONGEST_QUEUE_BYTES).contains(&queued), "{line}");
    assert!(is_reset(&mut stalled.upstream));
    assert!(is_reset(&mut stalled.client));
    assert_eq!(tunnel.lines_with("disconnecting").len(), 1);
}

#[test]
fn an_upstream_that_pauses_for_longer_than_the_grace_keeps_its_clients_within_a_grace_of_its_own() {
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let tunnel = upstream.tunnel(&["--grace", "200ms", "--drain-timeout", "300ms"]);
    let mut pair = Pair::through(&tunnel, &upstream);
    let taken = fill(&mut pair.client);
    tunnel.wait_for_line("write blocked");
    // A client in its place would be gone by now.
    std::thread::sleep(Duration::from_secs(1));
    pair.client.shutdown(std::net::Shutdown::Write).unwrap();
    let (received, end) = read_to_end(&mut pair.upstream);
    assert!(received == pattern(taken), "{} of {taken} bytes", received.len());
    assert_eq!(end, End::Clean);
    assert!(tunnel.lines_with("disconnecting").is_empty(), "{}", tunnel.log());
}

#[test]
fn a_stalled_upstream_pauses_its_client_and_goes_with_it_and_the_log_names_whose_it_was() {
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let tunnel = upstream.tunnel(&STRICT);
    let mut other = Pair::through(&tunnel, &upstream);
    let mut stalled = Pair::through(&tunnel, &upstream);
    fill(&mut stalled.client);
    let longest = ping_on(&mut other, Duration::from_secs(2));
    assert!(longest < STRICT_GRACE, "a ping took {longest:?}");
    let line = tunnel.wait_for_line("disconnecting");
    let of_client = line.split_once(" of client ").unwrap_or_else(|| panic!("{line}"));
    assert!(of_client.0.contains(" upstream "), "{line}");
    assert!(
        line.contains("write timeout") && line.contains("window closed, largest "),
        "{line}"
    );
    assert!(line.contains("a longer --upstream-grace keeps it"), "{line}");
    let queued = number_before(&line, "bytes queued");
    assert!((MARK_BYTES..=LONGEST_QUEUE_BYTES).contains(&queued), "{line}");
    assert!(is_reset(&mut stalled.client));
    assert!(is_reset(&mut stalled.upstream));
    assert_eq!(tunnel.lines_with("disconnecting").len(), 1);
}

#[test]
fn a_pair_that_is_stalled_both_ways_goes_once() {
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let tunnel = upstream.tunnel(&["--grace", "3s"]);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    fill_up_to(&mut pair.client, FILLS_A_QUEUE_BYTES);
    fill_up_to(&mut pair.upstream, FILLS_A_QUEUE_BYTES);
    tunnel.wait_for_lines(2, "write blocked");
    tunnel.wait_for_line("disconnecting");
    assert!(is_reset(&mut pair.client));
    assert!(is_reset(&mut pair.upstream));
    let summary = tunnel.stop();
    assert!(summary.contains("disconnected: 1 write timeout"), "{summary}");
    assert!(summary.contains("1 reset with their partner"), "{summary}");
}

#[test]
fn a_client_that_only_sends_and_never_reads_is_caught() {
    let to = echo_upstream(Buffers::SLOW_READER).to_string();
    let tunnel = Server::start("tunnel", &["--to", &to, "--grace", "1s"]);
    let mut flooder = connect_with(tunnel.address(), Buffers::SMALL);
    let mut other = connect_with(tunnel.address(), Buffers::default());
    let data = pattern(64 * 1024);
    let flooding = thread::spawn(move || {
        // Bounded by far more than every buffer on the way.
        for _ in 0..1024 {
            flooder.write_all(&data)?;
        }
        Ok::<(), std::io::Error>(())
    });
    let line = tunnel.wait_for_line("disconnecting");
    assert!(
        line.contains(" client ") && line.contains("write timeout"),
        "{line}"
    );
    assert!(flooding.join().unwrap().is_err(), "it was never cut off");
    ping(&mut other, b"not disturbed");
}

#[test]
fn a_slow_client_that_keeps_reading_is_kept_and_gets_everything() {
    const LENGTH: usize = 1024 * 1024;
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&STRICT);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SLOW_READER);
    let sending = {
        let mut upstream = pair.upstream.try_clone().unwrap();
        thread::spawn(move || {
            upstream.write_all(&pattern(LENGTH)).unwrap();
            upstream.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    // 400 KiB/s: six times what a mark of 64 KiB and a grace of 1 s ask for.
    let mut received = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        let count = pair.client.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        received.extend_from_slice(&piece[..count]);
        thread::sleep(Duration::from_millis(40));
    }
    sending.join().unwrap();
    assert!(
        received == pattern(LENGTH),
        "{} of {LENGTH} bytes",
        received.len()
    );
    assert!(tunnel.lines_with("disconnecting").is_empty());
}

#[test]
fn an_idle_pair_is_kept_for_longer_than_any_timeout() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--grace", "200ms", "--drain-timeout", "200ms"]);
    let mut pair = Pair::through(&tunnel, &upstream);
    let gone = holds_within(Duration::from_secs(1), || {
        !tunnel.lines_with("disconnecting").is_empty()
    });
    assert!(!gone);
    ping_on(&mut pair, Duration::ZERO);
    pair.client.write_all(b"awake").unwrap();
    let mut word = [0; 5];
    pair.upstream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"awake");
}

#[test]
fn a_pause_that_ends_within_the_grace_costs_nothing() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&["--grace", "60s"]);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
    let taken = fill(&mut pair.upstream);
    tunnel.wait_for_line("write blocked");
    let mut received = vec![0; taken];
    pair.client.read_exact(&mut received).unwrap();
    assert!(received == pattern(taken));
    ping_on(&mut pair, Duration::from_millis(50));
}

#[test]
fn memory_is_bounded_for_each_direction_of_a_hundred_stalled_pairs() {
    const PAIRS: usize = 100;
    const EACH_BYTES: usize = 2 * (64 + 4 + 32) * 1024;
    let upstream = Upstream::listen_with(Buffers::SMALL);
    let tunnel = upstream.tunnel(&["--grace", "60s"]);
    let before = tunnel.resident_bytes();
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        pairs.push(Pair::with(&tunnel, &upstream, Buffers::SMALL));
    }
    for pair in &mut pairs {
        fill_up_to(&mut pair.client, FILLS_A_QUEUE_BYTES);
        fill_up_to(&mut pair.upstream, FILLS_A_QUEUE_BYTES);
    }
    wait_until("both ends of all pairs are blocked", || {
        tunnel.lines_with("write blocked").len() == 2 * PAIRS
    });
    let grown = tunnel.resident_bytes().saturating_sub(before);
    assert!(grown < PAIRS * EACH_BYTES, "{grown} bytes for {PAIRS} pairs");
    assert!(grown > PAIRS * 64 * 1024, "{grown} bytes: nothing was queued");
}

/// Which end of a pair reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reader {
    Client,
    Upstream,
}

/// Sends through a pair of `tunnel` to one of its ends, which reads at full speed,
/// then slowly, then the rest. Answers how much was sent and came.
fn read_fast_then_slowly(
    tunnel: &Server,
    upstream: &Upstream,
    reader: Reader,
) -> std::io::Result<(usize, usize)> {
    let pair = Pair::through(tunnel, upstream);
    let (from, to) = match reader {
        Reader::Client => (&pair.upstream, &pair.client),
        Reader::Upstream => (&pair.client, &pair.upstream),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let sender = send_until(from, Arc::clone(&stop));
    let mut reader = PatternReader::new(to);
    let outcome = reader
        .read_fast(Duration::from_secs(2))
        .and_then(|()| reader.read_slowly(64 * 1024, Duration::from_secs(8)));
    stop.store(true, Ordering::Relaxed);
    let outcome = outcome.and_then(|()| reader.read_rest());
    let sent = sender.join().unwrap();
    outcome.map(|()| (sent, reader.count))
}

#[test]
fn an_end_that_was_fast_before_it_reads_64_kib_a_second_is_kept_if_that_is_the_slowest_rate() {
    let graces = ["--grace", "500ms", "--upstream-grace", "500ms"];
    let upstreams = [Upstream::listen(), Upstream::listen(), Upstream::listen()];
    let patient = [&graces[..], &["--slowest-reader", "64KiB"]].concat();
    let (first, second) = (upstreams[0].tunnel(&patient), upstreams[1].tunnel(&patient));
    let impatient = upstreams[2].tunnel(&graces);
    thread::scope(|scope| {
        let cut = scope.spawn(|| read_fast_then_slowly(&impatient, &upstreams[2], Reader::Client));
        let to_upstream = scope.spawn(|| read_fast_then_slowly(&second, &upstreams[1], Reader::Upstream));
        let to_client = read_fast_then_slowly(&first, &upstreams[0], Reader::Client);
        let to_upstream = to_upstream.join().unwrap();
        for (outcome, tunnel) in [(to_client, &first), (to_upstream, &second)] {
            let (sent, came) = outcome.unwrap_or_else(|error| panic!("{error}\n{}", tunnel.log()));
            assert_eq!(sent, came, "it loses nothing");
            assert!(tunnel.lines_with("disconnecting").is_empty(), "{}", tunnel.log());
        }
        // The reset may be told to its sender, and its reader then sees an end.
        let _ = cut.join().unwrap();
    });
    let line = impatient.wait_for_line("write timeout, disconnecting");
    assert!(line.contains("window closed, largest "), "{line}");
}

/// An end reads at full speed for a second and then never again. Answers the line
/// of its disconnect.
fn read_fast_then_stall(options: &[&str], reader: Reader) -> String {
    let rates = [
        "--grace",
        "200ms",
        "--upstream-grace",
        "200ms",
        "--slowest-reader",
        "1MiB",
    ];
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&[&rates[..], options].concat());
    let pair = Pair::through(&tunnel, &upstream);
    let (from, to) = match reader {
        Reader::Client => (&pair.upstream, &pair.client),
        Reader::Upstream => (&pair.client, &pair.upstream),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let sender = send_until(from, Arc::clone(&stop));
    PatternReader::new(to).read_fast(Duration::from_secs(1)).unwrap();
    let line = tunnel.wait_for_line("write timeout, disconnecting");
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    assert_eq!(tunnel.lines_with("disconnecting").len(), 1, "{}", tunnel.log());
    line
}

#[test]
fn an_end_that_was_fast_and_stalls_has_the_grace_of_its_window_and_no_more_spliced_or_copied() {
    thread::scope(|scope| {
        for options in [&[][..], &["--splice-from", "0"]] {
            for reader in [Reader::Client, Reader::Upstream] {
                scope.spawn(move || {
                    let line = read_fast_then_stall(options, reader);
                    assert_eq!(line.contains(" of client "), reader == Reader::Upstream, "{line}");
                    check_reader_grace(&line);
                });
            }
        }
    });
}
