//! Errors of the library as one line that names the option and says what would
//! be right.
//!
//! Refuses to check: the library did.

use std::io::ErrorKind;
use std::time::Duration;

use highwater::limits::{Limit, MAX_FRAME_CEILING_BYTES, SMALLEST_READ_BYTES};
use highwater::services::FrameLimitError;
use highwater::units::{format_size, format_time};
use highwater::{LimitsError, ServerError};

/// The option that sets a limit.
const fn option(limit: Limit) -> &'static str {
    match limit {
        Limit::HighWaterMark => "--high-water-mark",
        Limit::Limit => "--limit",
        Limit::Grace => "--grace",
        Limit::UpstreamGrace => "--upstream-grace",
        Limit::DrainTimeout => "--drain-timeout",
        Limit::ConnectTimeout => "--connect-timeout",
        Limit::MaxClients => "--max-clients",
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

fn of_zero(limit: Limit) -> String {
    let consequence = match limit {
        Limit::HighWaterMark => "would pause every client for ever: give it at least 1, such as 64KiB",
        Limit::Limit => "would put every client over the limit: give it at least 1, such as 64KiB",
        Limit::MaxClients => "would refuse everybody: give it at least 1",
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
