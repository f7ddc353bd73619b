//! The kinds of slow clients, as a table: what each is called, how it reads, and what
//! should become of it.
//!
//! A new kind is a variant and a row here, and a number in the plans that want it; behaviour is added in `clients/slow.rs` only for a new [`Reading`].

use serde::Serialize;

/// In which way a client is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlowKind {
    /// Fills up and never reads.
    Stalled,
    /// Fills up in small steps and never reads, so that the server has read all that it sent.
    Quiet,
    /// Goes on sending and never reads.
    Talker,
    /// Reads too slowly to be kept.
    Trickle,
    /// Fills up, pauses, and then reads everything.
    Paused,
    /// Reads slowly but fast enough to be kept.
    Steady,
}

/// What a server should do with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Disconnect it.
    Gone,
    /// Keep it, and lose none of its bytes.
    Kept,
    /// Either; it is there for what a disconnect leaves behind.
    Either,
}

/// When a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Never.
    Never,
    /// Never, and it goes on sending.
    NeverButTalks,
    /// Never; it fills up in steps, on a thread of its own.
    NeverInSteps,
    /// All the time, at a rate.
    Paced,
    /// After a pause.
    AfterPause,
}

/// All that is particular about one kind.
#[derive(Debug, Clone, Copy)]
pub struct KindRow {
    /// The kind.
    pub kind: SlowKind,
    /// Its name in tables.
    pub name: &'static str,
    /// Several of them, in a sentence.
    pub who: &'static str,
    /// What a server should do with it.
    pub fate: Fate,
    /// When it reads.
    pub reading: Reading,
    /// The finding about its fate.
    pub finding: Option<&'static str>,
    /// Its receive buffer, in bytes as asked of the kernel.
    pub receive_buffer_bytes: usize,
    /// How many a plan has by default.
    pub clients: usize,
    /// How many bytes it reads in a second by default, where it reads at a rate.
    pub rate_bytes: u64,
}

/// Fills up quickly and hides little.
const SMALL_BUFFER_BYTES: usize = 4 << 10;
/// On loopback a window opens in steps of up to 64 KB; below that a steady reader looks stalled.
const STEADY_BUFFER_BYTES: usize = 64 << 10;

/// Of every kind, in the order in which they join and are reported.
pub const KINDS: [KindRow; 6] = [
    KindRow {
        kind: SlowKind::Stalled,
        name: "stalled",
        who: "stalled clients",
        fate: Fate::Gone,
        reading: Reading::Never,
        finding: Some("stalled-disconnected"),
        receive_buffer_bytes: SMALL_BUFFER_BYTES,
        clients: 5,
        rate_bytes: 0,
    },
    KindRow {
        kind: SlowKind::Quiet,
        name: "quiet",
        who: "quiet clients",
        fate: Fate::Either,
        reading: Reading::NeverInSteps,
        finding: None,
        receive_buffer_bytes: SMALL_BUFFER_BYTES,
        clients: 1,
        rate_bytes: 0,
    },
    KindRow {
        kind: SlowKind::Talker,
        name: "talkers",
        who: "talkers",
        fate: Fate::Gone,
        reading: Reading::NeverButTalks,
        finding: Some("talkers-disconnected"),
        receive_buffer_bytes: SMALL_BUFFER_BYTES,
        clients: 1,
        rate_bytes: 0,
    },
    KindRow {
        kind: SlowKind::Trickle,
        name: "trickle",
        who: "trickling clients",
        fate: Fate::Gone,
        reading: Reading::Paced,
        finding: Some("tricklers-disconnected"),
        receive_buffer_bytes: SMALL_BUFFER_BYTES,
        clients: 0,
        rate_bytes: 1 << 10,
    },
    KindRow {
        kind: SlowKind::Paused,
        name: "paused",
        who: "paused clients",
        fate: Fate::Kept,
        reading: Reading::AfterPause,
        finding: Some("paused-kept"),
        receive_buffer_bytes: STEADY_BUFFER_BYTES,
        clients: 2,
        rate_bytes: 0,
    },
    KindRow {
        kind: SlowKind::Steady,
        name: "steady",
        who: "steady slow clients",
        fate: Fate::Kept,
        reading: Reading::Paced,
        finding: Some("steady-kept"),
        receive_buffer_bytes: STEADY_BUFFER_BYTES,
        clients: 2,
        rate_bytes: 64 << 10,
    },
];

// A row stands where its kind is counted.
const _: () = {
    let mut index = 0;
    while index < KINDS.len() {
        assert!(KINDS[index].kind as usize == index);
        index += 1;
    }
};

impl SlowKind {
    /// Its row of the table.
    #[must_use]
    pub fn row(self) -> &'static KindRow {
        &KINDS[self as usize]
    }

    /// As people read it, of several.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether a server should keep such a client.
    #[must_use]
    pub fn is_kept(self) -> bool {
        self.row().fate == Fate::Kept
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Disconnect {
    /// ECONNRESET or EPIPE: the server threw the client out.
    Reset,
    /// A clean end of file, which to a client looks like success.
    EndOfFile,
    /// The server let go of it, but its kernel still holds unsent data; the client cannot see it.
    LeftInKernel,
    /// No connection was made.
    NotConnected,
}
