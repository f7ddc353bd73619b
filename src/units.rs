//! Sizes and times as people type them: `64KiB`, `1MiB`, `500`; `5s`, `250ms`,
//! `1h`.
//!
//! Owns the two parsers of the command line, and the sentences in which they
//! refuse. Refuses to know options: each option decides which values make
//! sense.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// Parses a size in bytes, such as `64KiB`, `1MiB`, `2GB` or `500`.
///
/// # Errors
///
/// One sentence that names the input and a value that would be right.
///
/// ```
/// assert_eq!(highwater::units::parse_size("64KiB"), Ok(65_536));
/// assert_eq!(highwater::units::parse_size("500"), Ok(500));
/// assert!(highwater::units::parse_size("64kb?").unwrap_err().contains("64KiB"));
/// ```
pub fn parse_size(typed: &str) -> Result<usize, String> {
    let refuse = || {
        format!(
            "`{typed}` is not a size: write a whole number of bytes, or a number with KiB, MiB or GiB, \
             such as 500, 64KiB or 1MiB"
        )
    };
    if !typed.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(refuse());
    }
    let size = ByteSize::from_str(typed).map_err(|_| refuse())?;
    // A size is an amount of memory; half of the address space exceeds any.
    usize::try_from(size.as_u64())
        .ok()
        .filter(|&bytes| bytes <= usize::MAX / 2)
        .ok_or_else(|| format!("`{typed}` is more than this machine can address"))
}

/// Parses a length of time, such as `5s`, `250ms`, `1h` or `1m 30s`.
///
/// # Errors
///
/// One sentence that names the input and a value that would be right.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(highwater::units::parse_time("250ms"), Ok(Duration::from_millis(250)));
/// assert!(highwater::units::parse_time("5").unwrap_err().contains("5s"));
/// ```
pub fn parse_time(typed: &str) -> Result<Duration, String> {
    let refuse = || {
        let hint = if typed.parse::<u64>().is_ok() {
            format!("a unit is missing: write {typed}s or {typed}ms")
        } else {
            "write a number with a unit, such as 250ms, 5s or 1h".to_owned()
        };
        format!("`{typed}` is not a time: {hint}")
    };
    // The parser of humantime adds without looking for an overflow.
    if typed.len() > LONGEST_TIME_TEXT_BYTES {
        return Err(refuse());
    }
    let mut numbers = typed.split(|digit: char| !digit.is_ascii_digit());
    if numbers.any(|digits| digits.len() > MOST_DIGITS) {
        return Err(format!(
            "`{typed}` has a number of more than {MOST_DIGITS} digits: write it in a larger unit"
        ));
    }
    let time = humantime::parse_duration(typed).map_err(|_| refuse())?;
    if time > LONGEST_TIME {
        return Err(format!("`{typed}` is longer than a hundred years"));
    }
    Ok(time)
}

/// Longest text that is parsed as a time.
const LONGEST_TIME_TEXT_BYTES: usize = 64;

/// Most digits of one number in a time; a hundred years have ten of seconds.
const MOST_DIGITS: usize = 10;

/// Longest time that an option takes; adding it to a clock cannot overflow.
const LONGEST_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Formats a size the way [`parse_size`] reads it: `64KiB`, `1MiB`, or plain
/// bytes if no unit divides it.
#[must_use]
pub fn format_size(bytes: usize) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

/// Writes a time the way an option takes it: `5s`, `1m 30s`, `250ms`. Less
/// than a millisecond is left out; no time at all is `0s`.
#[must_use]
pub fn format_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (time.subsec_millis().into(), "ms"),
    ];
    let there = parts.iter().filter(|(count, _)| *count > 0);
    let written: Vec<String> = there.map(|(count, unit)| format!("{count}{unit}")).collect();
    if written.is_empty() {
        return "0s".to_owned();
    }
    written.join(" ")
}

/// A size in bytes, read by [`parse_size`] and written by [`format_size`], for
/// options with a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(
    /// Bytes.
    pub usize,
);

impl FromStr for Size {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        parse_size(typed).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_size(self.0))
    }
}

/// A length of time, read by [`parse_time`], for options with a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(
    /// The time itself.
    pub Duration,
);

impl FromStr for Time {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        parse_time(typed).map(Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_and_without_units_are_read() {
        for (typed, bytes) in [
            ("0", 0),
            ("1", 1),
            ("500", 500),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("1.5MiB", 1_572_864),
            ("1GiB", 1 << 30),
            ("2kB", 2_000),
        ] {
            assert_eq!(parse_size(typed), Ok(bytes), "{typed}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_its_own_text_and_an_example() {
        for typed in ["", "64kb?", "KiB", "-1", "+1", "64 Kib ib", "٣", "NaN", "inf"] {
            let refusal = parse_size(typed).unwrap_err();
            assert!(refusal.contains(&format!("`{typed}`")), "{refusal}");
            assert!(refusal.contains("64KiB"), "{refusal}");
        }
    }

    #[test]
    fn a_size_beyond_memory_is_refused() {
        assert!(parse_size("18446744073709551615").is_err());
        assert!(parse_size("99999999999999999999999999").is_err());
    }

    #[test]
    fn times_with_units_are_read_and_a_missing_unit_is_named() {
        assert_eq!(parse_time("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("1h"), Ok(Duration::from_secs(3600)));
        assert!(parse_time("5").unwrap_err().contains("unit is missing"));
        for typed in ["", "s", "-5s", "5 parsecs", "9999999999999y"] {
            assert!(parse_time(typed).unwrap_err().contains(&format!("`{typed}`")));
        }
    }

    #[test]
    fn a_time_whose_parts_add_up_to_more_than_can_be_told_is_refused() {
        for typed in [
            "18446744073709551615.5s 0.5s",
            "18446744073709551615s 1s",
            "9999999999y 9999999999y",
            &"9999999999y".repeat(1000),
        ] {
            assert!(parse_time(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn no_time_at_all_is_the_only_one_that_needs_no_unit() {
        assert_eq!(parse_time("0"), Ok(Duration::ZERO));
        for typed in ["00", "1", "0 0"] {
            assert!(parse_time(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn sizes_and_times_are_written_as_they_could_be_typed() {
        for typed in ["500", "64KiB", "1MiB", "3GiB", "0"] {
            assert_eq!(typed.parse::<Size>().unwrap().to_string(), typed);
        }
        assert_eq!("90s".parse::<Time>().unwrap().to_string(), "1m 30s");
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
