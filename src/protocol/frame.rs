//! Frames: a 4-byte big-endian length, then that many bytes of payload.
//!
//! Owns the splitting of a stream into whole frames, and the maximum. Refuses
//! to keep bytes: it answers how much of the stream is whole frames, and the
//! caller keeps the rest.

use std::fmt;

/// Length in bytes of the header in front of each payload.
pub const HEADER_BYTES: usize = 4;

/// A frame that announces a longer payload than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTooLong {
    /// The announced length in bytes.
    pub announced_bytes: usize,
    /// The largest allowed length in bytes.
    pub max_frame_bytes: usize,
}

impl fmt::Display for FrameTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "frame too long: {} bytes announced, limit {}",
            self.announced_bytes, self.max_frame_bytes
        )
    }
}

impl std::error::Error for FrameTooLong {}

/// How a piece of a stream consists of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Bytes of whole frames at the beginning, headers included.
    pub whole_bytes: usize,
    /// Bytes that the unfinished frame behind them still needs, as far as its
    /// header tells. At least 1 if any byte of it is there, 0 if none is.
    pub missing_bytes: usize,
}

/// Splits `stream`, which begins with a frame's first byte.
///
/// # Errors
///
/// A frame announces more than `max_frame_bytes`. Whole frames before it are
/// given up too, since the stream makes no sense from there on.
///
/// ```
/// use highwater::protocol::frame::{Split, split};
///
/// let stream = b"\0\0\0\x02hi\0\0\0\x05wor";
/// assert_eq!(split(stream, 100), Ok(Split { whole_bytes: 6, missing_bytes: 2 }));
/// assert!(split(stream, 4).is_err());
/// ```
pub fn split(stream: &[u8], max_frame_bytes: usize) -> Result<Split, FrameTooLong> {
    let mut whole_bytes = 0;
    loop {
        let rest = &stream[whole_bytes..];
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
            let missing_bytes = if rest.is_empty() {
                0
            } else {
                HEADER_BYTES - rest.len()
            };
            return Ok(Split {
                whole_bytes,
                missing_bytes,
            });
        };
        let announced_bytes = u32::from_be_bytes(*header) as usize;
        if announced_bytes > max_frame_bytes {
            return Err(FrameTooLong {
                announced_bytes,
                max_frame_bytes,
            });
        }
        let frame_bytes = HEADER_BYTES + announced_bytes;
        if rest.len() < frame_bytes {
            return Ok(Split {
                whole_bytes,
                missing_bytes: frame_bytes - rest.len(),
            });
        }
        whole_bytes += frame_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn every_cut_of_a_stream_is_told_exactly() {
        let frames = [frame(b""), frame(b"a"), frame(b"four"), frame(&[7; 300])];
        let stream = frames.concat();
        for end in 0..=stream.len() {
            let mut whole = 0;
            let mut needed = 0;
            for frame in &frames {
                if whole + frame.len() <= end {
                    whole += frame.len();
                } else {
                    let there = end - whole;
                    needed = match there {
                        0 => 0,
                        1..HEADER_BYTES => HEADER_BYTES - there,
                        _ => frame.len() - there,
                    };
                    break;
                }
            }
            let expected = Split {
                whole_bytes: whole,
                missing_bytes: needed,
            };
            assert_eq!(split(&stream[..end], 300), Ok(expected), "first {end} bytes");
        }
    }

    #[test]
    fn a_frame_of_the_maximum_is_taken_and_one_byte_more_is_not() {
        assert!(split(&frame(&[0; 100]), 100).is_ok());
        let refusal = split(&frame(&[0; 101]), 100).unwrap_err();
        assert_eq!(refusal.announced_bytes, 101);
        assert_eq!(refusal.max_frame_bytes, 100);
    }

    #[test]
    fn an_oversize_frame_is_told_by_its_header_alone() {
        assert!(split(&u32::MAX.to_be_bytes(), 100).is_err());
        assert!(split(&u32::MAX.to_be_bytes()[..3], 100).is_ok());
    }
}
