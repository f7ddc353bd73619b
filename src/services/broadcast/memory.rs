//! What messages really take in memory, however many wait for them.
//!
//! Owns the sum. Refuses to know who waits: memory counts until the last
//! reference to it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Counts memory that is shared by reference.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounted {
    bytes: Arc<AtomicUsize>,
}

struct Memory {
    bytes: Vec<u8>,
    sum: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes.capacity(), Ordering::Relaxed);
    }
}

impl Accounted {
    /// Shares these bytes, which count until nobody holds a part of them.
    pub(super) fn share(&self, mut bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() > bytes.len() + bytes.len() / 4 {
            bytes.shrink_to_fit();
        }
        self.bytes.fetch_add(bytes.capacity(), Ordering::Relaxed);
        Bytes::from_owner(Memory {
            bytes,
            sum: self.bytes.clone(),
        })
    }

    /// Bytes that exist now.
    pub(super) fn total(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Accounted;

    #[test]
    fn memory_counts_once_and_until_the_last_part_is_gone() {
        let accounted = Accounted::default();
        let all = accounted.share(vec![7; 1000]);
        let part = all.slice(10..11);
        let other = all.clone();
        assert_eq!(accounted.total(), 1000);
        drop((all, other));
        assert_eq!(accounted.total(), 1000, "one byte keeps all");
        drop(part);
        assert_eq!(accounted.total(), 0);
    }
}
