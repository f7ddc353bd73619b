//! A stream of frames, split as a whole, split as it arrives in pieces, and split
//! by the simplest parser: all three must agree.

#![no_main]

use arbitrary::Arbitrary;
use highwater::protocol::frame::{FrameTooLong, HEADER_BYTES, Split, split};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'bytes> {
    max_frame_bytes: u16,
    /// How many bytes arrive at a time, over and over.
    pieces: [u8; 4],
    stream: &'bytes [u8],
}

/// One byte after the other.
fn simple(stream: &[u8], max_frame_bytes: usize) -> Result<Split, usize> {
    let mut whole_bytes = 0;
    let mut missing_bytes = 0;
    let mut header = Vec::new();
    for (index, &byte) in stream.iter().enumerate() {
        if header.len() == HEADER_BYTES {
            missing_bytes -= 1;
        } else {
            header.push(byte);
            missing_bytes = HEADER_BYTES - header.len();
            if header.len() == HEADER_BYTES {
                missing_bytes = header.iter().fold(0, |sum, &byte| sum * 256 + usize::from(byte));
                if missing_bytes > max_frame_bytes {
                    return Err(missing_bytes);
                }
            }
        }
        if header.len() == HEADER_BYTES && missing_bytes == 0 {
            whole_bytes = index + 1;
            header.clear();
        }
    }
    Ok(Split {
        whole_bytes,
        missing_bytes,
    })
}

/// As a service does it: keep the unfinished rest, and split it again with the
/// bytes that arrive behind it.
fn in_pieces(input: &Input<'_>, max_frame_bytes: usize) -> Result<Split, FrameTooLong> {
    let mut pieces = input.pieces.iter().cycle();
    let mut kept = Vec::new();
    let mut all = Split {
        whole_bytes: 0,
        missing_bytes: 0,
    };
    let mut rest = input.stream;
    while let Some(&piece) = pieces.next().filter(|_| !rest.is_empty()) {
        let (first, behind) = rest.split_at(usize::from(piece).clamp(1, rest.len()));
        rest = behind;
        kept.extend_from_slice(first);
        let now = split(&kept, max_frame_bytes)?;
        assert!(now.whole_bytes <= kept.len());
        kept.drain(..now.whole_bytes);
        assert_eq!(kept.is_empty(), now.missing_bytes == 0);
        assert!(kept.len() < HEADER_BYTES + max_frame_bytes);
        all.whole_bytes += now.whole_bytes;
        all.missing_bytes = now.missing_bytes;
    }
    Ok(all)
}

fuzz_target!(|input: Input<'_>| {
    let max_frame_bytes = usize::from(input.max_frame_bytes);
    let at_once = split(input.stream, max_frame_bytes);
    assert_eq!(at_once, in_pieces(&input, max_frame_bytes));
    assert_eq!(
        at_once.map_err(|refusal| refusal.announced_bytes),
        simple(input.stream, max_frame_bytes)
    );
});
