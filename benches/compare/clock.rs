//! The one place of the benchmarks that reads the clock.

use std::time::Instant;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, and this is where it reads it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
