//! A disk that does not answer holds up those who wait for it, and nobody else.
//!
//! The disk is a file system of this test: it answers a read when the test lets
//! it. So no time is measured: whoever waits for the disk by mistake waits for
//! ever.

use std::ffi::OsStr;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen,
    Request,
};

use crate::client::{Client, Site};
use crate::support::{pattern_at, wait_until};

const FILE: INodeNo = INodeNo(2);
/// Names are known for so long.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What each slow client asks for: a window of its own.
const WINDOW_BYTES: usize = 512 * 1024;
const SLOW_CLIENTS: usize = 100;
/// Threads that read for all clients.
const READERS: usize = 4;
/// Answers of the warm file while the disk stands still.
const WARM_ANSWERS: usize = 500;

/// A read that is not answered yet.
type Held = (ReplyData, usize, usize);

#[derive(Default)]
struct Gate {
    is_open: bool,
    held: Vec<Held>,
    /// The most reads that waited at a time.
    most_held: usize,
}

fn answer((reply, offset, length): Held) {
    let until = (offset + length).min(SLOW_CLIENTS * WINDOW_BYTES);
    reply.data(&pattern_at(offset, until - offset));
}

/// A file system with one large file.
struct Disk(Arc<Mutex<Gate>>);

fn attributes(inode: INodeNo) -> FileAttr {
    let is_file = inode == FILE;
    FileAttr {
        ino: inode,
        size: (SLOW_CLIENTS * WINDOW_BYTES) as u64,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_file {
            FileType::RegularFile
        } else {
            FileType::Directory
        },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Disk {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // What is asked for is read, and no more.
        let _ = config.set_max_readahead(1);
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_READ);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == "cold.bin" {
            true => reply.entry(&REMEMBERED, &attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&REMEMBERED, &attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Or each open would wait for the reads under way, to drop their pages.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut gate = self.0.lock().unwrap();
        let read = (reply, offset as usize, size as usize);
        if gate.is_open {
            return answer(read);
        }
        gate.held.push(read);
        gate.most_held = gate.most_held.max(gate.held.len());
    }
}

/// The disk while it is there.
struct Mounted {
    gate: Arc<Mutex<Gate>>,
    _session: BackgroundSession,
}

impl Mounted {
    fn open_gate(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.is_open = true;
        gate.held.drain(..).for_each(answer);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Also after a failure, so that nobody waits in the kernel for ever.
        self.open_gate();
    }
}

/// Mounts the disk at a folder of the site; `None` where that may not be.
fn mount(site: &Site) -> Option<Mounted> {
    let folder = site.path().join("disk");
    fs::create_dir(&folder).unwrap();
    let gate = Arc::<Mutex<Gate>>::default();
    match fuser::spawn_mount(Disk(gate.clone()), &folder, &Config::default()) {
        Ok(session) => Some(Mounted {
            gate,
            _session: session,
        }),
        Err(error) => {
            eprintln!("skipped: no file system can be mounted here: {error}");
            None
        }
    }
}

#[test]
fn readers_of_warm_files_are_served_while_a_disk_answers_nobody() {
    let site = Site::small(&[]);
    let Some(disk) = mount(&site) else { return };
    let mut slow: Vec<Client> = (0..SLOW_CLIENTS).map(|_| site.client()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        let (first, end) = (number * WINDOW_BYTES, (number + 1) * WINDOW_BYTES);
        client.send(&format!(
            "GET /disk/cold.bin HTTP/1.1\r\nHost: a\r\nRange: bytes={first}-{}\r\n\r\n",
            end - 1
        ));
    }
    wait_until("every reader waits for the disk", || {
        disk.gate.lock().unwrap().held.len() >= READERS
    });
    let mut warm: Vec<Client> = (0..4).map(|_| site.client()).collect();
    for number in 0..WARM_ANSWERS {
        let client = &mut warm[number % 4];
        client.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().body, b"0123456789");
    }
    let newcomer = site.get("/small.txt", "");
    assert_eq!(newcomer.status, 200, "also one that comes now");
    assert_eq!(
        disk.gate.lock().unwrap().most_held,
        READERS,
        "a disk has a bounded number of reads under way"
    );
    disk.open_gate();
    for (number, client) in slow.iter_mut().enumerate() {
        let answer = client.answer();
        assert_eq!(answer.status, 206);
        assert!(
            answer.body == pattern_at(number * WINDOW_BYTES, WINDOW_BYTES),
            "the bytes of client {number}"
        );
    }
}
