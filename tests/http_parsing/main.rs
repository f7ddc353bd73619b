//! Requests and ranges as nobody would write them, from seeds. `make fuzz`
//! looks longer, with the same checks.

#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails should say so at once"
)]

mod checks;

use checks::{check_ranges, check_requests, check_target};

const ROUNDS: u64 = 60_000;

/// Pieces of requests: right ones, and all that smugglers use.
const PIECES: &[&[u8]] = &[
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"OPTIONS * ",
    b"/a",
    b"/",
    b"http://h/x",
    b"%2e%2e/",
    b"%00",
    b"%zz",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b" HTTP/2.0\r\n",
    b"Host: a\r\n",
    b"Host: a\n",
    b"host:\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length:\t00\r\n",
    b"Content-Length : 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b" folded\r\n",
    b"X: y\r\n",
    b"X: \xff\r\n",
    b"X:\0\r\n",
    b"X",
    b":",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\t",
    b" ",
    b"Range: bytes=0-1,-5\r\n",
    b"If-Range: \"a\"\r\n",
    b"If-Match: W/\"a\", \"\r\n",
    b"If-None-Match: *\r\n",
    b"If-Modified-Since: Sat, 28 Nov 2026 09:00:00 GMT\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"\x16\x03\x01",
    b"hello",
];

fn request(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(..4) {
        if random.bool() {
            bytes.extend_from_slice(b"GET /a HTTP/1.1\r\nHost: a\r\n");
        }
        for _ in 0..random.usize(..8) {
            bytes.extend_from_slice(PIECES[random.usize(..PIECES.len())]);
        }
        if random.bool() {
            bytes.extend_from_slice(b"\r\n\r\n");
        }
    }
    for _ in 0..random.usize(..3) {
        if !bytes.is_empty() {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
    }
    bytes
}

#[test]
fn no_request_is_read_in_two_ways() {
    let mut accepted = 0;
    for seed in 0..ROUNDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = request(&mut random);
        let pieces: Vec<u8> = (0..4).map(|_| random.u8(..20)).collect();
        check_requests(&bytes, &pieces);
        let end = highwater::protocol::http1::head_end(&bytes, 0);
        let head = end.map(|end| highwater::protocol::http1::Request::parse(&bytes[..end]));
        accepted += u64::from(matches!(head, Some(Ok(_))));
    }
    assert!(
        accepted > ROUNDS / 100,
        "only {accepted} heads were accepted, so little was tested"
    );
}

#[test]
fn ranges_agree_with_a_parser_that_knows_big_numbers() {
    let pieces = [
        "bytes=",
        "bytes =",
        "Bytes=",
        "items=",
        "0-0",
        "0-",
        "-5",
        "-0",
        "5-2",
        "99-",
        "100-",
        "18446744073709551615-",
        "0-18446744073709551616",
        "-18446744073709551617",
        ",",
        ", ",
        "-",
        "1",
        " ",
        "x",
        "+1-2",
        "7-9",
    ];
    for seed in 0..ROUNDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut field = String::from(if random.u8(..4) > 0 { "bytes=" } else { "" });
        for _ in 0..random.usize(..24) {
            field.push_str(pieces[random.usize(..pieces.len())]);
            if random.bool() {
                field.push(',');
            }
        }
        let sizes = [0, 1, 10, 100, 1 << 40, u64::MAX];
        check_ranges(&field, sizes[random.usize(..sizes.len())]);
    }
}

#[test]
fn no_target_leads_upwards() {
    let pieces = [
        "/", ".", "..", "%2e", "%2E", "%2f", "%00", "%", "%5c", "\\", "a", "?", "#", "http://h", "%25",
        "%c0%ae",
    ];
    for seed in 0..ROUNDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let target: String = (0..random.usize(..12))
            .map(|_| pieces[random.usize(..pieces.len())])
            .collect();
        check_target(&format!("/{target}"));
        check_target(&target);
    }
}
