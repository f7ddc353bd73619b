//! The probe as a library, as docs/probe-ci.md shows it, and with a protocol of the user's own.

#![cfg(all(target_os = "linux", feature = "probe"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use highwater::probe::{
    Conversation, Conversations, Corruption, Echo, FIRST_CLIENT, FirstExchange, NoProgress, Outcome, Plan,
    ProbeError, Protocol, SlowKind, Traits, Wire, probe,
};
use socket2::SockRef;

/// Echoes with this change, and resets a client that takes nothing for a second.
fn serve(listener: TcpListener, change: fn(&mut [u8])) {
    for stream in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || {
            let mut stream = stream;
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            let mut buffer = [0; 16 << 10];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                change(&mut buffer[..len]);
                if stream.write_all(&buffer[..len]).is_err() {
                    return;
                }
            }
        });
    }
}

fn start(change: fn(&mut [u8])) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(listener, change));
    address
}

fn assert_passes(plan: &Plan, findings: &[&str]) {
    let report = probe(plan, "my server", &mut NoProgress).unwrap();
    for name in findings {
        let finding = report.finding(name).unwrap();
        assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
    }
}

#[test]
fn a_client_that_never_reads_is_disconnected_and_harms_nobody() {
    let plan = Plan {
        baseline: Duration::from_millis(500),
        ..Plan::new(start(|_| {}))
            .speaking(Echo)
            .without_slow_clients()
            .with(SlowKind::Stalled, 3)
    };
    assert_passes(
        &plan,
        &["stalled-disconnected", "stalled-in-time", "healthy-served"],
    );
}

/// The server answers each byte with the next one.
#[derive(Debug, Clone, Copy)]
struct Successor;

const TRAITS: Traits = Traits {
    name: "successor",
    echoes: true,
    verifies: true,
    talks: true,
    fills: true,
    head_bytes: 0,
};

impl Protocol for Successor {
    fn traits(&self) -> &Traits {
        &TRAITS
    }

    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError> {
        let mut first = Count(0);
        server.exchange(&mut first, "eight bytes")?;
        assert_ne!(FIRST_CLIENT, 0);
        Ok(Box::new(*self))
    }
}

impl Conversations for Successor {
    fn healthy(&self, _: u64, _: usize) -> Wire {
        Wire::other(Count(0))
    }
}

/// Bytes that came.
#[derive(Debug)]
struct Count(u64);

impl Conversation for Count {
    fn due_after(&self, position: u64) -> u64 {
        position + 8
    }

    fn fill(&self, position: u64, buffer: &mut [u8]) {
        for (at, byte) in (position..).zip(buffer) {
            *byte = at as u8;
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        let before = self.0 / 8;
        for &byte in bytes {
            if byte != (self.0 as u8).wrapping_add(1) {
                let why = format!("{byte} at {}", self.0);
                return Err(Corruption { at: self.0, why });
            }
            self.0 += 1;
        }
        Ok(self.0 / 8 - before)
    }

    fn received(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_protocol_of_ones_own_is_probed_like_those_of_the_command() {
    let next = start(|bytes| bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1)));
    let plan = Plan {
        baseline: Duration::from_millis(500),
        pause: Duration::from_millis(500),
        ..Plan::new(next)
            .speaking(Successor)
            .without_slow_clients()
            .with(SlowKind::Paused, 1)
            .with(SlowKind::Stalled, 1)
    };
    assert_passes(&plan, &["stalled-disconnected", "paused-kept", "healthy-served"]);
    let same = probe(
        &Plan::new(start(|_| {})).speaking(Successor),
        "an echo",
        &mut NoProgress,
    );
    assert!(matches!(same, Err(ProbeError::WrongAnswer { .. })), "{same:?}");
}
