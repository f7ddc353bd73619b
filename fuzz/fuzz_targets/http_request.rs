//! A stream of requests: heads are found at the same places however the bytes
//! are cut, and one that is accepted can be read in one way only.

#![no_main]

#[path = "../../tests/http_parsing/checks.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzzer uses one of the checks")]
mod checks;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'bytes> {
    /// How many bytes arrive at a time, over and over.
    pieces: [u8; 4],
    stream: &'bytes [u8],
}

fuzz_target!(|input: Input<'_>| checks::check_requests(input.stream, &input.pieces));
