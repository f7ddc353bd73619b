//! What clients say and hear.

use std::time::Duration;

use crate::client::{Client, Value, command};
use crate::support::server::{BINARY, Server};
use crate::{publish_many, start};
use rustix::process::Signal;

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn message(parts: &[&str]) -> Value {
    Value::Array(parts.iter().copied().map(text).collect())
}

#[test]
fn a_message_reaches_channel_pattern_and_both_versions_of_the_protocol() {
    let server = start(&[]);
    let mut by_name = Client::connect(server.address());
    by_name.subscribe("news");
    let mut by_pattern = Client::connect(server.address());
    by_pattern.send(&["PSUBSCRIBE", "n*"]);
    by_pattern.next();
    let mut modern = Client::connect(server.address());
    modern.ask(&["HELLO", "3"]);
    modern.subscribe("news");
    let mut publisher = Client::connect(server.address());
    assert_eq!(publisher.ask(&["PUBLISH", "news", "hi"]), Value::Integer(3));
    assert_eq!(by_name.next(), message(&["message", "news", "hi"]));
    assert_eq!(by_pattern.next(), message(&["pmessage", "n*", "news", "hi"]));
    assert_eq!(modern.next(), message(&["message", "news", "hi"]));
    assert_eq!(publisher.ask(&["PUBLISH", "olds", "hi"]), Value::Integer(0));
}

#[test]
fn replies_and_messages_keep_their_order_in_one_write() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    client.ask(&["HELLO", "3"]);
    let said = [
        command(&["SUBSCRIBE", "a"]),
        command(&["PUBLISH", "a", "1"]),
        command(&["PING"]),
        command(&["PUBLISH", "a", "2"]),
        command(&["UNSUBSCRIBE", "a"]),
        command(&["PUBLISH", "a", "3"]),
    ];
    client.send_raw(&said.concat());
    client.next();
    assert_eq!(client.next(), message(&["message", "a", "1"]));
    assert_eq!(client.next(), Value::Integer(1));
    assert_eq!(client.next(), text("+PONG"));
    assert_eq!(client.next(), message(&["message", "a", "2"]));
    assert_eq!(client.next(), Value::Integer(1));
    assert_eq!(client.next().message(), None);
    assert_eq!(client.next(), Value::Integer(0), "nobody is subscribed any more");
}

#[test]
fn a_password_is_demanded_and_a_wrong_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "open sesame\n").unwrap();
    let server = start(&["--password-file", path.to_str().unwrap()]);
    let mut client = Client::connect(server.address());
    assert_eq!(
        client.ask(&["PUBLISH", "a", "b"]),
        text("-NOAUTH Authentication required.")
    );
    assert!(client.ask(&["AUTH", "wrong"]).text().starts_with("-WRONGPASS"));
    assert_eq!(client.ask(&["AUTH", "open sesame"]), text("+OK"));
    assert_eq!(client.ask(&["PUBLISH", "a", "b"]), Value::Integer(0));
}

#[test]
fn an_empty_or_missing_password_file_is_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    for path in [empty, directory.path().join("missing")] {
        let run = std::process::Command::new(BINARY)
            .args(["broadcast", "--port", "0", "--password-file"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&run.stderr).contains("--password-file"));
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    let server = start(&["--max-clients", "1"]);
    let mut first = Client::connect(server.address());
    assert_eq!(first.ask(&["PING"]), text("+PONG"));
    let mut second = Client::connect(server.address());
    let refused = second.try_next();
    assert!(
        refused.is_none() || refused == Some(text("-ERR max number of clients reached")),
        "{refused:?}"
    );
    assert_eq!(first.ask(&["PING"]), text("+PONG"));
}

#[test]
fn a_message_at_the_limit_goes_through_and_one_byte_more_ends_the_connection() {
    let server = start(&["--max-message", "1000"]);
    let mut subscriber = Client::connect(server.address());
    subscriber.subscribe("a");
    let mut publisher = Client::connect(server.address());
    let longest = "x".repeat(1000);
    assert_eq!(publisher.ask(&["PUBLISH", "a", &longest]), Value::Integer(1));
    assert_eq!(subscriber.next(), message(&["message", "a", &longest]));
    let refusal = publisher.ask(&["PUBLISH", "a", &"x".repeat(1001)]);
    assert_eq!(
        refusal,
        text("-ERR Protocol error: invalid bulk length: 1001 bytes, the limit is 1000")
    );
    assert!(publisher.ends_within(Duration::from_secs(10)));
}

#[test]
fn nobody_publishes_to_the_channel_of_gaps() {
    let server = start(&[]);
    let mut listener = Client::connect(server.address());
    listener.send(&["PSUBSCRIBE", "*"]);
    listener.next();
    let mut publisher = Client::connect(server.address());
    assert!(
        publisher
            .ask(&["PUBLISH", "__highwater__:lost", "x"])
            .text()
            .starts_with("-ERR")
    );
    publisher.ask(&["PUBLISH", "other", "x"]);
    assert_eq!(listener.next().message(), Some(("other", "x")));
}

#[test]
fn a_stop_still_delivers_what_waits() {
    const COUNT: usize = 500;
    let server: Server = start(&["--grace", "10s"]);
    let mut subscriber = Client::with_small_buffer(server.address());
    subscriber.subscribe("a");
    let mut publisher = Client::connect(server.address());
    publish_many(&mut publisher, "a", COUNT, 4096);
    server.signal(Signal::TERM);
    for number in 0..COUNT {
        let next = subscriber
            .try_next()
            .unwrap_or_else(|| panic!("ended at {number}"));
        assert_eq!(crate::number_of(next.message().unwrap().1), number);
    }
    assert!(subscriber.try_next().is_none());
    assert!(server.wait_for_exit().success());
}

#[test]
fn ten_thousand_subscriptions_of_one_client_come_and_go() {
    let server = start(&[]);
    let mut client = Client::connect(server.address());
    for from in (0..10_000).step_by(1000) {
        let names: Vec<String> = (from..from + 1000).map(|number| format!("c{number}")).collect();
        let mut parts = vec!["SUBSCRIBE"];
        parts.extend(names.iter().map(String::as_str));
        client.send(&parts);
        (0..1000).for_each(|_| drop(client.next()));
    }
    let mut publisher = Client::connect(server.address());
    assert_eq!(publisher.ask(&["PUBLISH", "c9999", "x"]), Value::Integer(1));
    assert_eq!(client.next(), message(&["message", "c9999", "x"]));
    client.send(&["UNSUBSCRIBE"]);
    (0..10_000).for_each(|_| drop(client.next()));
    assert_eq!(publisher.ask(&["PUBLISH", "c9999", "x"]), Value::Integer(0));
}
