//! Real programs, where they are installed.

use crate::programs::{self, Program};
use crate::row::{Row, Server, Truth};
use crate::truths::FOR_EVER;

const LARGE: &[&str] = &["--protocol", "http", "--path", "/large"];
const SMALL: &[&str] = &["--protocol", "http", "--path", "/small"];
const ECHO: &[&str] = &["--protocol", "echo"];
const SUBSCRIBED: &[&str] = &[
    "--protocol",
    "push",
    "--send",
    "SUBSCRIBE news\\r\\n",
    "--publish",
    "PUBLISH news 0123456789012345678901234567890123456789\\r\\n",
];
const FOR_LONG: &str = "a client that takes nothing is kept for a minute or more";
const UNFELT: &str = "all answers to a slow client fit into what kernels hold";

type Start = fn(&std::path::Path, u16) -> std::process::Command;

fn row(
    (name, what): (&'static str, &'static str),
    (needs, command): (&'static str, Start),
    options: &[&'static str],
    why: &'static str,
) -> Row {
    Row::new(
        name,
        what,
        Server::Program(Program { needs, command }),
        options,
        why,
    )
}

fn kept(row: Row, why: &'static str) -> Row {
    row.keeps_the_stalled(why)
}

pub(super) fn rows() -> Vec<Row> {
    [own(), nginx(), other_webs(), brokers(), nodes()].concat()
}

fn own() -> Vec<Row> {
    let own = env!("CARGO_BIN_EXE_highwater");
    let defended = "resets a client that takes nothing for 2 s; all others are served";
    vec![
        row(
            ("highwater-echo", "highwater echo --grace 2s"),
            (own, programs::highwater),
            ECHO,
            defended,
        )
        .groups(|groups| {
            groups.steady = 1;
            groups.talkers = 1;
            groups.quiet = 1;
        }),
        row(
            ("highwater-framed", "highwater echo --framing length --grace 2s"),
            (own, programs::highwater_framed),
            &["--protocol", "framed"],
            defended,
        )
        .groups(|groups| groups.steady = 1),
        row(
            ("highwater-default", "highwater echo, with its 5 s"),
            (own, programs::highwater_default),
            ECHO,
            "resets a client that takes nothing for 5 s",
        )
        .option("--within", "7s")
        .option("--pause", "3s"),
    ]
}

fn nginx() -> Vec<Row> {
    let needs = "nginx";
    vec![
        row(
            ("nginx", "send_timeout 2s; reset_timedout_connection on; 16 MB"),
            (needs, programs::nginx_defended),
            LARGE,
            "send_timeout resets",
        )
        .groups(|groups| groups.steady = 1),
        row(
            ("nginx-fin", "send_timeout 2s; 16 MB"),
            (needs, programs::nginx_plain_close),
            LARGE,
            "send_timeout ends",
        )
        .leaves_bytes("send_timeout ends by a plain close"),
        kept(
            row(
                ("nginx-default", "as installed: send_timeout 60s; 16 MB"),
                (needs, programs::nginx_default),
                LARGE,
                "served",
            ),
            FOR_LONG,
        ),
        row(
            ("nginx-100-requests", "keepalive_requests 100; 1 KB"),
            (needs, programs::nginx_few_requests),
            SMALL,
            "nothing waits",
        )
        .fills_nobody(UNFELT)
        .groups(|groups| groups.paused = 0)
        .but(
            "nothing-left-in-kernel",
            Truth::Open,
            "what an orderly close leaves is TCP's to deliver",
        ),
        row(
            (
                "nginx-short-lives",
                "keepalive_timeout 1s; keepalive_time 3s; send_timeout 2s; 16 MB",
            ),
            (needs, programs::nginx_short_idle),
            LARGE,
            "send_timeout resets",
        ),
        row(
            ("nginx-login", "auth_basic: 401 for everybody"),
            (needs, programs::nginx_login),
            SMALL,
            "nothing waits",
        )
        .option("--fill", "64KiB")
        .fills_nobody(UNFELT)
        .but("paused-kept", Truth::Unknowable, UNFELT),
    ]
}

fn other_webs() -> Vec<Row> {
    vec![
        row(
            ("apache", "Timeout 2; KeepAliveTimeout 5; 16 MB"),
            ("apache2", programs::apache_defended),
            LARGE,
            "Timeout ends a client that takes nothing",
        )
        .leaves_bytes("it closes without a reset, and what was queued stays"),
        kept(
            row(
                ("apache-default", "Timeout 60; KeepAliveTimeout 5; 16 MB"),
                ("apache2", programs::apache_default),
                LARGE,
                "served",
            ),
            FOR_LONG,
        ),
        row(
            ("lighttpd", "server.max-write-idle = 2; 16 MB"),
            ("lighttpd", programs::lighttpd_defended),
            LARGE,
            "max-write-idle ends a client that takes nothing",
        )
        .option("--within", "8s")
        .leaves_bytes("it closes without a reset, and what was queued stays"),
        kept(
            row(
                ("lighttpd-default", "server.max-write-idle 360; 16 MB"),
                ("lighttpd", programs::lighttpd_default),
                LARGE,
                "served",
            ),
            FOR_LONG,
        ),
    ]
}

fn brokers() -> Vec<Row> {
    let nats_subscribed: &[&str] = &[
        "--protocol",
        "push",
        "--send",
        "CONNECT {\"verbose\":false}\\r\\nSUB news 1\\r\\n",
        "--publish",
        "PUB news 40\\r\\n0123456789012345678901234567890123456789\\r\\n",
    ];
    let nothing = |row: Row| {
        row.fills_nobody("nothing is pushed without a login")
            .but("paused-kept", Truth::Open, "nothing is pushed without a login")
            .but("healthy-unaffected", Truth::Open, "nothing is pushed to them")
            .but("nothing-left-in-kernel", Truth::Open, "nothing waits")
            .but(
                "healthy-served",
                Truth::Open,
                "they are refused, as they should be",
            )
    };
    vec![
        row(
            (
                "redis-pubsub",
                "PUBLISH; client-output-buffer-limit pubsub 1mb 0 0",
            ),
            ("redis-server", programs::redis_with_limit),
            SUBSCRIBED,
            "a subscriber that 1 MB waits for is disconnected",
        )
        .leaves_bytes("it closes without a reset, and what was queued stays")
        .groups(|groups| groups.paused = 0),
        nothing(row(
            ("redis-login", "PUBLISH without the password it wants"),
            ("redis-server", programs::redis_with_password),
            SUBSCRIBED,
            "nothing waits",
        )),
        kept(
            row(
                ("redis-resp", "ECHO; normal clients have no limit"),
                ("redis-server", programs::redis_default),
                &["--protocol", "resp"],
                "served",
            ),
            FOR_EVER,
        )
        .grows("replies wait in memory, without a limit"),
        row(
            ("nats", "write_deadline 2s; max_pending 1MB"),
            ("nats-server", programs::nats_open),
            nats_subscribed,
            "a subscriber that 1 MB waits for is disconnected",
        )
        .but(
            "healthy-unaffected",
            Truth::Open,
            "it delays a publisher, and with it all its subscribers, when one is far behind, by up to 2 s",
        )
        .leaves_bytes("it closes without a reset, and what was queued stays")
        .groups(|groups| groups.paused = 0),
        kept(
            row(
                ("mosquitto", "MQTT at QoS 0, no keep-alive"),
                ("mosquitto", programs::mosquitto),
                &[
                    "--protocol",
                    "push",
                    "--send",
                    "\\x10\\x0c\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x00\\x82\\x06\\x00\\x01\\x00\\x01t\\x00",
                    "--publish-greeting",
                    "\\x10\\x0c\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x00",
                    "--publish",
                    "\\x30\\x2b\\x00\\x01t0123456789012345678901234567890123456789",
                ],
                "a broker that drops what a subscriber does not take",
            ),
            FOR_EVER,
        )
        .but("memory-bounded", Truth::Open, "how much it queues is a matter of its version")
        .groups(|groups| groups.paused = 0),
        nothing(row(
            ("nats-login", "wants a login that nobody gives"),
            ("nats-server", programs::nats_with_login),
            nats_subscribed,
            "nothing waits",
        )),
    ]
}

fn nodes() -> Vec<Row> {
    vec![
        kept(
            row(
                ("node-pipe", "socket.pipe(socket)"),
                ("node", programs::node_pipe),
                ECHO,
                "pipe() pauses the source",
            ),
            FOR_EVER,
        ),
        kept(
            row(
                ("node-write", "write() without looking at what it returns"),
                ("node", programs::node_without_pause),
                ECHO,
                "served",
            ),
            FOR_EVER,
        )
        .grows("all 16 MiB wait for each slow client in memory"),
        kept(
            row(
                ("node-pipe-crowd", "socket.pipe(socket), with ten slow clients"),
                ("node", programs::node_pipe),
                ECHO,
                "pipe() pauses the source, however much its heap grows",
            ),
            FOR_EVER,
        )
        .groups(|groups| {
            groups.stalled = 5;
            groups.talkers = 1;
            groups.paused = 2;
            groups.steady = 2;
        })
        .but("talkers-disconnected", Truth::Bad, FOR_EVER),
        kept(
            row(
                ("node-file", "createReadStream(file).pipe(answer), 16 MB"),
                ("node", programs::node_file),
                &["--protocol", "http"],
                "pipe() pauses the file, however much its heap grows",
            ),
            FOR_EVER,
        ),
        kept(
            row(
                (
                    "node-memory",
                    "16 MB made anew for each answer, without a look at what waits",
                ),
                ("node", programs::node_http_anew),
                &["--protocol", "http"],
                "served",
            ),
            FOR_EVER,
        )
        .grows("16 MB wait for each slow client in memory"),
        kept(
            row(
                ("node-http", "http.createServer, 16 MB from memory"),
                ("node", programs::node_http),
                &["--protocol", "http"],
                "one page serves all",
            ),
            FOR_EVER,
        ),
    ]
}
