//! `probe --protocol resp`: small servers that speak RESP in this process, and Redis where it is installed.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use highwater::probe::{NoProgress, Outcome, Plan, Report, Resp, SlowKind, probe};
use socket2::SockRef;

/// Reads a line such as `$16384` and returns its number.
fn read_number(reader: &mut impl BufRead, mark: char) -> io::Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let digits = line.trim_end().strip_prefix(mark);
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads one command: an array of bulk strings.
fn read_command(reader: &mut impl BufRead) -> io::Result<Vec<Vec<u8>>> {
    let count = read_number(reader, '*')?;
    (0..count)
        .map(|_| {
            let length = read_number(reader, '$')?;
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word)?;
            word.truncate(length);
            Ok(word)
        })
        .collect()
}

/// How a small server treats its clients.
#[derive(Clone, Copy)]
struct Manners {
    /// Longest time for one write; after that the client is reset.
    write_timeout: Option<Duration>,
    /// One byte of the tenth ECHO is changed.
    changes_a_byte: bool,
    /// Every command is answered with this.
    refusal: Option<&'static str>,
}

const LAX: Manners = Manners {
    write_timeout: None,
    changes_a_byte: false,
    refusal: None,
};

fn answer(stream: TcpStream, manners: Manners) -> io::Result<()> {
    if let Some(timeout) = manners.write_timeout {
        stream.set_write_timeout(Some(timeout))?;
        SockRef::from(&stream).set_tcp_notsent_lowat(16 << 10)?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    for turn in 0.. {
        let mut words = read_command(&mut reader)?;
        let reply = match (manners.refusal, words.len()) {
            (Some(refusal), _) => refusal.into(),
            (None, 1) => b"+PONG\r\n".to_vec(),
            _ => {
                let mut payload = words.pop().unwrap_or_default();
                payload[100] ^= u8::from(manners.changes_a_byte && turn == 10);
                [format!("${}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat()
            }
        };
        writer.write_all(&reply)?;
    }
    Ok(())
}

fn serve(manners: Manners) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream, manners));
        }
    });
    address
}

fn plan(address: SocketAddr) -> Plan {
    Plan {
        fast: 3,
        baseline: Duration::from_millis(300),
        within: Duration::from_secs(3),
        pause: Duration::from_millis(500),
        fill: 8 << 20,
        ..Plan::new(address).without_slow_clients().speaking(Resp)
    }
}

fn run(plan: &Plan) -> Report {
    probe(plan, "the test's server", &mut NoProgress).unwrap()
}

fn assert_outcome(report: &Report, finding: &str, outcome: Outcome) {
    let finding = report.finding(finding).unwrap();
    assert_eq!(finding.outcome, outcome, "{finding:?}");
}

#[test]
fn a_server_that_resets_clients_which_do_not_take_their_replies_passes() {
    let report = run(&plan(serve(Manners {
        write_timeout: Some(Duration::from_secs(1)),
        ..LAX
    }))
    .with(SlowKind::Stalled, 2)
    .with(SlowKind::Paused, 1));
    for finding in [
        "stalled-disconnected",
        "stalled-in-time",
        "paused-kept",
        "healthy-served",
    ] {
        assert_outcome(&report, finding, Outcome::Pass);
    }
    assert_eq!(report.protocol, "resp");
    let paused = report
        .measured
        .slow
        .iter()
        .find(|client| client.kind == SlowKind::Paused);
    assert!(
        paused.unwrap().received_bytes > 100 << 10,
        "replies of 16 KiB fill a client up"
    );
}

#[test]
fn a_server_that_keeps_clients_which_do_not_take_their_replies_fails() {
    let report = run(&Plan {
        within: Duration::from_secs(1),
        ..plan(serve(LAX)).with(SlowKind::Stalled, 1)
    });
    assert_outcome(&report, "stalled-disconnected", Outcome::Fail);
    assert_outcome(&report, "healthy-served", Outcome::Pass);
}

#[test]
fn one_changed_byte_of_a_reply_is_found() {
    let changing = serve(Manners {
        changes_a_byte: true,
        ..LAX
    });
    let report = run(&plan(changing).with(SlowKind::Paused, 1));
    assert_outcome(&report, "paused-kept", Outcome::Fail);
    assert_outcome(&report, "healthy-served", Outcome::Pass);
}

#[test]
fn a_server_that_wants_a_login_is_quoted_in_one_line() {
    let closed = serve(Manners {
        refusal: Some("-NOAUTH Authentication required.\r\n"),
        ..LAX
    });
    let refusal = probe(&plan(closed), "x", &mut NoProgress)
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("PING was answered with \"-NOAUTH Authentication required.\""),
        "{refusal}"
    );
}

/// Redis on a free port, in a directory that vanishes with it.
struct Redis {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Redis {
    /// `None` where Redis is not installed.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let process = Command::new("redis-server")
            .args([
                "--port",
                &address.port().to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let redis = Self {
            process,
            address,
            _directory: directory,
        };
        for _ in 0..500 {
            if TcpStream::connect(address).is_ok() {
                return Some(redis);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("Redis does not listen on {address}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn redis_keeps_a_client_that_never_takes_its_replies() {
    let Some(redis) = Redis::start() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let report = run(&Plan {
        within: Duration::from_secs(1),
        ..plan(redis.address)
            .with(SlowKind::Stalled, 1)
            .with(SlowKind::Paused, 1)
    });
    // Its default limit for ordinary clients is none.
    assert_outcome(&report, "stalled-disconnected", Outcome::Fail);
    assert_outcome(&report, "paused-kept", Outcome::Pass);
    assert_outcome(&report, "healthy-served", Outcome::Pass);
}
