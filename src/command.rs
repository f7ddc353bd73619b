//! Runs a subcommand: from parsed arguments to an exit code.
//!
//! Owns the surroundings of a server: the descriptor limit, the log, signals,
//! the summary at the end. Refuses to know what the server does.

use std::process::ExitCode;
use std::thread;

use clap::CommandFactory;
use clap::error::ErrorKind;
use log::{Level, error, info, log_enabled, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::{Cli, Command, EchoArgs, Framing, ListenArgs, ServingArgs, TunnelArgs};
use crate::error::ServerError;
use crate::event_loop::{EventLoop, Remote, Service, raise_descriptor_limit};
use crate::limits::{Limits, LimitsError};
use crate::log_backlog::Log;
use crate::probe;
use crate::services::{Echo, FramedEcho, Tunnel};

/// Runs the subcommand. Wrong usage prints one line and exits with 2.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Echo(args) => echo(&args),
        Command::Tunnel(args) => tunnel(args),
        Command::Probe(args) => probe::command::run(&args),
    }
}

fn echo(args: &EchoArgs) -> ExitCode {
    let max_frame = args.max_frame.0;
    let limits = args.serving.limits();
    match args.framing {
        Framing::None => serve(&args.listen, &args.serving, limits, "echoed", |_| Echo),
        Framing::Length => match FramedEcho::new(max_frame) {
            Ok(service) => serve(&args.listen, &args.serving, limits, "echoed", |_| service),
            Err(sentence) => usage(&sentence),
        },
    }
}

fn tunnel(args: TunnelArgs) -> ExitCode {
    let limits = args.limits();
    let (to, connect_timeout) = (args.to, args.connect_timeout.0);
    serve(&args.listen, &args.serving, limits, "carried", |remote| {
        Tunnel::new(to, connect_timeout, remote).with_proxy_protocol(args.proxy_protocol)
    })
}

/// Serves until a signal comes, then logs the summary.
pub(crate) fn serve<S: Service>(
    listen: &ListenArgs,
    serving: &ServingArgs,
    limits: Result<Limits, LimitsError>,
    done: &str,
    service: impl FnOnce(Remote) -> S,
) -> ExitCode {
    let (limits, address) = match (limits, listen.address()) {
        (Ok(limits), Ok(address)) => (limits, address),
        (Err(error), _) => usage(&error.to_string()),
        (_, Err(sentence)) => usage(&sentence),
    };
    let log = match Log::start(serving.log_level, serving.log_file.as_deref()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = raise_descriptor_limit() {
        warn!("the descriptor limit stays as it is: {error}");
    }
    let outcome = EventLoop::listen_with(address, limits, service).and_then(|mut server| {
        stop_on_signals(server.remote()).map_err(|error| ServerError::EventLoop("hear signals", error))?;
        server.run()
    });
    let code = match outcome {
        Ok(counters) => {
            info!("stopped: {}", counters.summary(done));
            ExitCode::SUCCESS
        }
        Err(failure) if log_enabled!(Level::Error) => {
            error!("{failure}");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    };
    log.finish();
    code
}

/// Stops the server in order at the first SIGINT or SIGTERM, and exits at the
/// second.
fn stop_on_signals(remote: Remote) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let wait_for_signals = move || {
        let mut stopping = false;
        for _ in signals.forever() {
            if stopping {
                warn!("second signal: exiting now");
                std::process::exit(1);
            }
            stopping = true;
            remote.stop();
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(wait_for_signals)?;
    Ok(())
}

/// Wrong usage: one line, a hint, exit code 2.
fn usage(sentence: &str) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, sentence).exit()
}
