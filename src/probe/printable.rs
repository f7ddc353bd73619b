//! Words of others, such as a server's name or reason, made safe to print.
//!
//! Pure. Owns what is escaped: control characters and those that turn the direction of a line.

/// No word of others is longer than this in a report, in characters.
const LONGEST_QUOTE_CHARS: usize = 200;

/// How much of what a server says first is kept to be shown.
const FIRST_WORDS_BYTES: usize = 200;

/// Keeps the next bytes that a server said, as long as they are among its first words.
pub(crate) fn keep_first_words(first_words: &mut Vec<u8>, said: &[u8]) {
    let room = FIRST_WORDS_BYTES - first_words.len();
    first_words.extend_from_slice(&said[..said.len().min(room)]);
}

/// `text` with all that could move a cursor, colour a terminal, begin a line or turn its direction
/// written as an escape, and cut at [`LONGEST_QUOTE_CHARS`].
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    let mut printed = String::new();
    let mut chars = 0;
    for char in text.trim_end_matches(['\r', '\n']).chars() {
        let is_safe = !char.is_control() && !turns_direction(char);
        let escape = if is_safe {
            String::from(char)
        } else {
            char.escape_default().to_string()
        };
        let length = escape.chars().count();
        if chars + length >= LONGEST_QUOTE_CHARS {
            printed.push('…');
            break;
        }
        chars += length;
        printed.push_str(&escape);
    }
    printed
}

/// Bidirectional controls and line separators (Unicode, Bidi_Control; UAX 9).
fn turns_direction(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_terminal_is_escaped_and_what_people_write_is_not() {
        assert_eq!(printable("nginx é 漢"), "nginx é 漢");
        assert_eq!(
            printable("\x1b[2J\nverdict: pass\r\n"),
            "\\u{1b}[2J\\nverdict: pass"
        );
        assert_eq!(printable("a\u{9b}b\u{202e}c"), "a\\u{9b}b\\u{202e}c");
    }

    #[test]
    fn a_long_word_is_cut() {
        let cut = printable(&"x".repeat(1000));
        assert_eq!(cut.chars().count(), LONGEST_QUOTE_CHARS);
        assert!(cut.ends_with('…'));
        assert!(printable(&"\x1b".repeat(1000)).chars().count() <= LONGEST_QUOTE_CHARS);
    }
}
