//! An instant for tests of decisions that take `now` as an argument.
//!
//! Refuses to tell the time: only differences to it mean anything.

use std::time::Instant;

/// The instant at which a test begins.
#[expect(
    clippy::disallowed_methods,
    reason = "an instant can only be had from the clock"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}
