//! How a comparison is carried out.

use std::time::Duration;

/// How a comparison is carried out.
pub(crate) struct Method {
    pub(crate) cycles: usize,
    pub(crate) bulk_cycles: usize,
    pub(crate) slice: Duration,
    pub(crate) tries: usize,
    pub(crate) seed: u64,
}
