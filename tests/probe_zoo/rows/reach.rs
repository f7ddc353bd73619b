//! Servers behind TLS, and servers of which this machine shows nothing but the connection.

use crate::echo::{Echo, Habit};
use crate::encrypted::Encrypted;
use crate::patience::{Farewell, Manners};
use crate::push::Feed;
use crate::row::{Row, Truth};
use crate::truths::FOR_EVER;

const TLS: &[&str] = &["--protocol", "echo", "--tls", "--insecure"];
const ECHO: &[&str] = &["--protocol", "echo"];
const PUSH: &[&str] = &["--protocol", "push"];
const DEFENDED: &str = "resets a client that takes nothing for 2 s; all others are served";

pub(super) fn rows() -> Vec<Row> {
    [encrypted(), elsewhere(), wanted()].concat()
}

fn kept_for_ever(row: Row) -> Row {
    row.keeps_the_stalled(FOR_EVER)
}

fn encrypted() -> Vec<Row> {
    let tls = |manners| Encrypted {
        manners,
        is_proxied: false,
    };
    let row = |name, what, server| Row::small(name, what, server, TLS, DEFENDED);
    vec![
        row("tls", "returns bytes under TLS", tls(Manners::DEFENDED)).groups(|groups| groups.talkers = 1),
        row(
            "tls-proxied",
            "reads a PROXY header before TLS",
            Encrypted {
                is_proxied: true,
                ..tls(Manners::DEFENDED)
            },
        )
        .option("--proxy-protocol", "v1"),
        row(
            "tls-fin",
            "under TLS, ends a stuck client by a plain close, with unread input",
            tls(Manners::DEFENDED.by(Farewell::Fin)),
        ),
        kept_for_ever(row(
            "tls-defenceless",
            "under TLS, waits for ever",
            tls(Manners::DEFENCELESS),
        )),
        row("tls-not-spoken", "speaks no TLS", tls(Manners::DEFENDED))
            .with_server(Echo::new(Habit::Plain, Manners::DEFENDED))
            .refused("TLS"),
    ]
}

/// In a network namespace of their own: no process, memory or socket of theirs is to be seen.
fn elsewhere() -> Vec<Row> {
    let plain = |manners| Echo::new(Habit::Plain, manners);
    vec![
        Row::small(
            "elsewhere-echo",
            "returns bytes, in another network namespace",
            plain(Manners::DEFENDED),
            ECHO,
            DEFENDED,
        )
        .elsewhere(),
        kept_for_ever(Row::small(
            "elsewhere-defenceless",
            "waits for ever, in another network namespace",
            plain(Manners::DEFENCELESS),
            ECHO,
            "each has a thread of its own, which waits",
        ))
        .elsewhere(),
        kept_for_ever(Row::small(
            "elsewhere-memory",
            "keeps all that waits in memory, in another network namespace",
            Echo::new(Habit::Unbounded, Manners::DEFENCELESS),
            ECHO,
            "each has a thread of its own, which waits",
        ))
        .elsewhere()
        .but("memory-bounded", Truth::BadUnseen, "its memory is not to be seen"),
        Row::small(
            "elsewhere-fin",
            "closes a stuck client after 2 s, without a reset of its own, in another network namespace",
            plain(Manners::DEFENDED.by(Farewell::Fin)),
            ECHO,
            DEFENDED,
        )
        .elsewhere(),
        Row::small(
            "elsewhere-push",
            "pushes 2 MB/s, in another network namespace",
            Feed::new(2_000_000, Manners::DEFENDED),
            PUSH,
            DEFENDED,
        )
        .elsewhere()
        .but(
            "paused-kept",
            Truth::Unknowable,
            "it is kept, and whether it lost something only the server knows",
        ),
    ]
}

/// Probes whose options say which findings count.
fn wanted() -> Vec<Row> {
    let echo = |name, what| {
        let server = Echo::new(Habit::Plain, Manners::DEFENDED);
        Row::small(name, what, server, ECHO, DEFENDED).groups(|groups| groups.paused = 0)
    };
    let little = |name, what| {
        let untold = "too little is pushed to fill a slow client up";
        Row::small(name, what, Feed::new(5_000, Manners::DEFENDED), PUSH, DEFENDED)
            .groups(|groups| groups.paused = 0)
            .fills_nobody(untold)
            .but("healthy-unaffected", Truth::Open, "nothing much comes")
            .but("nothing-left-in-kernel", Truth::Open, "nobody was closed")
            .flag("--allow-unknown")
    };
    vec![
        echo(
            "required-untested",
            "returns bytes, and a finding is required that nobody tests",
        )
        .option("--require", "healthy-served,paused-kept")
        .comes_to("fail", "what is required and not tested fails"),
        little(
            "allowed-unknown",
            "pushes too little, and unknown findings are allowed",
        )
        .comes_to(
            "pass",
            "healthy clients are served, and nothing else must be known",
        ),
        little("required-unknown", "the same, and one of them is required")
            .option("--require", "stalled-disconnected")
            .comes_to("unknown", "what is required cannot be told"),
    ]
}
