//! What has to hold for every request and every set of ranges, whatever a
//! client sends. Shared with the fuzz targets.

use std::time::{Duration, SystemTime};

use highwater::protocol::http1::limits::{MAX_HEAD_BYTES, MAX_HEAD_FIELDS, MAX_RANGES, MAX_TARGET_BYTES};
use highwater::protocol::http1::request::{check_unfinished, first_line};
use highwater::protocol::http1::target::encode;
use highwater::protocol::http1::{Ranges, Request, Target, Validators, head_end};

/// Heads are found at the same places, however the bytes are cut; and each is
/// either refused, or so plain that no program could read it differently.
pub(crate) fn check_requests(bytes: &[u8], pieces: &[u8]) {
    let ends = ends_at_once(bytes);
    assert_eq!(
        ends,
        ends_in_pieces(bytes, pieces),
        "{:?}",
        bytes.escape_ascii().to_string()
    );
    let mut from = 0;
    for end in ends {
        check_head(&bytes[from..end]);
        from = end;
    }
    let _ = check_unfinished(&bytes[from..]);
}

fn ends_at_once(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut from = 0;
    while let Some(length) = head_end(&bytes[from..], 0) {
        from += length;
        ends.push(from);
    }
    ends
}

/// As a service does it: what was searched is not searched again.
fn ends_in_pieces(bytes: &[u8], pieces: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut from, mut to, mut searched) = (0, 0, 0);
    let mut pieces = pieces.iter().cycle();
    while to < bytes.len() {
        let piece = pieces.next().map_or(1, |&piece| usize::from(piece).max(1));
        to = (to + piece).min(bytes.len());
        while let Some(length) = head_end(&bytes[from..to], searched) {
            from += length;
            searched = 0;
            ends.push(from);
        }
        searched = to - from;
    }
    ends
}

/// A head that was accepted, taken apart by the simplest means.
fn check_head(head: &[u8]) {
    let request = match Request::parse(head) {
        Ok(request) => request,
        Err(refusal) => {
            assert!((400..600).contains(&refusal.status.code()));
            return;
        }
    };
    let said = head.escape_ascii().to_string();
    assert!(head.len() <= MAX_HEAD_BYTES);
    let is_alone = |at: usize| head[at] == b'\r' && head.get(at + 1) != Some(&b'\n');
    assert!(!(0..head.len()).any(is_alone), "CR alone: {said}");
    let text = head.split(|&byte| byte == b'\n');
    let lines: Vec<&[u8]> = text
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .collect();
    let words: Vec<&[u8]> = lines[0].split(|&byte| byte == b' ').collect();
    assert!(
        words.len() == 3 && words[1] == request.target.as_bytes(),
        "{said}"
    );
    assert!(
        matches!(words[2], [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9']),
        "{said}"
    );
    assert_eq!(first_line(head), lines[0]);
    assert!(request.target.len() <= MAX_TARGET_BYTES && lines.len() <= 1 + MAX_HEAD_FIELDS);
    let (mut hosts, mut lengths) = (0, 0);
    for line in &lines[1..] {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or_else(|| panic!("no colon: {said}")));
        let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(byte);
        assert!(!name.is_empty() && name.iter().all(is_token), "{said}");
        assert!(!value.contains(&0), "{said}");
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => {
                lengths += 1;
                let digits = value[1..].trim_ascii();
                assert!(
                    !digits.is_empty() && digits.iter().all(|&digit| digit == b'0'),
                    "{said}"
                );
            }
            b"transfer-encoding" => panic!("a body was accepted: {said}"),
            _ => {}
        }
    }
    assert!(
        lengths <= 1 && hosts <= 1 && (hosts == 1 || request.is_http_10),
        "{said}"
    );
    check_target(request.target);
    let validators = Validators {
        etag: "\"a\"".into(),
        modified: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    };
    let _ = validators.judge(&request);
    if let Some(range) = &request.range {
        check_ranges(range, 1000);
    }
}

/// No path leads upwards, and its link leads back to it.
pub(crate) fn check_target(target: &str) {
    let Ok(parsed) = Target::parse(target) else { return };
    if !parsed.path.is_empty() {
        for name in parsed.path.split(|&byte| byte == b'/') {
            assert!(!matches!(name, b"" | b"." | b".."), "{target:?}");
            assert!(!name.contains(&0), "{target:?}");
        }
    }
    let again = Target::parse(&format!("/{}", encode(&parsed.path))).map(|again| again.path);
    assert_eq!(again, Ok(parsed.path));
}

/// Ranges lie inside the file, are few, and never cost more than the file; and
/// they are those of a parser that knows big numbers.
pub(crate) fn check_ranges(field: &str, size_bytes: u64) {
    let parsed = Ranges::parse(field, size_bytes);
    if let Ranges::Parts(parts) = &parsed {
        assert!((1..=MAX_RANGES).contains(&parts.len()));
        assert!(
            parts
                .iter()
                .all(|part| part.first < part.end && part.end <= size_bytes)
        );
        let total: u128 = parts.iter().map(|part| u128::from(part.len())).sum();
        assert!(
            parts.len() == 1 || total <= u128::from(size_bytes),
            "{field:?} of {size_bytes}"
        );
    }
    let simple = simple_ranges(field, size_bytes);
    assert_eq!(parsed, simple, "{field:?} of {size_bytes}");
}

fn simple_ranges(field: &str, size_bytes: u64) -> Ranges {
    fn digits(text: &str) -> Option<Option<u128>> {
        if !text.chars().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let number = text.chars().fold(0_u128, |number, digit| {
            (number * 10 + u128::from(digit as u8 - b'0')).min(1 << 100)
        });
        Some((!text.is_empty()).then_some(number))
    }
    let parse = || -> Option<Vec<Option<(u128, u128)>>> {
        let (unit, set) = field.split_once('=')?;
        let specs: Vec<&str> = set
            .split(',')
            .map(str::trim)
            .filter(|spec| !spec.is_empty())
            .collect();
        let is_bytes = unit.trim().eq_ignore_ascii_case("bytes");
        if !is_bytes || specs.is_empty() || specs.len() > MAX_RANGES {
            return None;
        }
        let size = u128::from(size_bytes);
        let one = |spec: &&str| {
            let (first, last) = spec.split_once('-')?;
            let (first, end) = match (digits(first)?, digits(last)?) {
                (None, None) => return None,
                (None, Some(suffix)) => (size - suffix.min(size), size),
                (Some(first), None) => (first, size),
                // As texts of one length, so that no number is too large.
                (Some(_), Some(_)) if format!("{last:0>4096}") < format!("{first:0>4096}") => return None,
                (Some(first), Some(last)) => (first, (last + 1).min(size)),
            };
            Some((first < end).then_some((first, end)))
        };
        specs.iter().map(one).collect()
    };
    let Some(found) = parse() else {
        return Ranges::Whole;
    };
    let parts: Vec<(u128, u128)> = found.into_iter().flatten().collect();
    let total: u128 = parts.iter().map(|(first, end)| end - first).sum();
    if parts.is_empty() {
        return Ranges::Unsatisfiable;
    }
    if parts.len() > 1 && total > u128::from(size_bytes) {
        return Ranges::Whole;
    }
    let part = |(first, end): (u128, u128)| highwater::protocol::http1::ByteRange {
        first: first as u64,
        end: end as u64,
    };
    Ranges::Parts(parts.into_iter().map(part).collect())
}
