//! The folder that is served, and opening beneath it.
//!
//! Owns the promise that nobody gets out: every open is relative to the
//! folder, and the kernel refuses whatever would leave it (openat2(2),
//! `RESOLVE_BENEATH`). Refuses devices, FIFOs and sockets.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Times that an open is tried again when a rename elsewhere disturbed it.
const OPEN_TRIES: usize = 4;

/// Most entries of a folder that are listed.
const MAX_LISTED: usize = 10_000;

/// A folder that is served.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
}

/// What stands at a path.
#[derive(Debug)]
pub(super) enum Found {
    File(File, Facts),
    Folder(OwnedFd),
}

/// Why nothing can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is nothing, or nothing that may be seen.
    NotFound,
    /// It is there, and may not be read.
    Forbidden,
    /// Descriptors or memory ran out.
    Exhausted,
}

/// What the answer says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) size_bytes: u64,
    pub(super) modified: SystemTime,
    inode: u64,
}

/// One line of a listing.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) is_folder: bool,
    pub(super) size_bytes: u64,
    pub(super) modified: SystemTime,
}

impl Facts {
    fn of(stat: &Stat) -> Self {
        Self {
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified: modified(stat),
            inode: stat.st_ino,
        }
    }

    /// A strong entity tag: size, time of change in nanoseconds, and inode.
    pub(super) fn etag(&self) -> String {
        let since_epoch = self.modified.duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = since_epoch.unwrap_or_default().as_nanos();
        format!("\"{:x}-{nanoseconds:x}-{:x}\"", self.size_bytes, self.inode)
    }
}

fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

impl From<Errno> for Missing {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ACCESS | Errno::PERM => Self::Forbidden,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Self::Exhausted,
            _ => Self::NotFound,
        }
    }
}

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    ///
    /// It is not there, is no folder, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens what stands at `path`, which has no `..` and no slash in front.
    pub(super) fn find(&self, path: &[u8]) -> Result<Found, Missing> {
        let path = if path.is_empty() { b"." } else { path };
        let opened = match self.open_beneath(path) {
            Err(Errno::NOSYS) => self.open_step_by_step(path),
            other => other,
        }?;
        let stat = rustix::fs::fstat(&opened)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Found::File(File::from(opened), Facts::of(&stat))),
            FileType::Directory => Ok(Found::Folder(opened)),
            _ => Err(Missing::NotFound),
        }
    }

    fn open_beneath(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut outcome = Err(Errno::AGAIN);
        for _ in 0..OPEN_TRIES {
            outcome = rustix::fs::openat2(&self.root, path, FLAGS, Mode::empty(), resolve);
            if !matches!(outcome, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        outcome
    }

    /// For kernels before Linux 5.6: each name by itself, and no symbolic link
    /// at all.
    fn open_step_by_step(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?;
        for name in path.split(|&byte| byte == b'/') {
            if name == b".." {
                return Err(Errno::NOENT);
            }
            at = rustix::fs::openat(&at, name, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(at)
    }
}

/// A FIFO without a writer must not block the open.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// What is in a folder, folders first, by name; and whether that is all.
/// Symbolic links and special files are left out.
pub(super) fn list(folder: impl AsFd, shows_hidden: bool) -> Result<(Vec<Entry>, bool), Missing> {
    let mut entries = Vec::new();
    let mut is_all = true;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || (name.starts_with(b".") && !shows_hidden) {
            continue;
        }
        if entries.len() == MAX_LISTED {
            is_all = false;
            break;
        }
        let Ok(stat) = rustix::fs::statat(&folder, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if matches!(kind, FileType::RegularFile | FileType::Directory) {
            entries.push(Entry {
                name: name.to_vec(),
                is_folder: kind == FileType::Directory,
                size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
                modified: modified(&stat),
            });
        }
    }
    entries.sort_by(|a, b| (!a.is_folder, &a.name).cmp(&(!b.is_folder, &b.name)));
    Ok((entries, is_all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn missing(folder: &Folder, path: &str) -> Missing {
        folder.find(path.as_bytes()).unwrap_err()
    }

    #[test]
    fn nothing_outside_the_folder_is_opened_by_either_way() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::write(root.join("in/file"), "12345").unwrap();
        symlink(outside.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        symlink("in/file", root.join("inside")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let folder = Folder::open(&root).unwrap();
        for path in [
            "../secret",
            "in/../../secret",
            "/etc/passwd",
            "absolute",
            "relative",
            "magic/etc/passwd",
        ] {
            assert_eq!(missing(&folder, path), Missing::NotFound, "{path}");
            assert!(folder.open_step_by_step(path.as_bytes()).is_err(), "{path}");
        }
        for path in ["in/file", "inside"] {
            let found = folder.find(path.as_bytes()).unwrap();
            assert!(
                matches!(found, Found::File(_, facts) if facts.size_bytes == 5),
                "{path}"
            );
        }
        assert!(folder.open_step_by_step(b"in/file").is_ok());
        assert!(matches!(folder.find(b""), Ok(Found::Folder(_))));
        assert_eq!(missing(&folder, "in/file/"), Missing::NotFound);
        assert_eq!(missing(&folder, &"a/".repeat(4000)), Missing::NotFound);
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let root = tempfile::tempdir().unwrap();
        let fifo = root.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        let folder = Folder::open(root.path()).unwrap();
        assert_eq!(missing(&folder, "fifo"), Missing::NotFound);
        assert_eq!(missing(&folder, "socket"), Missing::NotFound);
        let (entries, is_all) = list(&folder.root, true).unwrap();
        assert!(entries.is_empty() && is_all, "{entries:?}");
    }

    #[test]
    fn a_changed_file_has_another_tag() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let folder = Folder::open(root.path()).unwrap();
        let tag = |text: &str| {
            let other = root.path().join("new");
            std::fs::write(&other, text).unwrap();
            std::fs::rename(&other, &path).unwrap();
            match folder.find(b"file").unwrap() {
                Found::File(_, facts) => facts.etag(),
                Found::Folder(_) => panic!("a file"),
            }
        };
        let first = tag("one");
        assert_ne!(first, tag("two"), "the same size");
    }
}
