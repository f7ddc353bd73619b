//! Whatever is typed as a size or a time is read, or refused in one sentence
//! that repeats it; what is read is written back and read again the same.

#![no_main]

use std::time::Duration;

use highwater::units::format_size;
use libfuzzer_sys::fuzz_target;

/// The command's parsers stand in the binary, of which nothing can be imported.
#[path = "../../src/cli/parse.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzzer uses two of its parsers")]
mod parse;

use parse::{Time, parse_size, parse_time};

const HUNDRED_YEARS: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fuzz_target!(|typed: &str| {
    match parse_size(typed) {
        Ok(bytes) => {
            assert!(bytes <= usize::MAX / 2);
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        Err(refusal) => assert!(refusal.contains(typed)),
    }
    match parse_time(typed) {
        Ok(time) => {
            assert!(time <= HUNDRED_YEARS);
            assert_eq!(Time(time).to_string().parse(), Ok(Time(time)));
        }
        Err(refusal) => assert!(refusal.contains(typed)),
    }
    // Digits alone are a size, and no time but nothing at all.
    if !typed.is_empty() && typed.len() < 19 && typed.bytes().all(|byte| byte.is_ascii_digit()) {
        assert_eq!(parse_size(typed).ok(), typed.parse().ok());
        assert!(parse_time(typed).is_err() || typed == "0");
    }
});
