//! An operator: a server with `--admin`, and requests to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::server::{BINARY, Server};
use crate::support::{PATIENCE, holds_within};

/// A server that is looked at.
pub(crate) struct Watched {
    pub(crate) server: Server,
    pub(crate) admin: SocketAddr,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Watched {
    pub(crate) fn start(subcommand: &str, options: &[&str]) -> Self {
        let mut all = vec!["--admin", "127.0.0.1:0"];
        all.extend(options);
        Self::of(Server::start(subcommand, &all))
    }

    /// `highwater serve` with the files of this folder.
    pub(crate) fn serving(folder: &Path) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("shift; exec '{BINARY}' serve '{}' \"$@\"", folder.display());
        shell.args(["-c", &script, "sh"]);
        Self::of(Server::start_by(shell, "serve", &["--admin", "127.0.0.1:0"]))
    }

    pub(crate) fn of(server: Server) -> Self {
        let line = server.wait_for_line("admin page on http://");
        let address = line.rsplit_once("http://").unwrap().1.trim_end_matches('/');
        Self {
            admin: address.parse().unwrap(),
            server,
        }
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        request(
            self.admin,
            &format!("GET {target} HTTP/1.1\r\nHost: {}\r\n", self.admin),
        )
    }

    pub(crate) fn json(&self, target: &str) -> serde_json::Value {
        let reply = self.get(target);
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_str(&reply.body).unwrap()
    }

    /// The value of a sample; 0 if it is not there.
    pub(crate) fn sample(&self, name: &str) -> f64 {
        sample(&self.get("/metrics").body, name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Waits until a sample has this value, or a greater one.
    pub(crate) fn wait_for(&self, name: &str, least: f64) {
        let mut last = 0.0;
        let comes = holds_within(PATIENCE, || {
            last = self.sample(name);
            last >= least
        });
        assert!(comes, "{name} is {last}, not {least}");
    }
}

/// The value of a sample in the text of `/metrics`.
pub(crate) fn sample(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.rsplit_once(' ').is_some_and(|(key, _)| key == name));
    line.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

/// Sends a head, to which an end and `Connection: close` are added.
pub(crate) fn request(address: SocketAddr, head: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
