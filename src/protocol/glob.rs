//! Glob patterns as Redis matches channel names with them.
//!
//! Owns the meaning of `*`, `?`, `[a-z]`, `[^a]` and `\`. Refuses a pattern
//! whose cost is not bounded: a pattern with `n` stars against a name of `m`
//! bytes never takes more than `pattern length x (m + 1)` steps, where a
//! plain recursion takes exponentially many.

/// Whether `name` matches `pattern` as a whole, byte by byte.
///
/// ```
/// use highwater::protocol::glob::matches;
///
/// assert!(matches(b"news.*", b"news.art"));
/// assert!(matches(b"h[^e]llo", b"hallo") && !matches(b"h[^e]llo", b"hello"));
/// ```
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: the pattern behind the last star, and
    // the first byte that this star has not swallowed yet. Only the last star
    // needs a second try, since an earlier one can gain nothing by more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        let step = match name.get(n) {
            None if p >= pattern.len() => return true,
            // What is left of the pattern needs a byte, and no star can help.
            None => return false,
            Some(&byte) => match_one(&pattern[p..], byte),
        };
        if let Some(length) = step {
            p += length;
            n += 1;
        } else if let Some((after_star, swallowed)) = retry {
            p = after_star;
            n = swallowed + 1;
            retry = Some((p, n));
        } else {
            return false;
        }
    }
}

/// Matches one byte with the first element of `pattern`, which is no star.
/// Answers the length of that element.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match_class(pattern, byte),
        b'\\' if pattern.len() >= 2 => (pattern[1] == byte).then_some(2),
        literal => (literal == byte).then_some(1),
    }
}

/// Matches one byte with a class such as `[a-z]` or `[^abc]`. An unfinished
/// class ends with the pattern, as in Redis.
fn match_class(pattern: &[u8], byte: u8) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(1) == Some(&b'^');
    at += usize::from(negated);
    let mut found = false;
    loop {
        match pattern.get(at) {
            None => break,
            Some(b']') => {
                at += 1;
                break;
            }
            Some(b'\\') if at + 1 < pattern.len() => {
                found |= pattern[at + 1] == byte;
                at += 2;
            }
            Some(&low) if at + 2 < pattern.len() && pattern[at + 1] == b'-' => {
                let high = pattern[at + 2];
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            Some(&literal) => {
                found |= literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("*a", "bab", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[\\]]", "]", true),
            ("[a-]", "-", false), // the range from `a` to `]`, without an end
            ("[a-]", "^", true),
            ("[abc", "b", true),
            ("[^", "b", true),
            ("a\\", "a\\", true),
            ("ticks.*", "ticks", false),
        ];
        for &(pattern, name, expected) in cases {
            let matched = matches(pattern.as_bytes(), name.as_bytes());
            assert_eq!(matched, expected, "{pattern} {name}");
        }
    }

    /// The plain definition, exponential and obviously right.
    fn plainly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.first() {
            None => name.is_empty(),
            Some(b'*') => (0..=name.len()).any(|skip| plainly(&pattern[1..], &name[skip..])),
            Some(_) => name
                .first()
                .and_then(|&byte| match_one(pattern, byte))
                .is_some_and(|length| plainly(&pattern[length..], &name[1..])),
        }
    }

    #[test]
    fn every_short_pattern_agrees_with_the_plain_definition() {
        let alphabet = b"ab*?[]^-\\";
        let names: [&[u8]; 6] = [b"", b"a", b"ab", b"ba", b"aab", b"abab"];
        for length in 0..=4u32 {
            for mut number in 0..alphabet.len().pow(length) {
                let mut pattern = Vec::new();
                for _ in 0..length {
                    pattern.push(alphabet[number % alphabet.len()]);
                    number /= alphabet.len();
                }
                for name in names {
                    assert_eq!(
                        matches(&pattern, name),
                        plainly(&pattern, name),
                        "{pattern:?} {name:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = b"a*".repeat(2_000);
        let mut name = b"a".repeat(20_000);
        name.push(b'b');
        assert!(matches(&pattern, &name));
        let mut never = pattern;
        never.push(b'c');
        assert!(!matches(&never, &name));
    }
}
