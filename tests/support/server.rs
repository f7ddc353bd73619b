//! The server under test: the real binary as a child process, or the
//! library's event loop on a thread.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use highwater::{Counters, EventLoop, Limits, Remote, Service};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tempfile::TempDir;

use super::{PATIENCE, holds_within, kernel, wait_until};

/// The path of the binary that is tested.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_highwater");

/// Lifts the limit of repeated lines, as tests count them. Options of a test
/// come later and win.
const ALL_LINES: &str = "--log-rate=0";

/// The command with sockets that it inherits at descriptors 3 and 4. They come
/// as its standard streams, since nothing else passes through without `unsafe`.
pub(crate) fn activated(sockets: Vec<OwnedFd>) -> Command {
    let count = sockets.len();
    assert!((1..=2).contains(&count), "{count} sockets");
    let script = format!(
        "exec 3<&0 4>&1 0</dev/null 1>/dev/null; LISTEN_FDS={count} LISTEN_PID=$$ exec \"$0\" \"$@\""
    );
    let mut sockets = sockets.into_iter();
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, BINARY])
        .stdin(sockets.next().map_or_else(Stdio::null, Stdio::from))
        .stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
    command
}

/// A running `highwater`, which is killed when this is dropped.
pub(crate) struct Server {
    child: Mutex<Child>,
    pid: Pid,
    address: SocketAddr,
    log: PathBuf,
    directory: TempDir,
}

impl Server {
    /// Starts `highwater echo` with these options, on a free port and with a
    /// log file of its own, and waits until it listens.
    pub(crate) fn echo(options: &[&str]) -> Self {
        Self::start("echo", options)
    }

    /// Starts `highwater <subcommand>`, as [`echo`](Self::echo).
    pub(crate) fn start(subcommand: &str, options: &[&str]) -> Self {
        Self::start_by(Command::new(BINARY), subcommand, options)
    }

    /// As [`start`](Self::start), through another program: `launcher` gets
    /// the arguments of the binary behind its own, and must become it (as
    /// `sh -c 'ulimit -n 64; exec "$0" "$@"' BINARY` does).
    pub(crate) fn start_by(launcher: Command, subcommand: &str, options: &[&str]) -> Self {
        Self::launch(launcher, subcommand, "0", options)
    }

    /// As [`start`](Self::start), with at most two listening sockets that it
    /// inherits as a service manager passes them.
    pub(crate) fn start_with_sockets(subcommand: &str, sockets: Vec<OwnedFd>, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = activated(sockets);
        command
            .arg(subcommand)
            .args([ALL_LINES, "--log-file"])
            .arg(&log)
            .args(options)
            .stderr(File::create(directory.path().join("stderr")).unwrap());
        Self::watch(command, log, directory)
    }

    /// As [`start`](Self::start), on this port, which the caller knows to be
    /// free.
    pub(crate) fn start_on_port(subcommand: &str, port: &str, options: &[&str]) -> Self {
        Self::launch(Command::new(BINARY), subcommand, port, options)
    }

    fn launch(mut launcher: Command, subcommand: &str, port: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        launcher
            .arg(subcommand)
            .args(["--port", port, ALL_LINES, "--log-file"])
            .arg(&log)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("stderr")).unwrap());
        Self::watch(launcher, log, directory)
    }

    /// As [`echo`](Self::echo), with standard output and standard error where
    /// the caller wants them.
    pub(crate) fn echo_writing_to(
        options: &[&str],
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut command = Command::new(BINARY);
        command
            .args(["echo", "--port", "0", ALL_LINES, "--log-file"])
            .arg(&log)
            .args(options)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        Self::watch(command, log, directory)
    }

    /// As [`echo`](Self::echo), with a log file that nobody can read back:
    /// what is watched is standard error, which gets the same lines.
    pub(crate) fn echo_with_log_file(log_file: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stderr = directory.path().join("stderr");
        let mut command = Command::new(BINARY);
        command
            .args(["echo", "--port", "0", ALL_LINES, "--log-file", log_file])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap());
        Self::watch(command, stderr, directory)
    }

    /// As [`echo`](Self::echo), with a log file that may be there already.
    pub(crate) fn echo_logging_to(log: &Path, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(BINARY);
        command
            .args(["echo", "--port", "0", ALL_LINES, "--log-file"])
            .arg(log)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("stderr")).unwrap());
        Self::watch(command, log.to_owned(), directory)
    }

    /// Starts it and waits until it listens, by a line that was not in its
    /// log before.
    fn watch(mut command: Command, log: PathBuf, directory: TempDir) -> Self {
        const LISTENING: &str = "listening on ";
        let before = std::fs::read_to_string(&log).unwrap_or_default();
        let lines_before = before.matches(LISTENING).count();
        let child = command.spawn().unwrap();
        let mut server = Self {
            pid: Pid::from_child(&child),
            child: Mutex::new(child),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            log,
            directory,
        };
        let lines = server.wait_for_lines(lines_before + 1, LISTENING);
        let (_, rest) = lines[lines_before].split_once(LISTENING).unwrap();
        // In a log in JSON a quotation mark follows.
        let address = rest.split('"').next().unwrap();
        server.address = address.parse().unwrap();
        server
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) const fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn standard_error(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    /// The whole lines of the log that contain `part`.
    pub(crate) fn lines_with(&self, part: &str) -> Vec<String> {
        let log = self.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .filter(|line| line.contains(part))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line of the log that contains `part`, and answers the first.
    pub(crate) fn wait_for_line(&self, part: &str) -> String {
        self.wait_for_lines(1, part).remove(0)
    }

    /// Waits until so many lines of the log contain `part`.
    pub(crate) fn wait_for_lines(&self, count: usize, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let found = holds_within(PATIENCE, || {
            lines = self.lines_with(part);
            lines.len() >= count || self.has_exited()
        });
        // The last lines may have come just before the exit.
        lines = self.lines_with(part);
        assert!(
            found && lines.len() >= count,
            "waited in vain for {count} lines with `{part}`, saw {}",
            lines.len()
        );
        lines
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for the end of the process.
    pub(crate) fn wait_for_exit(&self) -> ExitStatus {
        let mut status = None;
        wait_until("the server exits", || {
            status = self.child.lock().unwrap().try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Sends SIGTERM, waits for the end, and answers the line that sums up.
    pub(crate) fn stop(&self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait_for_exit();
        assert!(status.success(), "{status}");
        self.wait_for_line("stopped: ")
    }

    /// Processor time used so far, by all threads.
    pub(crate) fn cpu_time(&self) -> Duration {
        kernel::cpu_time(self.pid)
    }

    /// Memory in use, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        kernel::resident_bytes(self.pid)
    }

    /// Descriptors that are open.
    pub(crate) fn descriptors(&self) -> usize {
        kernel::descriptors(self.pid)
    }

    /// The numbers of the descriptors that are open.
    pub(crate) fn descriptor_numbers(&self) -> Vec<usize> {
        kernel::descriptor_numbers(self.pid)
    }

    /// Lets the running server open so many descriptors more, and no more.
    pub(crate) fn leave_descriptors(&self, count: usize) {
        let open = self.descriptor_numbers();
        let free = (0..).filter(|number| !open.contains(number));
        // The limit is the number above the highest that may be used.
        self.set_descriptor_limit(free.take(count).last().map_or(0, |last| last + 1));
    }

    /// Changes how many descriptors it may have open, while it runs.
    pub(crate) fn set_descriptor_limit(&self, limit: usize) {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let new = Rlimit {
            current: Some(limit as u64),
            maximum,
        };
        prlimit(Some(self.pid), Resource::Nofile, new).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            // Shown by the test harness with the failed test alone.
            let stderr = std::fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default();
            println!("--- the server's log\n{}", last_lines(&self.log(), 40));
            println!("--- its standard error\n{}", last_lines(&stderr, 10));
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The second of its day at which a log line was written.
pub(crate) fn second_of(line: &str) -> f64 {
    let (_, clock) = line.split_once('T').expect("a line with a time");
    let (clock, _) = clock.split_once('Z').expect("a line with a time");
    clock.split(':').fold(0.0, |sum, part| {
        sum * 60.0 + part.parse::<f64>().expect("a number")
    })
}

/// The number that stands right before `unit` in a line, as in `131072 sent`.
pub(crate) fn number_before(line: &str, unit: &str) -> f64 {
    let (front, _) = line
        .split_once(&format!(" {unit}"))
        .unwrap_or_else(|| panic!("no `{unit}` in `{line}`"));
    let word = front.rsplit([' ', '(']).next().unwrap_or_default();
    word.parse()
        .unwrap_or_else(|_| panic!("`{word}` before `{unit}` is not a number"))
}

/// The number behind these words.
pub(crate) fn number_after(line: &str, words: &str) -> f64 {
    let rest = line.split_once(words).unwrap_or_else(|| panic!("{line}")).1;
    let digits = rest.split([' ', ',', ';']).next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("{line}"))
}

/// The line of a disconnect with `--slowest-reader 1MiB`: the grace is what the
/// rule gives for the largest window, and the client went right after it.
pub(crate) fn check_reader_grace(line: &str) {
    let window = number_after(line, "largest ");
    // A window that was withdrawn counts four times.
    let graces = [window, 4.0 * window].map(|window| {
        let owed = window / 16.0 + f64::min(2.0 * window, 524_288.0) + 65_536.0 + 16_384.0;
        owed / 1_048_576.0
    });
    let told = number_after(line, "grace ");
    let grace = graces.into_iter().find(|grace| (told - grace).abs() < 0.002);
    let grace = grace.unwrap_or_else(|| panic!("{graces:?}: {line}"));
    let slow_for = number_before(line, "s, ");
    // The rule counts whole milliseconds.
    assert!(
        grace > 0.4 && (grace - 0.001..grace + 1.0).contains(&slow_for),
        "{grace}: {line}"
    );
}

/// The library's event loop with a service of the test's own, on a thread. It
/// is stopped when this is dropped.
pub(crate) struct InThread {
    remote: Remote,
    address: SocketAddr,
    thread: Option<JoinHandle<Counters>>,
}

impl InThread {
    /// Serves on a free port of 127.0.0.1. The service is made by the caller,
    /// with a handle by which other threads reach the loop.
    pub(crate) fn serve<S: Service + Send + 'static>(
        limits: Limits,
        service: impl FnOnce(Remote) -> S,
    ) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = EventLoop::listen_with(any_port, limits, service).unwrap();
        let (remote, address) = (server.remote(), server.local_addr());
        let thread = std::thread::spawn(move || server.run().unwrap());
        Self {
            remote,
            address,
            thread: Some(thread),
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) const fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Stops it in order and answers what happened.
    pub(crate) fn stop(mut self) -> Counters {
        self.remote.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for InThread {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.remote.stop();
            let _ = thread.join();
        }
    }
}
