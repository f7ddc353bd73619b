//! Opening a log file without waiting for anybody, and opening it anew.
//!
//! A write may wait: it belongs to a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use log::warn;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Opens `path` for appending, and creates the file if there is none.
///
/// Two kinds of path would make open(2) wait: a FIFO waits for somebody who
/// reads it, and a device for its line. A FIFO is opened for reading too, which
/// waits for nobody (fifo(7)): its first 64 KiB then wait for a reader.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let is_fifo = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    let no_wait = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(is_fifo)
        .custom_flags(no_wait.bits().cast_signed())
        .open(path)?;
    // From here on a write may wait: it has a thread of its own.
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// How often files were to be opened anew. Signals are the process's, and so
/// is this.
static REOPENS: AtomicUsize = AtomicUsize::new(0);

/// Whether there is a [`RotatedFile`].
static HAS_ROTATED: AtomicBool = AtomicBool::new(false);

/// Has every [`RotatedFile`] opened anew before its next lines. Answers whether
/// there is one.
pub(super) fn reopen_rotated() -> bool {
    REOPENS.fetch_add(1, Ordering::Relaxed);
    has_rotated()
}

/// Whether there is a [`RotatedFile`].
pub(super) fn has_rotated() -> bool {
    HAS_ROTATED.load(Ordering::Relaxed)
}

/// A log file of its own, beside the log of the program. `flush` opens it anew
/// if a signal asked for that: programs that rotate logs rename it first.
#[derive(Debug)]
pub(crate) struct RotatedFile {
    path: PathBuf,
    file: File,
    reopens: usize,
}

impl RotatedFile {
    /// Opens `path` for appending.
    ///
    /// # Errors
    ///
    /// As open(2) has them.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        HAS_ROTATED.store(true, Ordering::Relaxed);
        Ok(Self {
            path: path.to_owned(),
            reopens: REOPENS.load(Ordering::Relaxed),
            file: open(path)?,
        })
    }
}

impl Write for RotatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let reopens = REOPENS.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.reopens, reopens) != reopens {
            match open(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => warn!(
                    "{}: cannot be opened anew: {error}; lines go on to the old file",
                    self.path.display()
                ),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_fifo_that_nobody_reads_is_opened_at_once_and_keeps_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let mut log = open(&path).unwrap();
        log.write_all(b"kept").unwrap();
        let mut reader = File::open(&path).unwrap();
        let mut read = [0; 4];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"kept");
    }

    #[test]
    fn a_file_is_appended_to_and_a_directory_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "before ").unwrap();
        open(&path).unwrap().write_all(b"after").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before after");
        assert!(open(directory.path()).is_err());
    }
}
