//! What happens around a server: limits, log, signals, the summary at the end,
//! the exit code.
//!
//! Refuses to know what the server does.

use std::process::ExitCode;

use highwater::{Counters, EventLoop, Limits, Remote, Service, raise_descriptor_limit, release_code_pages};
use log::{Level, error, info, log_enabled, warn};

use super::activation::passed_sockets;
use super::admin::{AdminPlan, AdminThread};
use super::arguments::ServingArguments;
use super::exit::usage;
use super::listening::Listening;
use super::log::{Log, LogError};
use super::notify::Notify;
use super::options::ServingArgs;
use super::reload::{Follower, Reloader, Source};
use super::sentences;
use super::signals::hear_signals;
use super::sockets::Sockets;
use super::stopper::Stopper;
use super::take_over::Offer;

/// A server that is about to run: its arguments, and the service that they ask
/// for.
pub(crate) trait Serving {
    /// What was typed.
    type Arguments: ServingArguments;

    /// What clients are served with.
    type Service: Service;

    /// What became of the bytes, for the summary, such as `echoed`.
    const DONE: &'static str;

    /// What was typed.
    fn arguments(&self) -> &Self::Arguments;

    /// The service that was asked for.
    fn service(self, remote: Remote) -> Self::Service;

    /// What the service takes over of other arguments while it runs, besides
    /// limits.
    fn follower(&self) -> Follower<Self::Arguments> {
        Box::new(|_| {})
    }
}

/// Serves until a signal comes, then logs the summary. `source` is where the
/// arguments come from.
pub(crate) fn serve<A: Serving<Arguments: 'static>>(args: A, source: Source) -> ExitCode {
    let limits = args.arguments().limits_to_run();
    let limits = limits.unwrap_or_else(|sentence| usage(&sentence));
    let (listen, serving) = args.arguments().shared();
    let addresses = listen.addresses().unwrap_or_else(|sentence| usage(&sentence));
    let admin = serving.admin.plan().unwrap_or_else(|sentence| usage(&sentence));
    // Before the log starts its threads.
    let passed = match passed_sockets() {
        Ok(passed) => passed,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            return ExitCode::FAILURE;
        }
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
    let (asked, take_over) = (
        admin.as_ref().map(AdminPlan::address),
        serving.take_over.as_deref(),
    );
    let outcome = Listening::find(passed, addresses, asked, take_over)
        .and_then(|listening| run(listening, limits, args, source, admin, &log));
    let code = match outcome {
        Ok(counters) => {
            info!(event = "stopped"; "stopped: {}", counters.summary(A::DONE));
            ExitCode::SUCCESS
        }
        Err(sentence) => {
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

fn run<A: Serving<Arguments: 'static>>(
    listening: Listening,
    limits: Limits,
    args: A,
    source: Source,
    admin: Option<AdminPlan>,
    log: &Log,
) -> Result<Counters, String> {
    let notify = Notify::from_environment()?;
    let path = args.arguments().shared().1.take_over.clone();
    let follower = args.follower();
    let Sockets {
        serving,
        admin: for_admin,
    } = listening.sockets;
    let server = EventLoop::listen_through(serving, &listening.addresses, limits.clone(), |remote| {
        args.service(remote)
    });
    let mut server = server.map_err(|error| sentences::of_server(&error))?;
    let admin = admin.map(|plan| plan.start(&mut server, &limits, for_admin, log));
    let mut admin = admin.transpose().map_err(|error| sentences::of_server(&error))?;
    let copies = copies(&mut server, admin.as_mut(), path.is_some())?;
    let stopper = Stopper::new(
        server.remote(),
        admin.as_ref().map(|admin| admin.remote.clone()),
        notify.clone(),
        listening.is_activated,
        copies,
    );
    let admins = admin.as_ref().map(|admin| admin.remote.clone());
    let reloader = Reloader::<A::Arguments>::new(source, server.remote(), admins, follower);
    hear_signals(stopper.clone(), notify.clone(), log.clone(), reloader)
        .map_err(|error| format!("cannot hear signals: {error}"))?;
    if let Some(interval) = notify.interval() {
        let notify = notify.clone();
        server.set_heartbeat(interval, move |clients, counters| notify.beat(clients, counters));
    }
    let offer = path.as_deref().map(Offer::prepare).transpose()?;
    // From here on connections wait for this process: the loop is about to run.
    if let Some(predecessor) = listening.predecessor {
        predecessor.say_accepting()?;
    }
    let offer = offer.map(|offer| offer.publish(stopper));
    notify.ready(&status(&server));
    release_code_pages();
    let outcome = server.run().map_err(|error| sentences::of_server(&error));
    if let Some(offer) = offer {
        offer.remove();
    }
    if let Some(admin) = admin {
        admin.stop();
    }
    outcome
}

/// The listening sockets once more, for a successor. Without a path nobody
/// asks for them, and a copy would keep a socket listening.
fn copies<S: Service>(
    server: &mut EventLoop<S>,
    admin: Option<&mut AdminThread>,
    is_asked_for: bool,
) -> Result<Sockets, String> {
    let admin = admin.map(|admin| std::mem::take(&mut admin.copies));
    if !is_asked_for {
        return Ok(Sockets::default());
    }
    let serving = server
        .clone_listeners()
        .map_err(|error| format!("--take-over: the listening sockets cannot be copied: {error}"))?;
    Ok(Sockets {
        serving,
        admin: admin.unwrap_or_default(),
    })
}

fn status<S: Service>(server: &EventLoop<S>) -> String {
    let addresses: Vec<_> = server.local_addrs().iter().map(ToString::to_string).collect();
    format!("listening on {}", addresses.join(", "))
}
