//! How fast an unfinished message arrives.
//!
//! Owns the clock of one message, and the rule: within the time, a message must
//! bring 1 KiB/s. Each such share that came begins the time anew. A client that
//! goes on at that rate is never late, and one that stops is late one time after
//! the last share. Time in which its sender was paused does not count. Refuses
//! to know what a message is.

use std::time::{Duration, Instant};

use crate::limits::SLOWEST_FRAME_BYTES_PER_S;

/// The clock of one message.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When the present share began, later by the time of pauses.
    since: Instant,
    /// Bytes of the present share.
    bytes: u64,
    paused_since: Option<Instant>,
}

impl Arrival {
    /// The first bytes of a message have come.
    #[must_use]
    pub const fn begin(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
            paused_since: None,
        }
    }

    /// More bytes have come, of a message that has `time` for each share.
    pub fn came(&mut self, count_bytes: usize, time: Duration, now: Instant) {
        self.bytes += count_bytes as u64;
        let share_bytes = (u128::from(SLOWEST_FRAME_BYTES_PER_S) * time.as_millis()).div_ceil(1000);
        if u128::from(self.bytes) >= share_bytes.max(1) {
            self.bytes = 0;
            self.since = now;
            self.paused_since = self.paused_since.map(|_| now);
        }
    }

    /// The sender is not read from here on.
    pub fn pause(&mut self, now: Instant) {
        self.paused_since.get_or_insert(now);
    }

    /// The sender is read again.
    pub fn resume(&mut self, now: Instant) {
        if let Some(paused_since) = self.paused_since.take() {
            self.since += now.saturating_duration_since(paused_since);
        }
    }

    /// Bytes of the present share.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For how long the present share has been coming.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let until = self.paused_since.unwrap_or(now);
        until.saturating_duration_since(self.since)
    }

    /// Whether the present share did not come within `time`.
    #[must_use]
    pub fn is_late(&self, time: Duration, now: Instant) -> bool {
        self.age(now) >= time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    const TIME: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);
    const SHARE_BYTES: usize = 30 * 1024;

    #[test]
    fn a_message_that_stops_is_late_after_the_time_and_not_a_moment_earlier() {
        let t0 = start();
        let mut message = Arrival::begin(t0);
        message.came(3, TIME, t0);
        assert!(!message.is_late(TIME, t0 + TIME - Duration::from_millis(1)));
        assert!(message.is_late(TIME, t0 + TIME));
        assert_eq!(message.bytes(), 3);
    }

    #[test]
    fn one_kib_a_second_is_enough_for_ever_and_a_little_less_is_not() {
        let t0 = start();
        for (bytes_per_s, is_enough) in [(1024, true), (1023, false)] {
            let mut message = Arrival::begin(t0);
            let late = (1..=300).find(|&seconds| {
                let now = t0 + seconds * SECOND;
                message.came(bytes_per_s, TIME, now);
                message.is_late(TIME, now)
            });
            assert_eq!(late.is_none(), is_enough, "{bytes_per_s}: {late:?}");
        }
    }

    #[test]
    fn much_at_once_buys_no_more_than_one_time() {
        let t0 = start();
        let mut message = Arrival::begin(t0);
        message.came(100 * SHARE_BYTES, TIME, t0 + SECOND);
        assert!(!message.is_late(TIME, t0 + TIME));
        assert!(message.is_late(TIME, t0 + SECOND + TIME));
    }

    #[test]
    fn a_share_short_of_one_byte_buys_nothing() {
        let t0 = start();
        let mut message = Arrival::begin(t0);
        message.came(SHARE_BYTES - 1, TIME, t0 + 29 * SECOND);
        assert!(message.is_late(TIME, t0 + TIME));
        let mut message = Arrival::begin(t0);
        message.came(SHARE_BYTES, TIME, t0 + 29 * SECOND);
        assert!(!message.is_late(TIME, t0 + TIME));
    }

    #[test]
    fn time_in_which_the_sender_was_paused_does_not_count() {
        let t0 = start();
        let mut message = Arrival::begin(t0);
        message.pause(t0 + 10 * SECOND);
        message.pause(t0 + 20 * SECOND);
        assert!(!message.is_late(TIME, t0 + 1000 * SECOND), "it is still paused");
        message.resume(t0 + 1000 * SECOND);
        message.resume(t0 + 1005 * SECOND);
        assert!(!message.is_late(TIME, t0 + 1019 * SECOND));
        assert!(message.is_late(TIME, t0 + 1020 * SECOND));
    }

    #[test]
    fn a_share_that_comes_in_a_pause_does_not_count_the_pause_before_it() {
        let t0 = start();
        let mut message = Arrival::begin(t0);
        message.pause(t0);
        message.came(SHARE_BYTES, TIME, t0 + 10 * SECOND);
        message.resume(t0 + 15 * SECOND);
        assert!(!message.is_late(TIME, t0 + 44 * SECOND));
        assert!(message.is_late(TIME, t0 + 45 * SECOND));
    }
}
