//! The bytes that simulated peers send, which show their place in the stream.
//!
//! Owns the pattern. A byte that is lost, doubled, swapped or sent to the wrong
//! client does not match. Refuses to store plain streams: a place in a table
//! is enough. Framed streams are written out.

use std::fmt;
use std::sync::OnceLock;

/// A prime, so that the pattern keeps step with no buffer, segment or frame.
const PERIOD_BYTES: usize = 65_521;

/// The longest piece that is compared or filled at once.
pub(crate) const LONGEST_PIECE_BYTES: usize = 256 * 1024;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut rng = fastrand::Rng::with_seed(0x00c0_ffee);
        let period: Vec<u8> = (0..PERIOD_BYTES).map(|_| rng.u8(..)).collect();
        period
            .iter()
            .copied()
            .cycle()
            .take(PERIOD_BYTES + LONGEST_PIECE_BYTES)
            .collect()
    })
}

/// The piece of the pattern with this number: any number will do.
pub(crate) fn piece(at: usize, length: usize) -> &'static [u8] {
    let start = at % PERIOD_BYTES;
    &table()[start..start + length]
}

/// One stream of bytes.
pub(crate) enum Content {
    /// Of any length.
    Pattern { start: usize },
    /// Frames, each a length and a payload; half a frame may follow.
    Frames(Vec<u8>),
    /// A PROXY header, and what its client sends.
    Introduced(Vec<u8>),
}

impl Content {
    pub(crate) fn pattern(number: usize) -> Self {
        Self::Pattern {
            start: number.wrapping_mul(7_919),
        }
    }

    /// A header, and a plain stream of this many bytes behind it.
    pub(crate) fn introduced(header: &[u8], number: usize, length_bytes: usize) -> Self {
        let mut stream = header.to_vec();
        let start = number.wrapping_mul(7_919);
        let pieces = (0..length_bytes).step_by(LONGEST_PIECE_BYTES);
        for at in pieces {
            stream.extend_from_slice(piece(start + at, LONGEST_PIECE_BYTES.min(length_bytes - at)));
        }
        Self::Introduced(stream)
    }

    /// Frames of random lengths, up to `most_bytes` of payload each and about
    /// `total_bytes` together.
    pub(crate) fn frames(
        rng: &mut fastrand::Rng,
        number: usize,
        most_bytes: usize,
        total_bytes: usize,
    ) -> Self {
        let mut stream = Vec::with_capacity(total_bytes + most_bytes);
        while stream.len() < total_bytes {
            let length = match rng.u8(..8) {
                0 => 0,
                1 => most_bytes,
                2 => rng.usize(..=most_bytes),
                _ => rng.usize(..=most_bytes.min(600)),
            };
            let announced = if rng.usize(..150) == 0 {
                most_bytes + 1
            } else {
                length
            };
            stream.extend_from_slice(&u32::try_from(announced).unwrap_or(u32::MAX).to_be_bytes());
            stream.extend_from_slice(piece(number.wrapping_mul(7_919) + stream.len(), length));
        }
        if rng.u8(..4) == 0 {
            stream.truncate(rng.usize(..=stream.len()));
        }
        Self::Frames(stream)
    }

    /// The bytes from `offset` on.
    pub(crate) fn at(&self, offset: u64, length: usize) -> &[u8] {
        let offset = offset as usize;
        match self {
            Self::Pattern { start } => piece(start + offset, length),
            Self::Frames(stream) | Self::Introduced(stream) => {
                stream.get(offset..offset + length).unwrap_or(&[])
            }
        }
    }

    /// How long the stream is, if it has an end of its own.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Pattern { .. } => u64::MAX,
            Self::Frames(stream) | Self::Introduced(stream) => stream.len() as u64,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern { start } => write!(f, "pattern from {start}"),
            Self::Introduced(stream) => write!(f, "header and stream of {} bytes", stream.len()),
            Self::Frames(stream) => write!(f, "frames of {} bytes", stream.len()),
        }
    }
}

/// Finds where frames end, by a second implementation of the protocol: a 4-byte
/// big-endian length, then as many bytes.
#[derive(Debug, Default)]
pub(crate) struct FrameScan {
    /// Bytes of whole frames so far.
    pub(crate) whole_bytes: u64,
    /// A frame announced more than is allowed.
    pub(crate) too_long: bool,
}

impl FrameScan {
    /// Reads on through the first `there` bytes of `content`.
    pub(crate) fn advance(&mut self, content: &Content, there: u64, most_bytes: usize) {
        while !self.too_long && there >= self.whole_bytes + 4 {
            let header = content.at(self.whole_bytes, 4);
            let length = header
                .iter()
                .fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
            if length > most_bytes {
                self.too_long = true;
            } else if there >= self.whole_bytes + 4 + length as u64 {
                self.whole_bytes += 4 + length as u64;
            } else {
                return;
            }
        }
    }
}
