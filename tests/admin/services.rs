//! What services count themselves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::operator::Watched;
use crate::support::server::{BINARY, Server};
use crate::support::sockets::connect;

#[test]
fn answers_over_http_are_counted_by_status() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("there"), "here").unwrap();
    let launcher = {
        let mut shell = std::process::Command::new("sh");
        let path = folder.path().to_str().unwrap();
        shell
            .args(["-c", &format!("shift; exec '{BINARY}' serve '{path}' \"$@\"")])
            .arg("sh");
        shell
    };
    let watched = Watched::of(Server::start_by(launcher, "serve", &["--admin", "127.0.0.1:0"]));
    for (target, status) in [("/there", "200"), ("/there", "200"), ("/nothing", "404")] {
        let mut client = connect(watched.server.address());
        write!(
            client,
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(status), "{answer}");
    }
    assert_eq!(watched.sample("highwater_answers_total{status=\"200\"}"), 2.0);
    assert_eq!(watched.sample("highwater_answers_total{status=\"404\"}"), 1.0);
}

fn say(stream: &mut TcpStream, line: &str, answers: usize) {
    write!(stream, "{line}\r\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..answers {
        reader.read_line(&mut String::new()).unwrap();
    }
}

#[test]
fn messages_deliveries_and_losses_are_counted() {
    let options = ["--slow", "drop-oldest", "--high-water-mark", "1KiB"];
    let watched = Watched::start("broadcast", &options);
    assert_eq!(
        watched.sample("highwater_lost_messages_total{action=\"drop-oldest\"}"),
        0.0
    );
    assert_eq!(watched.sample("highwater_publisher_pauses_total"), 0.0);
    let mut subscribers: Vec<_> = (0..2).map(|_| connect(watched.server.address())).collect();
    for subscriber in &mut subscribers {
        say(subscriber, "SUBSCRIBE news", 6);
    }
    let mut publisher = connect(watched.server.address());
    say(&mut publisher, "PUBLISH news hello", 1);
    assert_eq!(watched.sample("highwater_messages_total"), 1.0);
    assert_eq!(watched.sample("highwater_deliveries_total"), 2.0);
    // While nobody reads, what sockets do not take is dropped; a loss is counted
    // when the subscriber passes the gap.
    let payload = "x".repeat(60_000);
    for _ in 0..400 {
        say(&mut publisher, &format!("PUBLISH news {payload}"), 1);
    }
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut subscribers[0], &mut std::io::sink());
    });
    watched.wait_for("highwater_lost_messages_total{action=\"drop-oldest\"}", 1.0);
    assert_eq!(
        watched.sample("highwater_lost_messages_total{action=\"latest\"}"),
        0.0
    );
}
