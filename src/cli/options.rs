//! Options that all servers share: where to listen, who is too slow, what all
//! clients together may take, and the log.
//!
//! Owns their names, defaults and help. Refuses to know what a limit does:
//! that is the library's part.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;

use clap::Args;
use highwater::Limits;
use highwater::limits;
use log::LevelFilter;

use super::admin::AdminArgs;
use super::log::LogFormat;
use super::parse::{Size, Time, parse_rate};

/// Where to listen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Listening")]
pub(crate) struct ListenArgs {
    /// Listen on this address, or on all addresses of this name; `0.0.0.0` and
    /// `::` (IPv6) admit other machines. May be given several times.
    #[arg(long, default_value = "127.0.0.1", action = clap::ArgAction::Append)]
    pub(crate) host: Vec<String>,
    /// Listen on this port; with 0 the kernel chooses one, and the log names
    /// it.
    #[arg(long, default_value_t = 9000)]
    pub(crate) port: u16,
}

impl ListenArgs {
    /// The addresses that these arguments name, each once.
    ///
    /// # Errors
    ///
    /// One sentence, if a host is neither an address nor a known name.
    pub(crate) fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = Vec::new();
        for host in &self.host {
            let found = self.look_up(host).map_err(|error| {
                format!(
                    "--host {host}: {error}; give an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0"
                )
            })?;
            addresses.extend(found);
        }
        Ok(without_covered(&addresses))
    }

    /// The addresses of one host. Of a name only those that this machine has:
    /// without IPv6, `localhost` may still lead to `::1`.
    fn look_up(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, self.port).into()]);
        }
        let found: Vec<_> = (host, self.port).to_socket_addrs()?.collect();
        let usable = found
            .iter()
            .copied()
            .filter(|address| is_of_this_machine(address.ip()));
        let usable: Vec<_> = usable.collect();
        match (usable.is_empty(), found.is_empty()) {
            (false, _) => Ok(usable),
            (true, false) => Ok(found),
            (true, true) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Leaves out what another address includes: the same once more, or one whose
/// family has a wildcard.
fn without_covered(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut kept: Vec<SocketAddr> = Vec::new();
    for &address in addresses {
        let covers = |other: &SocketAddr| {
            *other != address && other.ip().is_unspecified() && other.is_ipv4() == address.is_ipv4()
        };
        if !kept.contains(&address) && !addresses.iter().any(covers) {
            kept.push(address);
        }
    }
    kept
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
    /// Keep a client that reads this much a second, however long its window
    /// stays closed: raises the grace of each client, at most to 10 minutes, and
    /// the drain timeout with it [default: raises none]
    #[arg(long, value_name = "RATE", value_parser = parse_rate, help_heading = SLOW)]
    pub(crate) slowest_reader: Option<u64>,
    /// Disconnect nobody for slowness, but log and count who would be
    /// disconnected, and recommend limits: a trial run. Bounds of memory hold.
    #[arg(long, help_heading = SLOW)]
    pub(crate) shadow: bool,
    /// Disconnect a client whose queue has not been empty for this long
    /// [default: 60s, or the grace if that is longer]
    #[arg(long, value_name = "TIME", help_heading = SLOW)]
    pub(crate) drain_timeout: Option<Time>,
    /// Disconnect a client when a write would make its queue longer than this
    /// [default: 16 times the mark]
    #[arg(long, value_name = "SIZE", help_heading = SLOW)]
    pub(crate) hard_limit: Option<Size>,
    /// Disconnect the client with the most bytes x seconds while all queues together
    /// hold more than this [default: what memory allows; the log tells]
    #[arg(long, value_name = "SIZE", help_heading = BOUNDS)]
    pub(crate) memory_budget: Option<Size>,
    /// Refuse more clients than this [default: what descriptors and memory
    /// allow; the log tells]
    #[arg(long, value_name = "N", help_heading = BOUNDS)]
    pub(crate) max_clients: Option<usize>,
    /// Refuse more clients of one address than this; IPv6 addresses count by
    /// their /64, clients of a PROXY header by the address in it [default: no
    /// such limit]
    #[arg(long, value_name = "N", help_heading = BOUNDS)]
    pub(crate) max_clients_per_address: Option<usize>,
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
    /// Read options from this file, one TOML table with their names, such as
    /// `grace = "8s"`. The command line goes before the file. SIGHUP reads it
    /// again.
    #[arg(long, value_name = "FILE", help_heading = OPERATIONS)]
    pub(crate) config: Option<PathBuf>,
    /// How operators look at the server.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Take the listening sockets over from the server that answers at this
    /// path, and answer there for the next one: a restart loses no connection.
    #[arg(long, value_name = "PATH", help_heading = "Restarts")]
    pub(crate) take_over: Option<PathBuf>,
    /// Append the log to this file as well as to standard error. SIGHUP and
    /// SIGUSR1 open it anew.
    #[arg(long, value_name = "PATH", help_heading = LOG)]
    pub(crate) log_file: Option<PathBuf>,
    /// Log this level and those above it: off, error, warn, info, debug or
    /// trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = parse_level, help_heading = LOG)]
    pub(crate) log_level: LevelFilter,
    /// Write lines for people (`text`), or an object a line for programs
    /// (`json`).
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text, help_heading = LOG)]
    pub(crate) log_format: LogFormat,
    /// Log at most this many lines of one kind in a second, and the sum of the
    /// others within 10 s; 0 logs every line.
    #[arg(long, value_name = "N", default_value_t = limits::LOG_LINES_PER_SECOND, help_heading = LOG)]
    pub(crate) log_rate: usize,
}

/// Parses a level of the log.
///
/// # Errors
///
/// One sentence that names the input and the levels.
fn parse_level(typed: &str) -> Result<LevelFilter, String> {
    typed
        .parse()
        .map_err(|_| format!("`{typed}` is not a level: write off, error, warn, info, debug or trace"))
}

const SLOW: &str = "When a client is too slow";
const BOUNDS: &str = "What all clients together may take";
const LOG: &str = "Log";
const OPERATIONS: &str = "Operations";

impl ServingArgs {
    /// The limits that these arguments ask for. They may contradict each other.
    pub(crate) fn limits(&self) -> Limits {
        let size = |size: Option<Size>| size.map(|size| size.0);
        Limits {
            high_water_mark_bytes: self.high_water_mark.0,
            limit_bytes: size(self.limit),
            grace: self.grace.0,
            slowest_reader_bytes_per_s: self
                .slowest_reader
                .map(|rate| usize::try_from(rate).unwrap_or(usize::MAX)),
            drain_timeout: self.drain_timeout.map(|time| time.0),
            hard_limit_bytes: size(self.hard_limit),
            memory_budget_bytes: size(self.memory_budget),
            max_clients: self.max_clients,
            shadow: self.shadow,
            max_clients_per_address: self.max_clients_per_address,
            stop_timeout: self.stop_timeout.0,
            unsent_bytes: self.unsent.0,
            receive_buffer_bytes: self.receive_buffer.0,
            ..Limits::default()
        }
    }

    /// Options that cancel each other, in one sentence.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let path = self.log_file.as_ref()?;
        (self.log_level == LevelFilter::Off).then(|| {
            format!(
                "--log-level off leaves --log-file {} empty: leave one of them out",
                path.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_understood_and_nonsense_is_named() {
        let addresses = |hosts: &[&str]| {
            let listen = ListenArgs {
                host: hosts.iter().map(ToString::to_string).collect(),
                port: 1,
            };
            let all = listen.addresses()?;
            Ok::<_, String>(all.iter().map(SocketAddr::to_string).collect::<Vec<_>>())
        };
        assert_eq!(addresses(&["::1"]).unwrap(), ["[::1]:1"]);
        assert_eq!(
            addresses(&["127.0.0.1", "127.0.0.2", "127.0.0.1"]).unwrap(),
            ["127.0.0.1:1", "127.0.0.2:1"]
        );
        assert_eq!(
            addresses(&["127.0.0.1", "0.0.0.0", "::1"]).unwrap(),
            ["0.0.0.0:1", "[::1]:1"],
            "a wildcard includes the addresses of its family"
        );
        let refusal = addresses(&["127.0.0.1", "no such host"]).unwrap_err();
        assert!(
            refusal.contains("--host no such host") && refusal.contains("127.0.0.1"),
            "{refusal}"
        );
    }
}
