//! What happens around a server: limits, log, signals, the summary at the end,
//! the exit code.
//!
//! Refuses to know what the server does.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use highwater::{Counters, EventLoop, Limits, Remote, ServerError, Service, raise_descriptor_limit};
use log::{Level, error, info, log_enabled, warn};

use super::Cli;
use super::log::Log;
use super::options::{ListenArgs, ServingArgs};
use super::sentences;
use super::signals::stop_on_signals;

/// A subcommand that serves: what it asks for besides what all servers share.
pub(crate) trait Serving {
    /// What clients are served with.
    type Service: Service;

    /// What became of the bytes, for the summary, such as `echoed`.
    const DONE: &'static str;

    /// The arguments that all servers share.
    fn shared(&self) -> (&ListenArgs, &ServingArgs);

    /// The limits of this service, from those that all servers share.
    fn limits(&self, shared: Limits) -> Limits {
        shared
    }

    /// The service that was asked for.
    fn service(self, remote: Remote) -> Self::Service;
}

/// Serves until a signal comes, then logs the summary.
pub(crate) fn serve<A: Serving>(args: A) -> ExitCode {
    let (listen, serving) = args.shared();
    let limits = args.limits(serving.limits());
    if let Err(error) = limits.check() {
        usage(&sentences::of_limits(&error));
    }
    let address = listen.address().unwrap_or_else(|sentence| usage(&sentence));
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
    let code = match run(address, limits, args) {
        Ok(counters) => {
            info!("stopped: {}", counters.summary(A::DONE));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let sentence = sentences::of_server(&failure);
            if log_enabled!(Level::Error) {
                error!("{sentence}");
            } else {
                eprintln!("error: {sentence}");
            }
            ExitCode::FAILURE
        }
    };
    log.finish();
    code
}

fn run<A: Serving>(address: SocketAddr, limits: Limits, args: A) -> Result<Counters, ServerError> {
    let mut server = EventLoop::listen_with(address, limits, |remote| args.service(remote))?;
    stop_on_signals(server.remote()).map_err(|error| ServerError::EventLoop("hear signals", error))?;
    server.run()
}

/// Wrong usage: one line, a hint, exit code 2.
pub(crate) fn usage(sentence: &str) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, sentence).exit()
}
