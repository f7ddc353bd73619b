//! The limits of a running server as one line of its log.
//!
//! Owns the words. Refuses to work out a default: the engine has done that.

use std::fmt;
use std::time::Duration;

use super::Limits;
use crate::units::{format_size, format_time};

/// Limits with the two numbers that depend on the machine.
pub(crate) struct InForce<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) memory_budget_bytes: usize,
    pub(crate) max_clients: usize,
}

impl fmt::Display for InForce<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.limits;
        let or_none = |time: Option<Duration>| time.map_or_else(|| "none".to_owned(), format_time);
        write!(
            f,
            "limits in force: high-water mark {}, limit {}, grace {}, drain timeout {}, hard limit {}, \
             memory budget {}, max clients {}",
            format_size(limits.high_water_mark_bytes),
            or_by_service(limits.limit_bytes()),
            format_time(limits.grace),
            if limits.drain_timeout() > LONGEST {
                BY_SERVICE.to_owned()
            } else {
                format_time(limits.drain_timeout())
            },
            or_by_service(limits.hard_limit_bytes()),
            rounded(self.memory_budget_bytes),
            self.max_clients,
        )?;
        if let Some(bytes_per_s) = limits.slowest_reader_bytes_per_s {
            write!(f, ", slowest reader {}/s", format_size(bytes_per_s))?;
        }
        if let Some(most) = limits.max_clients_per_address {
            write!(f, ", max clients per address {most}")?;
        }
        write!(
            f,
            ", unsent {}, receive buffer {}, idle timeout {}, half-closed timeout {}, upstream grace {}, \
             connect timeout {}, stop timeout {}",
            format_size(limits.unsent_bytes),
            format_size(limits.receive_buffer_bytes),
            or_none(limits.idle_timeout),
            format_time(limits.half_closed_timeout),
            format_time(limits.upstream_grace),
            format_time(limits.connect_timeout),
            format_time(limits.stop_timeout),
        )?;
        if limits.shadow {
            f.write_str("; shadow mode: nobody is disconnected for slowness")?;
        }
        Ok(())
    }
}

/// A service that keeps what waits itself has its own rules, and sets those of
/// the engine out of the way.
const BY_SERVICE: &str = "by the service";

/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn or_by_service(bytes: usize) -> String {
    if bytes > isize::MAX as usize / 2 {
        return BY_SERVICE.to_owned();
    }
    format_size(bytes)
}

/// A share of the machine's memory is no round number: whole MiB say enough.
fn rounded(bytes: usize) -> String {
    const MIB: usize = 1 << 20;
    let is_share = bytes >= 16 * MIB && !bytes.is_multiple_of(MIB);
    format_size(if is_share { bytes / MIB * MIB } else { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_every_limit_as_an_option_takes_it() {
        let line = InForce {
            limits: &Limits {
                grace: Duration::from_millis(1500),
                max_clients_per_address: Some(8),
                ..Limits::default()
            },
            memory_budget_bytes: 1_234_567_890,
            max_clients: 1000,
        }
        .to_string();
        for part in [
            "limits in force: high-water mark 64KiB, limit 64KiB, grace 1s 500ms, drain timeout 1m, hard limit 1MiB",
            "memory budget 1177MiB, max clients 1000, max clients per address 8",
            "idle timeout none, half-closed timeout 1h",
            "stop timeout 5s",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
}
