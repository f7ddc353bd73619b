//! The access log: one line for each answer, in the combined format of other
//! servers, then the bytes of the body that the client acknowledged and how
//! the answer ended.
//!
//! Owns the escaping, and a thread that writes. What a client sends can forge
//! no line. Refuses to wait: beyond a bounded backlog lines are dropped, and
//! how many is logged.

use std::fmt::Debug;
use std::io::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use log::warn;

/// Lines that wait for a slow disk or pipe.
const BACKLOG_LINES: usize = 16 * 1024;

/// Bytes that are written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Longest wait for the last lines at the end of the program.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Where the lines of an access log go: a file, or anything that is written by
/// a thread of its own. `flush` is called between lines, before each batch of
/// them as well: the place to open another file.
pub trait AccessLogWriter: Write + Debug + Send {}

impl<W: Write + Debug + Send> AccessLogWriter for W {}

/// One answer while it is under way.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) peer: Option<IpAddr>,
    pub(super) began: SystemTime,
    pub(super) line: Vec<u8>,
    pub(super) status: u16,
    pub(super) body_bytes: u64,
    pub(super) referer: Vec<u8>,
    pub(super) user_agent: Vec<u8>,
    /// What the client's socket had taken when the body began.
    pub(super) body_from: u64,
}

impl Record {
    /// Whether so many acknowledged bytes, of all that the client was sent,
    /// include the whole answer.
    pub(super) const fn is_whole(&self, acknowledged: u64) -> bool {
        acknowledged >= self.body_from + self.body_bytes
    }
}

/// Writes the lines.
#[derive(Debug)]
pub(super) struct AccessLog {
    lines: Option<SyncSender<String>>,
    dropped: Arc<AtomicU64>,
    /// Disconnected once all is written.
    finished: Mutex<Receiver<()>>,
}

impl AccessLog {
    pub(super) fn start(writer: Box<dyn AccessLogWriter>) -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel::<String>(BACKLOG_LINES);
        let (is_writing, finished) = sync_channel::<()>(0);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        thread::Builder::new().name("access log".into()).spawn(move || {
            write_lines(writer, &waiting, &counter);
            drop(is_writing);
        })?;
        Ok(Self {
            lines: Some(lines),
            dropped,
            finished: Mutex::new(finished),
        })
    }

    /// Adds the line of an answer of which so many bytes were acknowledged, in
    /// all that the client was sent.
    pub(super) fn add(&self, record: &Record, acknowledged: u64, end: &str) {
        let line = record.format(acknowledged.saturating_sub(record.body_from), end);
        if let Some(lines) = &self.lines
            && let Err(TrySendError::Full(_)) = lines.try_send(line)
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = finished.recv_timeout(FLUSH_TIMEOUT);
    }
}

fn write_lines(mut writer: Box<dyn AccessLogWriter>, waiting: &Receiver<String>, dropped: &AtomicU64) {
    let mut is_failing = false;
    while let Ok(mut batch) = waiting.recv() {
        while batch.len() < BATCH_BYTES
            && let Ok(line) = waiting.try_recv()
        {
            batch.push_str(&line);
        }
        let outcome = writer
            .flush()
            .and_then(|()| writer.write_all(batch.as_bytes()))
            .and_then(|()| writer.flush());
        if let Err(error) = &outcome
            && !is_failing
        {
            warn!(event = "access_log_failed"; "cannot write the access log: {error}");
        }
        is_failing = outcome.is_err();
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            warn!(event = "access_log_lines_lost"; "access log: {count} lines dropped, more than {BACKLOG_LINES} were waiting");
        }
    }
}

impl Record {
    fn format(&self, acknowledged_bytes: u64, end: &str) -> String {
        let or_dash = |bytes: &[u8]| {
            if bytes.is_empty() {
                "-".to_owned()
            } else {
                escape(bytes)
            }
        };
        format!(
            "{} - - [{}] \"{}\" {} {} \"{}\" \"{}\" {} \"{}\"\n",
            self.peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
            time(self.began),
            or_dash(&self.line),
            self.status,
            self.body_bytes,
            or_dash(&self.referer),
            or_dash(&self.user_agent),
            acknowledged_bytes.min(self.body_bytes),
            escape(end.as_bytes()),
        )
    }
}

/// `28/Nov/2026:09:00:00 +0000`.
fn time(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    let mut words = date.split(' ').skip(1);
    let mut next = || words.next().unwrap_or("-");
    let (day, month, year, clock) = (next(), next(), next(), next());
    format!("{day}/{month}/{year}:{clock} +0000")
}

/// Quotes, backslashes and all bytes that are not printable ASCII as `\x0a`.
fn escape(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => escaped.push_str(&format!("\\x{byte:02x}")),
            byte => escaped.push(char::from(byte)),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &[u8]) -> Record {
        Record {
            peer: Some([127, 0, 0, 1].into()),
            began: SystemTime::UNIX_EPOCH,
            line: line.to_vec(),
            status: 200,
            body_bytes: 100,
            referer: Vec::new(),
            user_agent: b"a \"quoted\"\nname".to_vec(),
            body_from: 1000,
        }
    }

    #[test]
    fn a_line_has_the_combined_format_then_what_arrived_and_how_it_ended() {
        assert_eq!(
            record(b"GET /a HTTP/1.1").format(40, "write timeout"),
            "127.0.0.1 - - [01/Jan/1970:00:00:00 +0000] \"GET /a HTTP/1.1\" 200 100 \"-\" \
             \"a \\x22quoted\\x22\\x0aname\" 40 \"write timeout\"\n"
        );
    }

    #[test]
    fn no_request_can_forge_a_line() {
        let line = record(b"GET /\r\n1.2.3.4 - - \xff\x1b[31m").format(0, "done");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.is_ascii() && !line.contains('\x1b'), "{line}");
    }

    #[test]
    fn a_log_that_nobody_reads_stalls_nobody() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let log = AccessLog::start(Box::new(writer)).unwrap();
        let record = record(b"GET / HTTP/1.1");
        for _ in 0..2 * BACKLOG_LINES {
            log.add(&record, 0, "done");
        }
        assert!(log.dropped.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = AccessLog::start(Box::new(file.reopen().unwrap())).unwrap();
        for _ in 0..1000 {
            log.add(&record(b"GET / HTTP/1.1"), 1100, "done");
        }
        drop(log);
        let written = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(written.lines().count(), 1000);
        assert!(
            written.lines().all(|line| line.ends_with(" 100 \"done\"")),
            "{written}"
        );
    }
}
