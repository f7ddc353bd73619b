//! What `highwater probe` is told on its command line, and the plan that follows from it.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::parse::{parse_rate, parse_size, parse_time, unescape};
use highwater::probe::{
    BULK_MESSAGE_BYTES, BULK_PIPELINE_MESSAGES, Echo, Framed, Http, Plan, ProbeError, Protocol, Publishing,
    Push, Resp, SlowKind,
};

/// The arguments of `highwater probe`.
#[derive(Debug, Clone, Args)]
#[command(
    about = "Test whether a TCP server survives slow clients",
    after_help = EXAMPLES
)]
pub(crate) struct ProbeArgs {
    /// The server, as HOST:PORT
    #[arg(value_name = "HOST:PORT", required_unless_present = "port")]
    pub(crate) target: Option<String>,
    /// The server's port on this machine, instead of HOST:PORT
    #[arg(long, value_name = "N", conflicts_with = "target")]
    pub(crate) port: Option<u16>,
    /// Make the server send in this way
    #[arg(long, value_parser = protocol_parser(), default_value = "echo")]
    pub(crate) protocol: &'static Choice,
    /// Request this path with --protocol http
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse_path)]
    pub(crate) path: String,
    /// Line that every client of --protocol push sends once; escapes \r \n \t \0 \\ \xHH
    #[arg(long, value_name = "LINE", value_parser = parse_line)]
    pub(crate) send: Option<Line>,
    /// Line that an extra connection sends repeatedly so that the server has something to push;
    /// escapes \r \n \t \0 \\ \xHH
    #[arg(long, value_name = "LINE", value_parser = parse_line)]
    pub(crate) publish: Option<Line>,
    /// Bytes per second of these lines
    #[arg(long, value_name = "SIZE[/s]", value_parser = parse_rate, default_value = "4MiB/s")]
    pub(crate) publish_rate: u64,

    /// Healthy clients: each sends a message, reads the answer at once, sends the next
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) fast: usize,
    /// Bytes of one message of a healthy client [default: 64, with --bulk 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) size: Option<usize>,
    /// Messages that a healthy client has in flight [default: 1, with --bulk 16]
    #[arg(long, value_name = "N")]
    pub(crate) pipeline: Option<u32>,
    /// Let healthy clients send large messages in deep pipelines
    #[arg(long)]
    pub(crate) bulk: bool,

    /// Clients that fill up and never read; to be disconnected
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) stalled: usize,
    /// Clients that never read although the server has read all their bytes: they show
    /// what a plain close leaves in the kernel. Only on the server's machine
    /// [default: 1 with --stalled]
    #[arg(long, value_name = "N")]
    pub(crate) quiet: Option<usize>,
    /// Clients that go on sending and never read; to be disconnected
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) talkers: usize,
    /// Clients that read too slowly; to be disconnected
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) trickle: usize,
    /// Bytes per second that each trickling client reads
    #[arg(long, value_name = "SIZE[/s]", value_parser = parse_rate, default_value = "1KiB/s")]
    pub(crate) trickle_rate: u64,
    /// Clients that fill up, pause, then read everything; to be kept
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) paused: usize,
    /// Time for which each of these pauses
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "4s")]
    pub(crate) pause: Duration,
    /// Clients that read slowly without a pause; to be kept
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) steady: usize,
    /// Bytes per second that each steady client reads
    #[arg(long, value_name = "SIZE[/s]", value_parser = parse_rate, default_value = "64KiB/s")]
    pub(crate) steady_rate: u64,

    /// Fail if a stalled client is not gone this long after it was full
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "6s")]
    pub(crate) within: Duration,
    /// Measure the healthy clients alone for this long, before and after
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "2s")]
    pub(crate) baseline: Duration,
    /// Most bytes that a slow client sends without reading an answer
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "16MiB")]
    pub(crate) fill: usize,
    /// Measure memory and CPU of this process, if the port does not lead to it
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<i32>,

    /// Write the report to standard output as JSON, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the timeline into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

/// One protocol as it is chosen on the command line.
#[derive(Debug)]
pub(crate) struct Choice {
    name: &'static str,
    help: &'static str,
    make: fn(&ProbeArgs) -> Arc<dyn Protocol>,
}

/// What `--protocol` takes: one row for each protocol.
static PROTOCOLS: &[Choice] = &[
    Choice {
        name: "echo",
        help: "The server returns every byte",
        make: |_| Arc::new(Echo),
    },
    Choice {
        name: "framed",
        help: "The server returns frames: 4-byte big-endian length, then payload",
        make: |_| Arc::new(Framed),
    },
    Choice {
        name: "http",
        help: "GET repeatedly on a kept connection; see --path",
        make: |args| Arc::new(Http::get(&args.path, args.target())),
    },
    Choice {
        name: "push",
        help: "The server sends by itself after --send; see also --publish",
        make: |args| Arc::new(args.push()),
    },
    Choice {
        name: "resp",
        help: "Redis: PING for healthy clients, ECHO of 16 KiB for slow ones",
        make: |_| Arc::new(Resp),
    },
];

/// Takes the name of a protocol and finds its row.
fn protocol_parser() -> impl TypedValueParser<Value = &'static Choice> {
    let values = PROTOCOLS
        .iter()
        .map(|choice| PossibleValue::new(choice.name).help(choice.help));
    PossibleValuesParser::new(values).map(|name| {
        let chosen = PROTOCOLS.iter().find(|choice| choice.name == name);
        chosen.unwrap_or(&PROTOCOLS[0])
    })
}

/// Bytes as they were typed with escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line(pub(crate) Vec<u8>);

fn parse_line(typed: &str) -> Result<Line, String> {
    unescape(typed).map(Line)
}

fn parse_path(typed: &str) -> Result<String, String> {
    if !typed.starts_with('/') || typed.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!(
            "`{typed}` is not a path: it begins with / and has no blanks"
        ));
    }
    Ok(typed.to_owned())
}

const EXAMPLES: &str = "\
Examples:
  highwater probe --port 9000
      the default set of slow clients beside ten healthy ones: a verdict in 15 s
  highwater probe --port 9000 --stalled 500 --fast 50
      do fifty healthy clients notice five hundred stalled ones?
  highwater probe --port 9000 --stalled 0 --talkers 0 --paused 0 --steady 5 --steady-rate 128KiB/s
      is a slow but healthy client kept?
  highwater probe --port 80 --protocol http --path /large.iso --stalled 20
  highwater probe --port 6379 --protocol push --send 'SUBSCRIBE news\\r\\n' --publish 'PUBLISH news hello\\r\\n'
      web servers, and servers that push
  highwater probe --port 9000 --json | jq .verdict
      for scripts

Exit codes: 0 verdict pass, 1 fail or unknown, 2 wrong usage or no server.";

impl ProbeArgs {
    /// The server as it was typed.
    #[must_use]
    pub(crate) fn target(&self) -> String {
        match (&self.target, self.port) {
            (Some(target), _) => target.clone(),
            (None, port) => format!("127.0.0.1:{}", port.unwrap_or(0)),
        }
    }

    fn push(&self) -> Push {
        Push {
            send: self.send.clone().map_or(Vec::new(), |line| line.0),
            publishing: self.publish.clone().map(|line| Publishing {
                line: line.0,
                bytes_per_second: self.publish_rate,
            }),
        }
    }

    /// What these arguments ask for; resolves the server's name.
    ///
    /// # Errors
    ///
    /// When the name leads nowhere.
    pub(crate) fn plan(&self) -> Result<Plan, ProbeError> {
        let target = self.target();
        let resolved = target.to_socket_addrs();
        let address = match resolved.map(|mut addresses| addresses.next()) {
            Ok(Some(address)) => address,
            Ok(None) => {
                return Err(ProbeError::NoAddress { target, source: None });
            }
            Err(source) => {
                return Err(ProbeError::NoAddress {
                    target,
                    source: Some(source),
                });
            }
        };
        let (size, pipeline) = if self.bulk {
            (BULK_MESSAGE_BYTES, BULK_PIPELINE_MESSAGES)
        } else {
            (64, 1)
        };
        let mut plan = Plan {
            protocol: (self.protocol.make)(self),
            fast: self.fast,
            size: self.size.unwrap_or(size),
            pipeline: self.pipeline.unwrap_or(pipeline),
            pause: self.pause,
            within: self.within,
            baseline: self.baseline,
            fill: self.fill as u64,
            pid: self.pid,
            ..Plan::new(address)
        };
        for (kind, clients) in [
            (SlowKind::Stalled, self.stalled),
            (
                SlowKind::Quiet,
                self.quiet.unwrap_or(usize::from(self.stalled > 0)),
            ),
            (SlowKind::Talker, self.talkers),
            (SlowKind::Trickle, self.trickle),
            (SlowKind::Paused, self.paused),
            (SlowKind::Steady, self.steady),
        ] {
            plan.slow[kind].clients = clients;
        }
        plan.slow[SlowKind::Trickle].rate_bytes = self.trickle_rate;
        plan.slow[SlowKind::Steady].rate_bytes = self.steady_rate;
        Ok(plan)
    }
}
