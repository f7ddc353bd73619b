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
/// Made or checked at a time: the compiler makes straight code of a fixed number, and 64 bytes
/// are the usual message.
const LINE_BYTES: usize = 64;
const LINE_WORDS: u64 = (LINE_BYTES / WORD_BYTES) as u64;
/// An odd number without structure (2^64 divided by the golden ratio).
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
/// Another one (2^64 times the fraction of the square root of 2), so that the streams of two clients
/// are the same only astronomically far apart.
const FAR: u64 = 0x6A09_E667_F3BC_C909;

impl Pattern {
    /// The stream of one client.
    #[must_use]
    pub fn new(client: u64) -> Self {
        Self {
            seed: (client + 1).wrapping_mul(FAR).rotate_left(29),
        }
    }

    /// Fills `buffer` with the bytes that stand at `position` and after it.
    #[inline(always)]
    pub fn fill(self, position: u64, buffer: &mut [u8]) {
        match (split(position), buffer.as_chunks_mut()) {
            ((index, 0), ([message], [])) => self.fill_line(index, message),
            _ => self.fill_any(position, buffer),
        }
    }

    #[inline(never)]
    fn fill_any(self, position: u64, buffer: &mut [u8]) {
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
        let (lines, rest) = rest.as_chunks_mut();
        for line in lines {
            self.fill_line(index, line);
            index += LINE_WORDS;
        }
        let (words, tail) = rest.as_chunks_mut();
        for word in words {
            *word = self.word(index);
            index += 1;
        }
        if !tail.is_empty() {
            tail.copy_from_slice(&self.word(index)[..tail.len()]);
        }
    }

    fn fill_line(self, index: u64, line: &mut [u8; LINE_BYTES]) {
        for (word, step) in line.as_chunks_mut().0.iter_mut().zip(0..) {
            *word = self.word(index.wrapping_add(step));
        }
    }

    /// Where `received`, which should stand at `position`, differs first;
    /// `None` when every byte is right.
    #[must_use]
    #[inline(always)]
    pub fn first_difference(self, position: u64, received: &[u8]) -> Option<usize> {
        match (split(position), received.as_chunks()) {
            ((index, 0), ([message], [])) if self.is_line(index, message) => None,
            _ => self.first_difference_in_any(position, received),
        }
    }

    #[inline(never)]
    fn first_difference_in_any(self, position: u64, received: &[u8]) -> Option<usize> {
        let (mut index, skip) = split(position);
        let head_len = if skip == 0 {
            0
        } else {
            (WORD_BYTES - skip).min(received.len())
        };
        let (head, rest) = received.split_at(head_len);
        let mut is_same = true;
        if !head.is_empty() {
            is_same = head == &self.word(index)[skip..skip + head_len];
            index += 1;
        }
        let (lines, rest) = rest.as_chunks();
        for line in lines {
            is_same &= self.is_line(index, line);
            index += LINE_WORDS;
        }
        let (words, tail) = rest.as_chunks();
        for word in words {
            is_same &= *word == self.word(index);
            index += 1;
        }
        is_same &= tail.is_empty() || tail == &self.word(index)[..tail.len()];
        if is_same {
            None
        } else {
            self.search(position, received)
        }
    }

    /// Without a branch for each word: nearly always all of them are right.
    fn is_line(self, index: u64, line: &[u8; LINE_BYTES]) -> bool {
        let mut different = 0;
        for (word, step) in line.as_chunks().0.iter().zip(0..) {
            different |= self.mixed(index.wrapping_add(step)) ^ u64::from_le_bytes(*word);
        }
        different == 0
    }

    /// The slow way, byte by byte, once it is known that something differs.
    fn search(self, position: u64, received: &[u8]) -> Option<usize> {
        (position..).zip(received).position(|(at, &byte)| {
            let (index, offset) = split(at);
            self.word(index)[offset] != byte
        })
    }

    fn word(self, index: u64) -> [u8; WORD_BYTES] {
        self.mixed(index).to_le_bytes()
    }

    /// One step further adds [`MIX`], so that many words at once are sums and shifts. The word
    /// tells its index, since every step of this can be undone.
    fn mixed(self, index: u64) -> u64 {
        let mixed = self.seed.wrapping_add(index.wrapping_mul(MIX));
        mixed ^ (mixed >> 32)
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
        for from in 0..20 {
            for len in 0..80 {
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
            for at in 0..150 {
                let mut part = bytes(pattern, from, 150);
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
