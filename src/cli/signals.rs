//! Signals: SIGINT and SIGTERM stop the server; SIGHUP and SIGUSR1 open the
//! log file anew, for programs that rotate logs; SIGHUP then has the file of
//! options read again; SIGUSR2 has shadow mode tell what it recommends.

use std::thread;

use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::arguments::ServingArguments;
use super::log::Log;
use super::notify::Notify;
use super::reload::Reloader;
use super::stopper::Stopper;

/// Stops the server in order at the first SIGINT or SIGTERM, and exits at the
/// second. Without a log file, a file of options and a service manager SIGHUP ends
/// the program, as it does when a terminal is closed.
pub(crate) fn hear_signals<A: ServingArguments + 'static>(
    stopper: Stopper,
    notify: Notify,
    log: Log,
    mut reloader: Reloader<A>,
) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
    if log.has_file() || reloader.has_file() || notify.has_manager() {
        signals.add_signal(SIGHUP)?;
    }
    let wait_for_signals = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGUSR2 => stopper.tell_shadow(),
                SIGHUP => notify.while_reloading(|| {
                    if log.has_file() || !reloader.has_file() {
                        reopen(&log);
                    }
                    reloader.reload();
                }),
                SIGUSR1 => reopen(&log),
                _ if stopping => {
                    warn!(event = "second_signal"; "second signal: exiting now");
                    log.finish();
                    std::process::exit(1);
                }
                _ => {
                    stopping = true;
                    stopper.stop();
                }
            }
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(wait_for_signals)?;
    Ok(())
}

fn reopen(log: &Log) {
    if log.reopen() {
        info!(event = "log_reopened"; "signal: opening the log file anew");
    } else {
        info!(event = "log_reopened"; "signal: no log file to open anew; --log-file names one");
    }
}
