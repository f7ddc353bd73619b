//! How long a client that reads at the slowest rate may show nothing.
//!
//! Owns the grace that follows from that rate and from the largest window that
//! a peer ever announced. Refuses to know where the window comes from.
//!
//! While a window is closed, a peer that reads and a peer that does not look the
//! same. It opens once a sixteenth of the receive buffer is free, and a receive
//! buffer grows with the speed of its reader: a client that was fast before is
//! silent for longest.

use std::time::Duration;

use super::Limits;

/// Part of its receive buffer that a peer must free before it opens a window that
/// was closed (Linux, `__tcp_select_window`). Measured with 64 KiB/s: 21.2 MB
/// announced, silent for 20.6 s.
pub const WINDOW_OPENING_SHARE: u64 = 16;

/// Most unread bytes, beyond that share, behind which a reader shows nothing: a
/// coalesced packet is freed as a whole. Measured: a fresh reader shows progress
/// once in some 125 KB, so this is four such steps.
pub const UNSHOWN_BYTES: u64 = 512 * 1024;

/// The largest window that TCP can announce: 65,535 bytes scaled by 2^14
/// (RFC 7323, 2.3).
pub const LARGEST_WINDOW_BYTES: u32 = 65_535 << 14;

/// Longest grace that a slowest reader leads to. A peer may announce any window,
/// so without this bound it could stall for hours.
pub const LONGEST_READER_GRACE: Duration = Duration::from_secs(600);

/// How often a window counts that its peer has withdrawn. Its kernel then holds
/// more memory than its buffer allows, and drops what comes until that is read
/// too. Measured behind a tunnel: 13 % more memory than the buffer of 33.6 MB, and
/// 5.5 MB to read until the window of 33.0 MB opened, a sixth and not a sixteenth.
pub const WITHDRAWN_WINDOW_TIMES: u32 = 4;

/// The window that a reader must open again, in bytes, by the largest that it
/// announced.
#[must_use]
pub const fn reopening_window_bytes(largest_window_bytes: u32, is_withdrawn: bool) -> u32 {
    match is_withdrawn {
        true => largest_window_bytes.saturating_mul(WITHDRAWN_WINDOW_TIMES),
        false => largest_window_bytes,
    }
}

impl Limits {
    /// The grace of a client that has announced this window at most, in bytes:
    /// the larger of the grace and the time that a reader of the slowest rate
    /// needs to reopen that window and to take what waits here.
    #[must_use]
    pub fn grace_for(&self, largest_window_bytes: u32) -> Duration {
        match self.slowest_reader_bytes_per_s {
            Some(bytes_per_s) => {
                let reopening = self.reopening_time(largest_window_bytes, bytes_per_s);
                self.grace.max(reopening.min(LONGEST_READER_GRACE))
            }
            None => self.grace,
        }
    }

    /// The drain timeout of such a client: at least its grace.
    #[must_use]
    pub fn drain_timeout_for(&self, largest_window_bytes: u32) -> Duration {
        self.drain_timeout().max(self.grace_for(largest_window_bytes))
    }

    fn reopening_time(&self, largest_window_bytes: u32, bytes_per_s: usize) -> Duration {
        let window_bytes = u64::from(largest_window_bytes);
        let unshown_bytes = window_bytes / WINDOW_OPENING_SHARE + UNSHOWN_BYTES.min(2 * window_bytes);
        let queue_bytes = self.high_water_mark_bytes.max(self.limit_bytes()) as u64;
        let owed_bytes = unshown_bytes + queue_bytes + self.unsent_bytes as u64;
        let milliseconds = u128::from(owed_bytes) * 1000 / (bytes_per_s.max(1) as u128);
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{DRAIN_TIMEOUT, GRACE, LARGEST_WINDOW_BYTES};

    fn with_rate(bytes_per_s: usize) -> Limits {
        Limits {
            slowest_reader_bytes_per_s: Some(bytes_per_s),
            ..Limits::default()
        }
    }

    #[test]
    fn without_a_rate_every_client_has_the_grace() {
        assert_eq!(Limits::default().grace_for(LARGEST_WINDOW_BYTES), GRACE);
        assert_eq!(Limits::default().drain_timeout_for(0), DRAIN_TIMEOUT);
    }

    #[test]
    fn a_reader_that_was_fast_before_has_the_time_in_which_its_window_reopens() {
        // 21,249,024 / 16 + 512 KiB + 64 KiB + 16 KiB at 64 KiB/s; measured: 20.6 s
        // of silence.
        let grace = with_rate(64 * 1024).grace_for(21_249_024);
        assert_eq!(grace, Duration::from_millis(29_514));
    }

    #[test]
    fn a_window_that_was_withdrawn_counts_four_times() {
        assert_eq!(reopening_window_bytes(33_019_904, false), 33_019_904);
        let grace = with_rate(64 * 1024).grace_for(reopening_window_bytes(33_019_904, true));
        // The reader needed 84 s.
        assert_eq!(grace.as_secs(), 135);
        assert_eq!(reopening_window_bytes(u32::MAX, true), u32::MAX);
    }

    #[test]
    fn a_small_window_counts_twice_and_never_more_than_half_a_mib() {
        let limits = with_rate(1024);
        let seconds = |window| limits.grace_for(window).as_secs();
        assert_eq!(seconds(0), 64 + 16);
        assert_eq!(seconds(64 * 1024), 4 + 128 + 64 + 16);
        assert_eq!(seconds(128 * 1024), 8 + 256 + 64 + 16);
        let (at_bound, above) = (seconds(256 * 1024), seconds(272 * 1024));
        assert_eq!((at_bound, above), (600, 600), "ten minutes");
        let faster = with_rate(8 * 1024);
        assert_eq!(faster.grace_for(256 * 1024).as_secs(), (16 + 512 + 64 + 16) / 8);
        assert_eq!(faster.grace_for(512 * 1024).as_secs(), (32 + 512 + 64 + 16) / 8);
    }

    #[test]
    fn a_rate_never_shortens_the_grace_and_raises_it_to_ten_minutes_at_most() {
        assert_eq!(with_rate(1 << 40).grace_for(LARGEST_WINDOW_BYTES), GRACE);
        assert_eq!(
            with_rate(1024).grace_for(LARGEST_WINDOW_BYTES),
            LONGEST_READER_GRACE
        );
        let patient = Limits {
            grace: 2 * LONGEST_READER_GRACE,
            ..with_rate(1)
        };
        assert_eq!(
            patient.grace_for(LARGEST_WINDOW_BYTES),
            2 * LONGEST_READER_GRACE,
            "the bound is that of the raise"
        );
    }

    #[test]
    fn the_drain_timeout_rises_with_the_grace() {
        let limits = with_rate(64 * 1024);
        assert_eq!(limits.drain_timeout_for(21_249_024), DRAIN_TIMEOUT);
        let larger = limits.grace_for(200_000_000);
        assert!(larger > DRAIN_TIMEOUT);
        assert_eq!(limits.drain_timeout_for(200_000_000), larger);
    }

    #[test]
    fn an_upstream_keeps_its_longer_grace() {
        let limits = with_rate(64 * 1024).for_upstreams();
        assert_eq!(limits.grace_for(21_249_024), limits.upstream_grace);
        assert!(limits.grace_for(200_000_000) > limits.upstream_grace);
    }
}
