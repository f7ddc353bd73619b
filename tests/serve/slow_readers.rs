//! Readers who stop, read slowly, or whose file changes.

use std::io::Read;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{LARGE_BYTES, Site};
use crate::support::{pattern, wait_until};

const GET_LARGE: &str = "GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_stalled_reader_is_reset_after_the_grace_and_others_go_on() {
    let site = Site::new(&["--grace", "2s"]);
    let mut stalled = site.client();
    let began = Instant::now();
    stalled.send(GET_LARGE);
    assert_eq!(site.get("/small.txt", "").status, 200);
    wait_until("the stalled reader is reset", || {
        assert!(
            began.elapsed() > Duration::from_millis(1900) || !stalled.was_reset(),
            "too early"
        );
        stalled.was_reset()
    });
    let line = site.server.wait_for_line("write timeout, disconnecting");
    assert!(line.contains("nothing acknowledged for 2s"), "{line}");
    let slow_for: f64 = line
        .split("slow for ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((2.0..2.5).contains(&slow_for), "{line}");
    assert!(site.get("/large.bin", "").body == pattern(LARGE_BYTES));
    assert!(site.server.stop().contains("1 write timeout"));
}

#[test]
fn a_reader_that_was_fast_before_it_is_slow_is_kept_if_its_rate_is_the_slowest() {
    const HUGE_BYTES: u64 = 256 << 20;
    let options = ["--grace", "500ms", "--slowest-reader", "64KiB"];
    for (options, is_kept) in [(&options[..], true), (&options[..2], false)] {
        let site = Site::small(options);
        let huge = std::fs::File::create(site.path().join("huge.bin")).unwrap();
        huge.set_len(HUGE_BYTES).unwrap();
        let mut client = site.client();
        client.send("GET /huge.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().0, 200);
        let mut piece = vec![0; 1 << 20];
        let mut came = 0;
        while came < 100 << 20 {
            client.stream.read_exact(&mut piece).unwrap();
            came += piece.len();
        }
        let began = Instant::now();
        let mut outcome = Ok(());
        while outcome.is_ok() && began.elapsed() < Duration::from_secs(6) {
            outcome = client.stream.read_exact(&mut piece[..6400]);
            came += 6400;
            sleep(Duration::from_millis(100));
        }
        let line = site.server.lines_with("disconnecting");
        assert_eq!(line.is_empty(), is_kept, "{line:?}");
        if is_kept {
            outcome.unwrap();
            while came < HUGE_BYTES as usize {
                let rest = piece.len().min(HUGE_BYTES as usize - came);
                client.stream.read_exact(&mut piece[..rest]).unwrap();
                came += rest;
            }
        } else {
            assert!(line[0].contains("window closed, largest "), "{line:?}");
        }
    }
}

#[test]
fn a_reader_that_takes_a_little_all_the_time_is_kept() {
    let site = Site::new(&["--grace", "1s"]);
    let mut slow = site.client();
    slow.send(GET_LARGE);
    assert_eq!(slow.head().0, 200);
    let until = Instant::now() + Duration::from_secs(4);
    let mut piece = vec![0; 128 * 1024];
    while Instant::now() < until {
        slow.stream.read_exact(&mut piece).expect("a slow reader is kept");
        sleep(Duration::from_millis(100));
    }
    assert!(site.server.lines_with("disconnecting").is_empty());
}

#[test]
fn a_file_that_becomes_shorter_is_reset_and_never_looks_whole() {
    let site = Site::new(&[]);
    let mut client = site.client();
    client.send(GET_LARGE);
    assert_eq!(client.head().0, 200);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(site.path().join("large.bin"))
        .unwrap();
    file.set_len(1000).unwrap();
    let mut body = Vec::new();
    let error = client.stream.read_to_end(&mut body).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(body.len() < LARGE_BYTES);
    site.server
        .wait_for_line("the file became shorter while it was sent");
}

#[test]
fn a_file_that_is_replaced_goes_on_with_the_old_bytes() {
    let site = Site::new(&[]);
    let mut client = site.client();
    client.send(GET_LARGE);
    std::fs::write(site.path().join("new"), "new").unwrap();
    let (status, _) = client.head();
    std::fs::rename(site.path().join("new"), site.path().join("large.bin")).unwrap();
    let mut body = vec![0; LARGE_BYTES];
    client.stream.read_exact(&mut body).unwrap();
    assert!(status == 200 && body == pattern(LARGE_BYTES));
    client.send(GET_LARGE);
    assert_eq!(client.answer().body, b"new");
}

#[test]
fn a_stop_lets_an_answer_finish_and_resets_a_stalled_one() {
    let site = Site::new(&["--stop-timeout", "2s"]);
    let mut stalled = site.client();
    stalled.send(GET_LARGE);
    let mut reading = site.client();
    reading.send(GET_LARGE);
    assert_eq!(reading.head().0, 200);
    assert_eq!(stalled.head().0, 200);
    site.server.signal(Signal::TERM);
    site.server.wait_for_line("stopping: ");
    let mut body = vec![0; LARGE_BYTES];
    reading.stream.read_exact(&mut body).unwrap();
    assert!(body == pattern(LARGE_BYTES));
    assert!(reading.is_closed_in_order());
    wait_until("the stalled reader is reset", || stalled.was_reset());
    assert!(site.server.wait_for_exit().success());
}

#[test]
fn a_file_that_only_the_disk_has_comes_whole() {
    let site = Site::new(&[]);
    let file = std::fs::File::open(site.path().join("large.bin")).unwrap();
    file.sync_all().unwrap();
    for round in 0..2 {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut readers: Vec<_> = (0..4).map(|_| site.client()).collect();
        for reader in &mut readers {
            reader.send(GET_LARGE);
        }
        for reader in &mut readers {
            assert!(reader.answer().body == pattern(LARGE_BYTES), "round {round}");
        }
    }
}

#[test]
fn stalled_readers_cost_next_to_no_memory() {
    let site = Site::new(&[]);
    site.get("/large.bin", "");
    let before = site.server.resident_bytes();
    let mut stalled: Vec<_> = (0..1000).map(|_| site.client()).collect();
    for client in &mut stalled {
        client.send(GET_LARGE);
        assert_eq!(client.head().0, 200);
    }
    // Half a KiB each in an optimized build; and code that is used for the first time.
    let grown = site.server.resident_bytes().saturating_sub(before);
    assert!(grown < 1000 * 2 * 1024, "{grown} bytes for 1,000 readers");
}
