//! The chat of `examples/`: a server that somebody else might write, in which
//! one member who never reads neither stops the others nor stays.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Tests may; clippy does not see that helpers are tests.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Chat {
    process: Child,
    address: String,
}

impl Chat {
    fn start() -> Self {
        let mut process = Command::new(example())
            .arg("0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example is built with the tests");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { process, address }
    }

    fn join(&self) -> TcpStream {
        let member = TcpStream::connect(&self.address).unwrap();
        member.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        member.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        member
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Cargo puts examples beside the directory of the tests.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap()
        .join("examples/chat")
}

/// Says a line and hears it at the other end, which also shows that both have
/// joined.
fn say_until_heard(speaker: &mut TcpStream, listener: &mut TcpStream) {
    speaker.write_all(b"hello\n").unwrap();
    let mut heard = [0; 6];
    listener.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello\n");
}

#[test]
fn all_others_hear_what_one_says_and_the_speaker_does_not() {
    let chat = Chat::start();
    let (mut anna, mut bert) = (chat.join(), chat.join());
    // Bert joins second, and what he says Anna hears.
    say_until_heard(&mut bert, &mut anna);
    say_until_heard(&mut anna, &mut bert);
    bert.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let silence = bert.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(
        silence.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
}

#[test]
fn a_member_who_never_reads_is_disconnected_while_the_others_go_on() {
    let chat = Chat::start();
    let (mut anna, mut bert, mut carl) = (chat.join(), chat.join(), chat.join());
    say_until_heard(&mut carl, &mut anna);
    bert.read_exact(&mut [0; 6]).unwrap();
    // From here on Carl reads nothing. Each line goes to Bert and to Carl.
    let line = [b'x'; 16 * 1024];
    let mut heard = vec![0; line.len()];
    for _ in 0..2_000 {
        anna.write_all(&line).unwrap();
        bert.read_exact(&mut heard).unwrap();
    }
    let mut last = [0; 64 * 1024];
    let reset = loop {
        match carl.read(&mut last) {
            Ok(0) => panic!("an end that looks complete"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    say_until_heard(&mut anna, &mut bert);
}
