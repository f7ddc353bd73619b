//! What operators see: metrics that move, who is slow and who is gone, and who
//! may ask.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that fails should say so at once, and these run against the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod browser;
mod clients;
mod files;
mod metrics;
mod operator;
mod services;
mod stopping;
