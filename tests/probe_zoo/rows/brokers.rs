//! Brokers whose publisher is the prober, which numbers what it publishes.

use crate::broker::{Broker, Keeping};
use crate::patience::{Farewell, Manners, Patience, seconds};
use crate::programs::{self, Program};
use crate::row::{Row, Server, Truth};
use crate::truths::FOR_EVER;

/// Holds what comes for three seconds at most.
const PATIENT: Manners = Manners::DEFENDED.after(Patience::Stuck(seconds(3)));
const KEPT: &str = "all that waits is sent once a client reads again; one that takes nothing is reset";
const LOSES: &str = "what it missed in its pause is dropped";
const MIB: usize = 1 << 20;

fn row(name: &'static str, what: &'static str, broker: Broker) -> Row {
    // With its number a line has 1 KiB, so that what a queue needs beside it hardly counts.
    let line: &'static str = Box::leak(format!("PUB {{seq}}{}\\r\\n", "x".repeat(1004)).into_boxed_str());
    let options = ["--protocol", "push", "--send", "SUB\\r\\n", "--publish", line];
    Row::small(name, what, broker, &options, KEPT)
}

pub(super) fn rows() -> Vec<Row> {
    let once = Broker::new(Keeping::Once, PATIENT);
    let each = Broker::new(Keeping::Each, PATIENT);
    [defended(once, each), bad(once, each), programs()].concat()
}

/// Programs that speak Redis's protocol.
fn programs() -> Vec<Row> {
    let line: &'static str =
        Box::leak(format!("PUBLISH news {{seq}}{}\\r\\n", "x".repeat(1010)).into_boxed_str());
    let options = [
        "--protocol",
        "push",
        "--send",
        "SUBSCRIBE news\\r\\n",
        "--publish",
        line,
    ];
    let row = |name, what, needs, command, why| {
        let server = Server::Program(Program { needs, command });
        Row::new(name, what, server, &options, why)
    };
    let own = env!("CARGO_BIN_EXE_highwater");
    vec![
        row(
            "highwater-broadcast",
            "highwater broadcast --grace 3s",
            own,
            programs::highwater_broadcast,
            "keeps a message once, and resets a client that takes nothing for 3 s",
        )
        .groups(|groups| {
            groups.stalled = 5;
            groups.trickle = 1;
        }),
        row(
            "redis-no-limit",
            "PUBLISH; client-output-buffer-limit pubsub 0 0 0",
            "redis-server",
            programs::redis_without_limit,
            "all that waits is sent once a client reads again",
        )
        .keeps_the_stalled(FOR_EVER)
        .grows("memory grows by 4 MiB/s for each client that takes nothing"),
    ]
}

fn defended(once: Broker, each: Broker) -> Vec<Row> {
    vec![
        row(
            "broker-once",
            "keeps a message once for all, for 3 s at most",
            once,
        ),
        row("broker-crowd", "the same, with ten stalled clients", once).groups(|groups| groups.stalled = 10),
        row(
            "broker-fin",
            "the same, ended by a plain close",
            Broker {
                manners: PATIENT.by(Farewell::Fin),
                ..once
            },
        )
        .leaves_bytes("a plain close leaves what was queued in the kernel"),
        row(
            "broker-late",
            "keeps a message once, for 6 s, wanted within 2 s",
            Broker {
                manners: PATIENT.after(Patience::Stuck(seconds(6))),
                ..once
            },
        )
        .option("--within", "2s")
        .goes_too_late("resets after 6 s")
        .but(
            "memory-bounded",
            Truth::Open,
            "what waits for 6 s is more than 2 s may need",
        ),
        row(
            "broker-outpaced",
            "4 MiB/s are published, and readers of 256 KiB/s asked for",
            once,
        )
        .groups(|groups| groups.steady = 1)
        .but(
            "steady-kept",
            Truth::Untested,
            "nobody can keep a reader that is slower than the publisher",
        ),
        row(
            "broker-steady",
            "128 KiB/s are published, for readers of 256 KiB/s",
            once,
        )
        .option("--publish-rate", "128KiB/s")
        .groups(|groups| {
            groups.steady = 1;
            groups.paused = 0;
        })
        .but("memory-bounded", Truth::Open, "little waits for anybody"),
        row(
            "broker-elsewhere",
            "keeps a message once, in another network namespace",
            once,
        )
        .elsewhere()
        .option("--publish-rate", "8MiB/s")
        .option("--pause", "1s")
        .but("memory-bounded", Truth::Unknowable, "its process is out of sight")
        .but(
            "nothing-left-in-kernel",
            Truth::Unknowable,
            "its sockets are out of sight",
        ),
        row(
            "broker-drops-oldest",
            "2 MiB wait for a client at most, the oldest make room; resets after 3 s",
            Broker {
                most_waiting_bytes: Some(2 * MIB),
                ..each
            },
        )
        .option("--pause", "2s")
        .but("paused-kept", Truth::Bad, LOSES),
        row(
            "broker-each",
            "keeps a copy for each, for 3 s at most, with ten stalled clients",
            each,
        )
        .groups(|groups| groups.stalled = 10)
        .grows("ten copies of what is published in 3 s"),
    ]
}

fn bad(once: Broker, each: Broker) -> Vec<Row> {
    let for_ever = |broker| Broker {
        manners: Manners::DEFENCELESS,
        ..broker
    };
    let kept = |name, what, broker| row(name, what, broker).keeps_the_stalled(FOR_EVER);
    vec![
        kept(
            "broker-ring",
            "6 MiB wait for a client at most, the oldest make room; keeps everybody",
            Broker {
                most_waiting_bytes: Some(6 * MIB),
                ..for_ever(once)
            },
        ),
        kept(
            "broker-small-ring",
            "the same with 2 MiB",
            Broker {
                most_waiting_bytes: Some(2 * MIB),
                ..for_ever(once)
            },
        )
        .option("--pause", "2s")
        .but("paused-kept", Truth::Bad, LOSES),
        kept(
            "broker-keeps",
            "keeps everybody, and a copy of everything for each",
            for_ever(each),
        )
        .grows("memory grows by 4 MiB/s for each client that takes nothing"),
        kept(
            "broker-log",
            "keeps everybody, and everything once",
            for_ever(once),
        )
        .but(
            "memory-bounded",
            Truth::BadUnseen,
            "memory grows by 4 MiB/s, which for some seconds is no more than a deadline needs",
        ),
        kept(
            "broker-forgets",
            "a client for which 1 MiB waits stays, and gets nothing any more",
            Broker {
                forgets_from_bytes: Some(MIB),
                ..for_ever(each)
            },
        )
        .but(
            "paused-kept",
            Truth::Bad,
            "what was published in its pause never comes",
        ),
    ]
}
