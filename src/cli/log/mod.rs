//! The log of a server: to standard error, and to a file.
//!
//! Owns its start, its end, and the reopening of the file. Refuses to write:
//! each sink has a [`backlog`] and a thread of its own. What clients can cause
//! at will is bounded by [`repeats`].

mod backlog;
mod file;
mod json;
mod repeats;

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use log::LevelFilter;
use simplelog::{CombinedLogger, Config, ConfigBuilder, SharedLogger, WriteLogger};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use backlog::{Backlog, Handle, LogFile};
pub(crate) use file::RotatedFile;
use json::JsonLogger;
use repeats::LimitedLogger;

/// The time of a line: RFC 3339, in UTC, with milliseconds.
const TIME: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A sentence for people.
    Text,
    /// An object for programs.
    Json,
}

/// The running log. Keep it to the end of the program, then call
/// [`finish`](Self::finish).
#[derive(Clone)]
pub(crate) struct Log {
    standard_error: Handle,
    file: Option<Handle>,
    limited: &'static LimitedLogger,
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

impl Log {
    /// Starts the log of this program: to standard error, and appended to
    /// `file` if one is given. At most `lines_per_second` lines of one kind are
    /// written, and the others summed up; 0 writes all.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the program has a log already.
    pub(crate) fn start(
        level: LevelFilter,
        format: LogFormat,
        file: Option<&Path>,
        lines_per_second: usize,
    ) -> Result<Self, LogError> {
        let to_standard_error = Backlog::start(io::stderr(), None, format).map_err(LogError::Thread)?;
        let standard_error = to_standard_error.handle();
        let mut sinks = vec![to_standard_error];
        let mut file_handle = None;
        if let Some(path) = file {
            let opened = file::open(path).map_err(|error| LogError::File(path.to_owned(), error))?;
            let log_file = LogFile::new(path.to_owned(), standard_error.clone());
            let to_file = Backlog::start(opened, Some(log_file), format).map_err(LogError::Thread)?;
            file_handle = Some(to_file.handle());
            sinks.push(to_file);
        }
        let limited = LimitedLogger::start(CombinedLogger::new(loggers(format, sinks)), lines_per_second);
        let limited = limited.map_err(LogError::Thread)?;
        log::set_logger(limited).map_err(|_| LogError::Taken)?;
        log::set_max_level(level);
        Ok(Self {
            standard_error,
            file: file_handle,
            limited,
        })
    }

    /// Whether there is a file that can be opened anew: this log's own, or a
    /// [`RotatedFile`].
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some() || file::has_rotated()
    }

    /// Logs this level and those above it from here on.
    pub(crate) fn set_level(level: LevelFilter) {
        log::set_max_level(level);
    }

    /// Lines that the sinks have lost so far.
    pub(crate) fn dropped_lines(&self) -> u64 {
        let sinks = self.file.iter().chain([&self.standard_error]);
        sinks.map(Handle::dropped_lines).sum()
    }

    /// Has the log files opened anew before the next line is written to them.
    /// Answers whether there is one. Never waits.
    pub(crate) fn reopen(&self) -> bool {
        let is_reopened = file::reopen_rotated();
        if let Some(file) = &self.file {
            file.reopen();
        }
        self.file.is_some() || is_reopened
    }

    /// Waits until all lines are written, for at most
    /// [`LOG_FLUSH_TIMEOUT`](highwater::limits::LOG_FLUSH_TIMEOUT) per sink: a
    /// terminal that nobody reads does not keep the program from ending.
    pub(crate) fn finish(&self) {
        self.limited.sum_up();
        // Standard error last, since it may have to report the file.
        for sink in self.file.iter().chain([&self.standard_error]) {
            sink.flush();
        }
    }
}

/// Writes to the sinks. The level is that of the whole log.
fn loggers(format: LogFormat, sinks: Vec<Backlog>) -> Vec<Box<dyn SharedLogger>> {
    let text = |sink| -> Box<dyn SharedLogger> { WriteLogger::new(LevelFilter::Trace, config(), sink) };
    match format {
        LogFormat::Text => sinks.into_iter().map(text).collect(),
        LogFormat::Json => {
            let sinks = sinks
                .into_iter()
                .map(|sink| -> Box<dyn io::Write + Send> { Box::new(sink) });
            vec![JsonLogger::new(sinks.collect())]
        }
    }
}

fn config() -> Config {
    let mut builder = ConfigBuilder::new();
    builder
        .set_time_format_custom(TIME)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .add_filter_allow_str("highwater");
    builder.build()
}
