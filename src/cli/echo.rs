//! `highwater echo`: its arguments, and the service that they ask for.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use highwater::services::{Echo, FramedEcho};
use highwater::{Limits, Remote, limits};

use super::arguments::ServingArguments;
use super::exit::usage;
use super::options::{ListenArgs, ServingArgs};
use super::parse::{Size, Time};
use super::reload::Source;
use super::sentences;
use super::serve::{Serving, serve};

/// The arguments of `highwater echo`.
#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    /// Return bytes as they come (`none`), or whole frames (`length`).
    #[arg(long, value_enum, default_value_t = Framing::None)]
    pub(crate) framing: Framing,
    /// With frames: disconnect a client that announces a longer payload
    /// [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_frame: Option<Size>,
    /// With frames: disconnect a client whose unfinished frame brought less than
    /// 1 KiB/s for this long, pauses left out [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(crate) frame_timeout: Option<Time>,
    /// Disconnect a client for which nothing is queued and nothing has moved
    /// either way for this long [default: idle clients stay]
    #[arg(long, value_name = "TIME")]
    pub(crate) idle_timeout: Option<Time>,
    /// Where to listen.
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// What all servers share.
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
}

impl EchoArgs {
    fn max_frame_bytes(&self) -> usize {
        self.max_frame.map_or(limits::MAX_FRAME_BYTES, |size| size.0)
    }

    fn frame_timeout(&self) -> Duration {
        self.frame_timeout.map_or(limits::FRAME_TIMEOUT, |time| time.0)
    }

    /// An option about frames where there are none, or one that no frame survives.
    fn useless_frame_option(&self) -> Option<&'static str> {
        match self.framing {
            Framing::None if self.max_frame.is_some() => {
                Some("--max-frame bounds frames, and there are none: add --framing length, or leave it out")
            }
            Framing::None if self.frame_timeout.is_some() => Some(
                "--frame-timeout is for unfinished frames, and there are none: add --framing length, or leave it out",
            ),
            Framing::Length if self.frame_timeout() < limits::SHORTEST_TIMEOUT => Some(
                "--frame-timeout 0 would disconnect a client at every part of a frame: give it at least 1ms, such as 30s",
            ),
            _ => None,
        }
    }

    /// The service for whole frames.
    fn framed_echo(&self) -> Result<FramedEcho, String> {
        let service = FramedEcho::new(self.max_frame_bytes()).map_err(sentences::of_frame_limit)?;
        Ok(service.with_frame_timeout(self.frame_timeout()))
    }
}

impl ServingArguments for EchoArgs {
    const SUBCOMMAND: &'static str = "echo";

    fn shared(&self) -> (&ListenArgs, &ServingArgs) {
        (&self.listen, &self.serving)
    }

    fn limits(&self, shared: Limits) -> Limits {
        Limits {
            idle_timeout: self.idle_timeout.map(|time| time.0),
            ..shared
        }
    }

    fn contradiction(&self, limits: &Limits) -> Option<String> {
        if let Some(sentence) = self.useless_frame_option() {
            return Some(sentence.to_owned());
        }
        let of_frames = || match self.framing {
            Framing::None => None,
            Framing::Length => (self.framed_echo().err())
                .or_else(|| sentences::of_budget_below_frame(limits, self.max_frame_bytes())),
        };
        sentences::of_unreachable_limit(limits).or_else(of_frames)
    }
}

/// How a stream is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framing {
    /// Bytes as they come.
    None,
    /// Frames: a 4-byte big-endian length, then that many bytes.
    Length,
}

/// Serves as the arguments ask.
pub(crate) fn run(args: EchoArgs, source: Source) -> ExitCode {
    match args.framing {
        Framing::None => serve(Plain(args), source),
        Framing::Length => match args.framed_echo() {
            Ok(service) => serve(Framed { args, service }, source),
            Err(sentence) => usage(&sentence),
        },
    }
}

/// Echo of bytes as they come.
struct Plain(EchoArgs);

impl Serving for Plain {
    type Arguments = EchoArgs;
    type Service = Echo;
    const DONE: &'static str = "echoed";

    fn arguments(&self) -> &EchoArgs {
        &self.0
    }

    fn service(self, _: Remote) -> Echo {
        Echo
    }
}

/// Echo of whole frames.
struct Framed {
    args: EchoArgs,
    service: FramedEcho,
}

impl Serving for Framed {
    type Arguments = EchoArgs;
    type Service = FramedEcho;
    const DONE: &'static str = "echoed";

    fn arguments(&self) -> &EchoArgs {
        &self.args
    }

    fn service(self, _: Remote) -> FramedEcho {
        self.service
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: EchoArgs,
    }

    fn echo(arguments: &[&str]) -> EchoArgs {
        Line::parse_from(["echo"].iter().chain(arguments)).args
    }

    #[test]
    fn without_arguments_the_defaults_are_those_of_the_limits() {
        assert_eq!(echo(&[]).serving.limits(), Limits::default());
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
        .limits();
        assert_eq!(limits.high_water_mark_bytes, 1024);
        assert_eq!(limits.limit_bytes(), 2048);
        assert_eq!(limits.grace.as_millis(), 250);
        assert_eq!(limits.drain_timeout().as_secs(), 3600);
        assert_eq!(limits.hard_limit_bytes(), 1 << 20);
        assert_eq!(limits.memory_budget_bytes, Some(2 << 20));
        assert_eq!(limits.max_clients, Some(7));
        assert_eq!((limits.unsent_bytes, limits.receive_buffer_bytes), (0, 0));
    }
}
