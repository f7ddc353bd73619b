//! Options that all servers share: where to listen, who is too slow, what all
//! clients together may take, and the log.
//!
//! Owns their names, defaults and help. Refuses to know what a limit does:
//! that is the library's part.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::Args;
use highwater::Limits;
use highwater::limits;
use log::LevelFilter;

use super::parse::{Size, Time};

/// Where to listen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Listening")]
pub(crate) struct ListenArgs {
    /// Listen on this address or name; `0.0.0.0` and `::` (IPv6) admit other
    /// machines.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Listen on this port; with 0 the kernel chooses one, and the log names
    /// it.
    #[arg(long, default_value_t = 9000)]
    pub(crate) port: u16,
}

impl ListenArgs {
    /// The address that these arguments name.
    ///
    /// # Errors
    ///
    /// One sentence, if the host is neither an address nor a known name.
    pub(crate) fn address(&self) -> Result<SocketAddr, String> {
        let resolved = (self.host.as_str(), self.port).to_socket_addrs();
        let first = resolved.and_then(|mut all| all.next().ok_or_else(|| io::ErrorKind::NotFound.into()));
        first.map_err(|error| {
            format!(
                "--host {}: {error}; give an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0",
                self.host
            )
        })
    }
}

/// The options that all servers share.
#[derive(Debug, Args)]
pub(crate) struct ServingArgs {
    /// Pause the source of a client when its queue reaches this length.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::HIGH_WATER_MARK_BYTES), help_heading = SLOW)]
    pub(crate) high_water_mark: Size,
    /// Start the grace of a client when its queue reaches this length
    /// [default: the high-water mark]
    #[arg(long, value_name = "SIZE", help_heading = SLOW)]
    pub(crate) limit: Option<Size>,
    /// Disconnect a client that stays over the limit for this long. An
    /// orderly end also waits at most this long.
    #[arg(long, value_name = "TIME", default_value_t = Time(limits::GRACE), help_heading = SLOW)]
    pub(crate) grace: Time,
    /// Disconnect a client whose queue has not been empty for this long
    /// [default: 60s, or the grace if that is longer]
    #[arg(long, value_name = "TIME", help_heading = SLOW)]
    pub(crate) drain_timeout: Option<Time>,
    /// Disconnect a client when a write would make its queue longer than this
    /// [default: 16 times the mark]
    #[arg(long, value_name = "SIZE", help_heading = SLOW)]
    pub(crate) hard_limit: Option<Size>,
    /// Disconnect the client with the longest queue while all queues together
    /// hold more than this [default: a quarter of memory]
    #[arg(long, value_name = "SIZE", help_heading = BOUNDS)]
    pub(crate) memory_budget: Option<Size>,
    /// Refuse more clients than this [default: what the descriptor limit
    /// allows]
    #[arg(long, value_name = "N", help_heading = BOUNDS)]
    pub(crate) max_clients: Option<usize>,
    /// Let the kernel hold at most this many unsent bytes for a client
    /// (TCP_NOTSENT_LOWAT); 0 leaves the kernel's own default.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::UNSENT_BYTES), help_heading = BOUNDS)]
    pub(crate) unsent: Size,
    /// Give a client that takes nothing a receive buffer of this size in the
    /// kernel (SO_RCVBUF). For a client that takes bytes it grows up to 4 times,
    /// up to 16 times while there are at most 4 clients. 0 leaves the kernel's
    /// own sizing.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::RECEIVE_BUFFER_BYTES), help_heading = BOUNDS)]
    pub(crate) receive_buffer: Size,
    /// After SIGTERM, let conversations go on for at most this long, then
    /// reset what is left.
    #[arg(long, value_name = "TIME", default_value_t = Time(limits::STOP_TIMEOUT), help_heading = BOUNDS)]
    pub(crate) stop_timeout: Time,
    /// Append the log to this file as well as to standard error.
    #[arg(long, value_name = "PATH", help_heading = LOG)]
    pub(crate) log_file: Option<PathBuf>,
    /// Log this level and those above it: off, error, warn, info, debug or
    /// trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = LOG)]
    pub(crate) log_level: LevelFilter,
}

const SLOW: &str = "When a client is too slow";
const BOUNDS: &str = "What all clients together may take";
const LOG: &str = "Log";

impl ServingArgs {
    /// The limits that these arguments ask for. They may contradict each other.
    pub(crate) fn limits(&self) -> Limits {
        let size = |size: Option<Size>| size.map(|size| size.0);
        Limits {
            high_water_mark_bytes: self.high_water_mark.0,
            limit_bytes: size(self.limit),
            grace: self.grace.0,
            drain_timeout: self.drain_timeout.map(|time| time.0),
            hard_limit_bytes: size(self.hard_limit),
            memory_budget_bytes: size(self.memory_budget),
            max_clients: self.max_clients,
            stop_timeout: self.stop_timeout.0,
            unsent_bytes: self.unsent.0,
            receive_buffer_bytes: self.receive_buffer.0,
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_understood_and_nonsense_is_named() {
        let address = |host: &str| {
            ListenArgs {
                host: host.into(),
                port: 1,
            }
            .address()
        };
        assert_eq!(address("::1").unwrap().to_string(), "[::1]:1");
        assert_eq!(address("127.0.0.1").unwrap().to_string(), "127.0.0.1:1");
        let refusal = address("no such host").unwrap_err();
        assert!(
            refusal.contains("no such host") && refusal.contains("127.0.0.1"),
            "{refusal}"
        );
    }
}
