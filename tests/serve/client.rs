//! A folder with files, a server of it, and a client that reads answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tempfile::TempDir;

use crate::support::server::Server;
use crate::support::{PATIENCE, pattern};

/// Far more than the kernel holds for a client.
pub(crate) const LARGE_BYTES: usize = 48 << 20;

/// A server of a folder of its own.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) server: Server,
}

impl Site {
    /// With a large file too.
    pub(crate) fn new(options: &[&str]) -> Self {
        let site = Self::small(options);
        std::fs::write(site.path().join("large.bin"), pattern(LARGE_BYTES)).unwrap();
        site
    }

    pub(crate) fn small(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("small.txt"), "0123456789").unwrap();
        std::fs::create_dir(path.join("sub")).unwrap();
        std::fs::write(path.join("sub/a<b.txt"), "x").unwrap();
        std::fs::write(path.join(".hidden"), "x").unwrap();
        let mut arguments = vec![path.to_str().unwrap()];
        arguments.extend(options);
        let server = Server::start("serve", &arguments);
        Self { folder, server }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.server.address())
    }

    /// One request on a connection of its own, with these further fields.
    pub(crate) fn get(&self, target: &str, fields: &str) -> Answer {
        let mut client = self.client();
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.answer()
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let (status, head) = self.head();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let length = answer
            .field("Content-Length")
            .map_or(0, |text| text.parse().unwrap());
        answer.body = vec![0; length];
        self.stream.read_exact(&mut answer.body).unwrap();
        answer
    }

    /// All answers up to the end of the stream, as text.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }

    pub(crate) fn head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(
                self.stream.read_line(&mut head).unwrap() > 0,
                "an end inside a head: {head:?}"
            );
        }
        (head[9..12].parse().unwrap(), head)
    }

    /// Whether the server closes in order without another byte.
    pub(crate) fn is_closed_in_order(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 16]), Ok(0))
    }

    /// Whether the connection was reset, told without reading.
    pub(crate) fn was_reset(&self) -> bool {
        let error = self.stream.get_ref().take_error().unwrap();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }
}
