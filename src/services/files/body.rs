//! The bytes behind the head of an answer: memory, or parts of a file.
//!
//! Owns the choice between the two, and the parts of several ranges. Refuses to
//! wait for a disk: pages that are not in memory make the body a file.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use super::readers::{ColdFile, Readers, read_now};
use crate::protocol::http1::ByteRange;
use crate::{ClientId, FilePart};

/// Files up to this size go out in one write together with the head.
const SMALL_FILE_BYTES: u64 = 32 * 1024;

#[derive(Debug)]
pub(super) enum Body {
    Memory(Vec<u8>),
    Parts(Vec<FilePart>),
}

impl Body {
    pub(super) const NONE: Self = Self::Memory(Vec::new());

    pub(super) fn length_bytes(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.iter().map(|part| part.length_bytes).sum(),
        }
    }
}

/// What bodies are made of.
pub(super) struct Source<'a> {
    pub(super) readers: &'a Readers,
    pub(super) client: ClientId,
    pub(super) file: File,
    pub(super) size_bytes: u64,
}

impl Source<'_> {
    /// One range.
    pub(super) fn range(self, range: ByteRange) -> Body {
        if range.len() <= SMALL_FILE_BYTES {
            let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or(0)];
            if range.is_empty() || read_now(&self.file, &mut bytes, range.first) {
                return Body::Memory(bytes);
            }
        }
        let file = self.readers.source(self.file, self.client);
        Body::Parts(vec![part(&file, range)])
    }

    /// Several ranges, each with a head of its own, and the content type that
    /// names what stands between them.
    pub(super) fn multipart(self, ranges: &[ByteRange], kind: &str) -> (Body, String) {
        let boundary = boundary();
        let file = self.readers.source(self.file, self.client);
        let mut parts = Vec::with_capacity(2 * ranges.len() + 1);
        for (index, &range) in ranges.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\r\n" };
            let head = format!(
                "{line_end}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {}\r\n\r\n",
                content_range(range, self.size_bytes)
            );
            parts.push(FilePart::memory(head.into_bytes()));
            parts.push(part(&file, range));
        }
        parts.push(FilePart::memory(format!("\r\n--{boundary}--\r\n").into_bytes()));
        let kind = format!("multipart/byteranges; boundary={boundary}");
        (Body::Parts(parts), kind)
    }
}

fn part(file: &Arc<ColdFile>, range: ByteRange) -> FilePart {
    FilePart {
        source: file.clone(),
        offset: range.first,
        length_bytes: range.len(),
    }
}

pub(super) fn content_range(range: ByteRange, size_bytes: u64) -> String {
    format!("bytes {}-{}/{size_bytes}", range.first, range.end - 1)
}

/// A boundary that no file can hold by more than chance.
fn boundary() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("highwater-{:016x}{:016x}", random(), random())
}
