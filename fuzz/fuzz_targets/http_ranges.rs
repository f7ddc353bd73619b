//! A `Range` field and a size: what comes out lies inside the file, costs no
//! more than the file, and is what a parser with big numbers finds. The same
//! text as a target leads to no path upwards.

#![no_main]

#[path = "../../tests/http_parsing/checks.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzzer uses two of the checks")]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &str)| {
    let (size_bytes, text) = input;
    checks::check_ranges(text, size_bytes);
    checks::check_ranges(&format!("bytes={text}"), size_bytes);
    checks::check_target(text);
});
