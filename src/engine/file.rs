//! What a client can be sent without passing through a queue.
//!
//! Owns the trait of a file, and the parts that an answer is made of. Refuses
//! to open files: a service does that.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes at fixed offsets that the engine sends piece by piece, as the socket
/// has room: a file, or a piece of memory.
pub trait FileSource: fmt::Debug + Send + Sync {
    /// Copies bytes from `offset` on into `buffer`; answers how many. Zero
    /// says that the file ends before `offset`.
    ///
    /// # Errors
    ///
    /// As pread(2) has them.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// A descriptor from which the kernel can send by itself; `None` for
    /// memory.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Asked before `length_bytes` from `offset` on are sent.
    fn prepare(&self, offset: u64, length_bytes: u64) -> Prepared {
        let _ = offset;
        Prepared::Ready(length_bytes)
    }
}

/// Whether the next bytes of a file can be sent without waiting for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// So many bytes can be sent now; at least one.
    Ready(u64),
    /// They are being fetched. The service calls
    /// [`Actions::resume_file`](super::Actions::resume_file) when they are there.
    Waiting,
    /// The file is not what it was when the answer began. The client is
    /// disconnected, so that the answer cannot look whole.
    Changed,
}

/// Bytes of a source that make up a part of an answer.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// Where they are.
    pub source: Arc<dyn FileSource>,
    /// Offset of the first byte.
    pub offset: u64,
    /// How many; may be 0.
    pub length_bytes: u64,
}

/// A piece of memory as a source.
#[derive(Debug)]
struct Memory(Box<[u8]>);

impl FileSource for Memory {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let rest = &self.0[from..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl FilePart {
    /// A part that is in memory already.
    #[must_use]
    pub fn memory(bytes: impl Into<Box<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            offset: 0,
            length_bytes: bytes.len() as u64,
            source: Arc::new(Memory(bytes)),
        }
    }
}
