//! Commands of Redis's protocol: a stream understood as a whole, as it arrives
//! in pieces, and by the simplest parser gives the same commands; what was
//! understood is understood again after it was encoded; and an unfinished
//! command takes no more memory than its bytes allow.

#![no_main]

use arbitrary::Arbitrary;
use highwater::protocol::resp::{Arguments, CommandLimits, CommandParser, parse_integer};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'bytes> {
    max_argument_bytes: u16,
    max_arguments: u8,
    is_stranger: bool,
    /// How many bytes arrive at a time, over and over.
    pieces: [u8; 4],
    stream: &'bytes [u8],
}

type Command = Vec<Vec<u8>>;

/// Commands, and whether the stream makes sense up to its end.
type Understood = (Vec<Command>, bool);

/// A word takes at least two bytes, and so much in the parser.
const MEMORY_A_BYTE: usize = 64;

fn in_pieces(stream: &[u8], limits: &CommandLimits, pieces: &[u8]) -> Understood {
    let (mut commands, mut kept, mut rest) = (Vec::new(), Vec::new(), stream);
    let mut parser = CommandParser::default();
    let mut lengths = pieces.iter().map(|&piece| usize::from(piece).max(1)).cycle();
    while !rest.is_empty() {
        let length = lengths.next().unwrap_or(usize::MAX).min(rest.len());
        kept.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
        loop {
            match parser.advance(&kept, limits) {
                Ok(Some(length)) => {
                    let arguments = parser.arguments(&kept);
                    assert!(arguments.len() <= limits.max_arguments);
                    commands.push(arguments.from(0).map(<[u8]>::to_vec).collect());
                    parser.next();
                    assert!(length > 0 && length <= kept.len());
                    kept.drain(..length);
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (commands, false);
                }
            }
        }
        assert!(parser.memory_bytes() <= MEMORY_A_BYTE * (stream.len() + 16));
    }
    (commands, true)
}

/// Reads arrays only; `None` once an inline command begins.
fn simple(stream: &[u8], limits: &CommandLimits) -> Option<Understood> {
    let mut commands = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        if stream[at] != b'*' {
            return None;
        }
        match one(&stream[at..], limits) {
            Some(Ok((command, length))) => {
                commands.push(command);
                at += length;
            }
            Some(Err(())) => return Some((commands, false)),
            None => break,
        }
    }
    Some((commands, true))
}

/// One array and its length; an error if it makes no sense, `None` if it is not
/// complete.
fn one(stream: &[u8], limits: &CommandLimits) -> Option<Result<(Command, usize), ()>> {
    let number = |from: usize, sign: u8| -> Option<Result<(i64, usize), ()>> {
        let rest = &stream[from..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\r') else {
            return (rest.len() > limits.max_line_bytes).then_some(Err(()));
        };
        if end + 1 >= rest.len() {
            return (rest.len() > limits.max_line_bytes).then_some(Err(()));
        }
        let digits = rest[..end].strip_prefix(&[sign]);
        Some(match digits.and_then(parse_integer) {
            Some(number) => Ok((number, from + end + 2)),
            None => Err(()),
        })
    };
    let (count, mut at) = match number(0, b'*')? {
        Ok(found) => found,
        Err(()) => return Some(Err(())),
    };
    let most = if limits.is_stranger {
        limits.max_arguments.min(10)
    } else {
        limits.max_arguments
    };
    if count > most as i64 {
        return Some(Err(()));
    }
    let mut command = Vec::new();
    for _ in 0..count {
        let (length, behind) = match number(at, b'$')? {
            Ok(found) => found,
            Err(()) => return Some(Err(())),
        };
        let longest = if limits.is_stranger {
            limits.max_argument_bytes.min(16 * 1024)
        } else {
            limits.max_argument_bytes
        };
        if !(0..=longest as i64).contains(&length) {
            return Some(Err(()));
        }
        let end = behind + length as usize;
        if end + 2 > limits.max_command_bytes {
            return Some(Err(()));
        }
        if end + 2 > stream.len() {
            return None;
        }
        command.push(stream[behind..end].to_vec());
        at = end + 2;
    }
    Some(Ok((command, at)))
}

fn encode(command: &Command) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fuzz_target!(|input: Input<'_>| {
    let limits = CommandLimits {
        max_argument_bytes: usize::from(input.max_argument_bytes),
        max_arguments: usize::from(input.max_arguments),
        max_line_bytes: 64,
        max_command_bytes: usize::from(input.max_argument_bytes) + 1024,
        is_stranger: input.is_stranger,
    };
    let whole = in_pieces(input.stream, &limits, &[]);
    assert_eq!(whole, in_pieces(input.stream, &limits, &input.pieces));
    if let Some(simple) = simple(input.stream, &limits) {
        assert_eq!(whole, simple);
    }
    for command in whole.0.iter().filter(|command| !command.is_empty()) {
        let bytes = encode(command);
        let generous = CommandLimits {
            max_argument_bytes: 1 << 20,
            max_arguments: 1 << 10,
            max_line_bytes: 64,
            max_command_bytes: 1 << 21,
            is_stranger: false,
        };
        let mut parser = CommandParser::default();
        assert_eq!(parser.advance(&bytes, &generous), Ok(Some(bytes.len())));
        let again: Arguments<'_> = parser.arguments(&bytes);
        assert!(again.from(0).eq(command.iter().map(Vec::as_slice)));
    }
});
