//! One running server.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::clock::now;
use crate::launch;
use crate::procfs;

/// The sign that a server is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// A line `listening on ADDRESS:PORT`, with the port it was given.
    Says,
    /// An accepted connection at the port that its command line names.
    Accepts(u16),
}

/// Longest time until a server is ready.
const LONGEST_START: Duration = Duration::from_secs(15);

/// Longest time until a server ends after it was asked to.
const LONGEST_END: Duration = Duration::from_secs(15);

/// Interval in which readiness is checked.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A server process with all its children; killed when this is dropped.
pub(crate) struct Server {
    process: Child,
    pids: Vec<u32>,
    address: SocketAddr,
    output: PathBuf,
}

impl Server {
    /// Starts a program with its arguments on a core and waits until it is
    /// ready. Its output goes to the file `output`.
    pub(crate) fn start(
        core: usize,
        words: &[String],
        ready: Ready,
        output: PathBuf,
    ) -> Result<Self, String> {
        let (program, arguments) = words.split_first().ok_or("no program was named")?;
        let fail = |error| format!("cannot write {}: {error}", output.display());
        let file = File::create(&output).map_err(fail)?;
        let process = launch::command(core, program, arguments)?
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(fail)?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let mut server = Self {
            pids: vec![process.id()],
            process,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            output,
        };
        server.address = server
            .wait_until(ready)
            .map_err(|why| format!("{program} {why}"))?;
        Ok(server)
    }

    /// The address on which the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The output of the server so far.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Counts the processes that the server has forked from now on.
    pub(crate) fn count_forks(&mut self) {
        self.pids = procfs::group(self.process.id());
    }

    /// Time that the server has spent on the core.
    pub(crate) fn time_on_core(&self) -> Duration {
        procfs::time_on_core(&self.pids)
    }

    /// Resident memory of the server in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        procfs::resident_bytes(&self.pids)
    }

    /// Asks the server to end, waits, and returns its whole output.
    pub(crate) fn finish(mut self) -> Result<String, String> {
        self.signal(Signal::TERM);
        let begin = now();
        while !matches!(self.process.try_wait(), Ok(Some(_))) {
            if now() - begin > LONGEST_END {
                return Err(format!("a server went on after {} s", LONGEST_END.as_secs()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        fs::read_to_string(&self.output).map_err(|error| format!("cannot read what it printed: {error}"))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    fn wait_until(&mut self, ready: Ready) -> Result<SocketAddr, String> {
        let begin = now();
        loop {
            let found = match ready {
                Ready::Says => announced(&fs::read_to_string(&self.output).unwrap_or_default()),
                Ready::Accepts(port) => {
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    TcpStream::connect(address).is_ok().then_some(address)
                }
            };
            if let Some(address) = found {
                return Ok(address);
            }
            let text = || fs::read_to_string(&self.output).unwrap_or_default();
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("ended at once ({status}): {}", last_line(&text())));
            }
            if now() - begin > LONGEST_START {
                return Err(format!(
                    "was not ready after {} s: {}",
                    LONGEST_START.as_secs(),
                    last_line(&text())
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago, for servers that cannot choose one
/// themselves.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}

/// The address in a line such as `listening on 127.0.0.1:9000`.
fn announced(output: &str) -> Option<SocketAddr> {
    let (_, rest) = output.split_once("listening on ")?;
    // Half a line must not be taken for a whole one.
    let (line, _) = rest.split_once('\n')?;
    line.split_whitespace().next()?.parse().ok()
}

fn last_line(output: &str) -> &str {
    output.trim_end().lines().last().unwrap_or("it printed nothing")
}
