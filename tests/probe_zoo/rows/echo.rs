//! Sound echo servers, as bytes and as frames.

use std::time::Duration;

use crate::echo::{Echo, Habit};
use crate::patience::{Farewell, Manners, Patience, seconds};
use crate::row::{Row, Truth};

const ECHO: &[&str] = &["--protocol", "echo"];
const FRAMED: &[&str] = &["--protocol", "framed"];
const DEFENDED: &str = "resets a client that takes nothing for 2 s; all others are served";

fn echo(name: &'static str, what: &'static str, echo: Echo) -> Row {
    Row::small(name, what, echo, ECHO, DEFENDED)
}

fn framed(name: &'static str, what: &'static str, echo: Echo) -> Row {
    Row::small(name, what, echo, FRAMED, DEFENDED)
}

fn too_late(row: Row) -> Row {
    row.option("--within", "2s").goes_too_late("resets after 6 s")
}

/// What a server does with only its own side of a connection.
fn half_closes() -> Vec<Row> {
    let by = |habit, farewell| Echo::new(habit, Manners::DEFENDED.by(farewell));
    let left = |row: Row| {
        row.option("--within", "8s").but(
            "nothing-left-in-kernel",
            Truth::Open,
            "whether all input was read by the end is a matter of time",
        )
    };
    vec![
        left(echo(
            "echo-half-close",
            "half-closes a stuck client after 2 s, reads for 2 s, and closes",
            by(Habit::Plain, Farewell::HalfClose),
        )),
        left(framed(
            "framed-half-close",
            "whole frames; half-closes a stuck client, reads for 2 s, and closes",
            by(Habit::Frames, Farewell::HalfClose),
        )),
        echo(
            "echo-half-close-only",
            "half-closes a stuck client after 2 s, and waits until it closes",
            by(Habit::Plain, Farewell::HalfCloseOnly),
        )
        .keeps_the_stalled("a client that takes nothing never sees the end, and stays"),
        Row::small(
            "echo-half-close-all",
            "half-closes everybody, idle or not, after 2 s",
            Echo {
                lifetime: Some(seconds(2)),
                ..Echo::new(Habit::Plain, Manners::DEFENCELESS.by(Farewell::HalfClose))
            },
            ECHO,
            "ends each connection at an age",
        )
        .keeps_the_stalled_unseen("healthy clients are cut alike: it defends against nobody")
        .harms_the_healthy("healthy clients are cut", "they are gone before")
        .but("paused-kept", Truth::Open, "cut at an age, like all")
        .but("memory-bounded", Truth::Open, "too short to tell")
        .but("nothing-left-in-kernel", Truth::Open, "cut at an age, like all"),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    [whole_ends(), half_closes()].concat()
}

fn whole_ends() -> Vec<Row> {
    let plain = Echo::new(Habit::Plain, Manners::DEFENDED);
    let frames = Echo::new(Habit::Frames, Manners::DEFENDED);
    let by_fin = |habit| Echo::new(habit, Manners::DEFENDED.by(Farewell::Fin));
    let late = |habit| Echo::new(habit, Manners::DEFENDED.after(Patience::Stuck(seconds(6))));
    vec![
        echo("echo", "returns bytes", plain).groups(|groups| {
            groups.talkers = 1;
            groups.steady = 1;
        }),
        echo(
            "echo-quiet",
            "returns bytes; a quiet client looks at the kernel",
            plain,
        )
        .groups(|groups| groups.quiet = 1),
        echo(
            "echo-kernel-buffers",
            "with as much buffer as the kernel likes",
            Echo::new(Habit::Plain, Manners::DEFENDED.with_kernel_buffers()),
        ),
        echo(
            "echo-slow-start",
            "reads nothing for the first 1.5 s of a connection",
            Echo {
                start: Duration::from_millis(1500),
                ..plain
            },
        )
        .option("--baseline", "3s"),
        echo(
            "echo-banner",
            "greets before it returns bytes",
            Echo {
                banner: "ready\r\n",
                ..plain
            },
        )
        .refused("answered wrongly"),
        echo(
            "echo-banner-expected",
            "greets before it returns bytes, and the probe waits for that",
            Echo {
                banner: "ready\r\n",
                ..plain
            },
        )
        .option("--expect", "ready\\r\\n"),
        echo(
            "echo-dialogue",
            "greets, is greeted, answers, and then returns bytes, as a mail server would",
            Echo {
                banner: "220 zoo ready\r\n",
                replies: &["250-zoo\r\n250 OK\r\n"],
                ..plain
            },
        )
        .option("--expect", "220 .*\\r\\n")
        .option("--send-first", "EHLO probe\\r\\n")
        .option("--expect", "250 .*\\r\\n"),
        echo(
            "echo-proxied",
            "reads a PROXY header before it returns bytes",
            Echo {
                replies: &[""],
                ..plain
            },
        )
        .option("--proxy-protocol", "v1"),
        echo(
            "echo-fin",
            "ends a stuck client by a plain close, with unread input",
            by_fin(Habit::Plain),
        ),
        too_late(echo(
            "echo-late",
            "resets after 6 s, wanted within 2 s",
            late(Habit::Plain),
        )),
        framed("framed", "returns whole frames", frames).groups(|groups| {
            groups.talkers = 1;
            groups.steady = 1;
        }),
        framed("framed-bytes", "returns the bytes of frames as they come", plain),
        framed(
            "framed-fin",
            "whole frames; a plain close with unread input",
            by_fin(Habit::Frames),
        ),
        framed(
            "framed-banner",
            "greets before it returns frames",
            Echo {
                banner: "ready\r\n",
                ..frames
            },
        )
        .refused("answered wrongly"),
        framed(
            "framed-banner-expected",
            "greets before it returns frames, and the probe waits for that",
            Echo {
                banner: "ready\r\n",
                ..frames
            },
        )
        .option("--expect", "ready\\r\\n"),
        framed(
            "framed-slow-start",
            "reads nothing for the first 1.5 s of a connection",
            Echo {
                start: Duration::from_millis(1500),
                ..frames
            },
        )
        .option("--baseline", "3s"),
        framed("framed-large", "frames of 64 KiB", frames).option("--size", "64KiB"),
        too_late(framed(
            "framed-late",
            "resets after 6 s, wanted within 2 s",
            late(Habit::Frames),
        )),
        echo("echo-trickle", "any progress is enough to stay", plain)
            .groups(|groups| {
                groups.stalled = 0;
                groups.paused = 0;
                groups.trickle = 1;
            })
            .option("--trickle-rate", "40KiB/s")
            .but(
                "tricklers-disconnected",
                Truth::Bad,
                "its 40 KiB each second are progress enough",
            ),
        Row::small(
            "echo-reset-all",
            "resets everybody, idle or not, after 2 s",
            Echo {
                lifetime: Some(seconds(2)),
                ..Echo::new(Habit::Plain, Manners::DEFENCELESS)
            },
            ECHO,
            "ends each connection at an age",
        )
        .keeps_the_stalled_unseen("healthy clients are cut alike: it defends against nobody")
        .harms_the_healthy("healthy clients are reset", "they are gone before")
        .but("paused-kept", Truth::Open, "cut at an age, like all")
        .but("memory-bounded", Truth::Open, "too short to tell"),
    ]
}
