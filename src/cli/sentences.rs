//! Errors of the library as one line that names the option and says what would
//! be right.
//!
//! Refuses to check: the library did.

use std::io::ErrorKind;
use std::time::Duration;

use highwater::limits::{
    LONGEST_READER_GRACE, Limit, MAX_FRAME_CEILING_BYTES, READ_BUFFER_BYTES, SMALLEST_READ_BYTES,
};
use highwater::protocol::frame::HEADER_BYTES;
use highwater::services::FrameLimitError;
use highwater::units::{format_size, format_time};
use highwater::{Limits, LimitsError, ServerError};

/// The option that sets a limit.
const fn option(limit: Limit) -> &'static str {
    match limit {
        Limit::HighWaterMark => "--high-water-mark",
        Limit::Limit => "--limit",
        Limit::Grace => "--grace",
        Limit::UpstreamGrace => "--upstream-grace",
        Limit::SlowestReader => "--slowest-reader",
        Limit::IdleTimeout => "--idle-timeout",
        Limit::HalfClosedTimeout => "--half-closed-timeout",
        Limit::DrainTimeout => "--drain-timeout",
        Limit::ConnectTimeout => "--connect-timeout",
        Limit::MaxClients => "--max-clients",
        Limit::MaxClientsPerAddress => "--max-clients-per-address",
        Limit::Unsent => "--unsent",
        Limit::ReceiveBuffer => "--receive-buffer",
        _ => "an option",
    }
}

/// What limits contradict each other, and what would be right.
pub(crate) fn of_limits(error: &LimitsError) -> String {
    match error {
        LimitsError::Zero(limit) => of_zero(*limit),
        LimitsError::TooShort(limit, time) => of_short(*limit, *time),
        LimitsError::AboveHardLimit {
            limit_bytes,
            hard_limit_bytes,
        } => format!(
            "--limit {} is above --hard-limit {}: lower the limit or raise the hard limit",
            format_size(*limit_bytes),
            format_size(*hard_limit_bytes),
        ),
        LimitsError::HardLimitBelowRead {
            hard_limit_bytes,
            high_water_mark_bytes,
            least_bytes,
        } => format!(
            "--hard-limit {} is below --high-water-mark {} plus one read of {}: make it at least {}",
            format_size(*hard_limit_bytes),
            format_size(*high_water_mark_bytes),
            format_size(SMALLEST_READ_BYTES),
            format_size(*least_bytes),
        ),
        LimitsError::BudgetBelowQueue {
            budget_bytes,
            least_bytes,
        } => format!(
            "--memory-budget {} does not hold one client's queue: make it at least {}",
            format_size(*budget_bytes),
            format_size(*least_bytes),
        ),
        LimitsError::DrainTimeoutBelowGrace { drain_timeout, grace } => format!(
            "--drain-timeout {} is below --grace {}: no client would ever use up its grace; \
             raise the drain timeout or lower the grace",
            format_time(*drain_timeout),
            format_time(*grace),
        ),
        LimitsError::SlowestReaderTooSlow {
            bytes_per_s,
            least_bytes_per_s,
        } => format!(
            "--slowest-reader {}/s would need a grace of more than {}, the longest: make it at least {}/s",
            format_size(*bytes_per_s),
            format_time(LONGEST_READER_GRACE),
            format_size(*least_bytes_per_s),
        ),
        LimitsError::SlowestReaderIdle { bytes_per_s, grace } => format!(
            "--slowest-reader {}/s raises no grace above --grace {}: lower one of them, or leave \
             --slowest-reader out",
            format_size(*bytes_per_s),
            format_time(*grace),
        ),
        LimitsError::SlowestReaderWithoutUnsent { bytes_per_s } => format!(
            "--slowest-reader {}/s needs a bound of what the kernel holds unsent: give --unsent a size, such as \
             16KiB, instead of 0",
            format_size(*bytes_per_s),
        ),
        LimitsError::AddressLimitAboveClients {
            max_clients_per_address,
            max_clients,
        } => format!(
            "--max-clients-per-address {max_clients_per_address} is above --max-clients {max_clients}: no address \
             would ever have too many; lower it or leave it out"
        ),
        LimitsError::AboveSocketOption {
            limit,
            bytes,
            most_bytes,
        } => format!(
            "{} {} is more than a socket takes: make it at most {}",
            option(*limit),
            format_size(*bytes),
            format_size(*most_bytes),
        ),
        other => other.to_string(),
    }
}

/// A limit that no queue reaches, where the source of a client is paused at
/// the mark.
pub(crate) fn of_unreachable_limit(limits: &Limits) -> Option<String> {
    let (limit_bytes, mark_bytes) = (limits.limit_bytes(), limits.high_water_mark_bytes);
    (limit_bytes > mark_bytes).then(|| {
        format!(
            "--limit {} is above --high-water-mark {}: sources pause at the mark, so no queue would reach the \
             limit; lower the limit or raise the mark",
            format_size(limit_bytes),
            format_size(mark_bytes),
        )
    })
}

/// A memory budget that does not hold one frame and the queue behind it.
pub(crate) fn of_budget_below_frame(limits: &Limits, max_frame_bytes: usize) -> Option<String> {
    let budget_bytes = limits.memory_budget_bytes?;
    let queue_bytes = limits.high_water_mark_bytes.saturating_add(SMALLEST_READ_BYTES);
    let least_bytes = max_frame_bytes
        .saturating_add(2 * HEADER_BYTES)
        .saturating_add(queue_bytes);
    (budget_bytes < least_bytes).then(|| {
        format!(
            "--memory-budget {} does not hold one frame of --max-frame {} and one client's queue: \
             make it at least {}, or lower --max-frame",
            format_size(budget_bytes),
            format_size(max_frame_bytes),
            format_size(least_bytes),
        )
    })
}

/// A length from which bytes are spliced that no read has.
pub(crate) fn of_unreachable_splice(splice_from_bytes: usize) -> Option<String> {
    (splice_from_bytes > READ_BUFFER_BYTES).then(|| {
        format!(
            "--splice-from {} is above the longest read, {}: nothing would ever be spliced; \
             make it at most {}, or 0 to copy everything",
            format_size(splice_from_bytes),
            format_size(READ_BUFFER_BYTES),
            format_size(READ_BUFFER_BYTES),
        )
    })
}

fn of_zero(limit: Limit) -> String {
    let consequence = match limit {
        Limit::HighWaterMark => "would pause every client for ever: give it at least 1, such as 64KiB",
        Limit::Limit => "would put every client over the limit: give it at least 1, such as 64KiB",
        Limit::MaxClients | Limit::MaxClientsPerAddress => "would refuse everybody: give it at least 1",
        _ => "can never hold: give it at least 1",
    };
    format!("{} 0 {consequence}", option(limit))
}

fn of_short(limit: Limit, time: Duration) -> String {
    let consequence = match limit {
        Limit::Grace => {
            "would disconnect every client at its first full buffer: give it at least 1ms, such as 5s"
        }
        Limit::UpstreamGrace => {
            "would disconnect every client whose upstream pauses: give it at least 1ms, such as 60s"
        }
        Limit::DrainTimeout => {
            "would disconnect every client that ever waits: give it at least 1ms, such as 60s"
        }
        Limit::ConnectTimeout => "would give up before trying: give it at least 1ms, such as 5s",
        _ => "is too short: give it at least 1ms",
    };
    let typed = match time {
        Duration::ZERO => "0".to_owned(),
        time => format!("{}us", time.as_micros()),
    };
    format!("{} {typed} {consequence}", option(limit))
}

/// Which longest frames are allowed.
pub(crate) fn of_frame_limit(error: FrameLimitError) -> String {
    format!(
        "--max-frame {} is out of range: it must be between 1 and {MAX_FRAME_CEILING_BYTES} bytes, such as 1MiB",
        format_size(error.max_frame_bytes)
    )
}

/// Why a server could not start or go on, and what to try.
pub(crate) fn of_server(error: &ServerError) -> String {
    match error {
        ServerError::Limits(error) => of_limits(error),
        ServerError::Listen(_, failure) => {
            let hint = match failure.kind() {
                ErrorKind::AddrInUse => {
                    "; stop the program that has the port, or choose another with --port (0 takes a free one)"
                }
                ErrorKind::AddrNotAvailable => {
                    "; --host must be an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0"
                }
                ErrorKind::PermissionDenied => {
                    "; ports below 1024 need a privilege: choose a higher one with --port"
                }
                _ => "",
            };
            format!("{error}{hint}")
        }
        other => other.to_string(),
    }
}
