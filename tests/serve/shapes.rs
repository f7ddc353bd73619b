//! Every shape of a request that has a row in the documentation, by raw
//! sockets: which status it gets, and whether the connection is kept.

use std::io::{Read, Write};

use crate::client::Site;

/// What the raw bytes of one connection lead to: the statuses of all answers,
/// and whether the server then closes. A kept connection shows by answering
/// one more request.
fn statuses(site: &Site, bytes: &[u8]) -> (Vec<u16>, bool) {
    let mut client = site.client();
    let probe = "HEAD /small.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\nIf-None-Match: *\r\n\r\n";
    // The server may have answered and closed while we still write: then these
    // fail, and its answer is there to read all the same.
    let writer = client.stream.get_mut();
    let _ = writer
        .write_all(bytes)
        .and_then(|()| writer.write_all(probe.as_bytes()));
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    let lines = rest.split("HTTP/1.1 ").skip(1);
    let mut statuses: Vec<u16> = lines.filter_map(|line| line.get(..3)?.parse().ok()).collect();
    let is_kept = statuses.last() == Some(&304);
    if is_kept {
        statuses.pop();
    }
    (statuses, is_kept)
}

const KEPT: bool = true;
const CLOSED: bool = false;

#[test]
fn each_head_gets_its_status_and_the_connection_is_kept_where_its_end_is_sure() {
    let site = Site::small(&[]);
    let rows: [(&str, u16, bool); 27] = [
        ("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200, KEPT),
        ("GET /small.txt HTTP/1.1\nHost: a\n\n", 200, KEPT),
        ("\r\n\r\nGET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200, KEPT),
        ("GET http://a/small.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200, KEPT),
        (
            "GET /small.txt HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            200,
            KEPT,
        ),
        ("GET /small.txt HTTP/1.0\r\n\r\n", 200, CLOSED),
        (
            "GET /small.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            200,
            KEPT,
        ),
        ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 404, KEPT),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, KEPT),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204, KEPT),
        ("OPTIONS /none HTTP/1.1\r\nHost: a\r\n\r\n", 204, KEPT),
        ("POST /small.txt HTTP/1.1\r\nHost: a\r\n\r\n", 405, KEPT),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, KEPT),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405, KEPT),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501, CLOSED),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            413,
            CLOSED,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            413,
            CLOSED,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            413,
            CLOSED,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: a pony\r\n\r\n", 417, CLOSED),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, CLOSED),
        ("GET /small.txt HTTP/1.2\r\nHost: a\r\n\r\n", 200, KEPT),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, CLOSED),
        ("GET /\r\n\r\n", 400, CLOSED),
        ("GET / HTTP/1.1\r\n\r\n", 400, CLOSED),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, CLOSED),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, CLOSED),
        ("\x16\x03\x01\x02\0\x01", 400, CLOSED),
    ];
    for (head, status, is_kept) in rows {
        assert_eq!(
            statuses(&site, head.as_bytes()),
            (vec![status], is_kept),
            "{head:?}"
        );
    }
}

#[test]
fn limits_of_a_head_are_told_by_their_status() {
    let site = Site::small(&[]);
    let with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let rows = [
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8192)),
            414,
        ),
        (with(&"X: y\r\n".repeat(100)), 431),
        (with(&format!("X: {}\r\n", "y".repeat(17_000))), 431),
        (format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(17_000)), 431),
        ("\r\n".repeat(10_000), 431),
    ];
    for (head, status) in rows {
        assert_eq!(
            statuses(&site, head.as_bytes()),
            (vec![status], CLOSED),
            "{} bytes",
            head.len()
        );
    }
    // Far more than the server reads: the answer still arrives, and no reset destroys it.
    let flood = with(&format!("X: {}\r\n", "y".repeat(300_000)));
    assert_eq!(statuses(&site, flood.as_bytes()), (vec![431], CLOSED));
}

#[test]
fn no_shape_hides_a_second_request() {
    let site = Site::small(&[]);
    for fields in [
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: -1",
        "Content-Length: +0",
        "Content-Length: 0x0",
        "Content-Length: 0,0",
        "Content-Length: 99999999999999999999999",
        "Content-Length\t: 3",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "X: a\r\n b",
        " X: a",
        "X: a\rb: c",
        "X: a\0",
        "X\x01: a",
        ": x",
        "nonsense",
    ] {
        let head = format!("GET /small.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let (statuses, is_kept) = statuses(&site, head.as_bytes());
        let is_refused = matches!(statuses[..], [400 | 501]);
        assert!(
            is_refused && !is_kept,
            "{fields:?}: {statuses:?}, kept: {is_kept}"
        );
    }
}

#[test]
fn an_answer_to_head_has_the_fields_of_get_and_no_body_whatever_its_status() {
    let site = Site::small(&["--listing"]);
    for (target, fields, status) in [
        ("/small.txt", "", 200),
        ("/small.txt", "Range: bytes=0-1\r\n", 200),
        ("/small.txt", "If-Match: \"x\"\r\n", 412),
        ("/none", "", 404),
        ("/sub", "", 301),
        ("/sub/", "", 200),
        ("/%zz", "", 400),
    ] {
        let mut client = site.client();
        client.send(&format!(
            "HEAD {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n"
        ));
        let all = client.rest();
        assert!(all.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {all}");
        assert!(
            all.ends_with("\r\n\r\n") && all.contains("Content-Length: "),
            "{target}: {all}"
        );
    }
    let mut refused = site.client();
    refused.send("HEAD /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    let all = refused.rest();
    assert!(
        all.starts_with("HTTP/1.1 413") && all.ends_with("\r\n\r\n"),
        "{all}"
    );
}

#[test]
fn methods_that_are_not_served_name_those_that_are() {
    let site = Site::small(&[]);
    for (method, status) in [("PUT", 405), ("DELETE", 405), ("OPTIONS", 204)] {
        let mut client = site.client();
        client.send(&format!(
            "{method} /small.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        let all = client.rest();
        assert!(all.starts_with(&format!("HTTP/1.1 {status}")), "{all}");
        assert!(all.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{all}");
    }
}

#[test]
fn sets_of_ranges_are_bounded_and_what_is_no_range_is_the_whole_file() {
    let site = Site::small(&[]);
    let get = |range: &str| site.get("/small.txt", &format!("Range: {range}\r\n"));
    let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
    for (range, status) in [
        ("bytes=0-0,2-2,20-", 206),
        ("bytes=20-,30-", 416),
        ("bytes=-0", 416),
        ("bytes=5-1", 200),
        ("items=0-1", 200),
        ("bytes=0-9,0-9", 200),
        (&many(17), 200),
        (&many(10), 206),
    ] {
        assert_eq!(get(range).status, status, "{range}");
    }
    std::fs::write(site.path().join("empty"), "").unwrap();
    assert_eq!(site.get("/empty", "").status, 200);
    assert_eq!(site.get("/empty", "Range: bytes=0-\r\n").status, 416);
    let date = site
        .get("/small.txt", "")
        .field("Last-Modified")
        .unwrap()
        .to_owned();
    let with = |validator: &str| {
        let fields = format!("Range: bytes=0-0\r\nIf-Range: {validator}\r\n");
        site.get("/small.txt", &fields).status
    };
    assert_eq!(with(&date), 206);
    assert_eq!(with("Thu, 01 Jan 1970 00:00:00 GMT"), 200);
    assert_eq!(with("W/\"a\""), 200);
}

#[test]
fn special_files_hidden_files_and_ways_out_are_not_there() {
    let site = Site::small(&[]);
    let path = site.path();
    for (target, link) in [
        ("/dev/zero", "zero"),
        ("/", "root"),
        ("..", "up"),
        ("loop", "loop"),
        ("/proc/self/root", "magic"),
    ] {
        std::os::unix::fs::symlink(target, path.join(link)).unwrap();
    }
    let made = std::process::Command::new("mkfifo")
        .arg(path.join("fifo"))
        .status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    for target in [
        "/zero",
        "/root/etc/passwd",
        "/up/",
        "/loop",
        "/magic/etc/passwd",
        "/fifo",
        "/socket",
        "/.hidden",
        "/%2ehidden",
        "/small.txt/",
        "/small.txt/x",
        "/%00",
        "/small.txt%00",
    ] {
        assert_eq!(site.get(target, "").status, 404, "{target}");
    }
    let open = Site::small(&["--hidden"]);
    assert_eq!(open.get("/.hidden", "").body, b"x");
    assert_eq!(
        open.get("/sub/", "").status,
        404,
        "without --listing there is no list"
    );
    std::fs::write(open.path().join("sub/index.html"), "<p>").unwrap();
    assert_eq!(open.get("/sub/", "").body, b"<p>");
}

#[test]
fn a_half_closed_client_still_gets_all_answers() {
    let site = Site::small(&[]);
    let mut client = site.client();
    client.send(&"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    client
        .stream
        .get_ref()
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    let all = client.rest();
    assert_eq!(all.matches("0123456789").count(), 3, "{all}");
}

#[test]
fn one_client_too_many_hears_503_and_has_a_place_once_another_left() {
    let site = Site::small(&["--max-clients", "1"]);
    let mut first = site.client();
    first.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(first.answer().status, 200);
    let mut second = site.client();
    let answer = second.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.field("Retry-After").is_some() && answer.field("Connection") == Some("close"));
    drop(first);
    crate::support::wait_until("there is a place", || {
        let mut third = site.client();
        let head = "GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n";
        // A refused client may be reset before it has written.
        let is_sent = std::io::Write::write_all(third.stream.get_mut(), head.as_bytes()).is_ok();
        let mut status = [0; 12];
        is_sent
            && std::io::Read::read_exact(&mut third.stream, &mut status).is_ok()
            && status == *b"HTTP/1.1 200"
    });
}

#[test]
fn without_descriptors_a_request_hears_503_and_the_next_is_served() {
    let site = Site::small(&[]);
    let mut client = site.client();
    client.send("HEAD /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().0, 200);
    site.server.leave_descriptors(0);
    client.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 503);
    site.server.leave_descriptors(10);
    client.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn fields_of_ones_own_stand_in_every_answer_and_take_the_place_of_the_servers_name() {
    let site = Site::small(&[
        "--header",
        "Cache-Control: max-age=60",
        "--header",
        "server: mine",
        "--listing",
    ]);
    for target in ["/small.txt", "/none", "/sub", "/"] {
        let head = site.get(target, "").head;
        assert_eq!(head.matches("Cache-Control: max-age=60\r\n").count(), 1, "{head}");
        assert_eq!(head.to_lowercase().matches("\r\nserver: ").count(), 1, "{head}");
        assert_eq!(head.matches("Cache-Control").count(), 1, "{head}");
    }
}
