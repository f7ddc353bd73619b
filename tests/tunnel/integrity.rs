//! Every byte arrives, in order, on both sides at once, however the streams
//! are cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fastrand::Rng;
use highwater::raise_descriptor_limit;

use crate::support::server::Server;
use crate::support::sockets::{Buffers, connect, connect_with, ping};
use crate::support::tunnel::{Pair, Upstream, echo_upstream};
use crate::support::{pattern, wait_until};

const MIB: usize = 1024 * 1024;
/// The longest read and write of an end in these tests.
const LONGEST_PIECE_BYTES: usize = 40_000;
/// Far beyond what a busy machine takes for the longest test here.
const ALL_DONE_WITHIN: Duration = Duration::from_secs(120);

/// The bytes of which all streams are taken, each from a place of its own.
fn well() -> &'static [u8] {
    static WELL: OnceLock<Vec<u8>> = OnceLock::new();
    WELL.get_or_init(|| pattern(12 * MIB))
}

/// One end of a pair: sends its stream in random pieces and checks the
/// other's, never waiting.
struct End {
    stream: TcpStream,
    sends: &'static [u8],
    expects: &'static [u8],
    ended: bool,
    saw_end: bool,
    /// Rounds in which it does not read, as a slow reader does.
    rests: u32,
}

impl End {
    fn new(stream: TcpStream, sends: &'static [u8], expects: &'static [u8]) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            sends,
            expects,
            ended: false,
            saw_end: false,
            rests: 0,
        }
    }

    fn take_turn(&mut self, rng: &mut Rng) {
        self.send(rng);
        if self.rests > 0 {
            self.rests -= 1;
        } else {
            self.receive(rng);
            if rng.u32(..30) == 0 {
                self.rests = rng.u32(..60);
            }
        }
    }

    fn send(&mut self, rng: &mut Rng) {
        if self.sends.is_empty() {
            if !self.ended {
                self.stream.shutdown(Shutdown::Write).unwrap();
                self.ended = true;
            }
            return;
        }
        let piece = rng.usize(1..=LONGEST_PIECE_BYTES).min(self.sends.len());
        match self.stream.write(&self.sends[..piece]) {
            Ok(count) => self.sends = &self.sends[count..],
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }

    fn receive(&mut self, rng: &mut Rng) {
        let mut buffer = [0; LONGEST_PIECE_BYTES];
        let wanted = rng.usize(1..=LONGEST_PIECE_BYTES);
        match self.stream.read(&mut buffer[..wanted]) {
            Ok(0) => {
                assert!(
                    self.expects.is_empty(),
                    "an end with {} bytes missing",
                    self.expects.len()
                );
                self.saw_end = true;
            }
            Ok(count) => {
                assert!(count <= self.expects.len(), "more bytes than were sent");
                let (now, later) = self.expects.split_at(count);
                assert!(buffer[..count] == *now, "other bytes, or in another order");
                self.expects = later;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }

    const fn is_done(&self) -> bool {
        self.ended && self.saw_end
    }
}

/// Any stream of the well, at most so long.
fn draw(rng: &mut Rng, longest: usize) -> &'static [u8] {
    let length = rng.usize(..=longest);
    let start = rng.usize(..=well().len() - length);
    &well()[start..start + length]
}

/// Drives all ends until every stream has come to its end.
fn drive(mut ends: Vec<End>, rng: &mut Rng) {
    let give_up = Instant::now() + ALL_DONE_WITHIN;
    while !ends.is_empty() {
        for end in &mut ends {
            end.take_turn(rng);
        }
        ends.retain(|end| !end.is_done());
        assert!(Instant::now() < give_up, "{} ends have not ended", ends.len());
    }
}

fn two_ends(pair: Pair, rng: &mut Rng, longest: usize) -> [End; 2] {
    let (up, down) = (draw(rng, longest), draw(rng, longest));
    [End::new(pair.client, up, down), End::new(pair.upstream, down, up)]
}

#[test]
fn a_thousand_pairs_at_once_carry_every_byte_in_order_both_ways() {
    raise_descriptor_limit().unwrap();
    let mut rng = Rng::with_seed(4);
    let upstream = Upstream::listen();
    // A pair that rests for a while is slow by our own doing.
    let tunnel = upstream.tunnel(&["--grace", "60s"]);
    let mut ends = Vec::new();
    for _ in 0..1000 {
        let pair = Pair::through(&tunnel, &upstream);
        ends.extend(two_ends(pair, &mut rng, 128 * 1024));
    }
    drive(ends, &mut rng);
    let summary = tunnel.stop();
    assert!(summary.contains("1000 clients served"), "{summary}");
    assert!(
        summary.contains("1000 upstreams, 0 failed to connect, 0 reset"),
        "{summary}"
    );
}

#[test]
fn long_streams_both_ways_at_once_are_paused_and_resumed_without_a_loss() {
    let mut rng = Rng::with_seed(44);
    let upstream = Upstream::listen_with(Buffers::SLOW_READER);
    let tunnel = upstream.tunnel(&["--grace", "60s"]);
    let mut ends = Vec::new();
    for _ in 0..8 {
        let pair = Pair::with(&tunnel, &upstream, Buffers::SLOW_READER);
        ends.extend(two_ends(pair, &mut rng, 12 * MIB));
    }
    drive(ends, &mut rng);
    // An upstream is named with its client.
    wait_until("both ways were paused", || {
        let blocked = tunnel.lines_with("write blocked");
        let upstreams = blocked.iter().filter(|line| line.contains(" upstream ")).count();
        (1..blocked.len()).contains(&upstreams)
    });
}

#[test]
fn a_mark_of_one_byte_carries_everything_too() {
    let mut rng = Rng::with_seed(444);
    let upstream = Upstream::listen();
    let mark = ["--high-water-mark", "1", "--hard-limit", "1MiB"];
    let tunnel = upstream.tunnel(&[&mark[..], &["--grace", "60s"]].concat());
    let mut ends = Vec::new();
    for _ in 0..8 {
        let pair = Pair::with(&tunnel, &upstream, Buffers::SMALL);
        ends.extend(two_ends(pair, &mut rng, MIB));
    }
    drive(ends, &mut rng);
}

#[test]
fn clients_over_ipv6_reach_an_upstream_over_ipv4() {
    let to = echo_upstream(Buffers::default()).to_string();
    let tunnel = Server::start("tunnel", &["--host", "::1", "--to", &to]);
    assert!(tunnel.address().is_ipv6());
    ping(&mut connect(tunnel.address()), b"from six to four");
}

#[test]
fn an_upstream_may_speak_first() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&[]);
    let mut pair = Pair::with(&tunnel, &upstream, Buffers::default());
    pair.upstream.write_all(b"220 ready\r\n").unwrap();
    let mut greeting = [0; 11];
    pair.client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

#[test]
fn what_a_client_sends_before_its_upstream_is_there_comes_first() {
    let upstream = Upstream::listen();
    let tunnel = upstream.tunnel(&[]);
    let mut client = connect_with(tunnel.address(), Buffers::default());
    client.write_all(b"early").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    upstream.accept().read_to_end(&mut received).unwrap();
    assert_eq!(received, b"early");
}
