//! Finds commands in what a client sends.
//!
//! Owns the place up to which an unfinished command has been understood, so
//! that no byte is looked at twice however slowly it comes. Refuses to keep
//! the bytes: the caller does, from the first byte of the command on. It
//! refuses to allocate by what a header announces; memory grows with the bytes
//! that really came.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>, and
//! the words of Redis 7.0.15 for what is wrong.

use std::fmt;
use std::ops::Range;

use super::{inline, parse_integer};

/// How much a client may send as one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// Longest argument, in bytes.
    pub max_argument_bytes: usize,
    /// Most arguments, the name of the command included.
    pub max_arguments: usize,
    /// Longest inline command, and longest header, in bytes.
    pub max_line_bytes: usize,
    /// Longest command in all, in bytes.
    pub max_command_bytes: usize,
    /// Whether the client has yet to log in: then a command may have 10 arguments of 16 KiB.
    pub is_stranger: bool,
}

/// Most arguments of a client that has not logged in.
const STRANGER_ARGUMENTS: i64 = 10;
/// Longest argument of a client that has not logged in, in bytes.
const STRANGER_ARGUMENT_BYTES: i64 = 16 * 1024;

/// What is wrong with the stream of a client. Nothing behind it can be
/// understood, so the connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The number of arguments is no number.
    ArgumentCount,
    /// The length of an argument is no number.
    ArgumentLength,
    /// An argument does not begin with `$`, but with this byte.
    NoArgument(u8),
    /// A header has no end.
    ArgumentCountTooLong,
    /// A header has no end.
    ArgumentLengthTooLong,
    /// An inline command has no end.
    InlineTooLong,
    /// An inline command has a quote without its partner.
    UnbalancedQuotes,
    /// So many arguments from a client that has not logged in.
    StrangerArguments,
    /// Such a long argument from a client that has not logged in.
    StrangerArgument,
    /// More arguments than the second number.
    TooManyArguments(u64, usize),
    /// A longer argument, in bytes, than the second number.
    ArgumentTooLong(u64, usize),
    /// A longer command than this, in bytes.
    CommandTooLong(usize),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArgumentCount => f.write_str("invalid multibulk length"),
            Self::ArgumentLength => f.write_str("invalid bulk length"),
            Self::NoArgument(byte) => {
                let shown = char::from(if (0x20..0x7f).contains(byte) { *byte } else { b'?' });
                write!(f, "expected '$', got '{shown}'")
            }
            Self::ArgumentCountTooLong => f.write_str("too big mbulk count string"),
            Self::ArgumentLengthTooLong => f.write_str("too big bulk count string"),
            Self::InlineTooLong => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            Self::StrangerArguments => f.write_str("unauthenticated multibulk length"),
            Self::StrangerArgument => f.write_str("unauthenticated bulk length"),
            Self::TooManyArguments(count, most) => {
                write!(
                    f,
                    "invalid multibulk length: {count} arguments, the limit is {most}"
                )
            }
            Self::ArgumentTooLong(length, most) => {
                write!(f, "invalid bulk length: {length} bytes, the limit is {most}")
            }
            Self::CommandTooLong(most) => write!(f, "the command is longer than {most} bytes"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Understands one command after the other. Call [`advance`](Self::advance)
/// with all bytes of the present command, and again once more have come.
#[derive(Debug, Default)]
pub struct CommandParser {
    /// Up to here the command is understood.
    position: usize,
    /// Arguments that are still to come; 0 before the header.
    missing: usize,
    /// The length of the argument whose header was read.
    argument_bytes: Option<usize>,
    arguments: Vec<Range<usize>>,
    /// The arguments of an inline command, without quotes.
    unquoted: Option<Vec<u8>>,
}

impl CommandParser {
    /// Goes on with a command that begins at the first byte of `input`.
    /// Answers its length once it is complete; [`arguments`](Self::arguments)
    /// has its parts until [`next`](Self::next). `None` asks for more bytes.
    ///
    /// # Errors
    ///
    /// The stream makes no sense from here on, or exceeds a limit.
    pub fn advance(&mut self, input: &[u8], limits: &CommandLimits) -> Result<Option<usize>, ProtocolError> {
        if self.missing == 0 {
            match input.first() {
                None => return Ok(None),
                Some(b'*') => {
                    if !self.read_count(input, limits)? {
                        return Ok(None);
                    }
                }
                Some(_) => return self.read_inline(input, limits),
            }
        }
        while self.missing > 0 {
            if !self.read_argument(input, limits)? {
                return Ok(None);
            }
        }
        Ok(Some(self.position))
    }

    /// The parts of the command that was found in `input`; none for an empty
    /// line or an array of nothing.
    #[must_use]
    pub fn arguments<'input>(&'input self, input: &'input [u8]) -> Arguments<'input> {
        Arguments {
            bytes: self.unquoted.as_deref().unwrap_or(input),
            ranges: &self.arguments,
        }
    }

    /// Makes ready for the next command.
    pub fn next(&mut self) {
        self.position = 0;
        self.missing = 0;
        self.argument_bytes = None;
        self.arguments.clear();
        self.unquoted = None;
    }

    /// Bytes of memory beyond those that the caller keeps.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.arguments.capacity() * size_of::<Range<usize>>()
    }

    /// Reads `*COUNT`. Answers whether it is complete.
    fn read_count(&mut self, input: &[u8], limits: &CommandLimits) -> Result<bool, ProtocolError> {
        let Some((line, behind)) = line_at(input, 0) else {
            return unfinished(input.len(), limits, ProtocolError::ArgumentCountTooLong);
        };
        let count = parse_integer(&line[1..]).filter(|count| *count <= i64::from(i32::MAX));
        let count = count.ok_or(ProtocolError::ArgumentCount)?;
        if limits.is_stranger && count > STRANGER_ARGUMENTS {
            return Err(ProtocolError::StrangerArguments);
        }
        self.missing = usize::try_from(count).unwrap_or(0);
        if self.missing > limits.max_arguments {
            return Err(ProtocolError::TooManyArguments(
                count.unsigned_abs(),
                limits.max_arguments,
            ));
        }
        self.position = behind;
        Ok(true)
    }

    /// Reads `$LENGTH` and so many bytes. Answers whether they are complete.
    fn read_argument(&mut self, input: &[u8], limits: &CommandLimits) -> Result<bool, ProtocolError> {
        let length = match self.argument_bytes {
            Some(length) => length,
            None => {
                let Some((line, behind)) = line_at(input, self.position) else {
                    let waiting = input.len() - self.position;
                    return unfinished(waiting, limits, ProtocolError::ArgumentLengthTooLong);
                };
                let length = argument_length(line, limits)?;
                self.position = behind;
                self.argument_bytes = Some(length);
                length
            }
        };
        let end = self.position + length;
        if end + 2 > limits.max_command_bytes {
            return Err(ProtocolError::CommandTooLong(limits.max_command_bytes));
        }
        if input.len() < end + 2 {
            return Ok(false);
        }
        self.arguments.push(self.position..end);
        self.position = end + 2;
        self.argument_bytes = None;
        self.missing -= 1;
        Ok(true)
    }

    fn read_inline(&mut self, input: &[u8], limits: &CommandLimits) -> Result<Option<usize>, ProtocolError> {
        // A line has no state, so it is searched from where the last search ended.
        let Some(found) = input[self.position..].iter().position(|&byte| byte == b'\n') else {
            self.position = input.len();
            if input.len() > limits.max_line_bytes {
                return Err(ProtocolError::InlineTooLong);
            }
            return Ok(None);
        };
        let end = self.position + found;
        if end > limits.max_line_bytes {
            return Err(ProtocolError::InlineTooLong);
        }
        let line = &input[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut unquoted = Vec::new();
        self.arguments = inline::split(line, &mut unquoted).ok_or(ProtocolError::UnbalancedQuotes)?;
        if self.arguments.len() > limits.max_arguments {
            let count = self.arguments.len() as u64;
            return Err(ProtocolError::TooManyArguments(count, limits.max_arguments));
        }
        self.unquoted = Some(unquoted);
        Ok(Some(end + 1))
    }
}

/// The parts of one command: its name, then its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'input> {
    bytes: &'input [u8],
    ranges: &'input [Range<usize>],
}

impl<'input> Arguments<'input> {
    /// Parts that lie in `bytes`, at these places.
    #[must_use]
    pub const fn new(bytes: &'input [u8], ranges: &'input [Range<usize>]) -> Self {
        Self { bytes, ranges }
    }

    /// The part with this number, empty if there is none.
    #[must_use]
    pub fn at(&self, index: usize) -> &'input [u8] {
        self.ranges
            .get(index)
            .map_or(&[][..], |range| &self.bytes[range.clone()])
    }

    /// All parts from this number on.
    pub fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'input [u8]> + use<'input> {
        let bytes = self.bytes;
        let ranges = self.ranges.get(index..).unwrap_or_default();
        ranges.iter().map(move |range| &bytes[range.clone()])
    }

    /// How many parts there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether this is no command at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// The line that begins at `from`, without its end, and where the next begins.
fn line_at(input: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = &input[from..];
    let end = rest.iter().position(|&byte| byte == b'\r')?;
    // Like Redis, this takes the byte behind CR for LF without a look.
    (end + 2 <= rest.len()).then(|| (&rest[..end], from + end + 2))
}

fn unfinished(waiting: usize, limits: &CommandLimits, error: ProtocolError) -> Result<bool, ProtocolError> {
    if waiting > limits.max_line_bytes {
        return Err(error);
    }
    Ok(false)
}

fn argument_length(line: &[u8], limits: &CommandLimits) -> Result<usize, ProtocolError> {
    let (&first, digits) = line.split_first().unwrap_or((&b'\r', &[]));
    if first != b'$' {
        return Err(ProtocolError::NoArgument(first));
    }
    let length = parse_integer(digits).ok_or(ProtocolError::ArgumentLength)?;
    let bytes = u64::try_from(length).map_err(|_| ProtocolError::ArgumentLength)?;
    if bytes > limits.max_argument_bytes as u64 {
        return Err(ProtocolError::ArgumentTooLong(bytes, limits.max_argument_bytes));
    }
    if limits.is_stranger && length > STRANGER_ARGUMENT_BYTES {
        return Err(ProtocolError::StrangerArgument);
    }
    usize::try_from(bytes).map_err(|_| ProtocolError::ArgumentLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CommandLimits = CommandLimits {
        max_argument_bytes: 1000,
        max_arguments: 5,
        max_line_bytes: 64,
        max_command_bytes: 3000,
        is_stranger: false,
    };

    /// All commands of `input`, which comes in pieces of this length.
    fn commands(
        input: &[u8],
        piece: usize,
        limits: &CommandLimits,
    ) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut parser = CommandParser::default();
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        for piece in input.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(length) = parser.advance(&buffer, limits)? {
                found.push(parser.arguments(&buffer).from(0).map(<[u8]>::to_vec).collect());
                buffer.drain(..length);
                parser.next();
            }
        }
        Ok(found)
    }

    #[test]
    fn commands_are_found_however_they_are_cut() {
        let input =
            b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\nPING 'x y'\r\n\r\n*0\r\n*-1\r\n*1\r\n$0\r\n\r\nQUIT\n";
        let expected: Vec<Vec<Vec<u8>>> = vec![
            vec![b"ECHO".to_vec(), b"a\r\n".to_vec()],
            vec![b"PING".to_vec(), b"x y".to_vec()],
            vec![],
            vec![],
            vec![],
            vec![b"".to_vec()],
            vec![b"QUIT".to_vec()],
        ];
        for piece in 1..=input.len() {
            assert_eq!(
                commands(input, piece, &LIMITS).unwrap(),
                expected,
                "pieces of {piece}"
            );
        }
    }

    fn refusal(input: &[u8]) -> String {
        let whole = commands(input, usize::MAX, &LIMITS).unwrap_err().to_string();
        let by_byte = commands(input, 1, &LIMITS).unwrap_err().to_string();
        assert_eq!(whole, by_byte);
        whole
    }

    #[test]
    fn errors_have_the_words_of_redis() {
        assert_eq!(refusal(b"*x\r\n"), "invalid multibulk length");
        assert_eq!(refusal(b"*2147483648\r\n"), "invalid multibulk length");
        assert_eq!(refusal(b"*1\r\nPING\r\n"), "expected '$', got 'P'");
        assert_eq!(refusal(b"*1\r\n$-1\r\n"), "invalid bulk length");
        assert_eq!(refusal(b"*1\r\n$x\r\n"), "invalid bulk length");
        assert_eq!(refusal(b"echo \"a\r\n"), "unbalanced quotes in request");
        assert_eq!(refusal(&b"*1".repeat(40)), "too big mbulk count string");
        assert_eq!(
            refusal(&[&b"*1\r\n"[..], &b"$".repeat(80)].concat()),
            "too big bulk count string"
        );
        assert_eq!(refusal(&b"p".repeat(80)), "too big inline request");
    }

    #[test]
    fn limits_are_named_with_their_number() {
        assert_eq!(
            refusal(b"*6\r\n"),
            "invalid multibulk length: 6 arguments, the limit is 5"
        );
        assert_eq!(
            refusal(b"*1\r\n$1001\r\n"),
            "invalid bulk length: 1001 bytes, the limit is 1000"
        );
        assert_eq!(
            refusal(b"a b c d e f\r\n"),
            "invalid multibulk length: 6 arguments, the limit is 5"
        );
        let long = [
            &b"*4\r\n"[..],
            &[&b"$1000\r\n"[..], &[b'x'; 1000], b"\r\n"].concat().repeat(4),
        ]
        .concat();
        assert_eq!(refusal(&long), "the command is longer than 3000 bytes");
        assert!(
            commands(b"*5\r\n$1000\r\n", 1, &LIMITS).is_ok(),
            "at the limits is not over them"
        );
    }

    #[test]
    fn a_stranger_may_send_little() {
        let limits = CommandLimits {
            is_stranger: true,
            max_arguments: 1024,
            max_argument_bytes: 1 << 20,
            ..LIMITS
        };
        let refused = |input| commands(input, 1, &limits).unwrap_err().to_string();
        assert_eq!(refused(b"*11\r\n"), "unauthenticated multibulk length");
        assert_eq!(refused(b"*1\r\n$16385\r\n"), "unauthenticated bulk length");
    }

    #[test]
    fn a_header_alone_allocates_nothing() {
        let limits = CommandLimits {
            max_argument_bytes: 1 << 40,
            max_arguments: 1 << 30,
            max_command_bytes: 1 << 40,
            ..LIMITS
        };
        let mut parser = CommandParser::default();
        assert_eq!(
            parser.advance(b"*1073741823\r\n$1000000000\r\nx", &limits),
            Ok(None)
        );
        assert_eq!(parser.memory_bytes(), 0);
    }
}
