//! What `highwater probe` is told on its command line, and the plan that follows from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::protocols::{Choice, choice_parser};
use super::steps::Steps;
use super::values::{
    Field, Format, JsonTo, Line, MethodName, ProxyName, parse_field, parse_line, parse_path, parse_status,
};
use crate::cli::parse::{parse_rate, parse_size, parse_time};
use highwater::probe::{
    BULK_MESSAGE_BYTES, BULK_PIPELINE_MESSAGES, Echo, Framed, Http, Judgement, Method, Plan, ProxyVersion,
    Publishing, Push, Resp, SlowKind, Tls, Trust,
};

/// What `--protocol` takes: one row for each protocol.
static PROTOCOLS: &[Choice<ProbeArgs>] = &[
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
        make: |args| Arc::new(args.http()),
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

/// The arguments of `highwater probe`.
#[derive(Debug, Clone, Args)]
#[command(
    about = "Test whether a TCP server survives slow clients",
    after_help = EXAMPLES
)]
pub(crate) struct ProbeArgs {
    /// The server, as HOST:PORT
    #[arg(value_name = "HOST:PORT")]
    pub(crate) target: Option<String>,
    /// The server's port on this machine, instead of HOST:PORT
    #[arg(long, value_name = "N", conflicts_with = "target")]
    pub(crate) port: Option<u16>,
    /// Make the server send in this way
    #[arg(long, value_parser = choice_parser(PROTOCOLS), default_value = "echo")]
    pub(crate) protocol: &'static Choice<ProbeArgs>,
    /// Request this path with --protocol http
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse_path)]
    pub(crate) path: String,
    /// Method of --protocol http. The answers to HEAD have no body and fill nobody up: with it
    /// the findings about slow clients are not tested
    #[arg(long, value_enum, ignore_case = true, default_value = "GET")]
    pub(crate) method: MethodName,
    /// Header field of --protocol http, as 'Name: value'; repeatable. Host and User-Agent replace ours
    #[arg(long, value_name = "FIELD", value_parser = parse_field)]
    pub(crate) header: Vec<Field>,
    /// Statuses that are right with --protocol http [default: 2xx, 3xx and 401, all like the first]
    #[arg(long, value_name = "STATUS,..", value_delimiter = ',', value_parser = parse_status)]
    pub(crate) expect_status: Vec<u16>,
    /// Follow redirects of --protocol http to the same server, at most 5, before the probe begins
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) steps: Steps,
    /// Send a PROXY protocol header first on every connection, as a balancer would
    #[arg(long, value_enum, value_name = "VERSION")]
    pub(crate) proxy_protocol: Option<ProxyName>,
    /// Speak TLS 1.2 or 1.3 on every connection
    #[arg(long)]
    pub(crate) tls: bool,
    /// Trust the certificates in this file (PEM) instead of those of the system
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, requires = "tls")]
    pub(crate) insecure: bool,
    /// Longest time up to the first whole answer, resolving and connecting included
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "10s")]
    pub(crate) timeout: Duration,
    /// Line that every client of --protocol push sends once; escapes \r \n \t \0 \\ \xHH
    #[arg(long, value_name = "LINE", value_parser = parse_line)]
    pub(crate) send: Option<Line>,
    /// Line that an extra connection sends repeatedly so that the server has something to push;
    /// escapes as in --send. {seq} in it becomes its number, in 14 bytes, and shows what gets lost
    #[arg(long, value_name = "LINE", value_parser = parse_line)]
    pub(crate) publish: Option<Line>,
    /// Line that this connection sends first, once, such as a login
    #[arg(long, value_name = "LINE", value_parser = parse_line, requires = "publish")]
    pub(crate) publish_greeting: Option<Line>,
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

    /// Findings that must pass: one that was not tested fails the probe, one that is unknown
    /// leaves it unknown
    #[arg(long, value_name = "FINDING,..", value_delimiter = ',')]
    pub(crate) require: Vec<String>,
    /// Let the verdict be pass although a finding is unknown
    #[arg(long)]
    pub(crate) allow_unknown: bool,

    /// Write the report as JSON: to standard output, and nothing else there, or to this file
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, without a file, with one")]
    pub(crate) json: Option<Option<PathBuf>>,
    /// Write the findings as JUnit's XML into this file; what is unknown counts as skipped
    #[arg(long, value_name = "FILE.xml")]
    pub(crate) junit: Option<PathBuf>,
    /// Form of the report on standard output: text, or github for workflow annotations
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Draw the timeline into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
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
  highwater probe --port 6379 --protocol push --send 'SUBSCRIBE news\\r\\n' --publish 'PUBLISH news {seq}\\r\\n'
      web servers, and servers that push
  highwater probe --port 9000 --json | jq .verdict
      for scripts

  highwater probe --port 25 --expect '^220 ' --send-first 'EHLO me\\r\\n' --expect '250 '
      steps before the protocol, in this order
  highwater probe --port 9000 --require stalled-disconnected,healthy-served --junit probe.xml
      in CI; see docs/probe-ci.md

Exit codes: 0 verdict pass; 1 fail, unknown or interrupted; 2 wrong usage or no server.";

impl ProbeArgs {
    /// The server as it was typed.
    ///
    /// # Errors
    ///
    /// One sentence when none was.
    pub(crate) fn target(&self) -> Result<String, String> {
        match (&self.target, self.port, &self.json) {
            (Some(target), ..) => Ok(target.clone()),
            (None, Some(port), _) => Ok(format!("127.0.0.1:{port}")),
            // `--json HOST:PORT` took the server for the name of a file.
            (None, None, Some(Some(target))) => Ok(target.to_string_lossy().into_owned()),
            (None, None, _) => {
                Err("which server? Write HOST:PORT, or --port N for one on this machine".to_owned())
            }
        }
    }

    /// The first option that says nothing to the protocol, in a sentence.
    ///
    /// # Errors
    ///
    /// That sentence.
    pub(crate) fn check_protocol(&self) -> Result<(), String> {
        let given = [
            ("http", "--path", self.path != "/"),
            ("http", "--method", self.method != MethodName::Get),
            ("http", "--header", !self.header.is_empty()),
            ("http", "--expect-status", !self.expect_status.is_empty()),
            ("http", "--follow", self.follow),
            ("push", "--send", self.send.is_some()),
            ("push", "--publish", self.publish.is_some()),
        ];
        let spoken = self.protocol.name;
        match given
            .iter()
            .find(|(protocol, _, is_given)| *is_given && *protocol != spoken)
        {
            Some((protocol, option, _)) => Err(format!(
                "{option} is for --protocol {protocol}, but the protocol is {spoken}"
            )),
            None => Ok(()),
        }
    }

    /// Where the JSON goes.
    pub(crate) fn json_to(&self) -> JsonTo<'_> {
        let is_server = self.target.is_none() && self.port.is_none();
        match &self.json {
            None => JsonTo::Nowhere,
            Some(Some(file)) if !is_server => JsonTo::File(file),
            Some(_) => JsonTo::StandardOutput,
        }
    }

    pub(super) fn http(&self) -> Http {
        Http {
            method: match self.method {
                MethodName::Get => Method::Get,
                MethodName::Head => Method::Head,
            },
            fields: (self.header.iter())
                .map(|Field(name, value)| (name.clone(), value.clone()))
                .collect(),
            statuses: self.expect_status.clone(),
            follow: self.follow,
            ..Http::get(&self.path, self.target().unwrap_or_default())
        }
    }

    pub(super) fn push(&self) -> Push {
        Push {
            send: self.send.clone().map_or(Vec::new(), |line| line.0),
            publishing: self.publish.clone().map(|line| Publishing {
                greeting: self.publish_greeting.clone().map_or(Vec::new(), |line| line.0),
                line: line.0,
                bytes_per_second: self.publish_rate,
            }),
        }
    }

    /// The TLS that these arguments ask for.
    ///
    /// # Errors
    ///
    /// One sentence when there are no certificates to trust, or the server has no name.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, String> {
        if !self.tls {
            return Ok(None);
        }
        let target = self.target()?;
        let name = match self.port {
            Some(_) => "localhost",
            None => target.rsplit_once(':').map_or(target.as_str(), |(name, _)| name),
        };
        let trust = match (&self.ca, self.insecure) {
            (Some(file), _) => Trust::File(file),
            (None, true) => Trust::Anybody,
            (None, false) => Trust::System,
        };
        Tls::new(name, trust).map(Some)
    }

    /// What these arguments ask of the server at `address`.
    pub(crate) fn plan(&self, address: SocketAddr) -> Plan {
        let (size, pipeline) = if self.bulk {
            (BULK_MESSAGE_BYTES, BULK_PIPELINE_MESSAGES)
        } else {
            (64, 1)
        };
        let mut plan = Plan {
            protocol: self.protocol.make(self),
            fast: self.fast,
            size: self.size.unwrap_or(size),
            pipeline: self.pipeline.unwrap_or(pipeline),
            pause: self.pause,
            within: self.within,
            baseline: self.baseline,
            fill: self.fill as u64,
            opening: self.steps.0.clone(),
            proxy_header: self.proxy_protocol.map(|version| match version {
                ProxyName::V1 => ProxyVersion::V1,
                ProxyName::V2 => ProxyVersion::V2,
            }),
            timeout: self.timeout,
            pid: self.pid,
            judgement: Judgement {
                require: self.require.clone(),
                allow_unknown: self.allow_unknown,
            },
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
        plan
    }
}
