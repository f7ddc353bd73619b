//! The send queue: the cost of a healthy client, and of one that lags.

use std::io::IoSlice;

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use highwater::backpressure::SendQueue;

const HIGH_WATER_MARK_BYTES: usize = 64 * 1024;

/// The socket took everything: the case of nearly every message.
#[divan::bench]
fn write_that_leaves_nothing(bencher: Bencher) {
    let mut queue = SendQueue::new(HIGH_WATER_MARK_BYTES);
    bencher.bench_local(move || black_box(queue.write(black_box(&[]))));
}

/// Bytes are left, copied, and gone with the next flush.
#[divan::bench(args = [64, 1024, 65_536])]
fn write_and_send(bencher: Bencher, length: usize) {
    let rest = vec![7; length];
    let mut queue = SendQueue::new(HIGH_WATER_MARK_BYTES);
    bencher.counter(BytesCount::new(length)).bench_local(move || {
        let answer = queue.write(black_box(&rest));
        (answer, queue.sent(length))
    });
}

/// The same by reference, as a broadcast does.
#[divan::bench(args = [1024, 65_536])]
fn write_shared_and_send(bencher: Bencher, length: usize) {
    let rest = Bytes::from(vec![7; length]);
    let mut queue = SendQueue::new(HIGH_WATER_MARK_BYTES);
    bencher.counter(BytesCount::new(length)).bench_local(move || {
        let answer = queue.write_shared(black_box(&rest).clone());
        (answer, queue.sent(length))
    });
}

/// Small messages pile up to the mark, then leave in large pieces.
#[divan::bench]
fn fill_by_64_bytes_and_drain(bencher: Bencher) {
    const SENT_AT_ONCE: usize = 16 * 1024;
    let mut queue = SendQueue::new(HIGH_WATER_MARK_BYTES);
    bencher
        .counter(BytesCount::new(HIGH_WATER_MARK_BYTES))
        .bench_local(move || {
            while queue.len() < HIGH_WATER_MARK_BYTES {
                let _ = black_box(queue.write(black_box(&[7; 64])));
            }
            while !queue.is_empty() {
                let mut slices = [IoSlice::new(&[]); 16];
                black_box(queue.fill_slices(&mut slices));
                let _ = black_box(queue.sent(SENT_AT_ONCE.min(queue.len())));
            }
        });
}
