//! The log as a client: a terminal, pipe or disk that takes lines slowly must
//! not stall the event loop.
//!
//! Owns a bounded backlog of lines and a thread for each sink. A full backlog
//! drops lines and counts them; the count is logged once there is room. Refuses
//! to format: simplelog does.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use highwater::limits::{LOG_BACKLOG_LINES, LOG_FLUSH_TIMEOUT, LOG_GATHER_TIME};

use log::Level;

use super::{LogFormat, file, json};

enum Message {
    /// A line, and the number of lines lost right before it.
    Line(Vec<u8>, u64),
    /// A request to confirm that everything before it is written.
    Flush(Sender<()>),
    /// A request to look whether the file must be opened anew.
    Look,
}

/// What other threads may ask of a sink.
#[derive(Clone)]
pub(super) struct Handle {
    sender: Sender<Message>,
    /// Lines that wait. A channel with a bound of its own would have memory for
    /// all of them from the start.
    waiting: Arc<AtomicUsize>,
    reopen: Arc<AtomicBool>,
    /// Lines lost since the start.
    dropped: Arc<AtomicU64>,
}

impl Handle {
    /// Has the file opened anew before the next line.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        let _ = self.sender.send(Message::Look);
    }

    /// Waits until everything is written, for at most [`LOG_FLUSH_TIMEOUT`].
    pub(super) fn flush(&self) {
        let (done, finished) = channel();
        if self.sender.send(Message::Flush(done)).is_ok() {
            let _ = finished.recv_timeout(LOG_FLUSH_TIMEOUT);
        }
    }

    /// Lines lost since the start.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds a line if there is room: a full backlog has other lines that tell
    /// of trouble.
    fn complain(&self, line: String) {
        self.add(Message::Line(line.into_bytes(), 0));
    }

    /// Adds a line. Answers whether there was room.
    fn add(&self, line: Message) -> bool {
        let one_more = |waiting: usize| (waiting < LOG_BACKLOG_LINES).then_some(waiting + 1);
        let counted = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if counted.is_err() {
            return false;
        }
        // Without a thread behind it nobody reads the log any more.
        let _ = self.sender.send(line);
        true
    }
}

/// The near end: accepts lines from simplelog and never waits.
pub(super) struct Backlog {
    handle: Handle,
    line: Vec<u8>,
    lost: Arc<AtomicU64>,
}

impl Backlog {
    /// Starts the thread that writes to `sink`, which is `file` if that is
    /// given.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        file: Option<LogFile>,
        format: LogFormat,
    ) -> io::Result<Self> {
        let (sender, lines) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let lost = Arc::new(AtomicU64::new(0));
        let reopen = Arc::new(AtomicBool::new(false));
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            sink: Box::new(sink),
            waiting: Arc::clone(&waiting),
            lost: Arc::clone(&lost),
            reopen: Arc::clone(&reopen),
            file,
            is_failing: false,
            format,
            dropped: Arc::clone(&dropped),
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&lines))?;
        Ok(Self {
            handle: Handle {
                sender,
                waiting,
                reopen,
                dropped,
            },
            line: Vec::new(),
            lost,
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Write for Backlog {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(data);
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            let lost_before = self.lost.swap(0, Ordering::Relaxed);
            if !self.handle.add(Message::Line(line, lost_before)) {
                self.lost.fetch_add(lost_before + 1, Ordering::Relaxed);
                self.handle.dropped.fetch_add(1, Ordering::Relaxed);
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
    /// Lines that wait.
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    /// Set when the file must be opened anew.
    reopen: Arc<AtomicBool>,
    file: Option<LogFile>,
    /// Whether the last write failed.
    is_failing: bool,
    format: LogFormat,
    /// Lines lost since the start.
    dropped: Arc<AtomicU64>,
}

/// A log file: its path, and where its failures are reported.
pub(super) struct LogFile {
    path: PathBuf,
    complaints: Handle,
}

impl LogFile {
    pub(super) const fn new(path: PathBuf, complaints: Handle) -> Self {
        Self { path, complaints }
    }

    fn complain(&self, format: LogFormat, sentence: &str) {
        let sentence = format!("--log-file {}: {sentence}", self.path.display());
        self.complaints
            .complain(untimed(format, Level::Error, &sentence, "log_file_failed"));
    }
}

/// A line of the log about itself. As text it has no time.
fn untimed(format: LogFormat, level: Level, sentence: &str, event: &str) -> String {
    match format {
        LogFormat::Text => format!("[{level}] {sentence}\n"),
        LogFormat::Json => json::line(level, sentence, event, ""),
    }
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
            self.reopen_if_asked();
            match message {
                Message::Line(line, lost_before) => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.report_lost(lost_before);
                    if !self.put(&line) {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Message::Flush(done) => {
                    self.report_all_lost();
                    let _ = self.sink.flush();
                    let _ = done.send(());
                }
                Message::Look => {}
            }
        }
    }

    /// Changes to the file that the path leads to now, between two lines. If
    /// it cannot be opened, the old one goes on.
    fn reopen_if_asked(&mut self) {
        if !self.reopen.swap(false, Ordering::Acquire) {
            return;
        }
        let Some(log_file) = &self.file else {
            return;
        };
        let _ = self.sink.flush();
        match file::open(&log_file.path) {
            Ok(opened) => {
                self.sink = Box::new(opened);
                self.is_failing = false;
            }
            Err(error) => log_file.complain(
                self.format,
                &format!("cannot be opened anew: {error}; the lines go on into the file that was open"),
            ),
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
        let sentence = format!("{lost} log lines lost here: they were not taken in time");
        let line = untimed(self.format, Level::Warn, &sentence, "lines_lost");
        if !self.put(line.as_bytes()) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Writes, and reports the first of several failures.
    fn put(&mut self, text: &[u8]) -> bool {
        let outcome = self.sink.write_all(text);
        if let (Err(error), Some(file), false) = (&outcome, &self.file, self.is_failing) {
            file.complain(
                self.format,
                &format!("takes no more lines: {error}; those that are missing are counted"),
            );
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
        (Backlog::start(sink, None, LogFormat::Text).unwrap(), open, taken)
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
        let sender = backlog.handle.sender.clone();
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
        let handle = backlog.handle();
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
        handle.flush();
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
        let (to, complaints) = channel();
        let to = Handle {
            sender: to,
            waiting: Arc::default(),
            reopen: Arc::default(),
            dropped: Arc::default(),
        };
        let log_file = LogFile::new("full.log".into(), to);
        let mut backlog = Backlog::start(Full, Some(log_file), LogFormat::Text).unwrap();
        writeln!(backlog, "a").unwrap();
        writeln!(backlog, "b").unwrap();
        let (done, finished) = mpsc::channel();
        backlog.handle.sender.send(Message::Flush(done)).unwrap();
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
