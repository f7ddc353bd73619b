//! A client that speaks the protocol on a real socket, and blocks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, sockets};

/// One reply or push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Null,
    Array(Vec<Value>),
}

impl Value {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    /// Channel and payload of a message; `None` for anything else.
    pub(crate) fn message(&self) -> Option<(&str, &str)> {
        let Self::Array(parts) = self else { return None };
        match parts.first()?.text() {
            "message" => Some((parts[1].text(), parts[2].text())),
            "pmessage" => Some((parts[2].text(), parts[3].text())),
            _ => None,
        }
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    read: usize,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// A client whose kernel takes little, so that it soon looks slow.
    pub(crate) fn with_small_buffer(address: SocketAddr) -> Self {
        Self::over(sockets::connect_with(address, sockets::Buffers::SLOW_READER))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            read: 0,
        }
    }

    pub(crate) fn send(&mut self, parts: &[&str]) {
        self.stream.write_all(&command(parts)).unwrap();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Says something and reads one reply.
    pub(crate) fn ask(&mut self, parts: &[&str]) -> Value {
        self.send(parts);
        self.next()
    }

    pub(crate) fn subscribe(&mut self, channel: &str) {
        let confirmed = self.ask(&["SUBSCRIBE", channel]);
        assert_eq!(
            confirmed,
            Value::Array(vec![
                Value::Text("subscribe".into()),
                Value::Text(channel.into()),
                match &confirmed {
                    Value::Array(parts) => parts[2].clone(),
                    other => panic!("{other:?}"),
                },
            ])
        );
    }

    pub(crate) fn next(&mut self) -> Value {
        self.try_next().expect("the server has closed the connection")
    }

    /// The next reply or push; `None` once the connection is closed or reset.
    pub(crate) fn try_next(&mut self) -> Option<Value> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().unwrap();
        Some(match kind {
            "+" | "-" => Value::Text(line),
            ":" => Value::Integer(number()),
            "_" => Value::Null,
            "$" | "=" if number() >= 0 => {
                let bytes = self.exactly(number() as usize + 2)?;
                Value::Text(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
            }
            "*" | ">" | "%" if number() >= 0 => {
                let count = number() * if kind == "%" { 2 } else { 1 };
                let mut parts = Vec::new();
                for _ in 0..count {
                    parts.push(self.try_next()?);
                }
                Value::Array(parts)
            }
            _ => Value::Null,
        })
    }

    /// Whether the connection ends within this time, whatever comes before.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let give_up = Instant::now() + time;
        self.stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut sink = [0; 65536];
        while Instant::now() < give_up {
            match self.stream.read(&mut sink) {
                Ok(0) => return true,
                Err(error) if !matches!(error.kind(), std::io::ErrorKind::WouldBlock) => return true,
                _ => {}
            }
        }
        false
    }

    fn line(&mut self) -> Option<String> {
        loop {
            let rest = &self.buffer[self.read..];
            if let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.read += end + 2;
                return Some(line);
            }
            self.fill()?;
        }
    }

    fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() - self.read < count {
            self.fill()?;
        }
        let bytes = self.buffer[self.read..self.read + count].to_vec();
        self.read += count;
        Some(bytes)
    }

    fn fill(&mut self) -> Option<()> {
        self.buffer.drain(..self.read);
        self.read = 0;
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece) {
            Ok(0) => None,
            Ok(count) => {
                self.buffer.extend_from_slice(&piece[..count]);
                Some(())
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {
                panic!("nothing came for {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }
}

/// A command as an array of strings.
pub(crate) fn command(parts: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        bytes.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
    }
    bytes
}
