//! The only place of the prober that reads the clock; everything else is told the time.

use std::time::Instant;

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "the loops of the prober own their clock, and read it here"
)]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}
