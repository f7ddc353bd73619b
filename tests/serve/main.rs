//! Files over HTTP, by real sockets: what is answered, what is refused, and
//! what happens to readers who stop.

#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod client;
#[cfg(target_os = "linux")]
mod cold_disk;
mod logging;
mod shapes;
mod slow_readers;
