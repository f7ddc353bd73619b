//! The comparisons by name, each with its goal.

use highwater::probe::BULK_PIPELINE_MESSAGES;

use crate::beside::Beside;
use crate::crowd::Crowds;
use crate::fanout::{self, Fanout};
use crate::load::Work;
use crate::peer::{Workshop, baseline_of};

/// One named comparison.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) goal: &'static str,
    /// Part of the short form.
    pub(crate) is_quick: bool,
    pub(crate) measure: Measure,
}

/// How a scenario is measured.
pub(crate) enum Measure {
    /// Slices side by side.
    Speed(Contest),
    /// One server after the other, in bytes and milliseconds.
    Memory(Trial),
    /// One server after the other, each beside stalled clients.
    Beside(Beside),
    /// One server after the other, each beside busy clients with larger messages.
    Crowds(Crowds),
    /// Publish and subscribe, slices side by side.
    Fanout(Fanout),
}

/// A server with its clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) label: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) work: Work,
    pub(crate) clients: usize,
    /// Clients that send and never read, beside the others.
    pub(crate) stalled: usize,
}

/// Servers side by side.
pub(crate) struct Contest {
    /// What all others are compared with; it takes part twice.
    base: Seat,
    /// Takes part in every run.
    always: &'static [Seat],
    /// Take part in turns, since more than four at once disturb each other.
    peers: &'static [Seat],
}

/// The most different servers in one run.
const MOST_SERVERS_A_RUN: usize = 4;

/// The most peers of the short form.
const QUICK_PEERS: usize = 1;

/// The seats of one run; the first two are the base, twice.
pub(crate) type Team = Vec<Seat>;

impl Contest {
    /// The teams of a run. Missing peers are left out.
    pub(crate) fn teams(&self, only: &[String], is_quick: bool, workshop: &Workshop) -> Vec<Team> {
        let wanted =
            |seat: &&Seat| only.is_empty() || only.iter().any(|name| name == seat.peer || name == seat.label);
        let mut peers: Vec<Seat> = self
            .peers
            .iter()
            .filter(wanted)
            .filter(|seat| workshop.has(seat.peer))
            .copied()
            .collect();
        if is_quick {
            peers.truncate(QUICK_PEERS);
        }
        let baselines: Vec<Seat> = self
            .always
            .iter()
            .filter_map(|seat| seat.of_baseline(workshop))
            .collect();
        let always = [&[self.base, self.base], self.always, &baselines[..]].concat();
        // The base is one server, though it takes part twice.
        let room = MOST_SERVERS_A_RUN.saturating_sub(always.len() - 1).max(1);
        if peers.is_empty() {
            return vec![always];
        }
        peers
            .chunks(room)
            .map(|peers| [&always[..], peers].concat())
            .collect()
    }
}

/// The measurements that run one server after the other.
pub(crate) enum Trial {
    /// Resident memory of idle clients, and of the server after they have left.
    Idle { clients: usize },
    /// Kernel and resident memory of stalled clients.
    Stalled {
        peers: &'static [(&'static str, &'static [&'static str])],
        clients: usize,
    },
    /// How late stalled clients are disconnected.
    Deadlines {
        peers: &'static [&'static str],
        clients: usize,
    },
    /// Instructions per message, kernel excluded.
    Instructions {
        peers: &'static [&'static str],
        clients: usize,
    },
    /// CPU of the prober per message, to the server's.
    Prober { clients: usize },
    /// What operators cost: instructions per message without and with `--admin`,
    /// CPU of a scrape, and how long others wait for a list of all clients.
    Admin { scraped: usize, listed: usize },
    /// System calls per message.
    Calls {
        peers: &'static [&'static str],
        clients: usize,
    },
}

const MESSAGE_BYTES: usize = 64;

const ECHO: Work = Work::Ping {
    size: MESSAGE_BYTES,
    in_flight: 1,
};

/// A seat with the ordinary 64-byte messages.
const fn seat(peer: &'static str, clients: usize) -> Seat {
    Seat {
        label: peer,
        peer,
        arguments: &[],
        work: ECHO,
        clients,
        stalled: 0,
    }
}

impl Seat {
    /// The same seat in another build, if one takes part. A seat beside stalled
    /// clients, or with a label of its own, is compared with itself already.
    fn of_baseline(mut self, workshop: &Workshop) -> Option<Self> {
        let name = baseline_of(self.peer).filter(|name| workshop.has(name))?;
        if self.label != self.peer {
            return None;
        }
        self.peer = name;
        self.label = name;
        Some(self)
    }

    const fn doing(mut self, work: Work) -> Self {
        self.work = work;
        self
    }

    const fn with(mut self, arguments: &'static [&'static str]) -> Self {
        self.arguments = arguments;
        self
    }

    const fn beside(mut self, stalled: usize) -> Self {
        self.stalled = stalled;
        self
    }

    const fn called(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }
}

const PIPELINED: Work = Work::Ping {
    size: MESSAGE_BYTES,
    in_flight: 16,
};
/// 1 MiB in flight, like `highwater probe --bulk`. A server without bounds
/// takes all of it, so the client's own send does most of the receiving too (on
/// loopback one processor does both).
const BULK: Work = Work::Bulk {
    frame: None,
    in_flight: BULK_PIPELINE_MESSAGES,
};
const FRAMED_BULK: Work = Work::Bulk {
    frame: Some(64 * 1024),
    in_flight: BULK_PIPELINE_MESSAGES,
};

/// More in flight than any socket takes, like a client that sends a file: the
/// client then waits for every server.
const FLOOD_MESSAGES: u32 = 512;
const FLOOD: Work = Work::Bulk {
    frame: None,
    in_flight: FLOOD_MESSAGES,
};
const FRAMED_FLOOD: Work = Work::Bulk {
    frame: Some(64 * 1024),
    in_flight: FLOOD_MESSAGES,
};
const SHORT: Work = Work::Connect { size: MESSAGE_BYTES };

/// Connections at a time, where each lasts for one echo.
const SHORT_AT_A_TIME: usize = 16;

/// The send buffer of the slow clients of `highwater probe`.
pub(crate) const SLOW_CLIENT_SEND_BYTES: usize = 64 * 1024;

/// A send buffer that leaves the memory of this machine to the servers. With 64
/// KiB, the clients' ends of 5,000 connections take most of the memory that the
/// kernel allows (`tcp_mem`), and every bulk stream on the machine slows down.
const SMALL_SEND_BYTES: usize = 16 * 1024;

/// Every defence stays on, but none disconnects a client while its cost is
/// measured.
const PATIENT: &[&str] = &["--grace", "1h", "--drain-timeout", "1h"];

/// All scenarios, the most telling first.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "echo-50",
        title: "64-byte echo, 50 clients",
        goal: "rate at least 0.98 of the floor, CPU per message at most 1.03",
        is_quick: true,
        measure: Measure::Speed(Contest {
            base: seat("floor", 50),
            always: &[seat("highwater", 50)],
            peers: &[
                seat("tokio", 50),
                seat("libevent", 50),
                seat("libuv", 50),
                seat("tokio-multi", 50),
                seat("go", 50),
                seat("node", 50),
            ],
        }),
    },
    Scenario {
        name: "echo-1000",
        title: "64-byte echo, 1,000 clients",
        goal: "rate at least 0.98 of the floor and 1.10 of tokio, CPU per message at most 1.03",
        is_quick: true,
        measure: Measure::Speed(Contest {
            base: seat("floor", 1000),
            always: &[seat("highwater", 1000)],
            peers: &[
                seat("tokio", 1000),
                seat("libevent", 1000),
                seat("libuv", 1000),
                seat("tokio-multi", 1000),
                seat("go", 1000),
                seat("node", 1000),
            ],
        }),
    },
    Scenario {
        name: "bulk-1",
        title: "bulk echo, every byte verified, 1 client",
        goal: "rate at least 1.00 of the floor",
        is_quick: true,
        measure: Measure::Speed(Contest {
            base: seat("floor", 1).doing(BULK),
            always: &[seat("highwater", 1).doing(BULK)],
            peers: &[
                seat("tokio", 1).doing(BULK),
                seat("libevent", 1).doing(BULK),
                seat("libuv", 1).doing(BULK),
                seat("go", 1).doing(BULK),
                seat("node", 1).doing(BULK),
            ],
        }),
    },
    Scenario {
        name: "connect",
        title: "connect, one 64-byte echo, close; 16 at a time",
        goal: "rate at least 1.00 of the floor",
        is_quick: true,
        measure: Measure::Speed(Contest {
            base: seat("floor", SHORT_AT_A_TIME).doing(SHORT),
            always: &[seat("highwater", SHORT_AT_A_TIME).doing(SHORT)],
            peers: &[
                seat("tokio", SHORT_AT_A_TIME).doing(SHORT),
                seat("libevent", SHORT_AT_A_TIME).doing(SHORT),
                seat("libuv", SHORT_AT_A_TIME).doing(SHORT),
                seat("go", SHORT_AT_A_TIME).doing(SHORT),
            ],
        }),
    },
    Scenario {
        name: "tunnel-50",
        title: "64-byte echo through a tunnel, 50 clients",
        goal: "rate at least 0.98 of the bare C tunnel",
        is_quick: true,
        measure: Measure::Speed(Contest {
            base: seat("floor-tunnel", 50),
            always: &[seat("highwater-tunnel", 50)],
            peers: &[
                seat("nginx", 50),
                seat("haproxy", 50),
                seat("tokio-tunnel", 50),
                seat("haproxy-splice", 50),
                seat("socat", 50),
                seat("select", 50),
            ],
        }),
    },
    Scenario {
        name: "tunnel-bulk",
        title: "bulk through a tunnel, both ways, every byte verified, 1 client",
        goal: "CPU per KiB at most 1.00 of the bare C tunnel by recv and send, at most 0.45 by splice",
        is_quick: true,
        measure: Measure::Speed(Contest {
            base: seat("floor-tunnel", 1).doing(BULK),
            always: &[seat("highwater-tunnel", 1).doing(BULK)],
            peers: &[
                seat("floor-splice", 1).doing(BULK),
                seat("highwater-copies", 1).doing(BULK),
                seat("haproxy-splice", 1).doing(BULK),
                seat("nginx", 1).doing(BULK),
                seat("haproxy", 1).doing(BULK),
                seat("tokio-tunnel", 1).doing(BULK),
                seat("socat", 1).doing(BULK),
            ],
        }),
    },
    Scenario {
        name: "echo-1",
        title: "64-byte echo, 1 client",
        goal: "rate at least 0.98 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 1),
            always: &[seat("highwater", 1)],
            peers: &[seat("tokio", 1), seat("libevent", 1)],
        }),
    },
    Scenario {
        name: "echo-8000",
        title: "64-byte echo, 8,000 clients",
        goal: "rate at least 0.98 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 8000),
            always: &[seat("highwater", 8000)],
            peers: &[seat("tokio", 8000), seat("libevent", 8000)],
        }),
    },
    Scenario {
        name: "pipelined",
        title: "64-byte echo, 50 clients, 16 messages in flight each",
        goal: "rate at least 1.00 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 50).doing(PIPELINED),
            always: &[seat("highwater", 50).doing(PIPELINED)],
            peers: &[
                seat("tokio", 50).doing(PIPELINED),
                seat("libevent", 50).doing(PIPELINED),
            ],
        }),
    },
    Scenario {
        name: "bulk-16",
        title: "bulk echo, every byte verified, 16 clients",
        goal: "rate at least 1.00 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 16).doing(BULK),
            always: &[seat("highwater", 16).doing(BULK)],
            peers: &[seat("tokio", 16).doing(BULK), seat("libevent", 16).doing(BULK)],
        }),
    },
    Scenario {
        name: "framed-bulk",
        title: "bulk echo of 64 KiB frames, every byte verified, 1 client; the floor knows no frames",
        goal: "rate at least 0.92 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 1).doing(FRAMED_BULK),
            always: &[seat("highwater", 1)
                .doing(FRAMED_BULK)
                .with(&["--framing", "length"])],
            peers: &[],
        }),
    },
    Scenario {
        name: "flood-1",
        title: "bulk echo, sockets saturated, every byte verified, 1 client",
        goal: "rate at least 1.00 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 1).doing(FLOOD),
            always: &[seat("highwater", 1).doing(FLOOD)],
            peers: &[seat("tokio", 1).doing(FLOOD), seat("go", 1).doing(FLOOD)],
        }),
    },
    Scenario {
        name: "flood-16",
        title: "bulk echo, sockets saturated, every byte verified, 16 clients",
        goal: "rate at least 1.00 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 16).doing(FLOOD),
            always: &[seat("highwater", 16).doing(FLOOD)],
            peers: &[seat("tokio", 16).doing(FLOOD), seat("libevent", 16).doing(FLOOD)],
        }),
    },
    Scenario {
        name: "framed-flood",
        title: "bulk echo of 64 KiB frames, sockets saturated, 1 client; the floor knows no frames",
        goal: "rate at least 0.92 of the floor",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor", 1).doing(FRAMED_FLOOD),
            always: &[seat("highwater", 1)
                .doing(FRAMED_FLOOD)
                .with(&["--framing", "length"])],
            peers: &[],
        }),
    },
    Scenario {
        name: "tunnel-flood",
        title: "bulk through a tunnel, sockets saturated, both ways, every byte verified, 1 client",
        goal: "CPU per KiB at most 1.00 of the bare C tunnel by recv and send, at most 0.45 by splice",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("floor-tunnel", 1).doing(FLOOD),
            always: &[
                seat("highwater-tunnel", 1).doing(FLOOD),
                seat("highwater-copies", 1).doing(FLOOD),
            ],
            peers: &[
                seat("floor-splice", 1).doing(FLOOD),
                seat("haproxy-splice", 1).doing(FLOOD),
            ],
        }),
    },
    Scenario {
        name: "beside-1000",
        title: "64-byte echo, 50 clients, beside 1,000 stalled ones; compared with itself alone",
        goal: "rate at least 0.97 of its own without them",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("highwater", 50).with(PATIENT).called("highwater, alone"),
            always: &[seat("highwater", 50)
                .with(PATIENT)
                .beside(1000)
                .called("highwater, beside 1,000")],
            peers: &[],
        }),
    },
    Scenario {
        name: "beside-5000",
        title: "64-byte echo, 50 clients, beside 5,000 stalled ones; one server after the other, 6 rounds",
        goal: "rate at least 1.6 of the floor beside its own, longest wait at most 8 ms",
        is_quick: false,
        measure: Measure::Beside(Beside {
            peers: &[("floor", &[]), ("highwater", PATIENT), ("tokio", &[])],
            work: ECHO,
            clients: 50,
            stalled: 5000,
            send_bytes: SLOW_CLIENT_SEND_BYTES,
            rounds: 6,
        }),
    },
    Scenario {
        name: "bulk-beside-5000",
        title: "bulk echo, 1 client, beside 5,000 stalled ones; one server after the other, 6 rounds",
        goal: "rate at least 1.6 of the floor beside its own",
        is_quick: false,
        measure: Measure::Beside(Beside {
            peers: &[("floor", &[]), ("highwater", PATIENT)],
            work: BULK,
            clients: 1,
            stalled: 5000,
            send_bytes: SMALL_SEND_BYTES,
            rounds: 6,
        }),
    },
    Scenario {
        name: "crowd",
        title: "64-byte echo, a message every 2 ms, beside 1,500 busy clients with messages of 16,000 or 20,000 bytes",
        goal: "99 % of the waits beside 16,000 bytes at most 1.5 times those beside 20,000",
        is_quick: false,
        measure: Measure::Crowds(Crowds {
            peers: &["highwater", "floor"],
            clients: 1500,
            sizes: &[16_000, 20_000],
            rounds: 8,
        }),
    },
    Scenario {
        name: "growth",
        title: "64-byte echo: CPU per message at 16,000 clients to that at 50",
        goal: "CPU per message at most 1.25 of that at 50 clients",
        is_quick: false,
        measure: Measure::Speed(Contest {
            base: seat("highwater", 50).called("highwater, 50"),
            always: &[
                seat("highwater", 16_000).called("highwater, 16,000"),
                seat("floor", 50).called("floor, 50"),
                seat("floor", 16_000).called("floor, 16,000"),
            ],
            peers: &[],
        }),
    },
    Scenario {
        name: "calls",
        title: "system calls per 64-byte message, 50 clients",
        goal: "2.00, and at most 0.1 of epoll_wait",
        is_quick: true,
        measure: Measure::Memory(Trial::Calls {
            peers: &["floor", "highwater", "tokio", "libevent", "libuv", "go", "node"],
            clients: 50,
        }),
    },
    Scenario {
        name: "instructions",
        title: "instructions per 64-byte message, 50 clients, counted by callgrind",
        goal: "a change shows on a noisy machine too",
        is_quick: false,
        measure: Measure::Memory(Trial::Instructions {
            peers: &["floor", "highwater", "libevent", "libuv"],
            clients: 50,
        }),
    },
    Scenario {
        name: "admin",
        title: "operators: --admin without a question, 10,000 clients scraped, 15,000 listed",
        goal: "instructions with it at most 1.01 of those without; a scrape a second at most 1 % of a core; a list keeps nobody waiting 2 ms longer",
        is_quick: false,
        measure: Measure::Memory(Trial::Admin {
            scraped: 10_000,
            listed: 15_000,
        }),
    },
    Scenario {
        name: "prober",
        title: "CPU of the prober per 64-byte message, 50 clients, to the echo server's",
        goal: "at most 1.00",
        is_quick: false,
        measure: Measure::Memory(Trial::Prober { clients: 50 }),
    },
    Scenario {
        name: "idle",
        title: "resident memory of 10,000 idle clients",
        goal: "at most 256 B each, at most 4 MB left after they close",
        is_quick: true,
        measure: Measure::Memory(Trial::Idle { clients: 10_000 }),
    },
    Scenario {
        name: "kernel-memory",
        title: "memory of stalled clients that send and never read",
        goal: "kernel at most 250 KB each, also after fast traffic; resident at most 68 KiB each",
        is_quick: false,
        measure: Measure::Memory(Trial::Stalled {
            peers: &[
                ("floor", &[]),
                ("highwater", PATIENT),
                ("tokio", &[]),
                ("node", &[]),
            ],
            clients: 100,
        }),
    },
    Scenario {
        name: "tunnel-kernel-memory",
        title: "memory of stalled tunnels, whose clients send and never read",
        goal: "kernel at most 0.8 MB each",
        is_quick: false,
        measure: Measure::Memory(Trial::Stalled {
            peers: &[
                ("floor-tunnel", &[]),
                ("highwater-tunnel", PATIENT),
                ("tokio-tunnel", &[]),
                ("nginx", &[]),
                ("haproxy", &[]),
            ],
            clients: 40,
        }),
    },
    Scenario {
        name: "deadlines",
        title: "10,000 stalled clients, disconnected after the default grace",
        goal: "each within 20 ms of its deadline",
        is_quick: false,
        measure: Measure::Memory(Trial::Deadlines {
            peers: &["floor-deadlines", "highwater"],
            clients: 10_000,
        }),
    },
    Scenario {
        name: "fanout-100",
        title: "publish to 100 subscribers, 128 bytes, 32 in flight",
        goal: "CPU for a delivery at most 0.65 of Redis's and 1.2 of bare C's",
        is_quick: true,
        measure: Measure::Fanout(fanout::side_by_side(100, 128, 32)),
    },
    Scenario {
        name: "fanout-4k",
        title: "publish to 100 subscribers, 4 KiB, 16 in flight",
        goal: "CPU for a delivery at most 0.5 of Redis's",
        is_quick: false,
        measure: Measure::Fanout(fanout::side_by_side(100, 4096, 16)),
    },
    Scenario {
        name: "fanout-1000",
        title: "publish to 1,000 subscribers, 128 bytes, 32 in flight",
        goal: "CPU for a delivery at most 0.6 of Redis's",
        is_quick: false,
        measure: Measure::Fanout(fanout::side_by_side(1000, 128, 32)),
    },
    Scenario {
        name: "fanout-8",
        title: "publish to 100 subscribers, 128 bytes, 8 in flight",
        goal: "CPU for a delivery at most 1.1 of bare C's",
        is_quick: false,
        measure: Measure::Fanout(fanout::side_by_side(100, 128, 8)),
    },
    Scenario {
        name: "fanout-lone",
        title: "publish a lone message to 100 subscribers, 128 bytes",
        goal: "CPU for a delivery as bare C's, within the spread of its two entries",
        is_quick: false,
        measure: Measure::Fanout(fanout::side_by_side(100, 128, 1)),
    },
    Scenario {
        name: "fanout-beside",
        title: "publish to 100 subscribers beside 100 stalled ones, 128 bytes, 32 in flight",
        goal: "rate and CPU beside them at least 0.97 of alone",
        is_quick: false,
        measure: Measure::Fanout(fanout::beside_stalled(100, 128, 32)),
    },
    Scenario {
        name: "fanout-beside-4k",
        title: "publish to 100 subscribers beside 100 stalled ones, 4 KiB, 16 in flight",
        goal: "rate and CPU beside them at least 0.97 of alone",
        is_quick: false,
        measure: Measure::Fanout(fanout::beside_stalled(100, 4096, 16)),
    },
    Scenario {
        name: "fanout-wait",
        title: "a lone message to 100 subscribers beside 1,000 stalled ones",
        goal: "p99 until all have it, and until PUBLISH is answered, at most 1.1 of alone",
        is_quick: false,
        measure: Measure::Fanout(fanout::beside_a_thousand()),
    },
];

/// Whether there is a scenario of this name.
pub(crate) fn is_known(name: &str) -> bool {
    SCENARIOS.iter().any(|scenario| scenario.name == name)
}

/// The scenarios of these names; without names all, or those of the short form.
pub(crate) fn choose(names: &[String], is_quick: bool) -> Result<Vec<&'static Scenario>, String> {
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        return Err(format!(
            "no scenario is called `{unknown}`; there are: {}",
            known.join(", ")
        ));
    }
    let chosen = |scenario: &&Scenario| {
        if names.is_empty() {
            !is_quick || scenario.is_quick
        } else {
            names.iter().any(|name| name == scenario.name)
        }
    };
    Ok(SCENARIOS.iter().filter(chosen).collect())
}

/// Prints all scenarios.
pub(crate) fn print_list() {
    for scenario in SCENARIOS {
        println!(
            "{:22}{}\n{:22}goal: {}",
            scenario.name, scenario.title, "", scenario.goal
        );
    }
}
