//! Pages that are not in memory: fetched by threads, so that the event loop
//! never waits for a disk.
//!
//! Owns the threads, and the list of clients whose pages have come. Refuses to
//! keep what was read: the page cache of the kernel has it then.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use rustix::io::{Errno, ReadWriteFlags};

use crate::{ClientId, FileSource, Prepared, Remote};

/// Threads that read cold pages: as many reads as one disk usefully has under
/// way at once.
const READERS: usize = 4;

/// Bytes that are looked at, or fetched, at once. Windows lie at multiples of
/// this: clients of one file fetch the same ones, and leave no holes in them.
const WINDOW_BYTES: u64 = 512 * 1024;

/// Distance of the places in a window at which is looked whether they are in
/// memory.
const LOOK_EVERY_BYTES: u64 = 64 * 1024;

/// File systems that have all in memory: tmpfs and ramfs (statfs(2)).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Threads that fetch pages, for all clients of one server.
#[derive(Debug)]
pub(super) struct Readers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    jobs: Mutex<Jobs>,
    more: Condvar,
    done: Mutex<Vec<ClientId>>,
    remote: Remote,
}

#[derive(Debug, Default)]
struct Jobs {
    /// At most one for each client.
    waiting: VecDeque<Job>,
    is_over: bool,
}

#[derive(Debug)]
struct Job {
    file: Arc<ColdFile>,
    offset: u64,
}

/// A panic of another thread leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    pub(super) fn start(remote: Remote) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            jobs: Mutex::default(),
            more: Condvar::new(),
            done: Mutex::default(),
            remote,
        });
        for number in 0..READERS {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("reader {number}"))
                .spawn(move || shared.work())?;
        }
        Ok(Self { shared })
    }

    /// Clients whose pages have come since the last call.
    pub(super) fn take_done(&self) -> Vec<ClientId> {
        std::mem::take(&mut lock(&self.shared.done))
    }

    /// A file for one client.
    pub(super) fn source(&self, file: File, client: ClientId) -> Arc<ColdFile> {
        Arc::new_cyclic(|itself| ColdFile {
            itself: itself.clone(),
            file,
            warm: Warm(AtomicU64::new(Warm::NOTHING)),
            client,
            shared: self.shared.clone(),
        })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        lock(&self.shared.jobs).is_over = true;
        self.shared.more.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut buffer = Vec::new();
        loop {
            let mut jobs = lock(&self.jobs);
            let job = loop {
                if jobs.is_over {
                    return;
                }
                match jobs.waiting.pop_front() {
                    Some(job) => break job,
                    None => jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(jobs);
            // Nobody else has the file: its client is gone.
            if Arc::strong_count(&job.file) == 1 {
                continue;
            }
            // Where nothing is ever cold, the threads need no memory.
            buffer.resize(64 * 1024, 0);
            job.fetch(&mut buffer);
            lock(&self.done).push(job.file.client);
            self.remote.wake();
        }
    }
}

impl Job {
    /// Reads the window. Where reading fails, sending will tell.
    fn fetch(&self, buffer: &mut [u8]) {
        let mut at = self.offset;
        let end = window_end(self.offset);
        while at < end {
            match self.file.file.read_at(buffer, at) {
                Ok(count @ 1..) => at += count as u64,
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.file.warm.set(self.offset, true);
    }
}

/// Where the window around `offset` ends.
const fn window_end(offset: u64) -> u64 {
    (offset / WINDOW_BYTES + 1) * WINDOW_BYTES
}

/// A file that is sent to one client, only where its pages are in memory. There
/// may be thousands, each under way for minutes: it is kept small.
#[derive(Debug)]
pub(super) struct ColdFile {
    /// For the jobs.
    itself: Weak<Self>,
    file: File,
    warm: Warm,
    client: ClientId,
    shared: Arc<Shared>,
}

/// Bytes that were in memory when they were looked at last, or fetched: from an
/// offset up to the end of its window. In one number: twice the offset, and one
/// more while nothing of them was sent yet.
#[derive(Debug)]
struct Warm(AtomicU64);

impl Warm {
    const NOTHING: u64 = u64::MAX;

    fn set(&self, from: u64, is_new: bool) {
        self.0.store(from << 1 | u64::from(is_new), Ordering::Release);
    }

    /// Whether the bytes from `offset` on are among them. The second answer
    /// says that nothing of them was sent before.
    fn take(&self, offset: u64) -> (bool, bool) {
        let warm = self.0.load(Ordering::Acquire);
        let from = warm >> 1;
        let is_in = warm != Self::NOTHING && (from..window_end(from)).contains(&offset);
        if is_in {
            self.set(from, false);
        }
        (is_in, warm & 1 == 1)
    }
}

/// Whether a page is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    There,
    NotThere,
    /// The file system cannot tell: overlays, network file systems, FUSE.
    Unknown,
}

impl ColdFile {
    /// Looks at the page at `offset`.
    fn look(&self, offset: u64) -> Presence {
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(&self.file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => Presence::NotThere,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if is_in_memory(&self.file) => {
                Presence::There
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Presence::Unknown,
            // What else is wrong, sending will tell.
            _ => Presence::There,
        }
    }

    /// How many bytes from `offset` on can be sent without waiting for a disk,
    /// as far as single places tell.
    fn ready_bytes(&self, offset: u64) -> u64 {
        let end = window_end(offset);
        // A slow client may come back when its pages are gone again. But what
        // was fetched just now is sent, though memory is so short that pages go
        // as fast as they come.
        let (is_warm, is_new) = self.warm.take(offset);
        if is_warm && (is_new || self.look(offset) != Presence::NotThere) {
            return end - offset;
        }
        let mut places = (offset..end).step_by(LOOK_EVERY_BYTES as usize).chain([end - 1]);
        if !places.all(|place| self.look(place) == Presence::There) {
            return 0;
        }
        self.warm.set(offset, false);
        end - offset
    }
}

/// Whether the file system of a file has all of it in memory.
fn is_in_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|facts| IN_MEMORY.contains(&(facts.f_type as u64)))
}

/// Reads from a file as much as `buffer` holds, if that needs no disk.
pub(super) fn read_now(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    let length = buffer.len();
    let mut slices = [IoSliceMut::new(buffer)];
    match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(count) => count == length,
        Err(Errno::OPNOTSUPP) if is_in_memory(file) => file.read_exact_at(buffer, offset).is_ok(),
        Err(_) => false,
    }
}

impl FileSource for ColdFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn prepare(&self, offset: u64, length_bytes: u64) -> Prepared {
        let ready_bytes = self.ready_bytes(offset);
        if ready_bytes > 0 {
            return Prepared::Ready(ready_bytes.min(length_bytes));
        }
        if let Some(file) = self.itself.upgrade() {
            lock(&self.shared.jobs).waiting.push_back(Job { file, offset });
        }
        self.shared.more.notify_one();
        Prepared::Waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Echo;
    use crate::{EventLoop, Limits};
    use rustix::fs::{Advice, fadvise};

    /// A file, and the readers that would fetch its pages.
    fn cold(file: File) -> (Arc<ColdFile>, Readers) {
        let address = ([127, 0, 0, 1], 0).into();
        let event_loop = EventLoop::listen(address, Limits::default(), Echo).unwrap();
        let readers = Readers::start(event_loop.remote()).unwrap();
        (readers.source(file, ClientId::from_token(1)), readers)
    }

    fn fetch(file: &Arc<ColdFile>, offset: u64) {
        let file = file.clone();
        Job { file, offset }.fetch(&mut vec![0; 64 * 1024]);
    }

    #[test]
    fn a_file_under_way_takes_little_memory() {
        // With the two counts of its `Arc`, 56 bytes: what the allocator has a
        // size for.
        assert!(size_of::<ColdFile>() <= 40, "{}", size_of::<ColdFile>());
    }

    #[test]
    fn pages_that_a_disk_has_are_fetched_window_by_window() {
        let named = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(named.path(), vec![1; 2 * WINDOW_BYTES as usize]).unwrap();
        let (file, _readers) = cold(named.reopen().unwrap());
        assert_eq!(
            file.ready_bytes(1000),
            WINDOW_BYTES - 1000,
            "just written, so in memory"
        );
        file.file.sync_all().unwrap();
        fadvise(&file.file, 0, None, Advice::DontNeed).unwrap();
        if file.look(1000) == Presence::There {
            eprintln!(
                "skipped: the file system of {} keeps all in memory",
                named.path().display()
            );
            return;
        }
        assert_eq!(
            file.ready_bytes(1000),
            0,
            "they are gone, and were seen there before"
        );
        fetch(&file, 1000);
        assert_eq!(file.ready_bytes(1000), WINDOW_BYTES - 1000);
        let next = WINDOW_BYTES + WINDOW_BYTES / 2;
        fadvise(&file.file, next, None, Advice::DontNeed).unwrap();
        assert_eq!(
            file.ready_bytes(WINDOW_BYTES),
            0,
            "the end of its window is not there"
        );
        fetch(&file, WINDOW_BYTES);
        fadvise(&file.file, 0, None, Advice::DontNeed).unwrap();
        assert_eq!(
            file.ready_bytes(WINDOW_BYTES),
            WINDOW_BYTES,
            "what was fetched is sent once"
        );
        assert_eq!(file.ready_bytes(WINDOW_BYTES + 1), 0, "and then looked at again");
    }

    #[test]
    fn where_the_file_system_cannot_tell_every_window_is_fetched_first() {
        let (file, _readers) = cold(File::open("/proc/self/status").unwrap());
        assert_eq!(file.look(0), Presence::Unknown);
        assert_eq!(file.ready_bytes(0), 0);
        fetch(&file, 0);
        assert_eq!(file.ready_bytes(0), WINDOW_BYTES);
        assert_eq!(file.ready_bytes(100), WINDOW_BYTES - 100);
        assert_eq!(file.ready_bytes(WINDOW_BYTES), 0, "the next window");
    }
}
