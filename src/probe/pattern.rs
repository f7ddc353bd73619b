//! The bytes that clients send: each tells its position and its client.
//!
//! Owns their making and their checking. A lost, doubled, moved or foreign byte
//! differs from what its position asks for. Knows nothing of sockets or frames.

/// An endless stream of bytes that depends on the position and on a seed, so
/// that two clients never send the same stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

const WORD_BYTES: usize = 8;
/// An odd number without structure (2^64 divided by the golden ratio).
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

impl Pattern {
    /// The stream of one client.
    #[must_use]
    pub fn new(client: u64) -> Self {
        Self {
            seed: (client + 1).wrapping_mul(MIX).rotate_left(29),
        }
    }

    /// Fills `buffer` with the bytes that stand at `position` and after it.
    pub fn fill(self, position: u64, buffer: &mut [u8]) {
        let (mut index, skip) = split(position);
        let head_len = if skip == 0 {
            0
        } else {
            (WORD_BYTES - skip).min(buffer.len())
        };
        let (head, rest) = buffer.split_at_mut(head_len);
        if !head.is_empty() {
            head.copy_from_slice(&self.word(index)[skip..skip + head_len]);
            index += 1;
        }
        let mut words = rest.chunks_exact_mut(WORD_BYTES);
        for word in &mut words {
            word.copy_from_slice(&self.word(index));
            index += 1;
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&self.word(index)[..tail.len()]);
    }

    /// Where `received`, which should stand at `position`, differs first;
    /// `None` when every byte is right.
    #[must_use]
    pub fn first_difference(self, position: u64, received: &[u8]) -> Option<usize> {
        let (mut index, skip) = split(position);
        let head_len = if skip == 0 {
            0
        } else {
            (WORD_BYTES - skip).min(received.len())
        };
        let (head, rest) = received.split_at(head_len);
        if !head.is_empty() {
            if head != &self.word(index)[skip..skip + head_len] {
                return self.search(position, received);
            }
            index += 1;
        }
        let words = rest.chunks_exact(WORD_BYTES);
        let tail = words.remainder();
        for word in words {
            if word != self.word(index) {
                return self.search(position, received);
            }
            index += 1;
        }
        if tail != &self.word(index)[..tail.len()] {
            return self.search(position, received);
        }
        None
    }

    /// The slow way, byte by byte, once it is known that something differs.
    fn search(self, position: u64, received: &[u8]) -> Option<usize> {
        (position..).zip(received).position(|(at, &byte)| {
            let (index, offset) = split(at);
            self.word(index)[offset] != byte
        })
    }

    fn word(self, index: u64) -> [u8; WORD_BYTES] {
        let mixed = (index ^ self.seed).wrapping_mul(MIX);
        (mixed ^ (mixed >> 32)).to_le_bytes()
    }
}

/// The word that holds `position`, and the offset in it.
fn split(position: u64) -> (u64, usize) {
    (
        position / WORD_BYTES as u64,
        (position % WORD_BYTES as u64) as usize,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pattern: Pattern, position: u64, len: usize) -> Vec<u8> {
        let mut buffer = vec![0; len];
        pattern.fill(position, &mut buffer);
        buffer
    }

    #[test]
    fn any_cutting_of_the_stream_gives_the_same_bytes() {
        let pattern = Pattern::new(3);
        let whole = bytes(pattern, 0, 100);
        for from in 0..40 {
            for len in 0..40 {
                let part = bytes(pattern, from as u64, len);
                assert_eq!(part, whole[from..from + len], "{from} {len}");
                assert_eq!(pattern.first_difference(from as u64, &part), None);
            }
        }
    }

    #[test]
    fn every_single_wrong_byte_is_found_where_it_is() {
        let pattern = Pattern::new(0);
        for from in 0..9u64 {
            for at in 0..33 {
                let mut part = bytes(pattern, from, 33);
                part[at] ^= 0x40;
                assert_eq!(pattern.first_difference(from, &part), Some(at));
            }
        }
    }

    #[test]
    fn lost_doubled_and_foreign_bytes_are_noticed() {
        let pattern = Pattern::new(7);
        let whole = bytes(pattern, 0, 64);
        for lost in 1..=4096u64 {
            assert!(pattern.first_difference(0, &bytes(pattern, lost, 64)).is_some());
            assert!(pattern.first_difference(lost, &whole).is_some());
        }
        assert!(Pattern::new(8).first_difference(0, &whole).is_some());
    }
}
