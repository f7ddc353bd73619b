//! What is answered, and what is refused.

use std::os::unix::fs::symlink;

use crate::client::{LARGE_BYTES, Site};
use crate::support::pattern;

#[test]
fn a_file_comes_whole_and_in_parts_with_all_that_a_download_needs() {
    let site = Site::new(&[]);
    let whole = site.get("/small.txt", "");
    assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
    assert_eq!(whole.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(whole.field("Accept-Ranges"), Some("bytes"));
    assert!(whole.field("Date").is_some() && whole.field("Last-Modified").is_some());
    let part = site.get("/small.txt", "Range: bytes=2-4\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    assert_eq!(part.field("Content-Range"), Some("bytes 2-4/10"));
    let outside = site.get("/small.txt", "Range: bytes=10-\r\n");
    assert_eq!(
        (outside.status, outside.field("Content-Range")),
        (416, Some("bytes */10"))
    );
    let large = site.get("/large.bin", "");
    assert!(large.body == pattern(LARGE_BYTES), "the bytes differ");
    let from = LARGE_BYTES - 3_000_001;
    let rest = site.get("/large.bin", "Range: bytes=-3000001\r\n");
    assert!(rest.status == 206 && rest.body == pattern(LARGE_BYTES)[from..]);
}

#[test]
fn several_ranges_come_as_parts_with_heads_of_their_own() {
    let site = Site::new(&[]);
    let answer = site.get("/small.txt", "Range: bytes=0-1,-2\r\n");
    assert_eq!(answer.status, 206);
    let kind = answer.field("Content-Type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, bytes: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}\r\n"
        )
    };
    let expected = part("0-1", "01") + &part("8-9", "89") + &format!("--{boundary}--\r\n");
    assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
}

#[test]
fn conditions_are_judged_by_tag_and_date() {
    let site = Site::new(&[]);
    let first = site.get("/small.txt", "");
    let (tag, date) = (
        first.field("ETag").unwrap(),
        first.field("Last-Modified").unwrap(),
    );
    let status = |fields: &str| site.get("/small.txt", fields).status;
    let known = site.get("/large.bin", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(known.status, 200, "the tag of another file");
    let mut client = site.client();
    client.send(&format!(
        "GET /small.txt HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n"
    ));
    let (not_modified, head) = client.head();
    assert!(not_modified == 304 && head.contains(tag), "{head}");
    assert_eq!(status("If-Match: \"other\"\r\n"), 412);
    assert_eq!(status(&format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n")), 206);
    assert_eq!(status("Range: bytes=0-0\r\nIf-Range: \"other\"\r\n"), 200);
    client.send(&format!(
        "GET /small.txt HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: {date}\r\n\r\n"
    ));
    assert_eq!(client.head().0, 304);
}

#[test]
fn pipelined_requests_are_answered_in_order_behind_a_large_one() {
    let site = Site::new(&[]);
    let mut client = site.client();
    client.send(
        "GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\nHEAD /small.txt HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert!(client.answer().body == pattern(LARGE_BYTES));
    let (status, head) = client.head();
    assert!(status == 200 && head.contains("Content-Length: 10"), "{head}");
    assert_eq!(client.answer().body, b"0123456789");
    assert_eq!(client.answer().status, 404);
    assert!(client.is_closed_in_order());
}

#[test]
fn hundreds_of_pipelined_requests_all_get_their_answer() {
    let site = Site::new(&[]);
    let mut client = site.client();
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let one = "GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n";
        std::io::Write::write_all(&mut writer, one.repeat(5000).as_bytes()).unwrap();
    });
    for _ in 0..5000 {
        assert_eq!(client.answer().body, b"0123456789");
    }
    sender.join().unwrap();
}

#[test]
fn a_request_is_understood_however_it_is_cut_into_pieces() {
    let site = Site::new(&[]);
    let mut client = site.client();
    for byte in "GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n".chars() {
        client.send(&byte.to_string());
    }
    assert_eq!(client.answer().status, 200);
}

#[test]
fn nobody_gets_out_of_the_folder() {
    let site = Site::new(&["--listing"]);
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), site.path().join("link")).unwrap();
    symlink("small.txt", site.path().join("inside")).unwrap();
    for target in [
        "/link",
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/sub/../../x",
        "/.hidden",
        "/sub%2fa",
        "//etc/passwd",
    ] {
        assert_eq!(site.get(target, "").status, 404, "{target}");
    }
    assert_eq!(site.get("/inside", "").body, b"0123456789");
    let list = site.get("/", "");
    let page = String::from_utf8(list.body).unwrap();
    assert!(
        page.contains("small.txt") && !page.contains("link") && !page.contains(".hidden"),
        "{page}"
    );
    let list = site.get("/sub/", "");
    let page = String::from_utf8(list.body).unwrap();
    assert!(
        page.contains("a&lt;b.txt") && page.contains("a%3Cb.txt"),
        "{page}"
    );
    assert_eq!(site.get("/sub", "").field("Location"), Some("/sub/"));
}

#[test]
fn what_could_hide_a_second_request_is_refused_and_the_connection_closed() {
    let site = Site::new(&[]);
    for (fields, status) in [
        ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length : 1\r\n", 400),
        ("X: a\r\n b\r\n", 400),
        ("Content-Length: 5\r\n", 413),
        ("Expect: x\r\n", 417),
    ] {
        let mut client = site.client();
        client.send(&format!(
            "GET /small.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\nGET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        assert_eq!(client.answer().status, status, "{fields}");
        assert!(client.is_closed_in_order(), "{fields}");
    }
    let mut client = site.client();
    client.send(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000)));
    assert_eq!(client.answer().status, 414);
}

#[test]
fn compressed_files_beside_a_file_go_to_those_who_accept_them() {
    let site = Site::new(&["--precompressed", "--header", "X-Served: here"]);
    std::fs::write(site.path().join("small.txt.gz"), "zipped").unwrap();
    let zipped = site.get("/small.txt", "Accept-Encoding: gzip, br\r\n");
    assert_eq!(
        (zipped.field("Content-Encoding"), &zipped.body[..]),
        (Some("gzip"), &b"zipped"[..])
    );
    assert_eq!(zipped.field("Vary"), Some("Accept-Encoding"));
    let plain = site.get("/small.txt", "Accept-Encoding: gzip;q=0\r\n");
    assert_eq!(
        (plain.field("Content-Encoding"), &plain.body[..]),
        (None, &b"0123456789"[..])
    );
    assert_eq!(plain.field("X-Served"), Some("here"));
    assert_ne!(plain.field("ETag"), zipped.field("ETag"));
}

#[test]
fn a_head_that_does_not_come_gets_408_and_a_silent_connection_is_closed() {
    let site = Site::new(&["--request-timeout", "300ms", "--idle-timeout", "600ms"]);
    let mut unfinished = site.client();
    unfinished.send("GET / HTTP/1.1\r\nHost:");
    let mut silent = site.client();
    let mut idle = site.client();
    idle.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    assert_eq!(unfinished.answer().status, 408);
    assert!(unfinished.is_closed_in_order());
    assert!(silent.is_closed_in_order());
    assert!(idle.is_closed_in_order());
}
