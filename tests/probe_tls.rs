//! `probe --tls`: small TLS servers in this process, with a certificate made for the test.

#![cfg(all(target_os = "linux", feature = "tls", feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use highwater::probe::{Http, NoProgress, Outcome, Plan, SlowKind, Tls, Trust, probe};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A TLS server for `localhost`, and the file with its certificate.
struct Server {
    address: SocketAddr,
    certificate: tempfile::NamedTempFile,
}

impl Server {
    /// `before` sees the connection before TLS.
    fn start(
        before: impl Fn(&mut TcpStream) -> bool + Clone + Send + 'static,
        client: impl Fn(Stream) + Clone + Send + 'static,
    ) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut certificate = tempfile::NamedTempFile::new().unwrap();
        certificate.write_all(made.cert.pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (before, client, config) = (before.clone(), client.clone(), Arc::clone(&config));
                thread::spawn(move || {
                    if before(&mut stream) {
                        client(StreamOwned::new(ServerConnection::new(config).unwrap(), stream));
                    }
                });
            }
        });
        Self { address, certificate }
    }

    fn highwater(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_highwater"))
            .args([
                "probe",
                &format!("localhost:{}", self.address.port()),
                "--fast",
                "2",
            ])
            .args([
                "--baseline",
                "300ms",
                "--stalled",
                "0",
                "--talkers",
                "0",
                "--paused",
                "0",
                "--steady",
                "0",
            ])
            .args(["--timeout", "5s"])
            .args(arguments)
            .output()
            .unwrap()
    }

    fn ca(&self) -> String {
        self.certificate.path().to_str().unwrap().to_owned()
    }
}

/// Resets who does not take its answer within a second.
fn be_strict(stream: &mut TcpStream) -> bool {
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let socket = SockRef::from(&*stream);
    socket.set_tcp_notsent_lowat(16 << 10).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    true
}

/// Writes all of it; an error of the socket, such as a timeout, is not hidden as by the stream itself.
fn write_all(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = stream.conn.writer().write(rest)?;
        rest = &rest[taken..];
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut stream.sock)?;
        }
    }
    Ok(())
}

fn echo(mut stream: Stream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if write_all(&mut stream, &buffer[..len]).is_err() {
            return;
        }
    }
}

/// Answers each request with 256 KiB, and closes without close_notify after `most` of them.
fn pages(stream: Stream, most: usize) {
    let body = vec![b'x'; 256 << 10];
    let mut reader = BufReader::new(stream);
    for answer in 1..=most {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let close = if answer == most {
            "Connection: close\r\n"
        } else {
            ""
        };
        let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", body.len());
        let stream = reader.get_mut();
        if write_all(stream, head.as_bytes()).is_err() || write_all(stream, &body).is_err() {
            return;
        }
    }
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
}

#[test]
fn a_certificate_is_trusted_if_its_file_is_named_or_nobody_asks() {
    let server = Server::start(|_| true, echo);
    assert_code(&server.highwater(&["--tls", "--ca", &server.ca()]), 0);
    assert_code(&server.highwater(&["--tls", "--insecure"]), 0);
    let other = Server::start(|_| true, echo);
    for wrong in [vec!["--tls"], vec!["--tls", "--ca", &other.ca()]] {
        let refused = server.highwater(&wrong);
        assert_code(&refused, 2);
        let line = String::from_utf8(refused.stderr).unwrap();
        assert!(line.contains("TLS") || line.contains("certificates"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    assert_code(&server.highwater(&["--insecure"]), 2);
    assert_code(&server.highwater(&["--tls", "--ca", "/nonexistent.pem"]), 2);
}

#[test]
fn the_header_of_a_balancer_comes_before_tls() {
    let header = |stream: &mut TcpStream| {
        let mut byte = [0];
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && stream.read_exact(&mut byte).is_ok() {
            line.push(byte[0]);
        }
        line.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    };
    let server = Server::start(header, echo);
    assert_code(
        &server.highwater(&["--tls", "--insecure", "--proxy-protocol", "v1"]),
        0,
    );
}

fn assert_outcomes(plan: &Plan, expected: &[(&str, Outcome)]) {
    let report = probe(plan, "the test's server", &mut NoProgress).unwrap();
    for (name, outcome) in expected {
        let finding = report.finding(name).unwrap();
        assert_eq!(
            finding.outcome, *outcome,
            "{finding:?}: {:?}",
            report.measured.slow
        );
    }
}

fn plan(server: &Server) -> Plan {
    Plan {
        fast: 2,
        baseline: Duration::from_millis(500),
        pause: Duration::from_millis(500),
        within: Duration::from_secs(3),
        tls: Some(Tls::new("localhost", Trust::File(server.certificate.path())).unwrap()),
        ..Plan::new(server.address).without_slow_clients()
    }
}

#[test]
fn slow_clients_are_slow_under_tls_as_they_are_without() {
    let server = Server::start(be_strict, echo);
    let strict = plan(&server).with(SlowKind::Stalled, 2).with(SlowKind::Paused, 1);
    let all_pass =
        ["stalled-disconnected", "paused-kept", "healthy-served"].map(|name| (name, Outcome::Pass));
    assert_outcomes(&strict, &all_pass);
    let lax = Server::start(|_| true, echo);
    let stalled = Plan {
        within: Duration::from_secs(1),
        ..plan(&lax).with(SlowKind::Stalled, 1)
    };
    assert_outcomes(&stalled, &[("stalled-disconnected", Outcome::Fail)]);
}

#[test]
fn an_end_without_close_notify_after_whole_answers_is_orderly() {
    let server = Server::start(|_| true, |stream| pages(stream, 3));
    let http = plan(&server)
        .speaking(Http::get("/", "localhost"))
        .with(SlowKind::Steady, 1);
    assert_outcomes(&http, &[("healthy-served", Outcome::Pass)]);
}
