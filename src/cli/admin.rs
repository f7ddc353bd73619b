//! `--admin`: the page, the metrics and the list of clients beside a server.
//!
//! Owns the options, the token file and the thread. Refuses to answer: the
//! library's service does.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Args;
use highwater::limits::RESERVED_DESCRIPTORS;
use highwater::services::admin::SEATS;
use highwater::services::{Admin, AdminConfig};
use highwater::{EventLoop, Limits, Remote, ServerError, Service};
use log::{Level, error, info, log_enabled};

use super::log::Log;

/// How operators look at a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Operations")]
pub(crate) struct AdminArgs {
    /// Show the server to operators over HTTP here: `/` a page, `/metrics`
    /// for Prometheus, `/clients` who is slow and who is gone, `/healthz`,
    /// `/readyz` [default: off]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_address)]
    pub(crate) admin: Option<SocketAddr>,
    /// Demand the first line of this file of operators, as `Authorization:
    /// Bearer TOKEN`; needed unless --admin is a loopback address.
    #[arg(long, value_name = "PATH", requires = "admin")]
    pub(crate) admin_token_file: Option<PathBuf>,
}

fn parse_address(typed: &str) -> Result<SocketAddr, String> {
    typed
        .parse()
        .map_err(|_| format!("`{typed}` is not ADDRESS:PORT: write it like 127.0.0.1:9001 or [::1]:9001"))
}

/// Where operators are answered, and what they must know.
pub(crate) struct AdminPlan {
    address: SocketAddr,
    token: Option<Vec<u8>>,
}

impl AdminArgs {
    /// What these arguments ask for, if they ask for anything.
    ///
    /// # Errors
    ///
    /// One sentence: the token is missing, or its file is of no use.
    pub(crate) fn plan(&self) -> Result<Option<AdminPlan>, String> {
        let Some(address) = self.admin else {
            return Ok(None);
        };
        let token = self.admin_token_file.as_deref().map(read_token).transpose()?;
        if token.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(format!(
                "--admin {address} admits other machines: add --admin-token-file PATH, or listen on 127.0.0.1"
            ));
        }
        Ok(Some(AdminPlan { address, token }))
    }
}

fn read_token(path: &Path) -> Result<Vec<u8>, String> {
    let refuse = |why: &str| {
        format!(
            "--admin-token-file {}: {why}; its first line must be the token",
            path.display()
        )
    };
    let mode = std::fs::metadata(path).map_err(|error| refuse(&error.to_string()))?;
    if mode.permissions().mode() & 0o007 != 0 {
        return Err(format!(
            "--admin-token-file {}: others may read or change it; run `chmod 600 {}`",
            path.display(),
            path.display()
        ));
    }
    let content = std::fs::read(path).map_err(|error| refuse(&error.to_string()))?;
    let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let token = line.trim_ascii();
    if token.is_empty() {
        return Err(refuse("it is empty"));
    }
    Ok(token.to_vec())
}

/// Keeps descriptors for operators, so that they are answered when clients are
/// refused.
pub(crate) fn reserve(limits: Limits) -> Limits {
    Limits {
        reserved_descriptors: RESERVED_DESCRIPTORS + SEATS + 8,
        ..limits
    }
}

/// The loop that answers operators, on its thread.
pub(crate) struct AdminThread {
    /// Reaches that loop.
    pub(crate) remote: Remote,
    /// Its listening sockets once more, for a successor.
    pub(crate) copies: Vec<TcpListener>,
    thread: JoinHandle<()>,
}

impl AdminPlan {
    /// The address that was asked for.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer operators about `server`, on `listeners` if there are
    /// any, else on the address.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or a thread cannot be started.
    pub(crate) fn start<S: Service>(
        self,
        server: &mut EventLoop<S>,
        limits: &Limits,
        listeners: Vec<TcpListener>,
        log: &Log,
    ) -> Result<AdminThread, ServerError> {
        server.watch();
        let (asked, log) = (server.remote(), log.clone());
        let is_port_chosen = listeners.is_empty() && self.address.port() == 0;
        let own = [self.address];
        let addresses: &[SocketAddr] = if listeners.is_empty() { &own } else { &[] };
        let mut operators = EventLoop::listen_through(listeners, addresses, of_operators(limits), |own| {
            let config = AdminConfig {
                server: asked,
                token: self.token,
                dropped_lines: Box::new(move || log.dropped_lines()),
            };
            Admin::new(config, own)
        })?;
        let address = operators.local_addr();
        info!(event = "admin", address:% = address; "admin page on http://{address}/");
        if is_port_chosen && !log_enabled!(Level::Info) {
            // The log does not tell, and nobody could ask.
            eprintln!("admin page on http://{address}/");
        }
        let remote = operators.remote();
        let copies = operators.clone_listeners();
        let copies = copies.map_err(|error| ServerError::EventLoop("copy its listening sockets", error))?;
        let answer = move || {
            if let Err(failure) = operators.run() {
                error!(event = "failure"; "the admin page has ended: {failure}");
            }
        };
        let thread = thread::Builder::new().name("admin".into()).spawn(answer);
        let thread = thread.map_err(|error| ServerError::EventLoop("start the admin thread", error))?;
        Ok(AdminThread {
            remote,
            copies,
            thread,
        })
    }
}

impl AdminThread {
    /// Ends it in order.
    pub(crate) fn stop(self) {
        self.remote.stop();
        // A panic of that thread has been written to standard error.
        let _ = self.thread.join();
    }
}

/// Operators have seats and memory of their own, and the grace of the server.
pub(crate) fn of_operators(limits: &Limits) -> Limits {
    Limits {
        grace: limits.grace,
        drain_timeout: Some(limits.drain_timeout().max(limits.grace)),
        max_clients: Some(SEATS),
        memory_budget_bytes: Some(MEMORY_BYTES),
        idle_timeout: Some(IDLE_TIMEOUT),
        stop_timeout: STOP_TIMEOUT,
        reserved_descriptors: 0,
        ..Limits::default()
    }
}

/// What answers to operators may hold together.
const MEMORY_BYTES: usize = 256 << 20;

/// Operators who ask nothing for this long are let go.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is left of answers when the server has stopped.
const STOP_TIMEOUT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(address: &str, token_file: Option<PathBuf>) -> Result<Option<AdminPlan>, String> {
        let args = AdminArgs {
            admin: Some(address.parse().unwrap()),
            admin_token_file: token_file,
        };
        args.plan()
    }

    #[test]
    fn beyond_loopback_a_token_is_needed_that_only_its_owner_can_read() {
        assert!(plan("127.0.0.1:0", None).is_ok() && plan("[::1]:0", None).is_ok());
        for address in ["0.0.0.0:9001", "[::]:9001", "10.0.0.1:9001"] {
            let Err(refusal) = plan(address, None) else {
                panic!("{address} needs a token");
            };
            assert!(refusal.contains("--admin-token-file"), "{refusal}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, " secret \nmore\n").unwrap();
        let set_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(0o644);
        let refusal = read_token(&path).unwrap_err();
        assert!(refusal.contains("chmod 600"), "{refusal}");
        set_mode(0o600);
        assert_eq!(read_token(&path).unwrap(), b"secret");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_token(&path).unwrap_err().contains("it is empty"));
        assert!(plan("0.0.0.0:9001", Some(directory.path().join("none"))).is_err());
    }
}
