//! Sound web servers: every shape of answer and every habit of closing.
//!
//! All of them reset a client that takes nothing for two seconds.

use std::time::Duration;

use crate::http::{Answer, Ends, Request, Site, counted, plain, raw, with_length};
use crate::patience::{Manners, seconds};
use crate::row::{Row, Truth};

const HTTP: &[&str] = &["--protocol", "http"];
const DEFENDED: &str = "resets a client that takes nothing for 2 s; all others are served";
const FITS: &str = "all answers to a slow client fit into what kernels hold: the server never waits for it";
const PAGE_BYTES: usize = 500 << 10;
/// More than kernels hold for a client by themselves.
const LARGE_BYTES: usize = 8 << 20;

fn row(name: &'static str, what: &'static str, site: Site) -> Row {
    Row::small(name, what, site, HTTP, DEFENDED)
}

fn answering(name: &'static str, what: &'static str, answer: fn(&Request<'_>) -> Answer) -> Row {
    row(name, what, Site::new(answer, Manners::DEFENDED))
}

/// The server never waits for a slow client, so nobody can say what it would do then.
fn never_full(row: Row) -> Row {
    let findings = [
        "stalled-disconnected",
        "stalled-in-time",
        "paused-kept",
        "steady-kept",
    ];
    let asked = |finding: &&str| row.truth(finding).0 != Truth::Untested;
    let asked: Vec<_> = findings.into_iter().filter(asked).collect();
    let row = asked
        .into_iter()
        .fold(row, |row, finding| row.but(finding, Truth::Unknowable, FITS));
    row.but("memory-bounded", Truth::Open, "nothing waits for anybody")
}

pub(super) fn rows() -> Vec<Row> {
    [shapes(), small_answers(), changing(), asked(), closing(), times()].concat()
}

fn page(request: &Request<'_>) -> Answer {
    with_length(request, "HTTP/1.1 200 OK", plain(PAGE_BYTES))
}

fn chunked(last: &str, extension: &str) -> Answer {
    let mut body = Vec::new();
    for chunk in plain(PAGE_BYTES).chunks(40_000) {
        body.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(last.as_bytes());
    raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body)
}

fn until_close(version: &str) -> Answer {
    let head = format!("HTTP/{version} 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
    Answer {
        then_close: true,
        ..raw(&head, plain(LARGE_BYTES))
    }
}

fn shapes() -> Vec<Row> {
    vec![
        answering("http-page", "500 KB with a Content-Length", page).groups(|groups| groups.steady = 1),
        answering("http-chunked", "500 KB in chunks", |_| chunked("0\r\n\r\n", "")),
        answering("http-trailers", "chunks, then two trailers", |_| {
            chunked("0\r\nServer-Timing: total;dur=5\r\nX-Sum: 7\r\n\r\n", "")
        }),
        answering("http-extensions", "chunks with extensions", |_| {
            chunked("0;last=1\r\n\r\n", ";name=\"a b\"")
        }),
        answering(
            "http-until-close",
            "HTTP/1.1, 8 MB until the connection closes",
            |_| until_close("1.1"),
        ),
        answering("http-1.0", "HTTP/1.0, 8 MB until the connection closes", |_| {
            until_close("1.0")
        }),
        answering(
            "http-1.0-kept",
            "HTTP/1.0 with Connection: keep-alive",
            |request| {
                with_length(
                    request,
                    "HTTP/1.0 200 OK\r\nConnection: keep-alive",
                    plain(PAGE_BYTES),
                )
            },
        ),
        answering(
            "http-1.0-close",
            "HTTP/1.0 with a length, closes after each answer",
            |request| Answer {
                then_close: true,
                ..with_length(request, "HTTP/1.0 200 OK", plain(LARGE_BYTES))
            },
        ),
        answering("http-continue", "100 Continue before each answer", |request| {
            with_length(
                request,
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
                plain(PAGE_BYTES),
            )
        }),
        answering(
            "http-early-hints",
            "103 Early Hints, twice, before each answer",
            |request| {
                let hint = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
                with_length(
                    request,
                    &format!("{hint}{hint}HTTP/1.1 200 OK"),
                    plain(PAGE_BYTES),
                )
            },
        ),
        answering(
            "http-crlf-after-body",
            "an empty line after each body",
            |request| {
                let mut answer = page(request);
                answer.body.to_mut().extend_from_slice(b"\r\n");
                answer
            },
        ),
        answering("http-no-reason", "a status line without a reason", |request| {
            with_length(request, "HTTP/1.1 200 ", plain(PAGE_BYTES))
        }),
        answering(
            "http-lower-case",
            "field names in lower case, blanks around values",
            |_| {
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length:  {PAGE_BYTES}  \r\nserver:\tzoo\r\n\r\n");
                raw(&head, plain(PAGE_BYTES))
            },
        ),
        answering("http-many-fields", "200 fields in each head", |request| {
            let fields: String = (0..200)
                .map(|number| format!("\r\nX-Field-{number}: value"))
                .collect();
            with_length(request, &format!("HTTP/1.1 200 OK{fields}"), plain(PAGE_BYTES))
        }),
        answering("http-64-mb", "64 MB", |request| {
            with_length(request, "HTTP/1.1 200 OK", plain(64 << 20))
        }),
    ]
}

fn small_answers() -> Vec<Row> {
    vec![
        unfelt("http-204", "204 without a body", |_| {
            raw("HTTP/1.1 204 No Content\r\n\r\n", &b""[..])
        }),
        unfelt("http-empty", "200 with an empty body", |request| {
            with_length(request, "HTTP/1.1 200 OK", &b""[..])
        }),
        unfelt("http-one-byte", "a body of one byte", |request| {
            with_length(request, "HTTP/1.1 200 OK", &b"x"[..])
        }),
        unfelt("http-redirect", "302 with a small body", |request| {
            with_length(
                request,
                "HTTP/1.1 302 Found\r\nLocation: /elsewhere",
                &b"elsewhere"[..],
            )
        }),
        unfelt("http-login", "401 with a small body", |request| {
            let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"zoo\"";
            with_length(request, head, &b"who are you?"[..])
        }),
    ]
}

/// Kernels hold all of it, as on any server with the usual buffers.
fn unfelt(name: &'static str, what: &'static str, answer: fn(&Request<'_>) -> Answer) -> Row {
    let site = Site {
        think: Duration::from_millis(2),
        ..Site::new(answer, Manners::DEFENDED.with_kernel_buffers())
    };
    never_full(row(name, what, site))
}

fn changing() -> Vec<Row> {
    vec![
        answering(
            "http-clock",
            "a page with a counter in it, always as long",
            |request| {
                let body = counted(request, PAGE_BYTES);
                with_length(request, "HTTP/1.1 200 OK", body)
            },
        ),
        answering(
            "http-length",
            "a page that is longer or shorter each time",
            |request| {
                let bytes = PAGE_BYTES - 1000 * (request.total % 50) as usize;
                with_length(request, "HTTP/1.1 200 OK", plain(bytes))
            },
        ),
        answering(
            "http-weak-etag",
            "a changing page with the same weak ETag",
            |request| {
                let body = counted(request, PAGE_BYTES);
                with_length(request, "HTTP/1.1 200 OK\r\nETag: W/\"1\"", body)
            },
        ),
        answering("http-etag", "the same page with its strong ETag", |request| {
            with_length(request, "HTTP/1.1 200 OK\r\nETag: \"1\"", plain(PAGE_BYTES))
        }),
        answering(
            "http-new-etag",
            "a changing page with a strong ETag of its own each time",
            |request| {
                let body = counted(request, PAGE_BYTES);
                with_length(
                    request,
                    &format!("HTTP/1.1 200 OK\r\nETag: \"{}\"", request.total),
                    body,
                )
            },
        ),
        answering("http-2xx", "200, and 206 every third time", |request| {
            let status = if request.total % 3 == 2 {
                "206 Partial Content"
            } else {
                "200 OK"
            };
            with_length(request, &format!("HTTP/1.1 {status}"), plain(PAGE_BYTES))
        }),
    ]
}

/// What the options of a request lead to.
fn asked() -> Vec<Row> {
    vec![
        answering(
            "http-header",
            "403 without a header field, which is given",
            |request| {
                if request.head.contains("X-Key: open\r\n") {
                    page(request)
                } else {
                    with_length(request, "HTTP/1.1 403 Forbidden", &b"no"[..])
                }
            },
        )
        .option("--header", "X-Key: open"),
        answering(
            "http-follow",
            "a redirect to the page, which is followed",
            |request| {
                if request.head.starts_with("GET /page ") {
                    page(request)
                } else {
                    with_length(request, "HTTP/1.1 302 Found\r\nLocation: /page", &b"there"[..])
                }
            },
        )
        .groups(|groups| groups.steady = 1)
        .flag("--follow"),
        answering(
            "http-status",
            "404 with 500 KB, which is what is expected",
            |request| with_length(request, "HTTP/1.1 404 Not Found", plain(PAGE_BYTES)),
        )
        .option("--expect-status", "404"),
        answering("http-head", "HEAD, whose answers have no body", page)
            .option("--method", "HEAD")
            .but("stalled-disconnected", Truth::Untested, "HEAD fills nobody up")
            .but("stalled-in-time", Truth::Untested, "HEAD fills nobody up")
            .but("paused-kept", Truth::Untested, "HEAD fills nobody up")
            .but("healthy-unaffected", Truth::Open, "nobody is slow")
            .but("memory-bounded", Truth::Open, "nobody is slow")
            .but("nothing-left-in-kernel", Truth::Open, "nobody is slow"),
    ]
}

fn ending(name: &'static str, what: &'static str, ends: Ends) -> Row {
    let site = Site {
        ends,
        ..Site::new(page, Manners::DEFENDED)
    };
    row(name, what, site)
}

fn closing() -> Vec<Row> {
    let after = |requests: u64, announced: bool| Ends {
        after_requests: Some(requests),
        announced,
        ..Ends::default()
    };
    vec![
        ending(
            "http-100-requests",
            "Connection: close with the 100th answer",
            after(100, true),
        ),
        ending(
            "http-20-requests",
            "closes in order after 20 answers, unannounced",
            after(20, false),
        ),
        ending(
            "http-each",
            "Connection: close with each answer of 500 KB",
            after(1, true),
        ),
        ending(
            "http-idle-1s",
            "closes in order when no request comes for 1 s",
            Ends {
                when_idle: Some(seconds(1)),
                ..Ends::default()
            },
        ),
        ending(
            "http-idle-5s",
            "closes in order when no request comes for 5 s",
            Ends {
                when_idle: Some(seconds(5)),
                ..Ends::default()
            },
        ),
        ending(
            "http-age",
            "closes in order, between two answers, at an age of 1 s",
            Ends {
                at_age: Some(seconds(1)),
                ..Ends::default()
            },
        ),
        ending(
            "http-age-announced",
            "Connection: close with the first answer after 1.5 s",
            Ends {
                at_age: Some(Duration::from_millis(1500)),
                announced: true,
                ..Ends::default()
            },
        ),
    ]
}

fn times() -> Vec<Row> {
    let slow_first = Site {
        first_think: seconds(2),
        ..Site::new(page, Manners::DEFENDED)
    };
    let slow = Site {
        think: Duration::from_millis(300),
        ..Site::new(page, Manners::DEFENDED)
    };
    vec![
        row("http-slow-first", "the first answer takes 2 s", slow_first),
        row("http-slow", "each answer takes 0.3 s", slow)
            .option("--baseline", "1500ms")
            .but("healthy-unaffected", Truth::Open, "so few answers make no rate"),
    ]
}
