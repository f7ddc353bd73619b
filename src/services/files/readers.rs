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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::{Errno, ReadWriteFlags};

use crate::{ClientId, FileSource, Prepared, Remote};

/// Threads that read cold pages: as many reads as one disk usefully has under
/// way at once.
const READERS: usize = 4;

/// Bytes that are looked at, or fetched, at once.
const WINDOW_BYTES: u64 = 512 * 1024;

/// Distance of the places in a window at which is looked whether they are in
/// memory.
const LOOK_EVERY_BYTES: u64 = 64 * 1024;

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
    file: Arc<Pages>,
    client: ClientId,
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

    /// A file for one client, of which bytes before `end` are to be sent.
    pub(super) fn source(&self, file: File, end: u64, client: ClientId) -> ColdFile {
        ColdFile {
            pages: Arc::new(Pages {
                file,
                warm_until: AtomicU64::new(0),
            }),
            end,
            client,
            shared: self.shared.clone(),
        }
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
        let mut buffer = vec![0; 64 * 1024];
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
            job.fetch(&mut buffer);
            lock(&self.done).push(job.client);
            self.remote.wake();
        }
    }
}

impl Job {
    /// Reads the window. Where reading fails, sending will tell.
    fn fetch(&self, buffer: &mut [u8]) {
        let mut at = self.offset;
        let end = self.offset + WINDOW_BYTES;
        while at < end {
            match self.file.file.read_at(buffer, at) {
                Ok(count @ 1..) => at += count as u64,
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.file.warm_until.store(end, Ordering::Release);
    }
}

#[derive(Debug)]
struct Pages {
    file: File,
    /// Bytes before this offset were seen in memory.
    warm_until: AtomicU64,
}

impl Pages {
    /// Whether the pages from `offset` on are in memory, as far as single
    /// places in them tell.
    fn is_warm(&self, offset: u64, end: u64) -> bool {
        let mut at = offset;
        while at < end {
            if !self.has_page(at) {
                return false;
            }
            at += LOOK_EVERY_BYTES;
        }
        end == offset || self.has_page(end - 1)
    }

    fn has_page(&self, offset: u64) -> bool {
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(&self.file, &mut slices, offset, ReadWriteFlags::NOWAIT);
        // A file system that cannot tell is taken to be fast.
        !matches!(read, Err(Errno::AGAIN))
    }
}

/// A file that is sent only where its pages are in memory.
#[derive(Debug)]
pub(super) struct ColdFile {
    pages: Arc<Pages>,
    end: u64,
    client: ClientId,
    shared: Arc<Shared>,
}

impl ColdFile {
    /// Reads the whole of a small file, if that needs no disk.
    pub(super) fn read_now(&self, buffer: &mut [u8], offset: u64) -> bool {
        let length = buffer.len();
        let mut slices = [IoSliceMut::new(buffer)];
        let read = rustix::io::preadv2(&self.pages.file, &mut slices, offset, ReadWriteFlags::NOWAIT);
        read.is_ok_and(|count| count == length)
    }
}

impl FileSource for ColdFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.pages.file.read_at(buffer, offset)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.pages.file.as_fd())
    }

    fn prepare(&self, offset: u64, length_bytes: u64) -> Prepared {
        let is_shorter = |size: u64| size < self.end;
        if self
            .pages
            .file
            .metadata()
            .map_or(true, |facts| is_shorter(facts.len()))
        {
            return Prepared::Changed;
        }
        let warm_until = self.pages.warm_until.load(Ordering::Acquire);
        if offset + length_bytes <= warm_until {
            return Prepared::Ready(length_bytes);
        }
        if offset < warm_until {
            return Prepared::Ready(warm_until - offset);
        }
        let end = (offset + WINDOW_BYTES).min(self.end);
        if self.pages.is_warm(offset, end) {
            self.pages.warm_until.store(end, Ordering::Release);
            return Prepared::Ready(length_bytes);
        }
        lock(&self.shared.jobs).waiting.push_back(Job {
            file: self.pages.clone(),
            client: self.client,
            offset,
        });
        self.shared.more.notify_one();
        Prepared::Waiting
    }
}
