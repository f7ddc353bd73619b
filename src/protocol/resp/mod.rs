//! RESP, the protocol of Redis, versions 2 and 3: commands in, replies out.
//!
//! `command` finds commands in a stream, `inline` those that a person types,
//! `reply` encodes what the server says.

pub mod command;
pub mod inline;
pub mod reply;

pub use command::{Arguments, CommandLimits, CommandParser, ProtocolError};
pub use reply::{Reply, Version};

/// A number as Redis reads one: decimal, with `-` and without `+`, leading
/// zeros or blanks.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_plain {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_integer;

    #[test]
    fn integers_are_read_as_strictly_as_in_redis() {
        assert_eq!(parse_integer(b"0"), Some(0));
        assert_eq!(parse_integer(b"-7"), Some(-7));
        assert_eq!(parse_integer(b"9223372036854775807"), Some(i64::MAX));
        for wrong in ["", "-", "-0", "+1", "01", " 1", "1 ", "1x", "9223372036854775808"] {
            assert_eq!(parse_integer(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
