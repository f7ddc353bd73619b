//! Signals: SIGINT and SIGTERM stop the server.

use std::thread;

use highwater::Remote;
use log::warn;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Stops the server in order at the first SIGINT or SIGTERM, and exits at the
/// second.
pub(crate) fn stop_on_signals(remote: Remote) -> std::io::Result<()> {
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
