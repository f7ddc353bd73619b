//! What a client sends: bytes that tell whose they are and where in the
//! stream they stand.
//!
//! Owns one long random piece, of which each client has its own beginning;
//! a loss, a doubling, or a byte of somebody else shows.

use std::sync::LazyLock;

/// After so many bytes a stream repeats: a prime, so that no buffer's size
/// divides it.
const PERIOD_BYTES: usize = 1_000_003;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    let mut bytes: Vec<u8> = (0..PERIOD_BYTES).map(|_| random.u8(..)).collect();
    bytes.extend_from_within(..);
    bytes
});

/// The bytes of client `number` from `offset` on.
pub(crate) fn piece(number: u32, offset: usize, length: usize) -> &'static [u8] {
    assert!(length <= PERIOD_BYTES);
    let start = (number as usize * 7919 + offset) % PERIOD_BYTES;
    &BYTES[start..start + length]
}
