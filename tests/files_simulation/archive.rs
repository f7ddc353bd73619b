//! A service that sends files of a disk that is simulated too: pages that are
//! not in memory, and files that become shorter. It speaks the few words of
//! HTTP that the readers of this simulation say.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use highwater::engine::FileSource;
use highwater::{Actions, ClientId, CloseReason, FilePart, Prepared, Service};

use crate::reader::byte_at;

/// Bytes that are fetched at once.
const WINDOW_BYTES: u64 = 8 * 1024;

/// The files, and whose pages are being fetched.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) sizes: Vec<u64>,
    pub(crate) fetching: Vec<ClientId>,
    random: fastrand::Rng,
}

pub(crate) type SharedDisk = Arc<Mutex<Disk>>;

pub(crate) fn disk(sizes: Vec<u64>, seed: u64) -> SharedDisk {
    Arc::new(Mutex::new(Disk {
        sizes,
        fetching: Vec::new(),
        random: fastrand::Rng::with_seed(seed),
    }))
}

#[derive(Debug)]
struct Source {
    disk: SharedDisk,
    client: ClientId,
    file: usize,
    end: u64,
    /// Bytes before this offset are in memory.
    warm_until: Mutex<u64>,
}

impl FileSource for Source {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.disk.lock().unwrap().sizes[self.file];
        let count = size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for (index, byte) in buffer[..count].iter_mut().enumerate() {
            *byte = byte_at(self.file, offset + index as u64);
        }
        Ok(count)
    }

    fn prepare(&self, offset: u64, length_bytes: u64) -> Prepared {
        let mut disk = self.disk.lock().unwrap();
        if disk.sizes[self.file] < self.end && disk.random.bool() {
            return Prepared::Changed;
        }
        let mut warm_until = self.warm_until.lock().unwrap();
        if offset >= *warm_until {
            *warm_until = (offset / WINDOW_BYTES + 1) * WINDOW_BYTES;
            if disk.random.u8(..3) == 0 {
                disk.fetching.push(self.client);
                return Prepared::Waiting;
            }
        }
        Prepared::Ready((*warm_until - offset).min(length_bytes))
    }
}

/// Answers `GET /N` with file N.
pub(crate) struct Archive {
    pub(crate) disk: SharedDisk,
    received: HashMap<ClientId, Vec<u8>>,
    is_answering: RefCell<HashMap<ClientId, bool>>,
}

impl Archive {
    pub(crate) fn new(disk: SharedDisk) -> Self {
        Self {
            disk,
            received: HashMap::new(),
            is_answering: RefCell::default(),
        }
    }

    fn serve(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let received = self.received.entry(client).or_default();
        let is_answering = *self.is_answering.borrow().get(&client).unwrap_or(&false);
        let end = received.windows(4).position(|word| word == b"\r\n\r\n");
        if let (false, Some(end)) = (is_answering, end) {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            let head = String::from_utf8(head).unwrap();
            let name = head.split(' ').nth(1).unwrap();
            self.answer(client, name[1..].parse().unwrap(), actions);
        }
    }

    fn answer(&mut self, client: ClientId, file: usize, actions: &mut Actions<'_>) {
        let size = self.disk.lock().unwrap().sizes[file];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        let source = Arc::new(Source {
            disk: self.disk.clone(),
            client,
            file,
            end: size,
            warm_until: Mutex::new(0),
        });
        let half = size / 2;
        let part = |offset, length_bytes| FilePart {
            source: source.clone(),
            offset,
            length_bytes,
        };
        let parts = vec![
            FilePart::memory(head.into_bytes()),
            part(0, half),
            part(half, size - half),
        ];
        self.is_answering.borrow_mut().insert(client, true);
        actions.pause(client);
        actions.send_file(client, parts);
    }
}

impl Service for Archive {
    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        self.received.entry(client).or_default().extend_from_slice(data);
        self.serve(client, actions);
    }

    fn file_sent(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.is_answering.borrow_mut().insert(client, false);
        actions.resume(client);
        self.serve(client, actions);
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        let mut disk = self.disk.lock().unwrap();
        let count = disk.fetching.len();
        if count > 0 {
            let done = disk.random.usize(1..=count);
            for client in disk.fetching.drain(..done) {
                actions.resume_file(client);
            }
        }
    }

    fn closed(&mut self, client: ClientId, _: &CloseReason, _: &mut Actions<'_>) {
        self.received.remove(&client);
        self.is_answering.borrow_mut().remove(&client);
    }
}
