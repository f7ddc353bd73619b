//! What happens around a server: limits, log, signals, the summary at the end,
//! the exit code.
//!
//! Refuses to know what the server does.

use std::net::SocketAddr;
use std::process::ExitCode;

use highwater::{Counters, EventLoop, Limits, Remote, ServerError, Service, raise_descriptor_limit};
use log::{Level, error, info, log_enabled, warn};

use super::admin::{self, AdminPlan};
use super::log::{Log, LogError};
use super::options::{ListenArgs, ServingArgs};
use super::sentences;
use super::signals::hear_signals;

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

    /// Options that cancel each other although the limits fit together, in one
    /// sentence. A service whose sources cannot be paused reaches limits above
    /// the mark, and has an answer of its own.
    fn contradiction(&self, limits: &Limits) -> Option<String> {
        sentences::of_unreachable_limit(limits)
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
    if let Some(sentence) = args.contradiction(&limits).or_else(|| serving.contradiction()) {
        usage(&sentence);
    }
    let addresses = listen.addresses().unwrap_or_else(|sentence| usage(&sentence));
    let admin = serving.admin.plan().unwrap_or_else(|sentence| usage(&sentence));
    let limits = if admin.is_some() {
        admin::reserve(limits)
    } else {
        limits
    };
    let log = match start_log(serving) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = raise_descriptor_limit() {
        warn!(event = "descriptor_limit"; "the descriptor limit stays as it is: {error}");
    }
    let code = match run(&addresses, limits, args, admin, log.clone()) {
        Ok(counters) => {
            info!(event = "stopped"; "stopped: {}", counters.summary(A::DONE));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let sentence = sentences::of_server(&failure);
            if log_enabled!(Level::Error) {
                error!(event = "failure"; "{sentence}");
            } else {
                eprintln!("error: {sentence}");
            }
            ExitCode::FAILURE
        }
    };
    log.finish();
    code
}

fn start_log(serving: &ServingArgs) -> Result<Log, LogError> {
    let file = serving.log_file.as_deref();
    Log::start(serving.log_level, serving.log_format, file, serving.log_rate)
}

fn run<A: Serving>(
    addresses: &[SocketAddr],
    limits: Limits,
    args: A,
    admin: Option<AdminPlan>,
    log: Log,
) -> Result<Counters, ServerError> {
    let mut server = EventLoop::listen_on(addresses, limits.clone(), |remote| args.service(remote))?;
    let admin = admin
        .map(|plan| plan.start(&mut server, &limits, &log))
        .transpose()?;
    hear_signals(server.remote(), log).map_err(|error| ServerError::EventLoop("hear signals", error))?;
    let outcome = server.run();
    if let Some(admin) = admin {
        admin.stop();
    }
    outcome
}

/// Wrong usage: one line, exit code 2. The line says what would be right, so
/// no list of options follows.
pub(crate) fn usage(sentence: &str) -> ! {
    eprintln!("error: {sentence}");
    std::process::exit(EXIT_USAGE)
}

/// Exit code of wrong usage, as clap has it.
const EXIT_USAGE: i32 = 2;
