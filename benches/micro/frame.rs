//! The frame parser, over a full read buffer.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use highwater::protocol::frame::split;

const READ_BYTES: usize = 64 * 1024;
const MAX_FRAME_BYTES: usize = 1 << 20;

/// A buffer full of frames with payloads of this length, the last one
/// unfinished.
#[divan::bench(args = [0, 60, 1020, 65_532])]
fn cut_a_full_buffer(bencher: Bencher, payload: usize) {
    let header = u32::try_from(payload).unwrap_or(u32::MAX).to_be_bytes();
    let frame = [&header[..], &vec![7; payload]].concat();
    let stream: Vec<u8> = frame.iter().copied().cycle().take(READ_BYTES).collect();
    bencher
        .counter(BytesCount::new(READ_BYTES))
        .bench_local(move || split(black_box(&stream), MAX_FRAME_BYTES));
}
