//! Byte ranges (RFC 9110, section 14).
//!
//! Owns which bytes of a file a `Range` field asks for. Refuses sets of ranges
//! that cost more than the whole file: they are answered with the whole.

use super::limits::MAX_RANGES;

/// Bytes `first..end` of a file; never empty, and never past the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset behind the last byte.
    pub end: u64,
}

impl ByteRange {
    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.first
    }

    /// Whether there is nothing in it; never so for a range that was parsed.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end == self.first
    }
}

/// What a `Range` field leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole file: the field is no range that is understood, or asks for
    /// more than the whole.
    Whole,
    /// These parts, at least one, in the order asked for.
    Parts(Vec<ByteRange>),
    /// No byte that was asked for exists: 416.
    Unsatisfiable,
}

impl Ranges {
    /// The ranges that `field` asks for of a file of `size_bytes`.
    #[must_use]
    pub fn parse(field: &str, size_bytes: u64) -> Self {
        let Some((unit, set)) = field.split_once('=') else {
            return Self::Whole;
        };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        let mut parts = Vec::new();
        let mut specs = 0;
        for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
            specs += 1;
            if specs > MAX_RANGES {
                return Self::Whole;
            }
            match parse_one(spec, size_bytes) {
                None => return Self::Whole,
                Some(Some(part)) => parts.push(part),
                Some(None) => {}
            }
        }
        let total_bytes = parts
            .iter()
            .try_fold(0, |sum: u64, part| sum.checked_add(part.len()));
        match parts.len() {
            _ if specs == 0 => Self::Whole,
            0 => Self::Unsatisfiable,
            1 => Self::Parts(parts),
            _ if total_bytes.is_none_or(|total_bytes| total_bytes > size_bytes) => Self::Whole,
            _ => Self::Parts(parts),
        }
    }
}

/// One range: `None` if it is malformed, `Some(None)` if it lies outside.
fn parse_one(spec: &str, size_bytes: u64) -> Option<Option<ByteRange>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix_bytes = number(last)?.min(size_bytes);
        let first = size_bytes - suffix_bytes;
        return Some((suffix_bytes > 0).then_some(ByteRange {
            first,
            end: size_bytes,
        }));
    }
    let first_byte = number(first)?;
    let last_byte = if last.is_empty() { u64::MAX } else { number(last)? };
    if !last.is_empty() && magnitude(last) < magnitude(first) {
        return None;
    }
    let end = last_byte.saturating_add(1).min(size_bytes);
    Some((first_byte < end).then_some(ByteRange {
        first: first_byte,
        end,
    }))
}

/// What orders numbers by their digits, however large they are.
fn magnitude(digits: &str) -> (usize, &str) {
    let digits = digits.trim_start_matches('0');
    (digits.len(), digits)
}

/// Digits only; a number too large for 64 bits is the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(field: &str) -> Vec<(u64, u64)> {
        match Ranges::parse(field, 100) {
            Ranges::Parts(parts) => parts.iter().map(|part| (part.first, part.end)).collect(),
            other => panic!("{field}: {other:?}"),
        }
    }

    #[test]
    fn ranges_are_cut_at_the_end_of_the_file() {
        assert_eq!(parts("bytes=0-0"), [(0, 1)]);
        assert_eq!(parts("bytes=10-19"), [(10, 20)]);
        assert_eq!(parts("bytes=90-"), [(90, 100)]);
        assert_eq!(parts("bytes=90-1000"), [(90, 100)]);
        assert_eq!(parts("bytes=-10"), [(90, 100)]);
        assert_eq!(parts("bytes=-1000"), [(0, 100)]);
        assert_eq!(parts("Bytes=0-0, 99-99"), [(0, 1), (99, 100)]);
        assert_eq!(
            parts("bytes=0-0,,200-"),
            [(0, 1)],
            "what lies outside is left out"
        );
        assert_eq!(parts("bytes=0-99999999999999999999999"), [(0, 100)]);
    }

    #[test]
    fn outside_the_file_nothing_can_be_had() {
        for field in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-, 200-"] {
            assert_eq!(Ranges::parse(field, 100), Ranges::Unsatisfiable, "{field}");
        }
        let beyond = "bytes=00100000000000000000000-200000000000000000000";
        assert_eq!(Ranges::parse(beyond, 100), Ranges::Unsatisfiable);
        assert_eq!(Ranges::parse("bytes=0-", 0), Ranges::Unsatisfiable);
        assert_eq!(Ranges::parse("bytes=-1", 0), Ranges::Unsatisfiable);
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=a-",
            "bytes=1",
            "bytes=5-4",
            "bytes=200000000000000000000-100000000000000000000",
            "bytes=+1-2",
            "bytes=0-1, x",
            "bytes=--1",
            "bytes=0 - 1",
        ] {
            assert_eq!(Ranges::parse(field, 100), Ranges::Whole, "{field}");
        }
    }

    #[test]
    fn a_set_that_costs_more_than_the_whole_is_answered_with_the_whole() {
        assert_eq!(Ranges::parse("bytes=0-,0-", 100), Ranges::Whole);
        assert_eq!(Ranges::parse("bytes=9-,0-", u64::MAX), Ranges::Whole);
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(Ranges::parse(&many(MAX_RANGES + 1), 100), Ranges::Whole);
        assert!(matches!(Ranges::parse(&many(MAX_RANGES), 100), Ranges::Parts(_)));
    }
}
