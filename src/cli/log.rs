//! The log as a client: a terminal, pipe or disk that takes lines slowly must
//! not stall the event loop.
//!
//! Owns a bounded backlog of lines and a thread for each sink. A full backlog
//! drops lines and counts them; the count is logged once there is room. Refuses
//! to format: simplelog does.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread;

use log::LevelFilter;
use simplelog::{CombinedLogger, Config, ConfigBuilder, SharedLogger, WriteLogger};
use time::macros::format_description;

use highwater::limits::{LOG_BACKLOG_LINES, LOG_FLUSH_TIMEOUT, LOG_GATHER_TIME};

/// The running log. Keep it to the end of the program, then call
/// [`finish`](Self::finish).
#[derive(Debug)]
pub(crate) struct Log {
    backlogs: Vec<SyncSender<Message>>,
}

/// Why the log did not start.
#[derive(Debug)]
pub(crate) enum LogError {
    /// The log file cannot be opened for appending.
    File(PathBuf, io::Error),
    /// A thread for the log cannot be started.
    Thread(io::Error),
    /// This program has a log already.
    Taken,
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, error) => write!(
                f,
                "--log-file {}: cannot be opened for appending: {error}; name a file in a directory that you may write to",
                path.display()
            ),
            Self::Thread(error) => write!(f, "cannot start a thread for the log: {error}"),
            Self::Taken => f.write_str("this program has a log already"),
        }
    }
}

impl std::error::Error for LogError {}

enum Message {
    /// A line, and the number of lines lost right before it.
    Line(Vec<u8>, u64),
    /// A request to confirm that everything before it is written.
    Flush(Sender<()>),
}

impl Log {
    /// Starts the log of this program: to standard error, and appended to
    /// `file` if one is given.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the program has a log already.
    pub(crate) fn start(level: LevelFilter, file: Option<&Path>) -> Result<Self, LogError> {
        let mut backlogs = Vec::new();
        let mut loggers: Vec<Box<dyn SharedLogger>> = Vec::new();
        let mut add = |sink: Box<dyn Write + Send>, complaint| {
            let backlog = Backlog::start(sink, complaint).map_err(LogError::Thread)?;
            let sender = backlog.sender.clone();
            backlogs.push(sender.clone());
            loggers.push(WriteLogger::new(level, config(), backlog));
            Ok(sender)
        };
        let standard_error = add(Box::new(io::stderr()), None)?;
        if let Some(path) = file {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            let file = opened.map_err(|error| LogError::File(path.to_owned(), error))?;
            let complaint = Complaint {
                path: path.to_owned(),
                to: standard_error,
            };
            add(Box::new(file), Some(complaint))?;
        }
        CombinedLogger::init(loggers).map_err(|_| LogError::Taken)?;
        Ok(Self { backlogs })
    }

    /// Waits until all lines are written, for at most [`LOG_FLUSH_TIMEOUT`] per
    /// sink: a terminal that nobody reads does not keep the program from
    /// ending.
    pub(crate) fn finish(&self) {
        // Standard error last, since it may have to report the file.
        for backlog in self.backlogs.iter().rev() {
            let (done, finished) = channel();
            let backlog = backlog.clone();
            // A full backlog accepts this once it has room. That wait has no
            // timeout, so another thread does it.
            let waiting = move || backlog.send(Message::Flush(done));
            if thread::Builder::new().spawn(waiting).is_ok() {
                let _ = finished.recv_timeout(LOG_FLUSH_TIMEOUT);
            }
        }
    }
}

fn config() -> Config {
    let mut builder = ConfigBuilder::new();
    builder
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("highwater");
    builder.build()
}

/// The near end: accepts lines from simplelog and never waits.
struct Backlog {
    sender: SyncSender<Message>,
    line: Vec<u8>,
    lost: Arc<AtomicU64>,
}

impl Backlog {
    fn start(sink: Box<dyn Write + Send>, complaint: Option<Complaint>) -> io::Result<Self> {
        let (sender, lines) = sync_channel(LOG_BACKLOG_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            sink,
            lost: Arc::clone(&lost),
            complaint,
            is_failing: false,
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&lines))?;
        Ok(Self {
            sender,
            line: Vec::new(),
            lost,
        })
    }
}

impl Write for Backlog {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(data);
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            let lost_before = self.lost.swap(0, Ordering::Relaxed);
            if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Line(line, lost_before)) {
                self.lost.fetch_add(lost_before + 1, Ordering::Relaxed);
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The far end: writes to the sink on a thread of its own.
struct Writer {
    sink: Box<dyn Write + Send>,
    lost: Arc<AtomicU64>,
    complaint: Option<Complaint>,
    /// Whether the last write failed.
    is_failing: bool,
}

/// Where the failure of a log file is reported.
struct Complaint {
    path: PathBuf,
    to: SyncSender<Message>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    // All kept lines are written, so the lost lines came last.
                    self.report_all_lost();
                    match messages.recv() {
                        Ok(message) => {
                            // A thread that logs meanwhile does not have to
                            // wake this one.
                            thread::sleep(LOG_GATHER_TIME);
                            message
                        }
                        Err(_) => return,
                    }
                }
            };
            match message {
                Message::Line(line, lost_before) => {
                    self.report_lost(lost_before);
                    if !self.put(&line) {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Message::Flush(done) => {
                    self.report_all_lost();
                    let _ = self.sink.flush();
                    let _ = done.send(());
                }
            }
        }
    }

    fn report_all_lost(&mut self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        self.report_lost(lost);
    }

    /// Writes how many lines are missing, at the place where they are missing.
    fn report_lost(&mut self, lost: u64) {
        if lost == 0 {
            return;
        }
        let line = format!("[WARN] {lost} log lines lost here: they were not taken in time\n");
        if !self.put(line.as_bytes()) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Writes, and reports the first of several failures.
    fn put(&mut self, text: &[u8]) -> bool {
        let outcome = self.sink.write_all(text);
        if let (Err(error), Some(complaint), false) = (&outcome, &self.complaint, self.is_failing) {
            let line = format!(
                "[ERROR] --log-file {}: takes no more lines: {error}; those that are missing are counted\n",
                complaint.path.display()
            );
            // A full backlog has other lines that tell of trouble.
            let _ = complaint.to.try_send(Message::Line(line.into_bytes(), 0));
        }
        self.is_failing = outcome.is_err();
        outcome.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc;

    /// A sink that takes a line only when it is told to.
    struct Gate {
        open: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.taken.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A backlog whose sink is shut, what opens it for a line, and what it took.
    fn behind_a_gate() -> (Backlog, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (open, gate) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = Gate {
            open: gate,
            taken: Arc::clone(&taken),
        };
        (Backlog::start(Box::new(sink), None).unwrap(), open, taken)
    }

    #[test]
    fn a_sink_that_takes_nothing_loses_lines_which_are_counted_and_blocks_nobody() {
        let (mut backlog, open, taken) = behind_a_gate();
        // One line may be in the writer's hands, so lose at least ten.
        let lines = LOG_BACKLOG_LINES + 11;
        for number in 0..lines {
            write!(backlog, "line {number}").unwrap();
            writeln!(backlog).unwrap();
        }
        let lost = backlog.lost.load(Ordering::Relaxed);
        assert!((10..=11).contains(&lost), "{lost} lost");
        for _ in 0..=lines {
            let _ = open.send(());
        }
        let sender = backlog.sender.clone();
        let (done, finished) = mpsc::channel();
        sender.send(Message::Flush(done)).unwrap();
        finished.recv().unwrap();
        let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        assert!(
            text.contains(&format!("{lost} log lines lost")),
            "the count is logged"
        );
        let last = text.lines().last().unwrap();
        assert!(last.contains("log lines lost here"), "{last}: and in its place");
        assert!(text.contains("line 0\n"));
    }

    #[test]
    fn what_waits_in_a_full_backlog_at_the_end_is_still_written() {
        let (mut backlog, open, taken) = behind_a_gate();
        let log = Log {
            backlogs: vec![backlog.sender.clone()],
        };
        let mut lines = 0;
        while backlog.lost.load(Ordering::Relaxed) == 0 {
            writeln!(backlog, "line").unwrap();
            lines += 1;
        }
        let opening = thread::spawn(move || {
            // Late, so that the end of the program finds the backlog full.
            thread::sleep(LOG_FLUSH_TIMEOUT / 5);
            for _ in 0..=lines {
                let _ = open.send(());
            }
            open
        });
        log.finish();
        let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text.matches("line\n").count(),
            lines - 1,
            "the last one found no room"
        );
        assert!(text.contains("[WARN] 1 log lines lost here"), "and is counted");
        drop(opening.join());
    }

    #[test]
    fn a_file_that_fails_counts_what_it_did_not_take_and_is_complained_about_once() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (to, complaints) = sync_channel(8);
        let complaint = Complaint {
            path: "full.log".into(),
            to,
        };
        let mut backlog = Backlog::start(Box::new(Full), Some(complaint)).unwrap();
        writeln!(backlog, "a").unwrap();
        writeln!(backlog, "b").unwrap();
        let (done, finished) = mpsc::channel();
        backlog.sender.send(Message::Flush(done)).unwrap();
        finished.recv().unwrap();
        assert_eq!(backlog.lost.load(Ordering::Relaxed), 2);
        let Ok(Message::Line(line, _)) = complaints.try_recv() else {
            panic!("nobody was told");
        };
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains("--log-file full.log"), "{line}");
        assert!(complaints.try_recv().is_err(), "once is enough");
    }
}
