//! Web servers with deadlines of all kinds: how long, counted how, ended how.

use crate::http::{Answer, Request, Site, plain, with_length};
use crate::patience::{Farewell, Manners, Patience, seconds};
use crate::row::{Row, Truth};

const HTTP: &[&str] = &["--protocol", "http"];
const DEFENDED: &str = "a client that takes nothing is ended in time; all others are served";
const LEFT: &str = "a plain close leaves what was queued in the kernel";

fn page(request: &Request<'_>) -> Answer {
    with_length(request, "HTTP/1.1 200 OK", plain(500 << 10))
}

fn large(request: &Request<'_>) -> Answer {
    with_length(request, "HTTP/1.1 200 OK", plain(8 << 20))
}

fn row(name: &'static str, what: &'static str, manners: Manners) -> Row {
    Row::small(name, what, Site::new(page, manners), HTTP, DEFENDED)
}

fn too_late(row: Row) -> Row {
    row.goes_too_late("the server's time is longer than what is asked")
}

pub(super) fn rows() -> Vec<Row> {
    let after = |time: u64| Manners::DEFENDED.after(Patience::Stuck(seconds(time)));
    vec![
        row("reset-1s", "RST after 1 s without progress", after(1)).option("--pause", "300ms"),
        row("reset-3s", "RST after 3 s, wanted within 6 s", after(3)).option("--within", "6s"),
        row("reset-5s", "RST after 5 s, wanted within 10 s", after(5))
            .option("--within", "10s")
            .option("--pause", "2s"),
        row("reset-2s-late", "RST after 2 s, wanted within 1 s", after(2))
            .option("--within", "1s")
            .but("stalled-in-time", Truth::Bad, "2 s are longer than 1 s"),
        too_late(row("reset-5s-late", "RST after 5 s, wanted within 2 s", after(5)).option("--within", "2s")),
        too_late(row(
            "reset-10s-late",
            "RST after 10 s, wanted within 4 s",
            after(10),
        )),
        row("reset-10s", "RST after 10 s, wanted within 14 s", after(10)).option("--within", "14s"),
        row(
            "fin-5s",
            "plain close after 5 s, wanted within 8 s",
            after(5).by(Farewell::Fin),
        )
        .option("--within", "8s")
        .leaves_bytes(LEFT),
        row("fin-1s", "plain close after 1 s", after(1).by(Farewell::Fin))
            .option("--pause", "300ms")
            .leaves_bytes(LEFT),
        row("fin-2s", "plain close after 2 s", after(2).by(Farewell::Fin)).leaves_bytes(LEFT),
        too_late(row(
            "fin-10s-late",
            "plain close after 10 s, wanted within 4 s",
            after(10).by(Farewell::Fin),
        )),
        row(
            "reset-kernel-buffers",
            "RST after 2 s, with as much buffer as the kernel likes",
            Manners::DEFENDED.with_kernel_buffers(),
        ),
        row(
            "reset-talkers",
            "RST after 2 s, also of one that goes on asking",
            after(2),
        )
        .groups(|groups| groups.talkers = 1),
        Row::small(
            "whole-2s",
            "RST when an answer of 8 MB takes more than 2 s",
            Site::new(large, Manners::DEFENDED.after(Patience::Whole(seconds(2)))),
            HTTP,
            DEFENDED,
        )
        .groups(|groups| {
            groups.paused = 0;
            groups.steady = 1;
            groups.trickle = 1;
        })
        .but(
            "steady-kept",
            Truth::Bad,
            "8 MB at 256 KiB/s take 32 s: it kills steady readers",
        ),
        row(
            "pause-too-long",
            "RST after 1 s, and one pauses for 3 s",
            after(1),
        )
        .groups(|groups| groups.stalled = 0)
        .option("--pause", "3s")
        .but(
            "paused-kept",
            Truth::Bad,
            "the pause is longer than the server's time",
        ),
        row("pause-kept", "RST after 5 s, and one pauses for 3 s", after(5))
            .groups(|groups| groups.stalled = 0)
            .option("--pause", "3s"),
    ]
}
