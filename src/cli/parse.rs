//! Sizes, rates, times and escapes as people type them: `64KiB`, `1MiB`, `500`;
//! `5s`, `250ms`, `1h`; `\r\n`.
//!
//! Owns the parsers of the command line, and the sentences in which they
//! refuse. Refuses to know options: each option decides which values make
//! sense.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use highwater::units::{format_size, format_time};

/// Parses a size in bytes, such as `64KiB`, `1MiB` or `500`.
///
/// # Errors
///
/// One sentence that names the input and a value that would be right.
pub(crate) fn parse_size(typed: &str) -> Result<usize, String> {
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
    if let Some(binary) = binary_unit(typed) {
        return Err(format!(
            "`{typed}` is {} bytes, as its unit counts in thousands: write {binary}, or {} for the same bytes",
            size.as_u64(),
            size.as_u64()
        ));
    }
    // A size is an amount of memory; half of the address space exceeds any.
    usize::try_from(size.as_u64())
        .ok()
        .filter(|&bytes| bytes <= usize::MAX / 2)
        .ok_or_else(|| format!("`{typed}` is more than this machine can address"))
}

/// What to write for a size whose unit counts in thousands. Memory is counted
/// in units of 1,024, and `64kb` is mostly meant so.
fn binary_unit(typed: &str) -> Option<String> {
    let unit_at = typed.find(|char: char| char.is_ascii_alphabetic())?;
    let (number, unit) = typed.split_at(unit_at);
    let prefix = unit.chars().next()?.to_ascii_uppercase();
    let is_size = number.starts_with(|first: char| first.is_ascii_digit());
    let counts_in_thousands = is_size && prefix != 'B' && !unit.contains(['i', 'I']);
    counts_in_thousands.then(|| format!("{}{prefix}iB", number.trim()))
}

/// Parses a length of time, such as `5s`, `250ms`, `1h` or `1m 30s`.
///
/// # Errors
///
/// One sentence that names the input and a value that would be right.
pub(crate) fn parse_time(typed: &str) -> Result<Duration, String> {
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

/// Reads a rate such as `64KiB/s` or `64KiB`, in bytes per second.
///
/// # Errors
///
/// One sentence that names what was typed and what would be right.
pub(crate) fn parse_rate(typed: &str) -> Result<u64, String> {
    let size = typed.strip_suffix("/s").unwrap_or(typed);
    match parse_size(size) {
        Ok(0) => Err(format!(
            "`{typed}` is no rate: it must be above 0, such as 64KiB/s"
        )),
        Ok(bytes) => Ok(bytes as u64),
        Err(refusal) if binary_unit(size).is_some() => Err(refusal),
        Err(_) => Err(format!(
            "`{typed}` is not a rate: write a size a second, such as 64KiB/s or 500/s"
        )),
    }
}

/// Reads a line as people type it: `\r`, `\n`, `\t`, `\0`, `\\`, and `\xHH` for any byte.
///
/// # Errors
///
/// One sentence that names the escape that is none.
pub(crate) fn unescape(typed: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(typed.len());
    let mut rest = typed.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.next();
        bytes.push(match escape {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                byte.ok_or_else(|| {
                    format!("`\\x{digits}` is not an escape: write two hex digits, such as \\x0a")
                })?
            }
            other => {
                let other = other.map_or(String::new(), String::from);
                return Err(format!(
                    "`\\{other}` is not an escape: there are \\r \\n \\t \\0 \\\\ and \\xHH"
                ));
            }
        });
    }
    Ok(bytes)
}

/// A size in bytes, read by [`parse_size`] and written by [`format_size`], for
/// options with a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(
    /// Bytes.
    pub(crate) usize,
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
pub(crate) struct Time(
    /// The time itself.
    pub(crate) Duration,
);

impl FromStr for Time {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        parse_time(typed).map(Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_time(self.0))
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
            ("2B", 2),
            ("64Ki", 65_536),
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
    fn a_unit_of_thousands_is_refused_with_the_unit_that_was_meant_and_the_bytes() {
        for (typed, meant) in [
            ("64kb", "64KiB"),
            ("64k", "64KiB"),
            ("1.5 MB", "1.5MiB"),
            ("2G", "2GiB"),
        ] {
            let refusal = parse_size(typed).unwrap_err();
            assert!(
                refusal.contains(&format!("`{typed}`")) && refusal.contains(meant),
                "{refusal}"
            );
        }
        assert!(parse_size("64kb").unwrap_err().contains("64000"));
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
    fn escapes_are_read_and_others_refused_by_name() {
        assert_eq!(unescape("SUB a\\r\\n").unwrap(), b"SUB a\r\n");
        assert_eq!(
            unescape("\\x00\\xff\\\\\\t\\0é").unwrap(),
            b"\x00\xff\\\t\0\xc3\xa9"
        );
        for bad in ["\\", "\\q", "\\x1", "\\x+1", "\\xzz"] {
            assert!(unescape(bad).unwrap_err().contains("not an escape"), "{bad}");
        }
    }
}
