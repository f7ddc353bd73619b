//! The limits of one server: one value for each that can be set.
//!
//! Owns the defaults and what follows from one value for another. Refuses to
//! judge whether the values fit together: that is `check.rs`.

use std::time::Duration;

use super::{
    ACK_CHECK_GRACE_SHARE, CONNECT_TIMEOUT, DRAIN_TIMEOUT, GRACE, HALF_CLOSED_TIMEOUT, HARD_LIMIT_MARKS,
    HIGH_WATER_MARK_BYTES, LONGEST_PROGRESS_INTERVAL, LONGEST_RETRANSMISSION, PROGRESS_LOOKS,
    RECEIVE_BUFFER_BYTES, RESERVED_DESCRIPTORS, RETRANSMISSIONS_PER_GRACE, SHORTEST_PROGRESS_INTERVAL,
    SMALLEST_READ_BYTES, SPLICE_FROM_BYTES, STOP_TIMEOUT, UNSENT_BYTES, UPSTREAM_GRACE,
};

/// The limits of one server. [`Limits::default`] gives every default; change
/// fields, then [`Limits::check`].
///
/// The worst case for memory is `max_clients x (high_water_mark + one read of
/// 4 KiB + the kernel's share)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queue length in bytes from which a write answers *pause*.
    pub high_water_mark_bytes: usize,
    /// Queue length in bytes from which a client is over the limit; `None`
    /// stands for the high-water mark.
    pub limit_bytes: Option<usize>,
    /// Longest time over the limit. Also the longest wait of an orderly end.
    pub grace: Duration,
    /// Longest time over the limit of an upstream. Its drain timeout is at
    /// least that.
    pub upstream_grace: Duration,
    /// The rate, in bytes a second, at which a client may read for ever. It
    /// raises the grace of each client to the time in which such a reader
    /// reopens the largest window that it ever announced, at most to
    /// [`LONGEST_READER_GRACE`](super::LONGEST_READER_GRACE), and the drain
    /// timeout to at least that. `None` raises nothing.
    pub slowest_reader_bytes_per_s: Option<usize>,
    /// Longest time without an empty queue; `None` stands for
    /// [`DRAIN_TIMEOUT`], or the grace if that is longer.
    pub drain_timeout: Option<Duration>,
    /// Queue length in bytes that no write may exceed; `None` stands for
    /// [`HARD_LIMIT_MARKS`] times the high-water mark.
    pub hard_limit_bytes: Option<usize>,
    /// Bytes that all queues (and unfinished frames) together may hold;
    /// `None` stands for [`Resources::memory_budget_bytes`](super::Resources).
    pub memory_budget_bytes: Option<usize>,
    /// Longest time in which nothing is queued for a client and nothing moves
    /// either way; `None` keeps idle clients.
    pub idle_timeout: Option<Duration>,
    /// Longest time that a half-closed client may move no byte.
    pub half_closed_timeout: Duration,
    /// Longest time that conversations may go on after a stop was asked for.
    pub stop_timeout: Duration,
    /// Longest wait for the answer of an upstream to one connection.
    pub connect_timeout: Duration,
    /// Most clients at a time; `None` stands for as many as descriptors and
    /// memory allow ([`Resources::max_clients`](super::Resources)).
    pub max_clients: Option<usize>,
    /// Most clients of one address at a time, IPv6 addresses by their /64;
    /// `None` for no such limit.
    pub max_clients_per_address: Option<usize>,
    /// Nobody is disconnected by a timeout for slow clients; it is logged and
    /// counted who would have been. Bounds of memory hold all the same.
    pub shadow: bool,
    /// Descriptors that are kept back from clients.
    pub reserved_descriptors: usize,
    /// Unsent bytes that the kernel may hold for a client
    /// (`TCP_NOTSENT_LOWAT`); 0 leaves the kernel's own default.
    pub unsent_bytes: usize,
    /// Receive buffer (`SO_RCVBUF`) in bytes of a client that takes nothing.
    /// Doubles up to [`RECEIVE_BUFFER_DOUBLINGS`](super::RECEIVE_BUFFER_DOUBLINGS) times (among few clients
    /// [`RECEIVE_BUFFER_DOUBLINGS_OF_FEW`](super::RECEIVE_BUFFER_DOUBLINGS_OF_FEW)) as its bytes are taken faster.
    /// 0 leaves the kernel's own sizing.
    pub receive_buffer_bytes: usize,
    /// Read length in bytes from which a client counts as moving bulk: its
    /// next bytes are spliced to the destination. 0 copies everything.
    pub splice_from_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            high_water_mark_bytes: HIGH_WATER_MARK_BYTES,
            limit_bytes: None,
            grace: GRACE,
            upstream_grace: UPSTREAM_GRACE,
            slowest_reader_bytes_per_s: None,
            drain_timeout: None,
            hard_limit_bytes: None,
            memory_budget_bytes: None,
            idle_timeout: None,
            half_closed_timeout: HALF_CLOSED_TIMEOUT,
            stop_timeout: STOP_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            max_clients: None,
            max_clients_per_address: None,
            shadow: false,
            reserved_descriptors: RESERVED_DESCRIPTORS,
            unsent_bytes: UNSENT_BYTES,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            splice_from_bytes: SPLICE_FROM_BYTES,
        }
    }
}

impl Limits {
    /// The limit that is in force, in bytes.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes.unwrap_or(self.high_water_mark_bytes)
    }

    /// The hard limit that is in force, in bytes.
    #[must_use]
    pub fn hard_limit_bytes(&self) -> usize {
        self.hard_limit_bytes.unwrap_or_else(|| {
            self.high_water_mark_bytes
                .saturating_mul(HARD_LIMIT_MARKS)
                .max(self.limit_bytes().saturating_mul(2))
                .max(self.high_water_mark_bytes.saturating_add(SMALLEST_READ_BYTES))
        })
    }

    /// The drain timeout that is in force.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(DRAIN_TIMEOUT.max(self.grace))
    }

    /// The longest time between two retransmissions to a client.
    #[must_use]
    pub fn longest_retransmission(&self) -> Duration {
        LONGEST_RETRANSMISSION.max(self.grace / RETRANSMISSIONS_PER_GRACE)
    }

    /// The same limits for upstreams: they have a grace of their own, and a
    /// drain timeout of at least that.
    #[must_use]
    pub fn for_upstreams(&self) -> Self {
        Self {
            grace: self.upstream_grace,
            drain_timeout: Some(self.drain_timeout().max(self.upstream_grace)),
            ..self.clone()
        }
    }

    /// These limits for a server that runs already, with `running`. What the
    /// kernel was told of sockets at the start stays: `unsent_bytes`,
    /// `receive_buffer_bytes`, `reserved_descriptors`.
    #[must_use]
    pub fn while_running(&self, running: &Self) -> Self {
        Self {
            unsent_bytes: running.unsent_bytes,
            receive_buffer_bytes: running.receive_buffer_bytes,
            reserved_descriptors: running.reserved_descriptors,
            ..self.clone()
        }
    }

    /// Time over the limit after which a client is checked for lost ACKs.
    #[must_use]
    pub fn ack_check_delay(&self) -> Duration {
        self.grace / ACK_CHECK_GRACE_SHARE
    }

    /// Time between two looks at what a peer has acknowledged.
    #[must_use]
    pub fn progress_interval(&self) -> Duration {
        let interval = self.grace / PROGRESS_LOOKS;
        interval.clamp(SHORTEST_PROGRESS_INTERVAL, LONGEST_PROGRESS_INTERVAL)
    }

    /// Whether a read of so many bytes means that a client is moving bulk.
    pub(crate) const fn is_bulk(&self, count_bytes: usize) -> bool {
        self.splice_from_bytes > 0 && count_bytes >= self.splice_from_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_follow_once_a_second_or_eight_times_in_a_longer_grace() {
        let longest = |seconds| {
            let limits = Limits {
                grace: Duration::from_secs(seconds),
                ..Limits::default()
            };
            limits.longest_retransmission().as_millis()
        };
        assert_eq!([5, 8, 60].map(longest), [1000, 1000, 7500]);
        let upstreams = Limits::default().for_upstreams();
        assert_eq!(upstreams.longest_retransmission().as_millis(), 7500);
    }
}
