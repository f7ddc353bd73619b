//! The access log.

use std::io::Write;

use rustix::process::Signal;

use crate::client::{LARGE_BYTES, Site};
use crate::support::wait_until;

const GET: &str = "GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn the_access_log_says_what_arrived_and_how_it_ended() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let site = Site::new(&["--access-log", log.path().to_str().unwrap(), "--grace", "1s"]);
    site.get("/small.txt", "User-Agent: a\"b\r\nReferer: /x\r\n");
    let mut leaves = site.client();
    leaves.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(leaves.head().0, 200);
    drop(leaves);
    let mut stalls = site.client();
    stalls.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let lines = || std::fs::read_to_string(log.path()).unwrap();
    wait_until("the line of the stalled reader is there", || {
        lines().contains("write timeout")
    });
    let lines = lines();
    assert!(
        lines.contains("\"GET /small.txt HTTP/1.1\" 200 10 \"/x\" \"a\\x22b\" 10 \"done\""),
        "{lines}"
    );
    assert!(lines.contains("\"client reset\""), "{lines}");
    let stalled = lines.lines().find(|line| line.contains("write timeout")).unwrap();
    let words: Vec<&str> = stalled.split(' ').collect();
    let arrived: usize = words[words.len() - 3].parse().unwrap();
    assert!(arrived > 0 && arrived < LARGE_BYTES, "{stalled}");
}

#[test]
fn every_pipelined_answer_has_a_line_that_says_it_arrived() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let site = Site::small(&["--access-log", log.path().to_str().unwrap()]);
    let mut client = site.client();
    client.send(&GET.repeat(20));
    for _ in 0..20 {
        assert_eq!(client.answer().status, 200);
    }
    client.send("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 501);
    let lines = || std::fs::read_to_string(log.path()).unwrap();
    wait_until("all lines are there", || lines().lines().count() == 21);
    let lines = lines();
    assert_eq!(
        lines.matches(" 200 10 \"-\" \"-\" 10 \"done\"\n").count(),
        20,
        "{lines}"
    );
    assert!(lines.contains("\"BREW /pot HTTP/1.1\" 501 "), "{lines}");
}

#[test]
fn nothing_that_a_client_sends_can_forge_a_line_or_reach_a_terminal() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let site = Site::small(&["--access-log", log.path().to_str().unwrap()]);
    let mut client = site.client();
    let forged = b"GET /\x1b[2J\" 200 HTTP/1.1\r\nHost: a\r\nUser-Agent: x\" 1 \"done\"\xff\r\n\r\n";
    client.stream.get_mut().write_all(forged).unwrap();
    assert_eq!(client.answer().status, 400);
    let mut client = site.client();
    let forged =
        b"GET /small.txt HTTP/1.1\r\nHost: a\r\nUser-Agent: x\" 1 \"done\"\xff\x0d\r\nReferer: \\\r\n\r\n";
    client.stream.get_mut().write_all(forged).unwrap();
    client.answer();
    let lines = || std::fs::read_to_string(log.path()).unwrap();
    wait_until("both lines are there", || lines().lines().count() == 2);
    let lines = lines();
    assert!(
        lines
            .bytes()
            .all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)),
        "{lines}"
    );
    for line in lines.lines() {
        assert_eq!(line.matches('"').count(), 8, "four quoted fields: {line}");
    }
}

#[test]
fn a_log_that_nobody_reads_stalls_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let site = Site::small(&["--access-log", fifo.to_str().unwrap()]);
    let mut client = site.client();
    // Far more than a FIFO holds.
    for _ in 0..20 {
        client.send(&GET.repeat(200));
        for _ in 0..200 {
            assert_eq!(client.answer().status, 200);
        }
    }
    site.server.signal(Signal::TERM);
    assert!(site.server.wait_for_exit().success());
}

#[test]
fn a_signal_opens_the_log_anew_and_no_line_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let site = Site::small(&["--access-log", path.to_str().unwrap()]);
    let count = |path: &std::path::Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    for (round, signal) in [Signal::HUP, Signal::USR1].into_iter().enumerate() {
        let _ = std::fs::remove_file(&old);
        site.get("/small.txt", "");
        wait_until("the line is there", || count(&path) == 1 + round.min(1));
        let before = count(&path);
        std::fs::rename(&path, &old).unwrap();
        site.server.signal(signal);
        site.server.wait_for_lines(round + 1, "opening the log file anew");
        site.get("/small.txt", "");
        wait_until("the new file has the next line", || count(&path) == 1);
        assert_eq!(count(&old), before);
    }
}
