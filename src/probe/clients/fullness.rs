//! When a client that does not read is full, and since when its server may have noticed.
//!
//! Pure: what kernels hold and the time are arguments. Owns the progress of one
//! connection in both directions. Judges nothing.

use std::time::{Duration, Instant};

use crate::probe::protocol::Wire;

/// A client that makes no progress for this long has filled up.
pub(crate) const SETTLE_TIME: Duration = Duration::from_millis(300);
/// A paused client settles faster, as its pause must not begin later than a server's clock.
pub(crate) const PAUSED_SETTLE_TIME: Duration = Duration::from_millis(100);
/// Where the server sends more than it is sent, its own kernel fills up behind
/// ours, and that is looked at only four times a second.
pub(crate) const UNSEEN_SETTLE_TIME: Duration = Duration::from_millis(600);
/// A server's clock starts when its write is refused, but kernels go on moving
/// a little after that: probes of a closed window, and input that the server no
/// longer reads. On loopback that goes on for up to 0.24 s (measured), in which
/// the pause has already begun.
const KERNEL_TAIL: Duration = Duration::from_millis(250);
/// Progress seen this shortly before the end is the end itself: a reset empties the kernel's queue.
const LAST_GASP: Duration = Duration::from_millis(60);
/// A server that keeps more than this for one client has noticed, whatever its limits: some 16
/// queues of 64 KiB.
pub(crate) const MOST_UNNOTICED_BYTES: u64 = 1 << 20;
/// Of answers whose length is only known from the first one, the sum may differ by this part.
const LENGTHS_DIFFER_BY: u64 = 20;

/// What kernels hold for one client, at one look.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Bytes sent that the server's kernel has not acknowledged.
    pub(crate) unacknowledged: u64,
    /// Bytes that wait unread at the client.
    pub(crate) unread: u64,
    /// The server's side, where `/proc` shows it.
    pub(crate) server: Option<ServerQueues>,
}

/// The queues of the server's socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerQueues {
    /// Bytes not acknowledged by the client.
    pub(crate) send: u64,
    /// Bytes that the server has not read.
    pub(crate) receive: u64,
}

/// Bytes of one direction, and when they last moved.
#[derive(Debug, Clone, Copy)]
struct Flow {
    bytes: u64,
    /// The look at which they had moved.
    at: Instant,
    /// The look before that: they moved after it.
    not_before: Instant,
}

impl Flow {
    fn starting(now: Instant) -> Self {
        Self {
            bytes: 0,
            at: now,
            not_before: now,
        }
    }

    fn note(&mut self, bytes: u64, last_look: Instant, now: Instant) -> bool {
        let moved = bytes > self.bytes;
        if moved {
            *self = Self {
                bytes,
                at: now,
                not_before: last_look,
            };
        }
        moved
    }
}

/// The progress of one connection.
#[derive(Debug)]
pub(crate) struct Fullness {
    echoes: bool,
    last_look: Instant,
    /// Bytes that the server's side took.
    pub(crate) taken: u64,
    /// Both directions together.
    all: Flow,
    /// When they had moved before that.
    moved_before: Instant,
    /// What the server's side took.
    input: Flow,
    /// What moved towards the client.
    output: Flow,
    /// When something first waited for the client.
    output_began: Option<Instant>,
    /// None of what was sent was acknowledged since the look before.
    pub(crate) is_stuck: bool,
    /// What the server's own queue owes, as far as that can be told.
    owed: Option<u64>,
    /// The most that it owed while nothing moved, so that no look was older than what it is held against.
    most_owed: Option<u64>,
    /// When it first owed [`MOST_UNNOTICED_BYTES`].
    owed_much_at: Option<Instant>,
    is_in_sight: bool,
    first_refused: Option<Instant>,
    /// Since then no write was taken whole.
    refused_since: Option<Instant>,
    /// The last progress, once it was seen to be full.
    full: Option<Instant>,
}

/// Since when a server can have noticed that a client does not read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standstill {
    /// Nothing moved towards the client since a moment after this.
    pub(crate) not_before: Instant,
    /// That was seen here.
    pub(crate) seen_at: Instant,
    /// What moved until then.
    pub(crate) bytes: u64,
    /// When something first waited for the client.
    pub(crate) began: Instant,
    /// Whether the queue of the server's kernel was in sight.
    pub(crate) is_in_sight: bool,
    /// When what the server's side took last grew.
    pub(crate) input_at: Instant,
    /// When the server first owed more than any limit explains.
    pub(crate) owed_much_at: Option<Instant>,
}

impl Fullness {
    /// Of a connection that stands since `now`.
    pub(crate) fn starting(echoes: bool, now: Instant) -> Self {
        Self {
            echoes,
            last_look: now,
            taken: 0,
            all: Flow::starting(now),
            moved_before: now,
            input: Flow::starting(now),
            output: Flow::starting(now),
            output_began: None,
            is_stuck: false,
            owed: None,
            most_owed: None,
            owed_much_at: None,
            is_in_sight: false,
            first_refused: None,
            refused_since: None,
            full: None,
        }
    }

    /// A write was taken whole.
    pub(crate) fn was_taken(&mut self) {
        self.refused_since = None;
    }

    /// A write was not taken whole.
    pub(crate) fn was_refused(&mut self, now: Instant) {
        self.first_refused.get_or_insert(now);
        self.refused_since.get_or_insert(now);
    }

    pub(crate) fn first_refused(&self) -> Option<Instant> {
        self.first_refused
    }

    /// When bytes last moved in either direction.
    pub(crate) fn last_progress(&self) -> Instant {
        self.all.at
    }

    /// When it was last looked at.
    pub(crate) fn last_look(&self) -> Instant {
        self.last_look
    }

    /// When it made its last progress before it was seen to be full.
    pub(crate) fn full_at(&self) -> Option<Instant> {
        self.full
    }

    /// What the server's own queue owes, as far as that can be told.
    pub(crate) fn owed(&self) -> Option<u64> {
        self.owed
    }

    /// The most that the server's own queue owed at any time; never less than at the last look.
    pub(crate) fn most_owed(&self) -> Option<u64> {
        self.most_owed.max(self.owed)
    }

    /// Whether the server's kernel was in sight at the last look.
    pub(crate) fn is_in_sight(&self) -> bool {
        self.is_in_sight
    }

    /// Bytes that moved towards the client: those it has, and those that kernels hold for it.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.output.bytes
    }

    /// Takes note of one look. `moves` says whether progress still counts.
    pub(crate) fn note(&mut self, look: Look, sent: u64, wire: &Wire, moves: bool, now: Instant) -> bool {
        let taken = sent.saturating_sub(look.unacknowledged);
        let came = look.unread + wire.received();
        let server_send = look.server.map_or(0, |server| server.send);
        self.is_stuck = taken == self.taken;
        self.taken = self.taken.max(taken);
        self.is_in_sight |= look.server.is_some();
        self.input.note(taken, self.last_look, now);
        let output = came + server_send;
        if output > 0 {
            self.output_began.get_or_insert(now);
        }
        self.output.note(output, self.last_look, now);
        self.note_owed(look, sent, wire, output, now);
        // An echo's own queue shows in what it takes; others only in what its kernel holds.
        let progress = taken + came + if self.echoes { 0 } else { server_send };
        let before = self.all.at;
        let moved = moves && self.all.note(progress, self.last_look, now);
        if moved {
            self.moved_before = before;
        }
        if self.is_still(SETTLE_TIME, now) {
            self.most_owed = self.most_owed.max(self.owed);
        }
        self.last_look = now;
        moved
    }

    fn note_owed(&mut self, look: Look, sent: u64, wire: &Wire, output: u64, now: Instant) {
        let Some(expected) = wire.answer_bytes(sent) else {
            return;
        };
        let unread_by_server = if self.echoes {
            look.unacknowledged + look.server.map_or(0, |server| server.receive)
        } else {
            0
        };
        let owed = expected.saturating_sub(output + unread_by_server);
        let is_exact = self.echoes || owed * LENGTHS_DIFFER_BY > expected;
        self.owed = Some(if is_exact { owed } else { 0 });
        if owed > MOST_UNNOTICED_BYTES {
            self.owed_much_at.get_or_insert(now);
        }
    }

    /// Whether nothing has moved for `settle`.
    pub(crate) fn is_still(&self, settle: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.all.at) >= settle
    }

    /// It is full, since its last progress.
    pub(crate) fn set_full(&mut self) {
        self.full = Some(self.all.at);
    }

    /// It was not full after all, or is again only `at` this moment.
    pub(crate) fn set_full_at(&mut self, at: Option<Instant>) {
        self.full = at;
    }

    /// When the server may have stopped, at the earliest: not before it began to
    /// refuse, and not longer before the last progress than kernels go on without it.
    /// What the client sends may fill hops behind the server long after the server
    /// had to stop towards the client. What was on its way towards the client is seen late, as its
    /// kernel is looked at only four times a second: the answer may move up to when the client was full.
    pub(crate) fn stopped_at(&self) -> Instant {
        let last = self.full.unwrap_or(self.all.at);
        let earliest = last.checked_sub(KERNEL_TAIL).unwrap_or(last);
        let refused = self.refused_since.unwrap_or(last).clamp(earliest, last);
        match self.output_began {
            Some(_) => refused.min(self.output.at),
            None => refused,
        }
    }

    /// The connection ended.
    pub(crate) fn ended(&mut self, now: Instant) {
        let gasp = now.saturating_duration_since(self.all.at) < LAST_GASP;
        if gasp && self.full == Some(self.all.at) {
            self.full = Some(self.moved_before);
        }
    }

    /// Since when nothing moves towards the client; `None` while nothing ever did.
    pub(crate) fn standstill(&self) -> Option<Standstill> {
        Some(Standstill {
            not_before: self.output.not_before,
            seen_at: self.output.at,
            bytes: self.output.bytes,
            began: self.output_began?,
            is_in_sight: self.is_in_sight,
            input_at: self.input.at,
            owed_much_at: self.owed_much_at,
        })
    }
}
