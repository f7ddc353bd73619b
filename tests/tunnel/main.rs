//! The tunnel, tested as a program between sockets on both of its sides.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the lint's exemption for tests does not reach their helpers"
)]
#![allow(clippy::disallowed_methods, reason = "these tests run against the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod balancers;
mod connecting;
mod ends;
mod integrity;
mod limits;
mod slow_ends;
mod stopping;
