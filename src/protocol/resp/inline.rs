//! Commands that a person types: words with quotes, on one line.
//!
//! Owns the quoting of Redis (`sdssplitargs`). Refuses to know commands.

use std::ops::Range;

/// Splits `line` into words, which are put into `unquoted`; answers where they
/// lie. `None` if a quote has no partner, or is not followed by a blank.
pub fn split(line: &[u8], unquoted: &mut Vec<u8>) -> Option<Vec<Range<usize>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        rest = &rest[blanks..];
        if rest.first().is_none_or(|&byte| byte == 0) {
            return Some(words);
        }
        let begin = unquoted.len();
        rest = take_word(rest, unquoted)?;
        words.push(begin..unquoted.len());
    }
}

/// `isspace` of C.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn take_word<'line>(mut rest: &'line [u8], word: &mut Vec<u8>) -> Option<&'line [u8]> {
    loop {
        match rest {
            [] | [0, ..] => return Some(&[]),
            [byte, ..] if is_blank(*byte) => return Some(rest),
            [b'"', quoted @ ..] => return take_double_quoted(quoted, word),
            [b'\'', quoted @ ..] => return take_single_quoted(quoted, word),
            [byte, behind @ ..] => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

/// What follows a closing quote must be a blank or the end.
fn behind_quote(rest: &[u8]) -> Option<&[u8]> {
    rest.first()
        .is_none_or(|&byte| is_blank(byte) || byte == 0)
        .then_some(rest)
}

fn take_double_quoted<'line>(mut rest: &'line [u8], word: &mut Vec<u8>) -> Option<&'line [u8]> {
    loop {
        match rest {
            [b'\\', b'x', high, low, behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex(*high) << 4 | hex(*low));
                rest = behind;
            }
            [b'\\', escaped, behind @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = behind;
            }
            [b'"', behind @ ..] => return behind_quote(behind),
            [] | [0, ..] => return None,
            [byte, behind @ ..] => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

fn take_single_quoted<'line>(mut rest: &'line [u8], word: &mut Vec<u8>) -> Option<&'line [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', behind @ ..] => {
                word.push(b'\'');
                rest = behind;
            }
            [b'\'', behind @ ..] => return behind_quote(behind),
            [] | [0, ..] => return None,
            [byte, behind @ ..] => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(line: &str) -> Option<Vec<Vec<u8>>> {
        let mut unquoted = Vec::new();
        let ranges = split(line.as_bytes(), &mut unquoted)?;
        Some(ranges.into_iter().map(|range| unquoted[range].to_vec()).collect())
    }

    #[test]
    fn words_are_split_and_quotes_taken_off() {
        assert_eq!(words(" a  b\t"), Some(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(
            words(r#""a b" 'c "d'"#),
            Some(vec![b"a b".to_vec(), b"c \"d".to_vec()])
        );
        assert_eq!(words(r#""\x41\n\q""#), Some(vec![b"A\nq".to_vec()]));
        assert_eq!(words(r"'it\'s'"), Some(vec![b"it's".to_vec()]));
        assert_eq!(words(r#"x"y""#), Some(vec![b"xy".to_vec()]));
        assert_eq!(words(r#""""#), Some(vec![vec![]]));
        assert_eq!(words(""), Some(vec![]));
    }

    #[test]
    fn quotes_without_a_partner_or_a_blank_behind_are_refused() {
        for line in [r#""a"#, "'a", r#""a"b"#, "'a'b", r#""a\"#] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
