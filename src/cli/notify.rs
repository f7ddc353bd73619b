//! Messages to the service manager (sd_notify(3)): ready, reloading, stopping,
//! a status line, and the beat of the watchdog.
//!
//! Owns the socket and the state that the status line tells. Refuses to decide
//! when: the start, the signals and the event loop call. Without a service
//! manager every call does nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use highwater::limits::{NOTIFY_TIMEOUT, STATUS_INTERVAL};
use highwater::{Counters, SlowReason};
use log::warn;
use rustix::net::{SendFlags, SocketAddrUnix, sendto};
use rustix::time::{ClockId, clock_gettime};

/// The service manager, if there is one. Clones reach the same one.
#[derive(Clone, Debug)]
pub(crate) struct Notify {
    manager: Option<Arc<Manager>>,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddrUnix,
    /// Half of the time after which the manager takes the server for dead.
    watchdog: Option<Duration>,
    state: AtomicU8,
}

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;

impl Notify {
    /// The service manager that the environment names: `NOTIFY_SOCKET`, and
    /// `WATCHDOG_USEC` if it watches this very process (`WATCHDOG_PID`).
    ///
    /// # Errors
    ///
    /// One sentence, if a variable makes no sense.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self { manager: None });
        };
        let refuse = |why: &str| format!("NOTIFY_SOCKET={}: {why}", name.display());
        let address = address_of(&name).map_err(|why| refuse(&why))?;
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
            Ok(socket)
        });
        let variable = |name| env::var(name).ok();
        Ok(Self {
            manager: Some(Arc::new(Manager {
                socket: socket.map_err(|error| refuse(&error.to_string()))?,
                address,
                watchdog: watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"))?,
                state: AtomicU8::new(STARTING),
            })),
        })
    }

    /// Whether somebody listens.
    pub(crate) const fn has_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// The server accepts; `status` is one line about where.
    pub(crate) fn ready(&self, status: &str) {
        self.enter(SERVING);
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// Tells of a reload around `reload`: RELOADING before it, READY after it,
    /// also where it found a file that it could not use.
    pub(crate) fn while_reloading(&self, reload: impl FnOnce()) {
        if self.state() != Some(SERVING) {
            reload();
            return;
        }
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading"
        ));
        reload();
        self.send("READY=1\nSTATUS=reloaded");
    }

    /// The server stops.
    pub(crate) fn stopping(&self, status: &str) {
        self.enter(STOPPING);
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// Time between two calls of [`beat`](Self::beat); `None` if nobody listens.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let watchdog = self.manager.as_ref()?.watchdog;
        Some(watchdog.map_or(STATUS_INTERVAL, |watchdog| watchdog.min(STATUS_INTERVAL)))
    }

    /// The event loop runs, with so many clients. Never waits: a beat that the
    /// manager does not take is lost, and the next one follows.
    pub(crate) fn beat(&self, clients: usize, counters: &Counters) {
        let Some(manager) = &self.manager else { return };
        let status = match manager.state.load(Ordering::Acquire) {
            STOPPING => format!("stopping, {clients} connections left"),
            _ => format!(
                "{clients} connections, {} clients served, {} disconnected as too slow, {} refused",
                counters.served_clients,
                SlowReason::ALL
                    .into_iter()
                    .map(|reason| counters.slow(reason))
                    .sum::<u64>(),
                counters.refused_clients,
            ),
        };
        let watchdog = manager.watchdog.map_or("", |_| "WATCHDOG=1\n");
        let message = format!("{watchdog}STATUS={status}");
        let _ = manager.send(&message, SendFlags::DONTWAIT);
    }

    fn state(&self) -> Option<u8> {
        let manager = self.manager.as_ref()?;
        Some(manager.state.load(Ordering::Acquire))
    }

    fn enter(&self, state: u8) {
        if let Some(manager) = &self.manager {
            manager.state.store(state, Ordering::Release);
        }
    }

    fn send(&self, message: &str) {
        let Some(manager) = &self.manager else { return };
        if let Err(error) = manager.send(message, SendFlags::empty()) {
            warn!(event = "notify_failed"; "cannot tell the service manager: {error}");
        }
    }
}

impl Manager {
    fn send(&self, message: &str, flags: SendFlags) -> io::Result<()> {
        let flags = flags | SendFlags::NOSIGNAL;
        sendto(&self.socket, message.as_bytes(), flags, &self.address)?;
        Ok(())
    }
}

/// A path, or `@` and the name of an abstract socket.
fn address_of(name: &OsStr) -> Result<SocketAddrUnix, String> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddrUnix::new_abstract_name(abstract_name),
        path @ [b'/', ..] => SocketAddrUnix::new(path),
        _ => return Err("neither a path nor the `@` and name of an abstract socket".to_owned()),
    };
    address.map_err(|error| error.to_string())
}

/// How often to beat: twice in the time that the manager allows.
fn watchdog(microseconds: Option<String>, pid: Option<String>) -> Result<Option<Duration>, String> {
    let Some(typed) = microseconds.filter(|typed| !typed.is_empty()) else {
        return Ok(None);
    };
    let refuse = |name: &str, value: &str| format!("{name}={value} is not a whole number above 0");
    let allowed: u64 = typed
        .parse()
        .ok()
        .filter(|&allowed| allowed > 0)
        .ok_or_else(|| refuse("WATCHDOG_USEC", &typed))?;
    if let Some(pid) = pid.filter(|pid| !pid.is_empty()) {
        let watched: u32 = pid.parse().map_err(|_| refuse("WATCHDOG_PID", &pid))?;
        if watched != std::process::id() {
            return Ok(None);
        }
    }
    Ok(Some(Duration::from_micros(allowed) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_beaten_twice_in_its_time_and_only_if_it_watches_this_process() {
        let beat = |usec: &str, pid: &str| watchdog(Some(usec.to_owned()), Some(pid.to_owned()));
        let own = std::process::id().to_string();
        assert_eq!(beat("3000000", &own), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(beat("3000000", ""), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(beat("3000000", "1"), Ok(None));
        assert_eq!(watchdog(None, None), Ok(None));
        assert!(beat("0", "").unwrap_err().contains("WATCHDOG_USEC=0"));
        assert!(beat("5s", "").is_err());
        assert!(beat("5", "x").unwrap_err().contains("WATCHDOG_PID=x"));
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        assert!(address_of(OsStr::new("/run/notify")).is_ok());
        assert!(address_of(OsStr::new("@notify")).is_ok());
        assert!(address_of(OsStr::new("vsock:2:1234")).is_err());
        let long = format!("/{}", "x".repeat(200));
        assert!(address_of(OsStr::new(&long)).is_err());
    }
}
