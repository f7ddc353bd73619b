//! `highwater broadcast` on real sockets: what subscribers and publishers see,
//! and what slow subscribers do not do to others.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a helper that fails should say so at once"
)]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod limits;
mod protocol;
mod slow;
mod torture;

use client::{Client, Value};
use support::server::Server;

fn start(options: &[&str]) -> Server {
    Server::start("broadcast", options)
}

/// Payloads that tell their number, of about this length.
fn payload(number: usize, length: usize) -> String {
    format!("{number:08}{}", "x".repeat(length.saturating_sub(8)))
}

fn number_of(payload: &str) -> usize {
    payload[..8].parse().unwrap()
}

/// Publishes `count` messages to `channel`, 16 in flight, and answers what
/// PUBLISH said of the last.
fn publish_many(publisher: &mut Client, channel: &str, count: usize, length: usize) -> Value {
    let mut last = Value::Null;
    for from in (0..count).step_by(16) {
        let to = (from + 16).min(count);
        for number in from..to {
            publisher.send(&["PUBLISH", channel, &payload(number, length)]);
        }
        for _ in from..to {
            last = publisher.next();
        }
    }
    last
}
