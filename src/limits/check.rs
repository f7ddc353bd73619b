//! Which limits contradict each other, and which can never hold.
//!
//! Refuses to know options: errors name fields of [`Limits`].

use std::fmt;
use std::time::Duration;

use super::{
    LARGEST_SOCKET_OPTION_BYTES, LARGEST_WINDOW_BYTES, LONGEST_READER_GRACE, Limits, SMALLEST_READ_BYTES,
};
use crate::units::{format_size, format_time};

/// Shortest grace, drain timeout and connect timeout. Timers count whole
/// milliseconds.
pub const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// A field of [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::high_water_mark_bytes`].
    HighWaterMark,
    /// [`Limits::limit_bytes`].
    Limit,
    /// [`Limits::grace`].
    Grace,
    /// [`Limits::upstream_grace`].
    UpstreamGrace,
    /// [`Limits::slowest_reader_bytes_per_s`].
    SlowestReader,
    /// [`Limits::idle_timeout`].
    IdleTimeout,
    /// [`Limits::half_closed_timeout`].
    HalfClosedTimeout,
    /// [`Limits::drain_timeout`].
    DrainTimeout,
    /// [`Limits::connect_timeout`].
    ConnectTimeout,
    /// [`Limits::max_clients`].
    MaxClients,
    /// [`Limits::max_clients_per_address`].
    MaxClientsPerAddress,
    /// [`Limits::unsent_bytes`].
    Unsent,
    /// [`Limits::receive_buffer_bytes`].
    ReceiveBuffer,
}

impl Limit {
    /// The name of the field.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::HighWaterMark => "high_water_mark_bytes",
            Self::Limit => "limit_bytes",
            Self::Grace => "grace",
            Self::UpstreamGrace => "upstream_grace",
            Self::SlowestReader => "slowest_reader_bytes_per_s",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfClosedTimeout => "half_closed_timeout",
            Self::DrainTimeout => "drain_timeout",
            Self::ConnectTimeout => "connect_timeout",
            Self::MaxClients => "max_clients",
            Self::MaxClientsPerAddress => "max_clients_per_address",
            Self::Unsent => "unsent_bytes",
            Self::ReceiveBuffer => "receive_buffer_bytes",
        }
    }
}

/// Limits that contradict each other, or one that can never hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitsError {
    /// This limit is 0; it must be at least 1.
    Zero(Limit),
    /// This time is shorter than [`SHORTEST_TIMEOUT`].
    TooShort(Limit, Duration),
    /// The limit is above the hard limit, so no write could reach it.
    AboveHardLimit {
        /// The limit in force.
        limit_bytes: usize,
        /// The hard limit in force.
        hard_limit_bytes: usize,
    },
    /// The hard limit leaves no room for one read above the high-water mark.
    HardLimitBelowRead {
        /// The hard limit in force.
        hard_limit_bytes: usize,
        /// The high-water mark.
        high_water_mark_bytes: usize,
        /// The least hard limit that would do.
        least_bytes: usize,
    },
    /// The memory budget does not hold the queue of one client.
    BudgetBelowQueue {
        /// The memory budget.
        budget_bytes: usize,
        /// The least budget that would do.
        least_bytes: usize,
    },
    /// The drain timeout is shorter than the grace, so the grace would never
    /// be over first.
    DrainTimeoutBelowGrace {
        /// The drain timeout.
        drain_timeout: Duration,
        /// The grace.
        grace: Duration,
    },
    /// A client that reads at this rate may be silent for longer than any grace lasts.
    SlowestReaderTooSlow {
        /// The rate, in bytes a second.
        bytes_per_s: usize,
        /// The least rate that would do.
        least_bytes_per_s: usize,
    },
    /// At this rate even the largest window reopens within the grace, so the
    /// rate would raise the grace of nobody.
    SlowestReaderIdle {
        /// The rate, in bytes a second.
        bytes_per_s: usize,
        /// The grace.
        grace: Duration,
    },
    /// The kernel holds so many unsent bytes that no time can be calculated.
    SlowestReaderWithoutUnsent {
        /// The rate, in bytes a second.
        bytes_per_s: usize,
    },
    /// One address may have more clients than the server, so no address would
    /// ever have too many.
    AddressLimitAboveClients {
        /// Most clients of one address.
        max_clients_per_address: usize,
        /// Most clients.
        max_clients: usize,
    },
    /// No socket option takes so many bytes.
    AboveSocketOption {
        /// Which limit.
        limit: Limit,
        /// Its value.
        bytes: usize,
        /// The largest value.
        most_bytes: usize,
    },
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(limit) => write!(f, "`{}` must be at least 1", limit.field()),
            Self::TooShort(limit, time) => write!(
                f,
                "`{}` is {}; it must be at least {}",
                limit.field(),
                format_time(*time),
                format_time(SHORTEST_TIMEOUT)
            ),
            Self::AboveHardLimit {
                limit_bytes,
                hard_limit_bytes,
            } => write!(
                f,
                "`limit_bytes` {} is above `hard_limit_bytes` {}",
                format_size(*limit_bytes),
                format_size(*hard_limit_bytes)
            ),
            Self::HardLimitBelowRead {
                hard_limit_bytes,
                least_bytes,
                ..
            } => write!(
                f,
                "`hard_limit_bytes` {} must be at least {}: the high-water mark plus one read",
                format_size(*hard_limit_bytes),
                format_size(*least_bytes)
            ),
            Self::BudgetBelowQueue {
                budget_bytes,
                least_bytes,
            } => write!(
                f,
                "`memory_budget_bytes` {} must be at least {}: the queue of one client",
                format_size(*budget_bytes),
                format_size(*least_bytes)
            ),
            Self::DrainTimeoutBelowGrace { drain_timeout, grace } => write!(
                f,
                "`drain_timeout` {} is below `grace` {}",
                format_time(*drain_timeout),
                format_time(*grace)
            ),
            Self::SlowestReaderTooSlow {
                bytes_per_s,
                least_bytes_per_s,
            } => write!(
                f,
                "`slowest_reader_bytes_per_s` {bytes_per_s} must be at least {least_bytes_per_s}"
            ),
            Self::SlowestReaderIdle { bytes_per_s, grace } => write!(
                f,
                "`slowest_reader_bytes_per_s` {bytes_per_s} raises no grace above {}",
                format_time(*grace)
            ),
            Self::SlowestReaderWithoutUnsent { bytes_per_s } => write!(
                f,
                "`slowest_reader_bytes_per_s` {bytes_per_s} needs `unsent_bytes` of at least 1"
            ),
            Self::AddressLimitAboveClients {
                max_clients_per_address,
                max_clients,
            } => write!(
                f,
                "`max_clients_per_address` {max_clients_per_address} is above `max_clients` {max_clients}"
            ),
            Self::AboveSocketOption {
                limit,
                bytes,
                most_bytes,
            } => write!(
                f,
                "`{}` {} must be at most {}",
                limit.field(),
                format_size(*bytes),
                format_size(*most_bytes)
            ),
        }
    }
}

impl std::error::Error for LimitsError {}

impl Limits {
    /// Checks that the limits fit together.
    ///
    /// # Errors
    ///
    /// The first contradiction, with the values in it.
    pub fn check(&self) -> Result<(), LimitsError> {
        self.check_each()?;
        self.check_sizes()?;
        self.check_slowest_reader()?;
        if self.drain_timeout() < self.grace {
            return Err(LimitsError::DrainTimeoutBelowGrace {
                drain_timeout: self.drain_timeout(),
                grace: self.grace,
            });
        }
        if let (Some(max_clients_per_address), Some(max_clients)) =
            (self.max_clients_per_address, self.max_clients)
            && max_clients_per_address > max_clients
        {
            return Err(LimitsError::AddressLimitAboveClients {
                max_clients_per_address,
                max_clients,
            });
        }
        Ok(())
    }

    /// Each limit for itself.
    fn check_each(&self) -> Result<(), LimitsError> {
        for (limit, is_zero) in [
            (Limit::HighWaterMark, self.high_water_mark_bytes == 0),
            (Limit::Limit, self.limit_bytes() == 0),
            (Limit::SlowestReader, self.slowest_reader_bytes_per_s == Some(0)),
            (Limit::MaxClients, self.max_clients == Some(0)),
            (
                Limit::MaxClientsPerAddress,
                self.max_clients_per_address == Some(0),
            ),
        ] {
            if is_zero {
                return Err(LimitsError::Zero(limit));
            }
        }
        for (limit, time) in [
            (Limit::Grace, self.grace),
            (Limit::UpstreamGrace, self.upstream_grace),
            (Limit::IdleTimeout, self.idle_timeout.unwrap_or(SHORTEST_TIMEOUT)),
            (Limit::HalfClosedTimeout, self.half_closed_timeout),
            (Limit::DrainTimeout, self.drain_timeout()),
            (Limit::ConnectTimeout, self.connect_timeout),
        ] {
            if time < SHORTEST_TIMEOUT {
                return Err(LimitsError::TooShort(limit, time));
            }
        }
        for (limit, bytes) in [
            (Limit::Unsent, self.unsent_bytes),
            (Limit::ReceiveBuffer, self.receive_buffer_bytes),
        ] {
            if bytes > LARGEST_SOCKET_OPTION_BYTES {
                return Err(LimitsError::AboveSocketOption {
                    limit,
                    bytes,
                    most_bytes: LARGEST_SOCKET_OPTION_BYTES,
                });
            }
        }
        Ok(())
    }

    /// The rate of the slowest reader against the times that it should raise.
    fn check_slowest_reader(&self) -> Result<(), LimitsError> {
        let Some(bytes_per_s) = self.slowest_reader_bytes_per_s else {
            return Ok(());
        };
        if self.unsent_bytes == 0 {
            return Err(LimitsError::SlowestReaderWithoutUnsent { bytes_per_s });
        }
        let queue_bytes = self.high_water_mark_bytes.saturating_add(self.unsent_bytes);
        let least_bytes_per_s = queue_bytes.div_ceil(LONGEST_READER_GRACE.as_secs() as usize);
        if bytes_per_s < least_bytes_per_s {
            return Err(LimitsError::SlowestReaderTooSlow {
                bytes_per_s,
                least_bytes_per_s,
            });
        }
        if self.grace_for(LARGEST_WINDOW_BYTES) == self.grace {
            return Err(LimitsError::SlowestReaderIdle {
                bytes_per_s,
                grace: self.grace,
            });
        }
        Ok(())
    }

    /// Sizes against each other.
    fn check_sizes(&self) -> Result<(), LimitsError> {
        let (limit_bytes, hard_limit_bytes) = (self.limit_bytes(), self.hard_limit_bytes());
        if hard_limit_bytes < limit_bytes {
            return Err(LimitsError::AboveHardLimit {
                limit_bytes,
                hard_limit_bytes,
            });
        }
        // Pausing works only if a write that starts below the mark and brings
        // one read cannot reach the hard limit on the way to the pause.
        let least_bytes = self.high_water_mark_bytes.saturating_add(SMALLEST_READ_BYTES);
        if hard_limit_bytes < least_bytes {
            return Err(LimitsError::HardLimitBelowRead {
                hard_limit_bytes,
                high_water_mark_bytes: self.high_water_mark_bytes,
                least_bytes,
            });
        }
        match self.memory_budget_bytes {
            Some(budget_bytes) if budget_bytes < least_bytes => Err(LimitsError::BudgetBelowQueue {
                budget_bytes,
                least_bytes,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{DRAIN_TIMEOUT, HIGH_WATER_MARK_BYTES};

    fn refusal(change: impl FnOnce(&mut Limits)) -> String {
        let mut limits = Limits::default();
        change(&mut limits);
        limits.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(Limits::default().limit_bytes(), 64 * 1024);
        assert_eq!(Limits::default().hard_limit_bytes(), 1024 * 1024);
    }

    #[test]
    fn a_limit_above_the_hard_limit_is_refused_with_both_numbers() {
        let sentence = refusal(|limits| {
            limits.limit_bytes = Some(256 * 1024);
            limits.hard_limit_bytes = Some(128 * 1024);
        });
        assert!(
            sentence.contains("`limit_bytes` 256KiB") && sentence.contains("`hard_limit_bytes` 128KiB"),
            "{sentence}"
        );
    }

    #[test]
    fn a_tiny_mark_alone_is_no_contradiction() {
        let limits = Limits {
            high_water_mark_bytes: 1,
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn a_limit_alone_moves_the_hard_limit_with_it() {
        let limits = Limits {
            limit_bytes: Some(64 * 1024 * 1024),
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn zero_is_refused_where_it_would_disconnect_or_pause_everybody() {
        assert!(refusal(|limits| limits.grace = Duration::ZERO).contains("`grace` is 0s"));
        assert!(refusal(|limits| limits.grace = Duration::from_micros(999)).contains("at least 1ms"));
        assert!(refusal(|limits| limits.high_water_mark_bytes = 0).contains("`high_water_mark_bytes`"));
        assert!(refusal(|limits| limits.limit_bytes = Some(0)).contains("`limit_bytes`"));
        assert!(refusal(|limits| limits.max_clients = Some(0)).contains("`max_clients`"));
        assert!(refusal(|limits| limits.drain_timeout = Some(Duration::ZERO)).contains("`drain_timeout`"));
        assert!(refusal(|limits| limits.connect_timeout = Duration::ZERO).contains("`connect_timeout`"));
    }

    #[test]
    fn a_hard_limit_that_a_paused_client_could_reach_is_refused() {
        let just_enough = HIGH_WATER_MARK_BYTES + SMALLEST_READ_BYTES;
        assert!(refusal(|limits| limits.hard_limit_bytes = Some(just_enough - 1)).contains("68KiB"));
        let limits = Limits {
            hard_limit_bytes: Some(just_enough),
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn a_budget_below_one_queue_and_a_socket_option_beyond_the_kernels_are_refused() {
        assert!(
            refusal(|limits| limits.memory_budget_bytes = Some(1024)).contains("`memory_budget_bytes` 1KiB")
        );
        assert!(refusal(|limits| limits.unsent_bytes = usize::MAX / 2).contains("`unsent_bytes`"));
    }

    #[test]
    fn the_default_drain_timeout_grows_with_the_grace_and_a_shorter_one_is_refused() {
        let hour = Duration::from_secs(3600);
        let mut limits = Limits {
            grace: hour,
            ..Limits::default()
        };
        assert_eq!(limits.drain_timeout(), hour);
        assert_eq!(limits.check(), Ok(()));
        limits.drain_timeout = Some(DRAIN_TIMEOUT);
        assert_eq!(
            limits.check(),
            Err(LimitsError::DrainTimeoutBelowGrace {
                drain_timeout: DRAIN_TIMEOUT,
                grace: hour
            })
        );
        limits.drain_timeout = Some(hour);
        assert_eq!(limits.check(), Ok(()), "as long as the grace will do");
    }
}
