//! A point in time of one probe or load: nanoseconds since it began.
//!
//! Pure. One word that is compared and subtracted in one instruction; an
//! `Instant` needs some fifty, which a healthy client would pay per message.

use std::time::{Duration, Instant};

/// Nanoseconds since the epoch of a probe or load, which all moments that are
/// compared must share.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// What `now` is, counted from `epoch`; the epoch itself where it is earlier.
    pub(crate) fn of(now: Instant, epoch: Instant) -> Self {
        let since = now.saturating_duration_since(epoch);
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// So long after the epoch.
    #[cfg(test)]
    pub(crate) fn at(since_epoch: Duration) -> Self {
        Self(since_epoch.as_nanos() as u64)
    }

    /// Nanoseconds from `earlier` to this; none where it is not earlier.
    #[inline]
    pub(crate) fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time from `earlier` to this; none where it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanoseconds_since(earlier))
    }

    /// Time since the epoch.
    pub(crate) fn since_epoch(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}
