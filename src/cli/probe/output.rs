//! Files of a report: written whole, once there is a result, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file of the report. It appears under its name when it is complete; until then the
/// bytes are in a hidden file beside it, which vanishes when nothing comes of them.
pub(super) struct WholeFile {
    path: PathBuf,
    /// `None` where the name is that of a device or a pipe, which cannot be replaced.
    hidden: Option<PathBuf>,
}

impl WholeFile {
    /// Sees whether the file can be written, so that nobody waits for a probe to learn that it
    /// cannot.
    ///
    /// # Errors
    ///
    /// One sentence that names the file.
    pub(super) fn prepare(path: &Path) -> Result<Self, String> {
        let refuse = |why: &dyn std::fmt::Display| format!("cannot write {}: {why}", path.display());
        let name = path.file_name().ok_or_else(|| refuse(&"it has no name"))?;
        let whole = |hidden| Self {
            path: path.to_owned(),
            hidden,
        };
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => return Err(refuse(&"it is a directory")),
            Ok(there) if !there.is_file() => return Ok(whole(None)),
            // The old file stays until the new one is complete, but must be ours to write.
            Ok(_) => drop(
                OpenOptions::new()
                    .append(true)
                    .open(path)
                    .map_err(|error| refuse(&error))?,
            ),
            Err(_) => {}
        }
        // What a link leads to is replaced, and not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let hidden =
            target.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        File::create(&hidden).map_err(|error| refuse(&error))?;
        Ok(Self {
            path: target,
            hidden: Some(hidden),
        })
    }

    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// One sentence that names the file; nothing of it stays.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), String> {
        let written = match &self.hidden {
            None => OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|mut file| file.write_all(bytes)),
            Some(hidden) => File::create(hidden)
                .and_then(|mut file| file.write_all(bytes))
                .and_then(|()| fs::rename(hidden, &self.path)),
        };
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // After a rename there is none.
            let _ = fs::remove_file(hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        fs::write(&path, "old").unwrap();
        let file = WholeFile::prepare(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        drop(file);
        assert_eq!(names(directory.path()), ["report.json"], "nothing came of it");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        WholeFile::prepare(&path).unwrap().write(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(directory.path()), ["report.json"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_before_anything_else() {
        let refusal = WholeFile::prepare(Path::new("/nonexistent/x.json"))
            .map(|_| ())
            .unwrap_err();
        assert!(refusal.contains("/nonexistent/x.json"), "{refusal}");
        let directory = tempfile::tempdir().unwrap();
        assert!(WholeFile::prepare(directory.path()).is_err());
        WholeFile::prepare(Path::new("/dev/null"))
            .unwrap()
            .write(b"x")
            .unwrap();
        assert!(fs::metadata("/dev/null").unwrap().len() == 0);
    }
}
