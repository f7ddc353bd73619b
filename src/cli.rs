//! The command line: the options, and the limits they ask for.
//!
//! Owns the names, defaults and help texts of all options. Refuses to act:
//! [`limits`] has the numbers, `command` runs the server.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use log::LevelFilter;

use crate::limits::{self, Limits, LimitsError};
use crate::probe::command::ProbeArgs;
use crate::services::{ProxyProtocol, Target};
use crate::units::{Size, Time};

/// TCP servers in which no slow client can hurt the others.
///
/// Each client has a bounded send queue. At its high-water mark the server
/// pauses the source of the bytes. A client whose queue stays full for longer
/// than the grace is disconnected with a reset. All other clients go on.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, arg_required_else_help = true, args_override_self = true, after_help = EXAMPLES)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  highwater echo                          echo on 127.0.0.1:9000; try `nc 127.0.0.1 9000`
  highwater echo --port 0 --grace 2s      echo on a free port, with a shorter grace
  highwater tunnel --to 127.0.0.1:6379    protect a Redis from slow clients
  highwater probe --port 9000             test any TCP server with slow clients

Exit codes: 0 stopped in order, 1 failed, 2 wrong usage.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Return every byte to the client that sent it.
    Echo(EchoArgs),
    /// Carry the bytes of every client to another server and back.
    ///
    /// Each client gets an upstream: a connection of its own to the other
    /// server. A slow client pauses its upstream, and a slow upstream its
    /// client. If one stays too slow for too long, both are reset.
    Tunnel(TunnelArgs),
    /// Test whether a TCP server survives slow clients.
    Probe(Box<ProbeArgs>),
}

/// The arguments of `highwater tunnel`.
#[derive(Debug, Args)]
pub struct TunnelArgs {
    /// Connect each client to this server, such as `redis:6379`,
    /// `127.0.0.1:80` or `[::1]:80`. A name is looked up once a minute and
    /// after failures; its addresses are tried in turn.
    #[arg(long, value_name = "HOST:PORT")]
    pub to: Target,
    /// Give up an address of the other server that does not accept within
    /// this time.
    #[arg(long, value_name = "TIME", default_value_t = Time(limits::CONNECT_TIMEOUT))]
    pub connect_timeout: Time,
    /// After a read of at least this many bytes, have the kernel move the
    /// bytes that follow from socket to socket (splice); 0 copies everything.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::SPLICE_FROM_BYTES))]
    pub splice_from: Size,
    /// Send each client's address to the other server in a PROXY protocol
    /// header in front of the stream [default: no header]
    #[arg(long, value_enum, value_name = "VERSION")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// What all servers share.
    #[command(flatten)]
    pub serving: ServingArgs,
}

impl TunnelArgs {
    /// The limits that these arguments ask for.
    ///
    /// # Errors
    ///
    /// One sentence, if they contradict each other.
    pub fn limits(&self) -> Result<Limits, LimitsError> {
        let limits = Limits {
            connect_timeout: self.connect_timeout.0,
            splice_from_bytes: self.splice_from.0,
            ..self.serving.limits()?
        };
        limits.check()?;
        Ok(limits)
    }
}

/// The arguments of `highwater echo`.
#[derive(Debug, Args)]
pub struct EchoArgs {
    /// Return bytes as they come (`none`), or whole frames (`length`).
    #[arg(long, value_enum, default_value_t = Framing::None)]
    pub framing: Framing,
    /// Disconnect a client that announces a frame with a longer payload.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::MAX_FRAME_BYTES))]
    pub max_frame: Size,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// What all servers share.
    #[command(flatten)]
    pub serving: ServingArgs,
}

/// How a stream is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Framing {
    /// Bytes as they come.
    None,
    /// Frames: a 4-byte big-endian length, then that many bytes.
    Length,
}

/// Where to listen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenArgs {
    /// Listen on this address or name; `0.0.0.0` and `::` (IPv6) admit other
    /// machines.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Listen on this port; with 0 the kernel chooses one, and the log names
    /// it.
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
}

impl ListenArgs {
    /// The address that these arguments name.
    ///
    /// # Errors
    ///
    /// One sentence, if the host is neither an address nor a known name.
    pub fn address(&self) -> Result<SocketAddr, String> {
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
pub struct ServingArgs {
    /// Pause the source of a client when its queue reaches this length.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::HIGH_WATER_MARK_BYTES), help_heading = SLOW)]
    pub high_water_mark: Size,
    /// Start the grace of a client when its queue reaches this length
    /// [default: the high-water mark]
    #[arg(long, value_name = "SIZE", help_heading = SLOW)]
    pub limit: Option<Size>,
    /// Disconnect a client that stays over the limit for this long. An
    /// orderly end and a stop also wait at most this long.
    #[arg(long, value_name = "TIME", default_value_t = Time(limits::GRACE), help_heading = SLOW)]
    pub grace: Time,
    /// Disconnect a client whose queue has not been empty for this long
    /// [default: 60s, or the grace if that is longer]
    #[arg(long, value_name = "TIME", help_heading = SLOW)]
    pub drain_timeout: Option<Time>,
    /// Disconnect a client when a write would make its queue longer than this
    /// [default: 16 times the mark]
    #[arg(long, value_name = "SIZE", help_heading = SLOW)]
    pub hard_limit: Option<Size>,
    /// Disconnect the client with the longest queue while all queues together
    /// hold more than this [default: a quarter of memory]
    #[arg(long, value_name = "SIZE", help_heading = BOUNDS)]
    pub memory_budget: Option<Size>,
    /// Refuse more clients than this [default: what the descriptor limit
    /// allows]
    #[arg(long, value_name = "N", help_heading = BOUNDS)]
    pub max_clients: Option<usize>,
    /// Let the kernel hold at most this many unsent bytes for a client
    /// (TCP_NOTSENT_LOWAT); 0 leaves the kernel's own default.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::UNSENT_BYTES), help_heading = BOUNDS)]
    pub unsent: Size,
    /// Give a client that takes nothing a receive buffer of this size in the
    /// kernel (SO_RCVBUF). For a client that takes bytes it grows up to 4 times,
    /// up to 16 times while there are at most 4 clients. 0 leaves the kernel's
    /// own sizing.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::RECEIVE_BUFFER_BYTES), help_heading = BOUNDS)]
    pub receive_buffer: Size,
    /// Append the log to this file as well as to standard error.
    #[arg(long, value_name = "PATH", help_heading = LOG)]
    pub log_file: Option<PathBuf>,
    /// Log this level and those above it: off, error, warn, info, debug or
    /// trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = LOG)]
    pub log_level: LevelFilter,
}

const SLOW: &str = "When a client is too slow";
const BOUNDS: &str = "What all clients together may take";
const LOG: &str = "Log";

impl ServingArgs {
    /// The limits that these arguments ask for.
    ///
    /// # Errors
    ///
    /// One sentence, if they contradict each other.
    pub fn limits(&self) -> Result<Limits, LimitsError> {
        let size = |size: Option<Size>| size.map(|size| size.0);
        let limits = Limits {
            high_water_mark_bytes: self.high_water_mark.0,
            limit_bytes: size(self.limit),
            grace: self.grace.0,
            drain_timeout: self.drain_timeout.map(|time| time.0),
            hard_limit_bytes: size(self.hard_limit),
            memory_budget_bytes: size(self.memory_budget),
            max_clients: self.max_clients,
            unsent_bytes: self.unsent.0,
            receive_buffer_bytes: self.receive_buffer.0,
            ..Limits::default()
        };
        limits.check()?;
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn echo(arguments: &[&str]) -> EchoArgs {
        let line = ["highwater", "echo"].iter().chain(arguments);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Echo(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn tunnel(arguments: &[&str]) -> Result<TunnelArgs, String> {
        let line = ["highwater", "tunnel"].iter().chain(arguments);
        match Cli::try_parse_from(line) {
            Ok(Cli {
                command: Command::Tunnel(args),
            }) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    #[test]
    fn a_tunnel_needs_to_know_where_to_and_has_defaults_for_the_rest() {
        let args = tunnel(&["--to", "redis:6379"]).unwrap();
        assert_eq!(args.to.to_string(), "redis:6379");
        assert_eq!(args.proxy_protocol, None);
        assert_eq!(args.limits().unwrap(), Limits::default());
        assert!(tunnel(&[]).unwrap_err().contains("--to"));
        let refusal = tunnel(&["--to", "redis"]).unwrap_err();
        assert!(refusal.contains("the port is missing"), "{refusal}");
    }

    #[test]
    fn a_tunnel_has_a_connect_timeout_and_two_versions_of_the_proxy_protocol() {
        let args = tunnel(&["--to=[::1]:1", "--connect-timeout=250ms", "--proxy-protocol=v2"]).unwrap();
        assert_eq!(args.limits().unwrap().connect_timeout.as_millis(), 250);
        assert_eq!(args.proxy_protocol, Some(ProxyProtocol::V2));
        let args = tunnel(&["--to=[::1]:1", "--connect-timeout=0s"]).unwrap();
        assert!(
            args.limits()
                .unwrap_err()
                .to_string()
                .contains("--connect-timeout 0")
        );
        assert!(tunnel(&["--to=[::1]:1", "--proxy-protocol=v3"]).is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_the_defaults_are_those_of_the_limits() {
        assert_eq!(echo(&[]).serving.limits().unwrap(), Limits::default());
    }

    #[test]
    fn every_limit_can_be_set() {
        let limits = echo(&[
            "--high-water-mark=1KiB",
            "--limit=2KiB",
            "--grace=250ms",
            "--drain-timeout=1h",
            "--hard-limit=1MiB",
            "--memory-budget=2MiB",
            "--max-clients=7",
            "--unsent=0",
            "--receive-buffer=0",
        ])
        .serving
        .limits()
        .unwrap();
        assert_eq!(limits.high_water_mark_bytes, 1024);
        assert_eq!(limits.limit(), 2048);
        assert_eq!(limits.grace.as_millis(), 250);
        assert_eq!(limits.drain_timeout().as_secs(), 3600);
        assert_eq!(limits.hard_limit(), 1 << 20);
        assert_eq!(limits.memory_budget_bytes, Some(2 << 20));
        assert_eq!(limits.max_clients, Some(7));
        assert_eq!((limits.unsent_bytes, limits.receive_buffer_bytes), (0, 0));
    }

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
