//! Numbers in what is published, so that a subscriber's gaps, repeats and wrong bytes show.
//!
//! Pure. `{seq}` in a published line becomes `{000000000017}`, the number of the line. A server
//! may put around the payload what it likes; a stream is searched for numbers.

use std::ops::Range;
use std::sync::Arc;

/// What stands in a line for its number.
pub const NUMBER_PLACEHOLDER: &str = "{seq}";
/// Bytes that a number takes in the line that is sent.
pub const NUMBER_BYTES: usize = 14;
const DIGITS: usize = NUMBER_BYTES - 2;

/// A line that is published again and again, each time with the next number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumberedLine {
    bytes: Vec<u8>,
    digits: Option<Range<usize>>,
}

impl NumberedLine {
    pub(crate) fn new(line: &[u8]) -> Self {
        let Some(at) = places(line).next() else {
            return Self {
                bytes: line.to_vec(),
                digits: None,
            };
        };
        let (before, after) = (&line[..at], &line[at + NUMBER_PLACEHOLDER.len()..]);
        let bytes = [before, b"{", &[b'0'; DIGITS], b"}", after].concat();
        Self {
            bytes,
            digits: Some(at + 1..at + 1 + DIGITS),
        }
    }

    /// Where nothing stands for a number all lines are the same.
    pub(crate) fn set_number(&mut self, number: u64) {
        if let Some(digits) = self.digits.clone() {
            let text = format!("{number:0DIGITS$}");
            self.bytes[digits].copy_from_slice(text.as_bytes());
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What comes behind the number, without the end of the line: payload that a server passes on.
    fn rest_of_payload(&self) -> Option<&[u8]> {
        let digits = self.digits.clone()?;
        Some(self.bytes[digits.end + 1..].trim_ascii_end())
    }
}

/// How often a line has a place for its number.
pub(crate) fn count_places(line: &[u8]) -> usize {
    places(line).count()
}

fn places(line: &[u8]) -> impl Iterator<Item = usize> {
    let windows = line.windows(NUMBER_PLACEHOLDER.len()).enumerate();
    windows
        .filter(|(_, window)| *window == NUMBER_PLACEHOLDER.as_bytes())
        .map(|(at, _)| at)
}

/// What one stream has brought of numbered lines.
#[derive(Debug, Clone)]
pub(super) struct NumberReader {
    /// What comes behind each number; empty once a server is seen to change it.
    payload: Arc<[u8]>,
    last: Option<u64>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Looks for the next number.
    Between,
    /// So many bytes of something that may be a number, and the digits among them.
    Number { len: usize, value: u64 },
    /// So many bytes of the payload behind the number have come.
    Payload { len: usize, is_first: bool },
}

impl NumberReader {
    /// Of a stream of these lines; `None` where they have no numbers.
    pub(super) fn of(line: &NumberedLine) -> Option<Self> {
        Some(Self {
            payload: line.rest_of_payload()?.into(),
            last: None,
            state: State::Between,
        })
    }

    /// The last number that came.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// In words, what was lost, repeated or changed.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(first) = bytes.first() {
            match self.state {
                State::Between => match bytes.iter().position(|byte| *byte == b'{') {
                    Some(at) => {
                        self.state = State::Number { len: 1, value: 0 };
                        bytes = &bytes[at + 1..];
                    }
                    None => return Ok(()),
                },
                State::Number { len, value } => match (len, first) {
                    (1..=DIGITS, b'0'..=b'9') => {
                        let value = value * 10 + u64::from(first - b'0');
                        self.state = State::Number { len: len + 1, value };
                        bytes = &bytes[1..];
                    }
                    (NUMBER_BYTES_BUT_ONE, b'}') => {
                        bytes = &bytes[1..];
                        self.next_number(value)?;
                    }
                    // Not a number; the byte may begin one.
                    _ => self.state = State::Between,
                },
                State::Payload { len, is_first } => bytes = self.read_payload(bytes, len, is_first)?,
            }
        }
        Ok(())
    }

    fn next_number(&mut self, number: u64) -> Result<(), String> {
        let last = self.last.replace(number);
        self.state = State::Payload {
            len: 0,
            is_first: last.is_none(),
        };
        match last {
            Some(last) if number > last + 1 => Err(format!(
                "message {number} came after message {last}: {} were lost",
                number - last - 1
            )),
            Some(last) if number <= last => Err(format!(
                "message {number} came after message {last}: repeated, or out of order"
            )),
            _ => Ok(()),
        }
    }

    /// The rest of the bytes, behind those of the payload.
    fn read_payload<'a>(&mut self, bytes: &'a [u8], len: usize, is_first: bool) -> Result<&'a [u8], String> {
        let expected = &self.payload[len..];
        let common = expected.len().min(bytes.len());
        if bytes[..common] != expected[..common] {
            self.state = State::Between;
            if is_first {
                // A server may put a payload into other words; then numbers alone must do.
                self.payload = Arc::default();
                return Ok(bytes);
            }
            let number = self.last.unwrap_or(0);
            return Err(format!("message {number} is not what was published"));
        }
        self.state = match len + common {
            len if len < self.payload.len() => State::Payload { len, is_first },
            _ => State::Between,
        };
        Ok(&bytes[common..])
    }
}

const NUMBER_BYTES_BUT_ONE: usize = NUMBER_BYTES - 1;

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"PUBLISH news {seq} payload {x}\r\n";

    /// A stream as a server makes one of these numbers.
    fn stream(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let mut line = NumberedLine::new(LINE);
        let mut stream = b"+OK {1} {00000000000}\r\n".to_vec();
        for number in numbers {
            line.set_number(number);
            let payload = line
                .bytes()
                .strip_prefix(b"PUBLISH news ")
                .unwrap()
                .trim_ascii_end();
            stream.extend([b"*3\r\n$7\r\n", payload, b"\r\n"].concat());
        }
        stream
    }

    fn reader() -> NumberReader {
        NumberReader::of(&NumberedLine::new(LINE)).unwrap()
    }

    /// In pieces of every length.
    #[track_caller]
    fn assert_reads(stream: &[u8], expected: &Result<(), String>) -> Option<u64> {
        let mut last = None;
        for len in 1..stream.len() {
            let mut reader = reader();
            let read = stream.chunks(len).try_for_each(|piece| reader.read(piece));
            assert_eq!(read, *expected, "in pieces of {len}");
            last = reader.last();
        }
        last
    }

    #[test]
    fn numbers_in_order_are_right_in_any_cutting() {
        assert_eq!(assert_reads(&stream(7..20), &Ok(())), Some(19));
        assert_eq!(assert_reads(b"nothing {12} of this kind", &Ok(())), None);
    }

    #[test]
    fn what_was_lost_repeated_or_changed_is_told() {
        let lost = "message 9 came after message 5: 3 were lost".to_owned();
        assert_reads(&stream([4, 5, 9, 10]), &Err(lost));
        let again = "message 5 came after message 5: repeated, or out of order".to_owned();
        assert_reads(&stream([4, 5, 5]), &Err(again));
        let mut changed = stream(1..5);
        let len = changed.len();
        changed[len - 4] ^= 1;
        assert_reads(&changed, &Err("message 4 is not what was published".to_owned()));
    }

    #[test]
    fn a_server_that_puts_payloads_into_other_words_is_held_to_the_numbers_alone() {
        let in_other_words = |numbers: &[u64]| {
            let text: Vec<_> = numbers.iter().map(|n| format!("{{{n:012}}}=payload;")).collect();
            text.concat().into_bytes()
        };
        assert_eq!(assert_reads(&in_other_words(&[1, 2, 3]), &Ok(())), Some(3));
        let lost = "message 4 came after message 2: 1 were lost".to_owned();
        assert_reads(&in_other_words(&[1, 2, 4]), &Err(lost));
    }

    #[test]
    fn a_line_without_a_place_for_a_number_stays_as_it_is() {
        let mut plain = NumberedLine::new(b"PUBLISH news {sequence}\r\n");
        plain.set_number(17);
        assert_eq!(plain.bytes(), b"PUBLISH news {sequence}\r\n");
        assert!(NumberReader::of(&plain).is_none());
        let mut numbered = NumberedLine::new(b"a {seq}\r\n");
        numbered.set_number(17);
        assert_eq!(numbered.bytes(), b"a {000000000017}\r\n");
        assert_eq!(count_places(b"{seq} and {seq}"), 2);
    }
}
