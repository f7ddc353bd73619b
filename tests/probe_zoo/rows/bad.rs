//! Servers that slow clients hurt, and some that only look as if they did not.

use crate::echo::{Echo, Habit};
use crate::http::{Answer, Ends, Request, Site, counted, plain, raw, with_length};
use crate::patience::{Manners, seconds};
use crate::row::{Row, Truth};
use crate::truths::FOR_EVER;

const HTTP: &[&str] = &["--protocol", "http"];
const ECHO: &[&str] = &["--protocol", "echo"];
const ANSWERED_WRONGLY: &str = "they are answered wrongly";
const WAITS: &str = "each has a thread of its own, which waits";

fn page(request: &Request<'_>) -> Answer {
    with_length(request, "HTTP/1.1 200 OK", plain(500 << 10))
}

fn defenceless(answer: fn(&Request<'_>) -> Answer) -> Site {
    Site::new(answer, Manners::DEFENCELESS)
}

fn kept_for_ever(row: Row) -> Row {
    row.keeps_the_stalled(FOR_EVER)
}

/// No defence, and nobody can see that.
fn unseen(row: Row) -> Row {
    row.keeps_the_stalled_unseen(FOR_EVER)
        .groups(|groups| groups.paused = 0)
        .but("memory-bounded", Truth::Open, "nothing need have waited")
        .but(
            "nothing-left-in-kernel",
            Truth::Open,
            "what an orderly close leaves is TCP's to deliver",
        )
}

fn web(name: &'static str, what: &'static str, site: Site) -> Row {
    Row::small(name, what, site, HTTP, WAITS)
}

fn echo(name: &'static str, what: &'static str, habit: Habit) -> Row {
    Row::small(name, what, Echo::new(habit, Manners::DEFENCELESS), ECHO, WAITS)
}

pub(super) fn rows() -> Vec<Row> {
    [webs(), orderly(), wrong(), echoes(), refused()].concat()
}

fn webs() -> Vec<Row> {
    vec![
        kept_for_ever(web("bad-http", "waits for ever", defenceless(page)))
            .groups(|groups| groups.steady = 1),
        kept_for_ever(web(
            "bad-http-large",
            "waits for ever with 64 MB",
            defenceless(|request| with_length(request, "HTTP/1.1 200 OK", plain(64 << 20))),
        )),
        kept_for_ever(web(
            "bad-http-talker",
            "waits for ever, also for one that goes on asking",
            defenceless(page),
        ))
        .groups(|groups| groups.talkers = 1)
        .but("talkers-disconnected", Truth::Bad, FOR_EVER),
        kept_for_ever(web(
            "bad-http-memory",
            "answers into memory, without a limit",
            Site {
                is_unbounded: true,
                ..defenceless(page)
            },
        ))
        .grows("16 MiB of answers wait for each slow client in memory"),
        kept_for_ever(web(
            "bad-http-blocked",
            "one thread for all, which blocks",
            Site {
                is_single: true,
                ..defenceless(page)
            },
        ))
        .blocks_everybody(),
    ]
}

/// No defence, but connections end for other reasons.
fn orderly() -> Vec<Row> {
    let ending = |ends: Ends| Site {
        ends,
        manners: Manners::DEFENCELESS.with_kernel_buffers(),
        ..defenceless(page)
    };
    let small = |ends: Ends| Site {
        answer: |request| with_length(request, "HTTP/1.1 200 OK", plain(1000)),
        ..ending(ends)
    };
    vec![
        unseen(web(
            "bad-100-requests",
            "no defence; closes in order after 100 answers of 1 KB",
            small(Ends {
                after_requests: Some(100),
                ..Ends::default()
            }),
        )),
        unseen(web(
            "bad-100-announced",
            "no defence; announces the close with the 100th answer of 1 KB",
            small(Ends {
                after_requests: Some(100),
                announced: true,
                ..Ends::default()
            }),
        )),
        unseen(web(
            "bad-3-requests",
            "no defence; closes in order after 3 answers of 500 KB",
            ending(Ends {
                after_requests: Some(3),
                ..Ends::default()
            }),
        )),
        unseen(web(
            "bad-each",
            "no defence; closes after each answer of 500 KB",
            ending(Ends {
                after_requests: Some(1),
                announced: true,
                ..Ends::default()
            }),
        )),
        unseen(web(
            "bad-idle-1s",
            "no defence; closes in order when no request comes for 1 s; answers of 1 KB",
            small(Ends {
                when_idle: Some(seconds(1)),
                ..Ends::default()
            }),
        )),
        unseen(web(
            "bad-age",
            "no defence; closes in order at an age of 1 s; answers of 1 KB",
            small(Ends {
                at_age: Some(seconds(1)),
                ..Ends::default()
            }),
        )),
        kept_for_ever(web(
            "bad-age-full",
            "no defence; closes in order at an age of 1 s, between two answers of 500 KB",
            Site {
                ends: Ends {
                    at_age: Some(seconds(1)),
                    ..Ends::default()
                },
                ..defenceless(page)
            },
        )),
        unseen(web(
            "bad-cut",
            "no defence; resets every connection at an age of 1.5 s",
            Site {
                ends: Ends {
                    cut_at_age: Some(std::time::Duration::from_millis(1500)),
                    ..Ends::default()
                },
                ..defenceless(page)
            },
        ))
        .harms_the_healthy("healthy clients are reset", "they are gone before"),
    ]
}

/// What healthy clients get is wrong.
fn wrong() -> Vec<Row> {
    let manners = Manners::DEFENDED;
    let wrong = |name, what, why, answer| {
        Row::small(
            name,
            what,
            Site::new(answer, manners),
            HTTP,
            "resets a client that takes nothing for 2 s",
        )
        .but("paused-kept", Truth::Open, "it is answered wrongly as well")
        .but(
            "nothing-left-in-kernel",
            Truth::Open,
            "part of an answer may be left",
        )
        .harms_the_healthy(why, ANSWERED_WRONGLY)
    };
    vec![
        wrong(
            "wrong-etag",
            "the same strong ETag for a page that changes",
            "a strong ETag promises the same bytes",
            |request| {
                let body = counted(request, 500 << 10);
                with_length(request, "HTTP/1.1 200 OK\r\nETag: \"1\"", body)
            },
        ),
        wrong(
            "wrong-500",
            "every 30th answer is 500",
            "500 is not what was asked for",
            |request| {
                let status = if request.total % 30 == 29 {
                    "500 Internal Server Error"
                } else {
                    "200 OK"
                };
                with_length(request, &format!("HTTP/1.1 {status}"), plain(500 << 10))
            },
        ),
        wrong(
            "wrong-short",
            "every 30th answer ends in its middle",
            "part of an answer is missing",
            |request| {
                let mut answer = page(request);
                if request.total % 30 == 29 {
                    answer.body = plain(100_000).into();
                    answer.then_close = true;
                }
                answer
            },
        ),
        wrong(
            "wrong-garbage",
            "every 30th answer is no HTTP",
            "garbage is no answer",
            |request| {
                if request.total % 30 == 29 {
                    raw("no HTTP at all\r\n\r\n", &b""[..])
                } else {
                    page(request)
                }
            },
        ),
    ]
}

fn echoes() -> Vec<Row> {
    vec![
        kept_for_ever(echo("bad-echo", "waits for ever", Habit::Plain))
            .groups(|groups| {
                groups.steady = 1;
                groups.talkers = 1;
            })
            .but("talkers-disconnected", Truth::Bad, FOR_EVER),
        kept_for_ever(Row::small(
            "bad-framed",
            "whole frames, waits for ever",
            Echo::new(Habit::Frames, Manners::DEFENCELESS),
            &["--protocol", "framed"],
            WAITS,
        )),
        kept_for_ever(echo(
            "bad-echo-memory",
            "keeps in memory what waits, without a limit",
            Habit::Unbounded,
        ))
        .grows("all 16 MiB wait for each slow client in memory"),
        kept_for_ever(echo(
            "bad-echo-blocked",
            "one thread for all, which blocks",
            Habit::Blocking,
        ))
        .blocks_everybody(),
        kept_for_ever(echo("bad-echo-drops", "drops what does not fit", Habit::Dropping))
            .groups(|groups| groups.paused = 0),
        kept_for_ever(echo(
            "bad-while-data-flows",
            "throws out only one that sends while it is stuck",
            Habit::DefendedWhileDataFlows,
        ))
        .groups(|groups| {
            groups.paused = 0;
            groups.talkers = 1;
        }),
        kept_for_ever(echo(
            "bad-innocent",
            "resets everybody but the one that is stuck",
            Habit::PunishingOthers,
        ))
        .groups(|groups| groups.paused = 0)
        .harms_the_healthy("healthy clients are reset", "they are gone"),
        echo("bad-loses", "loses a byte now and then", Habit::Losing)
            .groups(|groups| groups.stalled = 0)
            .harms_the_healthy("bytes are lost", ANSWERED_WRONGLY)
            .but("paused-kept", Truth::Bad, "bytes are lost"),
    ]
}

/// What cannot be probed at all.
fn refused() -> Vec<Row> {
    vec![
        web(
            "refused-500",
            "500 from the first answer on",
            defenceless(|request| with_length(request, "HTTP/1.1 500 Internal Server Error", &b"sorry"[..])),
        )
        .refused("500"),
        web(
            "refused-no-http",
            "no HTTP at all",
            defenceless(|_| raw("220 mail.example.org\r\n", &b""[..])),
        )
        .refused("HTTP"),
        echo("refused-wrong-echo", "HTTP where echo is expected", Habit::Losing)
            .refused("within")
            .with_server(Site::new(
                |_| raw("HTTP/1.1 400 Bad Request\r\n\r\n", &b""[..]),
                Manners::DEFENCELESS,
            )),
    ]
}
