//! Writes sizes and times the way the command line reads them: `64KiB`, `5s`.
//!
//! Refuses to parse.

use std::time::Duration;

/// A size with the largest unit that divides it, such as `64KiB` or `1MiB`; else
/// plain bytes, such as `500`.
///
/// ```
/// assert_eq!(highwater::units::format_size(65_536), "64KiB");
/// ```
#[must_use]
pub fn format_size(bytes: usize) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

/// A size for people: `30.1MiB`, `2.2GiB`; below 1 KiB plain bytes.
pub(crate) fn format_rounded(bytes: u64) -> String {
    for (unit, name) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit {
            return format!("{:.1}{name}", bytes as f64 / unit as f64);
        }
    }
    bytes.to_string()
}

/// Writes a time the way an option takes it: `5s`, `1m 30s`, `250ms`; no
/// time at all is `0s`.
#[must_use]
pub fn format_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (time.subsec_millis().into(), "ms"),
        (u64::from(time.subsec_micros() % 1000), "us"),
        (u64::from(time.subsec_nanos() % 1000), "ns"),
    ];
    let there = parts.iter().filter(|(count, _)| *count > 0);
    let written: Vec<String> = there.map(|(count, unit)| format!("{count}{unit}")).collect();
    if written.is_empty() {
        return "0s".to_owned();
    }
    written.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_largest_unit_that_divides_it() {
        for (bytes, text) in [
            (0, "0"),
            (500, "500"),
            (1 << 16, "64KiB"),
            (3 << 30, "3GiB"),
            (1025, "1025"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }

    #[test]
    fn a_rounded_size_has_one_decimal() {
        for (bytes, text) in [
            (999, "999"),
            (1536, "1.5KiB"),
            (256 << 20, "256.0MiB"),
            (5 << 29, "2.5GiB"),
        ] {
            assert_eq!(format_rounded(bytes), text);
        }
    }

    #[test]
    fn times_are_written_with_all_units_that_they_have_and_no_other() {
        for (milliseconds, written) in [
            (0, "0s"),
            (250, "250ms"),
            (5_000, "5s"),
            (90_000, "1m 30s"),
            (3_600_000, "1h"),
            (7_384_005, "2h 3m 4s 5ms"),
        ] {
            assert_eq!(format_time(Duration::from_millis(milliseconds)), written);
        }
    }
}
