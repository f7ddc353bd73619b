//! Servers that send by themselves, sound ones and those that tell nothing.

use crate::patience::{Farewell, Manners, Patience, seconds};
use crate::push::{Excess, Feed, Hub, Passing};
use crate::row::{Row, Truth};
use crate::truths::FOR_EVER;

const PUSH: &[&str] = &["--protocol", "push"];
const LOGGED_IN: &[&str] = &["--protocol", "push", "--send", "LOGIN me\\r\\n"];
const PUBLISHED: &[&str] = &[
    "--protocol",
    "push",
    "--send",
    "SUB\\r\\n",
    "--publish",
    "PUB 0123456789012345678901234567890123456789\\r\\n",
    "--publish-rate",
    "1MiB/s",
];
const DEFENDED: &str = "resets a client that takes nothing for 2 s; all others are served";
const TOO_LITTLE: &str = "too little is pushed to fill a slow client up";
const MB: usize = 1 << 20;

fn feed(name: &'static str, what: &'static str, feed: Feed) -> Row {
    Row::small(name, what, feed, PUSH, DEFENDED)
}

/// That it lost nothing only the server knows.
fn unverified(row: Row) -> Row {
    let why = "it is kept, and whether it lost something only the server knows";
    ["paused-kept", "steady-kept"]
        .into_iter()
        .fold(row, |row, finding| match row.truth(finding).0 {
            Truth::Good => row.but(finding, Truth::Unknowable, why),
            _ => row,
        })
}

/// So little is pushed that nobody is ever slow.
fn too_little(row: Row) -> Row {
    row.groups(|groups| groups.paused = 0)
        .fills_nobody(TOO_LITTLE)
        .but("nothing-left-in-kernel", Truth::Open, "nobody was closed")
        .but("healthy-unaffected", Truth::Open, "nothing much comes")
}

pub(super) fn rows() -> Vec<Row> {
    [rates(), shapes(), logins(), hubs()]
        .concat()
        .into_iter()
        .map(unverified)
        .collect()
}

fn rates() -> Vec<Row> {
    let at = |rate: usize| Feed::new(rate, Manners::DEFENDED);
    vec![
        too_little(feed("push-silent", "says nothing", at(0))).but(
            "healthy-served",
            Truth::Open,
            "nobody is owed anything",
        ),
        too_little(feed("push-100", "100 B/s to each", at(100))),
        too_little(feed("push-5k", "5 KB/s to each", at(5_000))),
        feed("push-300k", "300 KB/s to each", at(300_000)).option("--within", "5s"),
        feed("push-1m", "1 MB/s to each", at(MB)),
        feed("push-10m", "10 MB/s to each", at(10 * MB)),
        feed("push-steady", "1 MB/s to each, readers at 256 KiB/s kept", at(MB))
            .groups(|groups| groups.steady = 1),
    ]
}

fn shapes() -> Vec<Row> {
    let at = |rate: usize| Feed::new(rate, Manners::DEFENDED);
    vec![
        feed(
            "push-greeting",
            "greets first, then 2 MB/s",
            Feed {
                banner: "welcome\r\n",
                ..at(2 * MB)
            },
        ),
        feed(
            "push-bursts",
            "2 MB at once, every second",
            Feed {
                in_bursts: true,
                ..at(2 * MB)
            },
        ),
        feed(
            "push-kernel-buffers",
            "10 MB/s, with as much buffer as the kernel likes",
            Feed::new(10 * MB, Manners::DEFENDED.with_kernel_buffers()),
        ),
        too_little(feed(
            "push-banner-only",
            "greets, and then says nothing",
            Feed {
                banner: "welcome\r\n",
                ..at(0)
            },
        )),
    ]
}

fn logins() -> Vec<Row> {
    let asking = Feed {
        banner: "login please\r\n",
        login: Some("LOGIN me"),
        refusal: "-NOAUTH Authentication required.\r\n",
        ..Feed::new(2 * MB, Manners::DEFENDED)
    };
    let closing = Feed {
        closes_refused: true,
        ..asking
    };
    vec![
        Row::small(
            "push-login",
            "pushes 2 MB/s after a login, which is given",
            asking,
            LOGGED_IN,
            DEFENDED,
        ),
        too_little(feed(
            "push-no-login",
            "pushes after a login, which is not given",
            asking,
        )),
        too_little(Row::small(
            "push-wrong-login",
            "refuses the login, and stays",
            asking,
            &["--protocol", "push", "--send", "LOGIN you\\r\\n"],
            DEFENDED,
        )),
        too_little(Row::small(
            "push-refuses",
            "refuses the login, and closes",
            closing,
            &["--protocol", "push", "--send", "LOGIN you\\r\\n"],
            DEFENDED,
        ))
        .but(
            "healthy-served",
            Truth::BadUnseen,
            "everybody is disconnected at once",
        )
        .but("nothing-left-in-kernel", Truth::Open, "nothing was ever pushed"),
    ]
}

fn hubs() -> Vec<Row> {
    let hub = |passing| Hub {
        asks_publishers: false,
        passing,
        manners: Manners::DEFENDED,
    };
    let queued = |manners| Hub {
        manners,
        ..hub(Passing::Queued)
    };
    let row = |name, what, hub| Row::small(name, what, hub, PUBLISHED, DEFENDED);
    vec![
        row(
            "hub",
            "passes on 1 MiB/s of what one publishes",
            hub(Passing::Queued),
        ),
        row(
            "hub-late",
            "the same, and resets after 6 s instead of 2",
            queued(Manners::DEFENDED.after(Patience::Stuck(seconds(6)))),
        )
        .option("--within", "2s")
        .goes_too_late("resets after 6 s"),
        row(
            "hub-fin",
            "the same, ended after 2 s by a plain close",
            queued(Manners::DEFENDED.by(Farewell::Fin)),
        )
        .leaves_bytes("a plain close leaves what was queued in the kernel"),
        row(
            "hub-publisher-login",
            "publishers log in first, as this one does",
            Hub {
                asks_publishers: true,
                ..hub(Passing::Queued)
            },
        )
        .option("--publish-greeting", "LOGIN me\\r\\n"),
        too_little(row(
            "hub-publisher-without-login",
            "publishers log in first, as this one does not",
            Hub {
                asks_publishers: true,
                ..hub(Passing::Queued)
            },
        )),
        too_little(row(
            "hub-refuses",
            "throws the publisher out",
            hub(Passing::Refused),
        )),
        row(
            "hub-in-turn",
            "the publisher's thread writes to one after the other, and blocks 2 s at each that is stuck",
            hub(Passing::InTurn),
        )
        .groups(|groups| groups.paused = 0)
        .but(
            "healthy-unaffected",
            Truth::Bad,
            "nobody gets anything while one is waited for",
        )
        .but(
            "stalled-in-time",
            Truth::Open,
            "one is waited for after the other",
        ),
        Row::small(
            "feed-drops",
            "5 MB/s, and drops what a client does not take; keeps everybody",
            Feed {
                excess: Excess::Drop,
                ..Feed::new(5 * MB, Manners::DEFENCELESS)
            },
            PUSH,
            "drops what does not fit",
        )
        .keeps_the_stalled(FOR_EVER),
        Row::small(
            "feed-keeps",
            "5 MB/s, and keeps in memory what a client does not take",
            Feed {
                excess: Excess::Keep,
                ..Feed::new(5 * MB, Manners::DEFENCELESS)
            },
            PUSH,
            "all that healthy clients are owed is sent",
        )
        .keeps_the_stalled(FOR_EVER)
        .grows("memory grows by 5 MB/s for each client that takes nothing"),
        Row::small(
            "feed-defenceless",
            "5 MB/s, waits for ever for a client that takes nothing",
            Feed::new(5 * MB, Manners::DEFENCELESS),
            PUSH,
            "each has a thread of its own, which waits",
        )
        .keeps_the_stalled(FOR_EVER),
    ]
}
