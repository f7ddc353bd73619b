//! The probe reaches servers that want more than a connection: steps before the protocol, header
//! fields, redirects, PROXY headers. And it says in which form and for what its verdict counts.

#![cfg(all(target_os = "linux", feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A server that gives every client a thread of its own.
fn serve(client: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let client = client.clone();
            thread::spawn(move || client(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// One probe at a time: each can fill two processors by itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// One short probe of healthy clients, and of what else is asked for.
fn highwater(server: SocketAddr, arguments: &[&str]) -> Output {
    const SHORT: [&str; 15] = [
        "--fast",
        "2",
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
        "--timeout",
        "5s",
        "--within=1s",
    ];
    let theirs = |option: &&str| arguments.contains(option);
    let short: Vec<_> = SHORT
        .chunks(2)
        .filter(|pair| !theirs(&pair[0]))
        .flatten()
        .collect();
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["probe", &server.to_string()])
        .args(short)
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
}

#[track_caller]
fn assert_refused(output: &Output, word: &str) {
    assert_code(output, 2);
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(line.contains(word) && output.stdout.is_empty(), "{line}");
    assert!(!line.contains(['\u{9b}', '\u{202e}']), "{line:?}");
}

/// Greets, wants to be greeted, and echoes from then on.
fn polite_echo(mut stream: TcpStream) {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let greeted = stream.write_all(b"220 example ready\r\n").is_ok();
    if greeted && reader.read_line(&mut line).is_ok() && line == "EHLO me\r\n" {
        let _ = stream.write_all(b"250-one\r\n250 two\r\n");
        let _ = std::io::copy(&mut reader, &mut stream);
    }
}

#[test]
fn steps_before_the_protocol_are_taken_in_the_order_given() {
    let server = serve(polite_echo);
    let steps = [
        "--expect",
        "^220 .*\\r\\n",
        "--send-first",
        "EHLO me\\r\\n",
        "--expect",
        "250 .*\\r\\n",
    ];
    assert_code(&highwater(server, &steps), 0);
    // Every kind of client takes them.
    let slow = [&steps[..], &["--paused", "1", "--pause", "500ms", "--quiet", "1"]].concat();
    let output = highwater(server, &slow);
    assert!(
        said(&output).contains("paused clients are kept and lose nothing"),
        "{}",
        said(&output)
    );
    assert!(!said(&output).contains("FAIL        paused"), "{}", said(&output));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "EHLO me\r\n").unwrap();
    let from_file = format!("@{}", file.path().display());
    let mut steps = steps;
    steps[3] = &from_file;
    assert_code(&highwater(server, &steps), 0);
}

#[test]
fn a_step_that_never_comes_is_named_with_what_came_instead() {
    let output = highwater(serve(polite_echo), &["--expect", "^(OK", "--timeout", "500ms"]);
    assert_refused(&output, "`^(OK`");
    assert!(said(&output).contains("regular expression"), "{}", said(&output));
    let output = highwater(serve(polite_echo), &["--expect", "^[+]OK", "--timeout", "500ms"]);
    assert_refused(
        &output,
        "did not get past `^[+]OK`: it sent \"220 example ready\"",
    );
}

/// Answers each request by its head.
fn web(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> SocketAddr {
    serve(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            if stream.write_all(answer(&head).as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn page(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

#[test]
fn header_fields_are_sent_and_replace_ours() {
    let server = web(|head| {
        let right = head.contains("Host: a.example\r\n") && head.contains("X-Key: 1\r\n");
        let once = head.matches("Host:").count() == 1 && !head.contains("highwater-probe");
        page(if right && once { "200 OK" } else { "400 Bad" }, "", "hello")
    });
    let http = [
        "--protocol",
        "http",
        "--header",
        "Host: a.example",
        "--header",
        "X-Key: 1",
    ];
    let agent = [&http[..], &["--header", "user-agent: me"]].concat();
    assert_code(&highwater(server, &agent), 0);
    assert_refused(&highwater(server, &http), "status 400");
    for bad in ["a: b\r\nc: d", "no colon", ": x", "a b: c"] {
        assert_refused(
            &highwater(server, &["--protocol", "http", "--header", bad]),
            "not a header field",
        );
    }
}

#[test]
fn answers_to_head_have_no_body_and_fill_nobody_up() {
    let server = web(|head| match head.starts_with("HEAD / ") {
        true => "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_owned(),
        false => page("405 No", "", ""),
    });
    let output = highwater(
        server,
        &["--protocol", "http", "--method", "HEAD", "--stalled", "2"],
    );
    assert_code(&output, 0);
    assert!(
        said(&output).contains("not tested  stalled clients"),
        "{}",
        said(&output)
    );
}

#[test]
fn statuses_are_right_as_they_are_expected() {
    let server = web(|_| page("404 Not here", "", "none"));
    let http = ["--protocol", "http"];
    assert_refused(&highwater(server, &http), "status 404");
    assert_code(
        &highwater(server, &[&http[..], &["--expect-status", "200,404"]].concat()),
        0,
    );
    assert_refused(
        &highwater(server, &[&http[..], &["--expect-status", "20"]].concat()),
        "not a status",
    );
}

#[test]
fn a_redirect_is_followed_on_the_same_server_only() {
    let server = web(|head| match head.split(' ').nth(1) {
        Some("/") => page("302 Found", "Location: /en/\r\n", ""),
        Some("/en/") => page("200 OK", "", "hello"),
        Some("/loop") => page("301 Moved", "Location: /loop\r\n", ""),
        _ => page("301 Moved", "Location: https://other.example/\u{202e}\r\n", ""),
    });
    let follow = |path: &str| highwater(server, &["--protocol", "http", "--follow", "--path", path]);
    assert_code(&follow("/"), 0);
    assert_refused(&follow("/loop"), "more than 5 redirects");
    assert_refused(&follow("/away"), "another server");
}

#[test]
fn a_server_behind_a_balancer_gets_its_proxy_header_first() {
    let text = serve(|stream| {
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let ours = stream.peer_addr().unwrap();
        let right = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} ", ours.port());
        if reader.read_line(&mut line).is_ok() && line.starts_with(&right) {
            let _ = std::io::copy(&mut reader, &mut &stream);
        }
    });
    assert_code(&highwater(text, &["--proxy-protocol", "v1"]), 0);
    let binary = serve(|mut stream| {
        let mut header = [0; 28];
        if stream.read_exact(&mut header).is_ok() && header.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c")
        {
            echo(stream);
        }
    });
    assert_code(&highwater(binary, &["--proxy-protocol", "v2"]), 0);
    let quiet = said(&highwater(binary, &["--proxy-protocol", "v2", "--quiet", "1"]));
    assert!(quiet.contains("quiet        1     1 "), "{quiet}");
    assert_refused(&highwater(binary, &["--proxy-protocol", "v3"]), "v3");
}

#[test]
fn what_would_say_nothing_is_refused() {
    let server = serve(echo);
    for (option, value) in [
        ("--path", "/x"),
        ("--header", "a: b"),
        ("--expect-status", "200"),
        ("--send", "x"),
    ] {
        assert_refused(
            &highwater(server, &[option, value]),
            &format!("{option} is for --protocol "),
        );
    }
    for pid in ["0", "-1", "99999999"] {
        assert_refused(
            &highwater(server, &[&format!("--pid={pid}")]),
            "is no process on this machine",
        );
    }
    assert_refused(
        &highwater(server, &["--protocol", "http", "--path", "/a\r\nb"]),
        "`/a\\r\\nb` is not a path",
    );
}

#[test]
fn findings_that_are_required_must_pass() {
    let server = serve(echo);
    assert_code(&highwater(server, &["--require", "healthy-served"]), 0);
    let untested = highwater(server, &["--require", "healthy-served,paused-kept", "--json"]);
    assert_code(&untested, 1);
    let report: serde_json::Value = serde_json::from_slice(&untested.stdout).unwrap();
    assert_eq!(report["verdict"], "fail");
    assert_refused(
        &highwater(server, &["--require", "paused"]),
        "there are stalled-disconnected, ",
    );
}

#[test]
fn what_is_unknown_about_slow_clients_passes_only_if_that_is_allowed() {
    // Its answers are so short that nobody is ever full.
    let server = web(|_| page("200 OK", "", "hello"));
    let stalled = ["--protocol", "http", "--stalled", "1", "--quiet", "0"];
    let output = highwater(server, &stalled);
    assert_code(&output, 1);
    assert!(said(&output).contains("verdict: unknown"), "{}", said(&output));
    assert_code(
        &highwater(server, &[&stalled[..], &["--allow-unknown"]].concat()),
        0,
    );
    let required = [
        &stalled[..],
        &["--allow-unknown", "--require", "stalled-disconnected"],
    ]
    .concat();
    assert_code(&highwater(server, &required), 1);
}

#[test]
fn a_report_for_machines_is_written_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let server = web(|_| page("200 OK", "", "hello"));
    let arguments = [
        "--protocol",
        "http",
        "--stalled",
        "1",
        "--quiet",
        "0",
        "--format",
        "github",
        "--json",
        &path("a.json"),
        "--junit",
        &path("a.xml"),
        "--plot",
        &path("a.svg"),
    ];
    let output = highwater(server, &arguments);
    assert_code(&output, 1);
    assert!(
        said(&output).contains("::warning title=highwater probe stalled-disconnected::"),
        "{}",
        said(&output)
    );
    assert!(!said(&output).contains("::error"), "{}", said(&output));
    let json = std::fs::read_to_string(path("a.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["schema"], "highwater-probe/1");
    let xml = std::fs::read_to_string(path("a.xml")).unwrap();
    assert!(xml.contains("tests=\"10\" failures=\"0\""), "{xml}");
    assert!(
        xml.contains("name=\"stalled-disconnected\" time=\"0\"><skipped message=\"unknown: "),
        "{xml}"
    );
    assert!(
        std::fs::read_to_string(path("a.svg"))
            .unwrap()
            .starts_with("<svg")
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn a_probe_that_cannot_be_made_writes_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let busy = web(|_| "HTTP/1.1 503 busy\u{9b}\u{202e}\r\nContent-Length: 0\r\n\r\n".to_owned());
    let output = highwater(busy, &["--protocol", "http", "--json", path.to_str().unwrap()]);
    assert_refused(&output, "status 503");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert_refused(
        &highwater(busy, &["--json", "--format", "github"]),
        "both write to standard output",
    );
    assert_refused(
        &highwater(busy, &["--junit", "/nonexistent/x.xml"]),
        "/nonexistent/x.xml",
    );
    let path = path.to_str().unwrap();
    assert_refused(
        &highwater(busy, &["--junit", path, "--json", path]),
        "two reports are to be written to",
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
