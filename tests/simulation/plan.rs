//! What one seed decides before the run: the service, the limits, the troubles
//! that may occur, and the behaviour of peers.
//!
//! Owns every number of a run. Refuses to read a clock or another random
//! source, so that a seed repeats exactly.

use std::time::Duration;

use fastrand::Rng;
use highwater::Limits;
use highwater::limits::{LONG_FRAME_BYTES, SMALLEST_READ_BYTES};

/// The services that are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Echo,
    FramedEcho,
    Tunnel,
    /// Writes from ticks and from every callback, and cannot pause.
    Herald,
    /// Asks for anything, from every callback.
    Meddler,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Echo,
        Self::FramedEcho,
        Self::Tunnel,
        Self::Herald,
        Self::Meddler,
    ];
}

/// A trouble that a run may have, as one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Events that announce nothing new.
    SpuriousEvents,
    /// Events of clients that are gone, whose slot may be in use again.
    StaleEvents,
    /// Some events come only with a later wait, and merge there.
    LateEvents,
    /// Events report only news, and data behind unread data is none.
    SparseEvents,
    /// Calls interrupted by signals, now and then all calls of a turn.
    Interrupts,
    /// Peers act between two system calls of one turn.
    MidTurn,
    /// Writes that take less than there is room for.
    ShortWrites,
    /// Peers that reset, or close both ways with data still coming.
    Resets,
    /// Peers that stop reading.
    Stalls,
    /// Peers that read a little at a time.
    Trickles,
    /// Many connects at once.
    Storms,
    /// Descriptors that have run out, and accepts that fail.
    FailedAccepts,
    /// The process is stopped for seconds.
    Jumps,
    /// Turns that take long, and waits that last too long.
    Delays,
    /// The server is stopped in order in the middle.
    Stop,
    /// Much data at once, beyond every budget of a turn.
    Floods,
    /// A memory budget that does not hold all queues.
    TightBudget,
    /// Calls from another thread.
    Wakes,
    /// Urgent data, at whose mark a read stops.
    Urgent,
    /// Other limits while clients are connected.
    Reloads,
}

impl Trouble {
    pub(crate) const ALL: [Self; 20] = [
        Self::SpuriousEvents,
        Self::StaleEvents,
        Self::LateEvents,
        Self::SparseEvents,
        Self::Interrupts,
        Self::MidTurn,
        Self::ShortWrites,
        Self::Resets,
        Self::Stalls,
        Self::Trickles,
        Self::Storms,
        Self::FailedAccepts,
        Self::Jumps,
        Self::Delays,
        Self::Stop,
        Self::Floods,
        Self::TightBudget,
        Self::Wakes,
        Self::Urgent,
        Self::Reloads,
    ];

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) limits: Limits,
    pub(crate) max_clients: usize,
    /// An operator may ask who is there and who has left.
    pub(crate) watched: bool,
    pub(crate) max_frame_bytes: usize,
    /// From this length on, frames are read into memory of the service.
    pub(crate) long_frame_bytes: usize,
    /// Longest time in which an unfinished frame may bring less than 1 KiB/s.
    pub(crate) frame_timeout: Duration,
    /// Turns before all peers end in order.
    pub(crate) turns: usize,
    /// Connections in the course of the run, without storms.
    pub(crate) peers: usize,
    /// Most acts of peers between two turns.
    pub(crate) acts: usize,
    /// Largest piece that a peer sends or reads at once.
    pub(crate) piece_bytes: usize,
    /// The most bytes that a peer sends in all.
    pub(crate) stream_bytes: usize,
    /// The kernel's buffer of a connection, for each direction.
    pub(crate) kernel_bytes: usize,
    pub(crate) descriptors: usize,
    /// Addresses that peers connect from; `None` if each has its own.
    pub(crate) peer_addresses: Option<usize>,
    /// Clients of the tunnel begin with a PROXY header.
    pub(crate) proxied: bool,
    /// Addresses that a tunnel may connect to.
    pub(crate) upstreams: usize,
    /// Most of these answer nothing.
    pub(crate) silent_upstreams: bool,
    pub(crate) troubles: u32,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_kind(seed, Kind::ALL[(seed % Kind::ALL.len() as u64) as usize])
    }

    /// The plan of a seed, for one service.
    pub(crate) fn with_kind(seed: u64, kind: Kind) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut troubles = 0;
        for trouble in Trouble::ALL {
            if trouble == Trouble::Reloads {
                continue;
            }
            let chance = match trouble {
                Trouble::Floods => 6,
                Trouble::TightBudget | Trouble::Stop | Trouble::Storms | Trouble::Urgent => 4,
                _ => 2,
            };
            if rng.u32(..chance) == 0 {
                troubles |= trouble.bit();
            }
        }
        // From a generator of its own, so that the rest stays as it is.
        let mut operator_rng = Rng::with_seed(seed ^ 0x4e10);
        if operator_rng.u8(..3) == 0 {
            troubles |= Trouble::Reloads.bit();
        }
        let floods = troubles & Trouble::Floods.bit() != 0;
        let one_of = |rng: &mut Rng, of: &[usize]| of[rng.usize(..of.len())];
        let mark = if floods {
            one_of(&mut rng, &[4096, 65_536, 65_536, 200_000])
        } else {
            one_of(&mut rng, &[1, 100, 1000, 1000, 4096, 10_000, 65_536])
        };
        let peers = match rng.u8(..4) {
            0 => 1,
            1 => rng.usize(1..4),
            2 => rng.usize(2..10),
            _ => rng.usize(4..30),
        };
        let max_frame_bytes = one_of(&mut rng, &[1, 50, 1000, 5000, 20_000]);
        let mut limits = limits(
            &mut rng,
            kind,
            mark,
            max_frame_bytes,
            troubles & Trouble::TightBudget.bit() != 0,
            peers,
        );
        let max_clients = if rng.u8(..4) == 0 {
            rng.usize(1..=peers + 2)
        } else {
            1000
        };
        // From a generator of its own, so that the rest stays as it is.
        let mut address_rng = Rng::with_seed(seed ^ 0xadd5);
        let peer_addresses = (address_rng.u8(..4) == 0).then(|| address_rng.usize(1..4));
        limits.max_clients_per_address = peer_addresses.map(|_| address_rng.usize(1..4).min(max_clients));
        let mut reader_rng = Rng::with_seed(seed ^ 0x510e);
        limits.slowest_reader_bytes_per_s =
            (reader_rng.u8(..4) == 0).then(|| one_of(&mut reader_rng, &[50_000, 200_000, 1_000_000]));
        limits.shadow = operator_rng.u8(..8) == 0;
        Self {
            seed,
            kind,
            limits,
            watched: operator_rng.bool(),
            max_clients,
            peer_addresses,
            proxied: kind == Kind::Tunnel && address_rng.u8(..3) == 0,
            max_frame_bytes,
            turns: one_of(&mut rng, &[20, 100, 100, 300]),
            peers,
            acts: one_of(&mut rng, &[1, 4, 4, 10, 30]),
            piece_bytes: if floods {
                200_000
            } else {
                one_of(&mut rng, &[1, 30, 500, 3000, 10_000])
            },
            stream_bytes: if floods {
                rng.usize(..1_000_000)
            } else {
                rng.usize(..100_000)
            },
            kernel_bytes: if floods {
                200_000
            } else {
                one_of(&mut rng, &[1, 100, 2000, 10_000, 30_000])
            },
            upstreams: rng.usize(1..=6),
            // From a generator of its own, so that the rest stays as it is.
            silent_upstreams: Rng::with_seed(seed ^ 0x511e).u8(..4) == 0,
            descriptors: rng.usize(1..=2 * peers + 4),
            // From a generator of its own, too.
            frame_timeout: {
                let milliseconds = [100, 300, 1000, 5000, 30_000];
                let mut frame_rng = Rng::with_seed(seed ^ 0xf4a3);
                Duration::from_millis(milliseconds[frame_rng.usize(..milliseconds.len())])
            },
            long_frame_bytes: one_of(&mut rng, &[1, 100, 1000, LONG_FRAME_BYTES]),
            troubles,
        }
    }

    pub(crate) const fn has(&self, trouble: Trouble) -> bool {
        self.troubles & trouble.bit() != 0
    }

    /// What an operator may choose in the place of these limits while the server
    /// runs. A tunnel has its connect timeout from the start.
    pub(crate) fn other_limits(&self, rng: &mut Rng) -> (Limits, usize) {
        let before = &self.limits;
        let mark = before.high_water_mark_bytes;
        // With larger ones the rates below would be refused.
        let mark = [mark, mark, (mark / 3).max(1), (2 * mark).min(1 << 20)][rng.usize(..4)];
        let is_tight = self.has(Trouble::TightBudget);
        let other = limits(rng, self.kind, mark, self.max_frame_bytes, is_tight, self.peers);
        let rates = [50_000, 200_000, 1_000_000];
        let mut limits = Limits {
            slowest_reader_bytes_per_s: (rng.u8(..4) == 0).then(|| rates[rng.usize(..rates.len())]),
            max_clients_per_address: before.max_clients_per_address.map(|most| most + rng.usize(..2)),
            shadow: before.shadow != (rng.u8(..6) == 0),
            ..other
        };
        if self.kind == Kind::Tunnel {
            limits.connect_timeout = before.connect_timeout;
        }
        let max_clients = match rng.u8(..4) {
            0 => rng.usize(1..=self.peers + 2),
            _ => self.max_clients,
        };
        (limits, max_clients)
    }

    /// The same run without one trouble.
    pub(crate) fn without(&self, trouble: Trouble) -> Self {
        Self {
            troubles: self.troubles & !trouble.bit(),
            ..self.clone()
        }
    }

    /// The names of its troubles.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Trouble::ALL.to_vec();
        troubles.retain(|&trouble| self.has(trouble));
        troubles
    }
}

fn limits(
    rng: &mut Rng,
    kind: Kind,
    mark: usize,
    max_frame_bytes: usize,
    tight: bool,
    peers: usize,
) -> Limits {
    let least = mark + SMALLEST_READ_BYTES;
    let limit = match rng.u8(..8) {
        0 => Some((mark / 2).max(1)),
        1 => Some(3 * mark),
        2 if matches!(kind, Kind::Herald | Kind::Meddler) => Some(mark + 5000),
        _ => None,
    };
    let hard = match rng.u8(..3) {
        0 => Some(least.max(limit.unwrap_or(0)) + rng.usize(..2 * mark + 10)),
        _ if matches!(kind, Kind::Herald | Kind::Meddler) => Some(least.max(limit.unwrap_or(0)) + 50_000),
        _ => Some((16 * mark).max(least).max(2 * limit.unwrap_or(0))),
    };
    let milliseconds = |rng: &mut Rng, of: &[u64]| Duration::from_millis(of[rng.usize(..of.len())]);
    // From one queue to a few. The bytes that a framed service holds count too.
    let one = match kind {
        Kind::FramedEcho => least + max_frame_bytes,
        _ => least,
    };
    let budget = if tight {
        one + rng.usize(..=one * peers.min(4))
    } else {
        usize::MAX / 2
    };
    let grace = milliseconds(rng, &[1, 50, 300, 300, 1000, 5000]);
    let drain_timeout = milliseconds(rng, &[200, 1000, 3000, 60_000]);
    Limits {
        high_water_mark_bytes: mark,
        limit_bytes: limit,
        grace,
        // The meddler goes on for as long as it may.
        stop_timeout: match kind {
            Kind::Meddler => milliseconds(rng, &[1, 20]),
            _ => milliseconds(rng, &[1, 200, 1000, 5000]),
        },
        idle_timeout: match rng.u8(..8) {
            0 => Some(milliseconds(rng, &[300, 2000])),
            _ => None,
        },
        half_closed_timeout: milliseconds(rng, &[500, 3_600_000, 3_600_000, 3_600_000]),
        upstream_grace: grace * [1, 1, 3, 10][rng.usize(..4)],
        drain_timeout: Some(drain_timeout.max(grace)),
        hard_limit_bytes: hard,
        memory_budget_bytes: Some(budget),
        connect_timeout: milliseconds(rng, &[20, 500, 5000]),
        splice_from_bytes: [0, 1, 100, 4000][rng.usize(..4)],
        ..Limits::default()
    }
}
