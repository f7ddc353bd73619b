//! What the engine owes each client, calculated from outside.
//!
//! Owns a second set of books: bytes to send and bytes sent, pauses and drains,
//! clocks, the sum of all queues, and which client may be closed for which
//! reason. The books know only reads and writes on the simulated streams, the
//! calls of services, and the limits. Refuses to look into the engine.
//!
//! Bytes that were read count as to be sent at once. Whether they wait is known
//! only after the direct write that may follow. The model therefore judges
//! ("settles") them when anything else happens.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use highwater::engine::Next;
use highwater::limits::{
    EXPIRIES_PER_TURN, FAREWELL, LONGEST_WAIT, PROXY_HEADER_TIMEOUT, SILENCE_LOOKS, SMALLEST_READ_BYTES,
    STOP_SILENCE,
};
use highwater::{Answer, CloseReason, Limits, SlowReason};

use super::content::{Content, FrameScan};
use super::plan::Kind;

/// How late the close timeout may come: its time begins when the engine first
/// finds nothing left to read.
const LINGER_SLACK: Duration = Duration::from_millis(300);

/// How much later than at its look a silent client may go: a wait, and what turns
/// take.
const SILENCE_SLACK: Duration = Duration::from_secs(1);

/// Turns whose time is remembered: more than two rounds of all clients take.
const TURNS_REMEMBERED: usize = 64;

/// The fewest clients that one turn disconnects when their time is over: it
/// takes 64 timers, and a client may have two.
pub(crate) const EXPIRIES_IN_ONE_TURN: usize = 32;

/// Why the model says that a client must be closed, or is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// The kernel failed one of its operations.
    Failed,
    /// A limit was exceeded inside a turn.
    Slow(SlowReason),
    /// Its service wants it reset.
    Rejected,
    Reset,
    /// The stopping server gives its connection up before it is made.
    Abandoned,
    /// It is closed.
    Closed,
}

/// One client's page in the books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Bytes that the engine had to send, with those that the socket took at
    /// once.
    pub(crate) asked: u64,
    /// Bytes that the socket took.
    pub(crate) taken: u64,
    /// Bytes read from it.
    pub(crate) read: u64,
    /// Bytes read from it and dropped, because it is closing.
    pub(crate) thrown: u64,
    /// Its FIN was read.
    pub(crate) end_read: bool,
    /// Nothing further is sent to it.
    pub(crate) ended: bool,
    /// Its input is dropped.
    pub(crate) closing: bool,
    /// Its service ended it in the middle of its stream.
    pub(crate) cut_short: bool,
    /// The stop of the server closed it, not its service.
    pub(crate) stopped: bool,
    /// Bytes of its PROXY header.
    header_bytes: u64,
    /// That header is not whole.
    pub(crate) unannounced: bool,
    /// It breaks the protocol.
    wrong_header: bool,
    /// The turn in which it did.
    pub(crate) stopped_turn: u64,
    /// When bytes were last read from it or taken by it.
    moved_at: Option<Instant>,
    /// When limits changed last, at which looks at silent clients may begin anew.
    looked_anew: Option<Instant>,
    /// The queue when the mark changed last, until it drains: its source was not
    /// paused by that mark.
    unpaused_bytes: usize,
    /// The first rule that it has broken in shadow mode, until it recovers.
    shadowed: Option<SlowReason>,
    /// When bytes last waited for it, or for the other end of its pair, after a turn.
    waited_at: Option<Instant>,
    /// Since when its connection has been in progress.
    pub(crate) connecting_since: Option<Instant>,
    /// An answer *pause* stands.
    pub(crate) paused: bool,
    admitted_turn: u64,
    admitted_at: Option<Instant>,
    is_upstream: bool,
    pub(crate) departure: Option<Departure>,
    pub(crate) frames: FrameScan,
    /// What a framed service may do only to a client that the memory budget has
    /// just disconnected.
    must_go: Option<&'static str>,
    pub(crate) held: usize,
    /// Since when its service holds the message that it holds.
    held_since: Option<Instant>,
    /// What it had at most, and certainly, of bytes x time in this turn: since when
    /// the former, and the shortest of the latter.
    turn_waiting_since: Option<Instant>,
    turn_held_since: Option<Instant>,
    turn_least_held: usize,
    /// Of a framed service: how the unfinished frame comes.
    coming: Option<Coming>,
    /// The most bytes held for it in this turn.
    turn_held: usize,
    queue: usize,
    /// The shortest and the longest queue in this turn.
    turn_range: (usize, usize),
    over_since: Option<Instant>,
    /// How often the engine looked at its window, and the largest it saw.
    window_looks: u64,
    largest_window: u32,
    /// What was known of its window when the turn began.
    turn_window: (u32, bool),
    /// What was known before the last look.
    before_look: (u32, bool),
    /// It was withdrawn at one of them.
    withdrawn: bool,
    /// The start of the time over the limit in which its ACKs were checked.
    ack_checked_since: Option<Instant>,
    waiting_since: Option<Instant>,
    both_ended_since: Option<Instant>,
    /// Since when one of its directions has ended and the other has not, as seen
    /// after a turn.
    half_closed_since: Option<Instant>,
    drains_owed: u64,
    drains_said: u64,
    /// Its place in the engine's table, which breaks ties.
    pub(crate) place: u32,
}

impl Ledger {
    pub(crate) const fn is_alive(&self) -> bool {
        self.departure.is_none()
    }

    pub(crate) const fn queue(&self) -> usize {
        self.queue
    }

    /// Whether its service wants it closed. The engine may have marked it before
    /// for a reason of its own.
    pub(crate) const fn is_dismissed(&self) -> bool {
        matches!(self.departure, Some(Departure::Reset | Departure::Rejected))
    }

    /// Whether its connection has been under way for so long.
    pub(crate) fn is_connecting_for(&self, time: Duration, now: Instant) -> bool {
        self.connecting_since.is_some_and(|since| now - since >= time)
    }

    /// Bytes that a framed service holds for it at least; else what it said.
    fn certainly_held(&self, kind: Kind) -> usize {
        match self.end_read || self.closing || kind != Kind::FramedEcho {
            true => self.held,
            false => self
                .held
                .max((self.read - self.thrown).saturating_sub(self.asked) as usize),
        }
    }

    /// `fresh` bytes of the unfinished frame have come, of a new one or not.
    fn frame_comes(&mut self, is_new: bool, fresh: u64, time: Duration, now: Instant) {
        if self.read == self.frames.whole_bytes {
            self.coming = None;
            return;
        }
        let coming = self.coming.get_or_insert(Coming {
            since: now,
            bytes: 0,
            paused_for: Duration::ZERO,
            paused_at: None,
        });
        if is_new {
            (coming.since, coming.bytes, coming.paused_for) = (now, 0, Duration::ZERO);
        }
        coming.bytes += fresh;
        if u128::from(coming.bytes) * 1000 >= (1024 * time.as_millis()).max(1000) {
            (coming.since, coming.bytes, coming.paused_for) = (now, 0, Duration::ZERO);
        }
    }

    /// The sender of a frame is paused from here on, or not any more.
    fn pauses(&mut self, now: Instant) {
        let is_paused = self.paused;
        let Some(coming) = &mut self.coming else { return };
        match (coming.paused_at, is_paused) {
            (None, true) => coming.paused_at = Some(now),
            (Some(at), false) => {
                coming.paused_for += now - at.max(coming.since);
                coming.paused_at = None;
            }
            _ => {}
        }
    }

    /// Whether it has moved no byte for so long, and nothing waited for it when the
    /// turn began. What is sent to it after it was marked as closed is dropped, which
    /// cannot be seen from outside. Nor can the look at which something waited last:
    /// it may be before the last turn in which it did.
    fn was_silent_for(&self, time: Duration, now: Instant) -> bool {
        let since = |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
        let moved = since(self.moved_at.or(self.admitted_at));
        let waited = since(self.waited_at);
        self.turn_range.0 == 0
            && moved.is_some_and(|moved| moved >= time)
            && waited.is_none_or(|waited| waited >= time / 2)
    }

    /// Whether anything may still be sent to it.
    pub(crate) const fn accepts(&self) -> bool {
        !self.ended && self.is_alive()
    }
}

/// Bytes x time.
fn byte_time(bytes: usize, since: Option<Instant>, now: Instant) -> u128 {
    since.map_or(0, |since| bytes as u128 * (now - since).as_nanos())
}

/// A time as a slowest reader raises it for a client: to the time in which such a
/// reader opens the largest window that the engine saw, and takes what waits.
fn raised(limits: &Limits, time: Duration, ledger: &Ledger) -> Duration {
    let Some(bytes_per_s) = limits.slowest_reader_bytes_per_s else {
        return time;
    };
    let window = ledger.largest_window as usize * if ledger.withdrawn { 4 } else { 1 };
    let queue = limits.high_water_mark_bytes.max(limits.limit_bytes()) + limits.unsent_bytes;
    let bytes = window / 16 + (2 * window).min(512 * 1024) + queue;
    let milliseconds = (bytes * 1000 / bytes_per_s) as u64;
    time.max(Duration::from_millis(milliseconds).min(Duration::from_secs(600)))
}

/// The share of an unfinished frame that comes at present.
#[derive(Clone, Copy, Debug)]
struct Coming {
    since: Instant,
    bytes: u64,
    /// The part of the time since then in which its sender was paused.
    paused_for: Duration,
    paused_at: Option<Instant>,
}

impl Coming {
    /// The time that counts.
    fn age(&self, now: Instant) -> Duration {
        let pause = self.paused_at.map_or(Duration::ZERO, |at| {
            now.saturating_duration_since(at.max(self.since))
        });
        now.saturating_duration_since(self.since)
            .saturating_sub(self.paused_for + pause)
    }
}

/// The kernel's side of a connection at its close.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// All bytes sent have arrived.
    pub(crate) settled: bool,
    /// And no input was left, as far as the engine could know.
    pub(crate) quiet: bool,
    /// A write was tried in this turn.
    pub(crate) tried: bool,
    /// The service may have it reset.
    pub(crate) may_reset: bool,
    /// Its address has as many clients as it may have, without it.
    pub(crate) is_address_full: bool,
    /// The other end of the pair was disconnected before, as too slow.
    pub(crate) partner_was_slow: bool,
    /// Of the other end of the pair a read was interrupted in this turn, so the
    /// engine may not know of its FIN.
    pub(crate) partner_interrupted: bool,
}

/// How often things happened, so that a test can demand that they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) slow: [u64; SlowReason::ALL.len()],
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    pub(crate) rejected: u64,
    pub(crate) reset: u64,
    pub(crate) not_acknowledged: u64,
    pub(crate) stopped: u64,
    pub(crate) connect_timed_out: u64,
    pub(crate) idle: u64,
    pub(crate) half_closed: u64,
    pub(crate) late_frames: u64,
    /// Connections that the stopping server refused to begin.
    pub(crate) refused_connects: u64,
    /// Clients accepted and registered, clients refused at the limit, and
    /// connections made to upstreams.
    pub(crate) served: u64,
    pub(crate) refused: u64,
    pub(crate) address_refused: u64,
    pub(crate) upstreams: u64,
    pub(crate) pauses: u64,
    pub(crate) drains: u64,
    /// Reads into memory of the service.
    pub(crate) lent_reads: u64,
}

/// A client that has left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gone {
    pub(crate) reason: &'static str,
    pub(crate) read: u64,
    pub(crate) taken: u64,
}

#[derive(Debug)]
pub(crate) struct Model {
    /// Those that have left, in the order in which services heard of it.
    pub(crate) gone: Vec<Gone>,
    /// An operator may ask, so the window of whoever leaves is looked at.
    pub(crate) watched: bool,
    kind: Kind,
    limits: Limits,
    upstream_limits: Limits,
    budget_bytes: usize,
    max_frame_bytes: usize,
    frame_timeout: Duration,
    pub(crate) ledgers: Vec<Ledger>,
    /// Clients that are connected and need not be closed.
    alive: Vec<usize>,
    pub(crate) now: Instant,
    unsettled: Option<usize>,
    /// The client that a framed service is being called for.
    pub(crate) inside_framed: Option<usize>,
    sum: usize,
    /// The time of a client is over in this turn, or both its sides have ended
    /// while its service holds bytes for it. When in the turn these bytes are
    /// given up cannot be seen from outside.
    loose: bool,
    /// Clients whose time is over when the turn begins; one turn disconnects
    /// only so many.
    due: usize,
    /// Clients whose ACKs have to be checked in this turn.
    ack_checks_due: usize,
    over_budget_seen: bool,
    /// A client is left to be closed in the next turn.
    leftover: bool,
    /// Bytes of clients that a loose turn may have marked because of the budget,
    /// and left to be closed in the next turn.
    carried: usize,
    /// So many timers are due in this turn that not all of them are looked at; and
    /// whether that ever was so.
    is_crowded: bool,
    pub(crate) was_crowded: bool,
    /// Episodes in which shadow mode kept a client.
    pub(crate) shadowed: u64,
    /// Those that may have begun in the turn in which their client was closed.
    pub(crate) perhaps_shadowed: u64,
    pub(crate) stopping_since: Option<Instant>,
    /// A successor accepts: silent clients are kept until the last second of a
    /// stop.
    pub(crate) hands_over: bool,
    pub(crate) turn: u64,
    /// When the last turns began, with how many clients, the latest first.
    turns_at: VecDeque<(Instant, usize)>,
    pub(crate) fault: Option<String>,
    pub(crate) seen: Seen,
}

impl Model {
    pub(crate) fn new(
        kind: Kind,
        limits: &Limits,
        budget_bytes: usize,
        max_frame_bytes: usize,
        frame_timeout: Duration,
        now: Instant,
    ) -> Self {
        Self {
            gone: Vec::new(),
            watched: false,
            kind,
            limits: limits.clone(),
            upstream_limits: Limits {
                grace: limits.upstream_grace,
                drain_timeout: Some(limits.drain_timeout().max(limits.upstream_grace)),
                ..limits.clone()
            },
            budget_bytes: limits.memory_budget_bytes.unwrap_or(budget_bytes),
            max_frame_bytes,
            frame_timeout,
            ledgers: Vec::new(),
            alive: Vec::new(),
            now,
            unsettled: None,
            inside_framed: None,
            sum: 0,
            loose: false,
            due: 0,
            ack_checks_due: 0,
            over_budget_seen: false,
            leftover: false,
            carried: 0,
            is_crowded: false,
            was_crowded: false,
            shadowed: 0,
            perhaps_shadowed: 0,
            stopping_since: None,
            hands_over: false,
            turn: 0,
            turns_at: VecDeque::new(),
            fault: None,
            seen: Seen::default(),
        }
    }

    /// Keeps the first fault, of which later ones may be consequences.
    pub(crate) fn accuse(&mut self, fault: impl FnOnce() -> String) {
        if self.fault.is_none() {
            self.fault = Some(fault());
        }
    }

    /// A turn begins at this charged instant.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.turns_at.truncate(TURNS_REMEMBERED - 1);
        self.turns_at.push_front((now, self.alive.len()));
        self.over_budget_seen = false;
        for at in 0..self.alive.len() {
            let ledger = &mut self.ledgers[self.alive[at]];
            ledger.turn_range = (ledger.queue, ledger.queue);
            ledger.turn_held = ledger.held;
            ledger.turn_window = (ledger.largest_window, ledger.withdrawn);
            ledger.turn_waiting_since = ledger.waiting_since;
            ledger.turn_held_since = ledger.held_since;
            ledger.turn_least_held = ledger.certainly_held(self.kind);
        }
        self.look_ahead();
    }

    /// What this turn may bring that cannot be told from outside.
    fn look_ahead(&mut self) {
        let now = self.now;
        let is_due = |&&number: &&usize| self.earliest(number).is_some_and(|due| due <= now);
        self.due = self.alive.iter().filter(is_due).count();
        let timers = self.alive.iter();
        let timers_due = timers.filter(|&&number| self.has_timer_due(number)).count();
        self.is_crowded = timers_due >= EXPIRIES_IN_ONE_TURN;
        self.was_crowded |= self.is_crowded;
        self.ack_checks_due = self.overdue_ack_checks();
        let ends_holding = |&number: &usize| {
            let ledger = &self.ledgers[number];
            ledger.both_ended_since.is_some() && ledger.held > 0
        };
        let stop_is_over = self
            .stopping_since
            .is_some_and(|since| now - since >= self.limits.stop_timeout);
        // Whether a client that its service gives up in this turn still holds what
        // came behind its header cannot be seen from outside.
        let waits_holding = |&number: &usize| {
            let ledger = &self.ledgers[number];
            ledger.header_bytes > 0 && ledger.held > 0
        };
        // Nor when in the turn it is marked as silent, and what is held for it is given up.
        let is_silent_holding = |&number: &usize| self.ledgers[number].held > 0 && self.may_be_silent(number);
        self.loose = self.alive.iter().any(waits_holding)
            || self.alive.iter().any(is_silent_holding)
            || self.due > 0
            || self.carried > 0
            || stop_is_over
            || self.alive.iter().any(ends_holding);
    }

    /// Other limits from here on, the first thing in a turn. Whoever has less time
    /// than before has all of it once more; what a client had left of a longer
    /// time goes on.
    pub(crate) fn reload(&mut self, limits: &Limits) {
        self.keep_new_budget(limits);
        let before = std::mem::replace(&mut self.limits, limits.clone());
        let upstreams = Limits {
            grace: limits.upstream_grace,
            drain_timeout: Some(limits.drain_timeout().max(limits.upstream_grace)),
            ..limits.clone()
        };
        let upstreams_before = std::mem::replace(&mut self.upstream_limits, upstreams);
        let ends_shadow = before.shadow && !limits.shadow;
        if !limits.shadow {
            (self.shadowed, self.perhaps_shadowed) = (0, 0);
        }
        let idle = |limits: &Limits| limits.idle_timeout.unwrap_or(Duration::MAX);
        let hurries_silent =
            idle(limits) < idle(&before) || limits.half_closed_timeout < before.half_closed_timeout;
        let now = self.now;
        for &number in &self.alive {
            let ledger = &mut self.ledgers[number];
            let (old, new) = match ledger.is_upstream {
                true => (&upstreams_before, &self.upstream_limits),
                false => (&before, &self.limits),
            };
            let has_less = |old: Duration, new: Duration| ends_shadow || new < old;
            let less_grace = has_less(raised(old, old.grace, ledger), raised(new, new.grace, ledger));
            let less_patience = has_less(
                raised(old, old.drain_timeout(), ledger),
                raised(new, new.drain_timeout(), ledger),
            );
            let less_farewell = has_less(
                raised(&before, before.grace, ledger),
                raised(&self.limits, limits.grace, ledger),
            );
            let (limit_before, limit) = (before.limit_bytes(), limits.limit_bytes());
            if limit > limit_before && ledger.queue < limit {
                ledger.over_since = None;
            }
            let begins = ledger.over_since.is_none() && ledger.queue > 0 && ledger.queue >= limit;
            if begins || ledger.over_since.is_some() && less_grace {
                ledger.over_since = Some(now);
            }
            if less_patience {
                ledger.waiting_since = ledger.waiting_since.and(Some(now));
            }
            if less_farewell {
                ledger.both_ended_since = ledger.both_ended_since.and(Some(now));
            }
            if limits.connect_timeout < before.connect_timeout {
                ledger.connecting_since = ledger.connecting_since.and(Some(now));
            }
            if hurries_silent {
                ledger.moved_at = Some(now);
            }
            ledger.looked_anew = Some(now);
            ledger.unpaused_bytes = ledger.queue + 1;
            if !limits.shadow {
                ledger.shadowed = None;
            }
        }
        let is_loose = self.loose;
        self.look_ahead();
        self.loose |= is_loose;
    }

    /// A lower budget acts at once, by the clocks as they were.
    fn keep_new_budget(&mut self, limits: &Limits) {
        self.budget_bytes = limits.memory_budget_bytes.unwrap_or(usize::MAX / 2);
        // Nobody was judged yet in this turn.
        self.loose = self.carried > 0 || self.leftover;
        self.keep_budget();
        self.loose &= self.over_budget_seen;
    }

    /// Clients whose ACKs should have been checked by now.
    fn overdue_ack_checks(&self) -> usize {
        let ledgers = self.alive.iter().map(|&number| &self.ledgers[number]);
        ledgers
            .filter(|ledger| ledger.is_alive() && ledger.ack_checked_since != ledger.over_since)
            .filter(|ledger| self.needs_ack_check(ledger))
            .count()
    }

    fn needs_ack_check(&self, ledger: &Ledger) -> bool {
        let delay = self.limits.ack_check_delay();
        ledger.over_since.is_some_and(|since| since + delay <= self.now)
    }

    /// The engine checks that the kernel does not drop a client's ACKs.
    pub(crate) fn check_acknowledgements(&mut self, number: usize) {
        self.settle();
        let is_due = self.needs_ack_check(&self.ledgers[number]);
        let ledger = &mut self.ledgers[number];
        ledger.ack_checked_since = ledger.over_since;
        if !is_due && self.kind != Kind::Meddler {
            self.accuse(|| format!("link {number}: its ACKs were checked too early"));
        }
    }

    /// The first instant at which a rule about a client may be broken.
    fn earliest(&self, number: usize) -> Option<Instant> {
        let ledger = &self.ledgers[number];
        let limits = self.limits_of(ledger);
        let judged = |since: Option<Instant>| since.filter(|_| !self.limits.shadow);
        let due = [
            judged(ledger.over_since).map(|since| since + raised(limits, limits.grace, ledger)),
            judged(ledger.waiting_since).map(|since| since + raised(limits, limits.drain_timeout(), ledger)),
            ledger
                .both_ended_since
                .map(|since| since + raised(&self.limits, self.limits.grace, ledger)),
            ledger
                .connecting_since
                .map(|since| since + self.limits.connect_timeout),
        ];
        due.into_iter().flatten().min()
    }

    /// Whether the common time of a client is over. Its own may be longer, which
    /// takes the place of a disconnect in a turn all the same.
    fn has_timer_due(&self, number: usize) -> bool {
        let ledger = &self.ledgers[number];
        let limits = self.limits_of(ledger);
        let is_over =
            |since: Option<Instant>, time: Duration| since.is_some_and(|since| since + time <= self.now);
        is_over(ledger.over_since, limits.grace)
            || is_over(ledger.waiting_since, limits.drain_timeout())
            || is_over(ledger.both_ended_since, self.limits.grace)
    }

    /// How often the engine has looked at this window; `None` before the
    /// connection is in the table.
    pub(crate) fn window_looks(&self, number: usize) -> Option<u64> {
        self.ledgers.get(number).map(|ledger| ledger.window_looks)
    }

    /// The engine looked at a window.
    pub(crate) fn window_told(&mut self, number: usize, bytes: u32, is_withdrawn: bool) {
        let ledger = &mut self.ledgers[number];
        ledger.before_look = (ledger.largest_window, ledger.withdrawn);
        ledger.window_looks += 1;
        ledger.withdrawn |= is_withdrawn;
        ledger.largest_window = ledger.largest_window.max(bytes);
    }

    /// An upstream has a grace of its own.
    const fn limits_of(&self, ledger: &Ledger) -> &Limits {
        match ledger.is_upstream {
            true => &self.upstream_limits,
            false => &self.limits,
        }
    }

    /// A connection came into the table.
    pub(crate) fn admit(&mut self, number: usize, place: u32, connecting: bool) {
        while self.ledgers.len() <= number {
            self.ledgers.push(Ledger::default());
        }
        let ledger = &mut self.ledgers[number];
        ledger.place = place;
        ledger.admitted_turn = self.turn;
        ledger.admitted_at = Some(self.now);
        ledger.connecting_since = connecting.then_some(self.now);
        ledger.is_upstream = connecting;
        self.alive.push(number);
    }

    pub(crate) fn connected(&mut self, number: usize) {
        self.ledgers[number].connecting_since = None;
        self.seen.upstreams += 1;
    }

    /// The kernel made no connection to an upstream. Its client may go at once, with
    /// what is held for it: when cannot be seen from outside before the sweep.
    pub(crate) const fn connect_failed(&mut self) {
        self.loose = true;
    }

    /// Whether this connection was taken into the table so long ago.
    pub(crate) fn waits_since(&self, number: usize, time: Duration) -> bool {
        let admitted = self.ledgers[number].admitted_at;
        admitted.is_some_and(|since| self.now.saturating_duration_since(since) >= time)
    }

    /// Bytes were read from a client, and go to `to`.
    pub(crate) fn read(&mut self, number: usize, count: usize, to: Option<usize>, content: &Content) {
        self.settle();
        let (kind, max_frame_bytes) = (self.kind, self.max_frame_bytes);
        let ledger = &mut self.ledgers[number];
        ledger.read += count as u64;
        ledger.moved_at = Some(self.now);
        if ledger.closing {
            ledger.thrown += count as u64;
            return;
        }
        if ledger.unannounced {
            return self.read_header(number);
        }
        match kind {
            Kind::Echo | Kind::Tunnel => {
                if let Some(to) = to {
                    self.ask(to, count);
                }
            }
            Kind::FramedEcho => {
                let (there, whole) = (ledger.read, ledger.frames.whole_bytes);
                ledger.frames.advance(content, there, max_frame_bytes);
                let is_new = ledger.frames.whole_bytes > whole || there - count as u64 == whole;
                let rest = there - ledger.frames.whole_bytes;
                ledger.frame_comes(is_new, rest.min(count as u64), self.frame_timeout, self.now);
            }
            Kind::Herald | Kind::Meddler => {}
        }
    }

    /// A client begins with a PROXY header.
    pub(crate) fn expect_header(&mut self, number: usize, header_bytes: u64, is_wrong: bool) {
        let ledger = &mut self.ledgers[number];
        ledger.header_bytes = header_bytes;
        ledger.wrong_header = is_wrong;
        ledger.unannounced = true;
    }

    /// More of a header was read, and perhaps of what follows. The service holds
    /// both until there is an upstream.
    fn read_header(&mut self, number: usize) {
        let now = self.now;
        let ledger = &mut self.ledgers[number];
        let mut held = ledger.read;
        if held >= ledger.header_bytes {
            if ledger.wrong_header {
                return self.depart(number, Departure::Rejected);
            }
            held -= ledger.header_bytes;
            ledger.unannounced = false;
            // It waits for its upstream from here on.
            ledger.admitted_at = Some(now);
            // Its address may have too many clients: then it goes at once, which
            // cannot be seen before the end of the turn.
            self.loose |= self.limits.max_clients_per_address.is_some();
        }
        self.hold(number, held as usize);
    }

    /// The upstream of a client is there: until now it could move nothing, so its
    /// silence begins anew.
    pub(crate) fn may_move(&mut self, client: usize) {
        self.ledgers[client].looked_anew = Some(self.now);
    }

    /// The upstream of a client is there, and gets what is held for it.
    pub(crate) fn join(&mut self, client: usize, upstream: usize) {
        let ledger = &self.ledgers[client];
        let rest = ledger.read.saturating_sub(ledger.header_bytes) as usize;
        if rest > 0 {
            self.hold(client, 0);
            self.ask(upstream, rest);
        }
    }

    /// The FIN of a client was read.
    pub(crate) fn read_end(&mut self, number: usize, to: Option<usize>) {
        self.settle();
        let closing = self.ledgers[number].closing;
        self.ledgers[number].end_read = true;
        if self.ledgers[number].unannounced && !closing {
            match self.ledgers[number].read {
                // A health check connects and says nothing.
                0 => self.end(number),
                _ => self.ledgers[number].must_go = Some("its header ended early"),
            }
        }
        self.ledgers[number].coming = None;
        match self.kind {
            Kind::Echo | Kind::Tunnel if !closing => {
                if let Some(to) = to {
                    self.end(to);
                }
            }
            Kind::FramedEcho => self.end(number),
            _ => {}
        }
        self.note_both_ended(number);
    }

    /// Bytes are to be sent; how many of them wait is known later. Answers
    /// whether they may be sent.
    pub(crate) fn ask(&mut self, number: usize, count: usize) -> bool {
        self.settle();
        self.loose |= self.may_be_silent(number);
        let ledger = &mut self.ledgers[number];
        if !ledger.accepts() {
            return false;
        }
        ledger.asked += count as u64;
        if ledger.queue > 0 {
            // With a queue no direct write is tried.
            self.judge_ask(number);
        } else {
            self.unsettled = Some(number);
        }
        true
    }

    /// Whether it may have been silent for so long that it is marked as closed.
    fn may_be_silent(&self, number: usize) -> bool {
        let (ledger, now) = (&self.ledgers[number], self.now);
        let is_half = ledger.end_read != ledger.ended;
        let limits = [
            self.limits.idle_timeout,
            Some(self.limits.half_closed_timeout).filter(|_| is_half),
        ];
        limits
            .into_iter()
            .flatten()
            .any(|time| ledger.was_silent_for(time, now))
    }

    /// The right answer to a write, after [`settle`](Self::settle).
    pub(crate) fn answer(&self, number: usize) -> Answer {
        let ledger = &self.ledgers[number];
        if ledger.is_alive() && ledger.queue >= self.limits.high_water_mark_bytes {
            Answer::Pause
        } else {
            Answer::Continue
        }
    }

    /// The socket took bytes.
    pub(crate) fn take(&mut self, number: usize, count: usize) {
        let ledger = &mut self.ledgers[number];
        ledger.taken += count as u64;
        ledger.moved_at = Some(self.now);
        if self.inside_framed == Some(number) || self.kind == Kind::Meddler {
            return;
        }
        if ledger.taken > ledger.asked {
            let (taken, asked) = (ledger.taken, ledger.asked);
            self.accuse(|| format!("link {number}: {taken} bytes written, only {asked} were to be"));
            return;
        }
        if self.unsettled == Some(number) && ledger.queue == 0 {
            return;
        }
        self.settle();
        self.judge_flush(number);
    }

    /// What a wrapped service asked for is known only from the queue after the
    /// call.
    pub(crate) fn settle_framed(&mut self, number: usize, queued: usize) {
        self.inside_framed = None;
        let ledger = &mut self.ledgers[number];
        if !ledger.is_alive() {
            return;
        }
        if ledger.frames.too_long {
            return self.depart(number, Departure::Rejected);
        }
        let asked = ledger.taken + queued as u64;
        let (before, whole) = (ledger.asked, ledger.frames.whole_bytes);
        if queued == 0 && ledger.queue > 0 && asked < before {
            ledger.must_go = Some("its queue was given up");
            return;
        }
        ledger.asked = asked;
        if asked < before || asked > whole {
            self.accuse(|| {
                format!(
                    "link {number}: {asked} bytes on their way after {before}, of {whole} in whole frames"
                )
            });
        }
        if asked > before {
            self.judge_ask(number);
        }
        let (now, kind) = (self.now, self.kind);
        let ledger = &mut self.ledgers[number];
        let has_sent_whole = asked > before && asked == ledger.frames.whole_bytes;
        ledger.held_since = match ledger.certainly_held(kind) {
            0 => None,
            _ if has_sent_whole => Some(now),
            _ => ledger.held_since.or(Some(now)),
        };
        ledger.turn_least_held = ledger.turn_least_held.min(ledger.certainly_held(kind));
        ledger.pauses(now);
        let left_over = ledger.frames.whole_bytes - ledger.asked.min(ledger.frames.whole_bytes);
        if left_over > 0 && !ledger.paused {
            ledger.must_go = Some("whole frames of it are forgotten");
        }
    }

    /// Judges the last bytes to send, now that the direct write is known.
    pub(crate) fn settle(&mut self) {
        if let Some(number) = self.unsettled.take() {
            self.judge_ask(number);
        }
    }

    fn set_queue(&mut self, number: usize) {
        let ledger = &mut self.ledgers[number];
        let queue = (ledger.asked - ledger.taken.min(ledger.asked)) as usize;
        self.sum = self.sum - ledger.queue + queue;
        ledger.queue = queue;
        let (shortest, longest) = ledger.turn_range;
        ledger.turn_range = (shortest.min(queue), longest.max(queue));
    }

    fn judge_ask(&mut self, number: usize) {
        if !self.ledgers[number].is_alive() {
            return;
        }
        let before = self.ledgers[number].queue;
        self.set_queue(number);
        let now = self.now;
        let queue = self.ledgers[number].queue;
        if queue == before && queue == 0 {
            return;
        }
        if queue > self.limits.hard_limit_bytes() {
            return self.depart(number, Departure::Slow(SlowReason::HardLimit));
        }
        let ledger = &mut self.ledgers[number];
        if queue >= self.limits.high_water_mark_bytes {
            self.seen.pauses += u64::from(!ledger.paused);
            ledger.paused = true;
        }
        ledger.waiting_since.get_or_insert(now);
        if queue >= self.limits.limit_bytes() {
            ledger.over_since.get_or_insert(now);
        }
        self.check_bound(number);
        self.keep_budget();
    }

    /// A queue whose source can be paused exceeds its mark by at most one
    /// smallest read.
    fn check_bound(&mut self, number: usize) {
        let queue = self.ledgers[number].queue;
        let bound = match self.kind {
            Kind::Herald => self.limits.hard_limit_bytes() + 1,
            _ => {
                let unpaused_bytes = self.ledgers[number].unpaused_bytes;
                self.limits.high_water_mark_bytes.max(unpaused_bytes) + SMALLEST_READ_BYTES
            }
        };
        // The queue of a client that must be closed is not filled any more.
        let may_be_out = self.loose && self.over_budget_seen;
        if queue >= bound && !may_be_out {
            self.accuse(|| format!("link {number}: a queue of {queue} bytes, bound {bound}"));
        }
    }

    fn keep_budget(&mut self) {
        while self.sum > self.budget_bytes {
            self.over_budget_seen = true;
            if self.loose || self.kind == Kind::FramedEcho {
                // The held bytes are not known, so another client may have gone.
                return;
            }
            let longest = self
                .alive
                .iter()
                .copied()
                .filter(|&number| self.ledgers[number].is_alive());
            let longest = longest.max_by_key(|&number| {
                let ledger = &self.ledgers[number];
                let queued = byte_time(ledger.queue, ledger.waiting_since, self.now);
                let held = byte_time(ledger.held, ledger.held_since, self.now);
                (queued + held, ledger.queue + ledger.held, ledger.place)
            });
            let Some(longest) = longest else { return };
            self.depart(longest, Departure::Slow(SlowReason::MemoryBudget));
        }
    }

    fn judge_flush(&mut self, number: usize) {
        self.set_queue(number);
        let limit = self.limits.limit_bytes();
        let ledger = &self.ledgers[number];
        if self.limits.shadow && ledger.shadowed.is_none() && self.broken_rule(ledger).is_some() {
            // Two timers may be due in one turn, and what is left of the queue at the
            // first goes out at the second.
            self.perhaps_shadowed += 1;
        }
        let ledger = &mut self.ledgers[number];
        if ledger.queue == 0 {
            if ledger.paused && !ledger.ended {
                ledger.drains_owed += 1;
                self.seen.drains += 1;
            }
            ledger.paused = false;
            ledger.pauses(self.now);
            ledger.over_since = None;
            ledger.waiting_since = None;
            ledger.unpaused_bytes = 0;
            ledger.shadowed = None;
            self.note_both_ended(number);
        } else if ledger.queue < limit && !ledger.paused {
            let was_over = ledger.over_since.take().is_some();
            if was_over && ledger.shadowed == Some(SlowReason::WriteTimeout) {
                // Who has not drained in time has not recovered.
                self.ledgers[number].shadowed = self.broken_rule(&self.ledgers[number]);
            }
        }
    }

    /// A service holds bytes for a client.
    pub(crate) fn hold(&mut self, number: usize, held: usize) {
        self.settle();
        if !self.ledgers[number].is_alive() {
            return;
        }
        let ledger = &mut self.ledgers[number];
        ledger.turn_held = ledger.turn_held.max(held);
        let before = std::mem::replace(&mut ledger.held, held);
        ledger.turn_least_held = ledger.turn_least_held.min(held);
        ledger.held_since = match (before, held) {
            (_, 0) => None,
            (0, _) => Some(self.now),
            _ => ledger.held_since,
        };
        self.sum = self.sum - before + held;
        self.keep_budget();
    }

    /// Nothing further will be sent to a client.
    pub(crate) fn end(&mut self, number: usize) {
        self.settle();
        self.ledgers[number].ended = true;
        self.note_both_ended(number);
    }

    /// Like [`end`](Self::end), before a client has got back all that it sent.
    pub(crate) fn end_early(&mut self, number: usize) {
        self.settle();
        self.ledgers[number].cut_short |= !self.ledgers[number].ended;
        self.end(number);
    }

    /// A client must be closed once everything sent has arrived.
    pub(crate) fn close(&mut self, number: usize) {
        self.settle();
        if self.ledgers[number].connecting_since.is_some() {
            self.depart(number, Departure::Abandoned);
        }
        let ledger = &mut self.ledgers[number];
        ledger.ended = true;
        ledger.closing = true;
        self.note_both_ended(number);
    }

    fn note_both_ended(&mut self, number: usize) {
        let now = self.now;
        let ledger = &mut self.ledgers[number];
        if ledger.is_alive() && ledger.ended && ledger.queue == 0 && (ledger.end_read || ledger.closing) {
            ledger.both_ended_since.get_or_insert(now);
            self.loose |= ledger.held > 0;
        }
    }

    /// The server drains its clients from now on.
    pub(crate) fn stop(&mut self) {
        self.settle();
        self.stopping_since = Some(self.now);
    }

    /// Whether the time of a stop is over.
    pub(crate) fn has_stopped(&self) -> bool {
        let since = self.stopping_since;
        since.is_some_and(|since| self.now - since >= self.limits.stop_timeout)
    }

    /// The engine may end a client by itself once the server stops and the
    /// client has been answered and silent for long enough.
    pub(crate) fn end_silent(&mut self, number: usize) {
        self.settle();
        let (now, turn) = (self.now, self.turn);
        // Pairs end by themselves, and what the meddler asks for is not entered.
        let is_pair = self.kind == Kind::Tunnel && !self.ledgers[number].unannounced;
        let is_other = is_pair || self.kind == Kind::Meddler;
        let ledger = &mut self.ledgers[number];
        let long_since = |since: Option<Instant>| since.is_some_and(|since| now - since >= STOP_SILENCE);
        let patience = if self.hands_over {
            self.limits.stop_timeout.saturating_sub(FAREWELL)
        } else {
            Duration::ZERO
        };
        let is_late = self.stopping_since.is_some_and(|since| now - since >= patience);
        let is_silent = is_late && long_since(ledger.moved_at.or(ledger.admitted_at));
        if is_silent && ledger.is_alive() && ledger.queue == 0 && !ledger.closing && !is_other {
            ledger.stopped = true;
            ledger.stopped_turn = turn;
            self.close(number);
        }
    }

    /// A client must be closed.
    pub(crate) fn depart(&mut self, number: usize, departure: Departure) {
        let Some(ledger) = self.ledgers.get_mut(number) else {
            return self.accuse(|| format!("link {number}: {departure:?}, and it never was a client"));
        };
        if !ledger.is_alive() {
            return;
        }
        self.sum -= ledger.queue + ledger.held;
        (ledger.queue, ledger.held, ledger.paused) = (0, 0, false);
        (ledger.held_since, ledger.coming) = (None, None);
        ledger.departure = Some(departure);
    }

    /// The kernel failed an operation on a client's socket.
    pub(crate) fn fail(&mut self, number: usize) {
        if self.unsettled == Some(number) {
            // The direct write failed, so no bytes wait.
            self.unsettled = None;
        }
        self.settle();
        self.depart(number, Departure::Failed);
    }

    pub(crate) fn drained(&mut self, number: usize) {
        self.settle();
        if self.kind == Kind::Meddler {
            return;
        }
        let ledger = &mut self.ledgers[number];
        ledger.drains_said += 1;
        if ledger.drains_said > ledger.drains_owed {
            let (said, owed) = (ledger.drains_said, ledger.drains_owed);
            self.accuse(|| format!("link {number}: drain said {said} times, owed {owed} times"));
        }
    }

    /// The service hears that a client is closed.
    pub(crate) fn closed(&mut self, number: usize, reason: &CloseReason, found: Found) {
        let Found {
            settled: was_settled,
            quiet: was_quiet,
            tried: was_tried,
            may_reset,
            partner_was_slow,
            partner_interrupted,
            is_address_full,
        } = found;
        self.settle();
        if self.watched && self.limits.slowest_reader_bytes_per_s.is_some() {
            // The last look was for the operator, and judged nobody.
            let ledger = &mut self.ledgers[number];
            (ledger.largest_window, ledger.withdrawn) = ledger.before_look;
        }
        let now = self.now;
        let limits = &self.limits;
        let own_limits = self.limits_of(&self.ledgers[number]);
        let ledger = &self.ledgers[number];
        let over = |since: Option<Instant>, time| since.is_some_and(|since| now - since >= time);
        let by_service = ledger.is_dismissed();
        // A stop that closes it in the same turn is entered before.
        let ends_open = !ledger.closing || ledger.stopped_turn == self.turn;
        let departure = match reason {
            CloseReason::Reset | CloseReason::Rejected(_) => ledger.departure.clone(),
            // Its time may have been over before it reached a limit.
            CloseReason::Slow(SlowReason::WriteTimeout | SlowReason::DrainTimeout)
            | CloseReason::ConnectTimedOut(_)
            | CloseReason::NotAcknowledged
                if self.loose =>
            {
                ledger
                    .departure
                    .clone()
                    .filter(|departure| *departure == Departure::Closed)
            }
            _ => ledger.departure.clone().filter(|_| !by_service),
        };
        let owed = match (reason, &departure) {
            (_, Some(Departure::Closed)) => false,
            (CloseReason::Slow(SlowReason::WriteTimeout | SlowReason::DrainTimeout), _) if limits.shadow => {
                false
            }
            _ if self.kind == Kind::Meddler => true,
            // It was marked in the sweep of the turn before.
            (CloseReason::Slow(SlowReason::MemoryBudget), _)
                if ledger.connecting_since.is_some() && ledger.admitted_turn + 1 == self.turn =>
            {
                true
            }
            (CloseReason::Slow(SlowReason::MemoryBudget), None) if self.kind == Kind::FramedEcho => {
                self.over_budget_possible() && self.may_have_been_longest(number)
            }
            (CloseReason::Slow(SlowReason::MemoryBudget), _) if self.loose => {
                self.over_budget_seen && self.may_have_been_longest(number)
            }
            (CloseReason::Stopped, _) if over(self.stopping_since, limits.stop_timeout) => true,
            (CloseReason::Finished, Some(Departure::Abandoned)) => true,
            (CloseReason::Failed(..), departure) => *departure == Some(Departure::Failed),
            (CloseReason::Rejected(_), None) if ledger.unannounced => {
                let is_cut = ledger.end_read && ledger.read > 0;
                is_cut || over(ledger.admitted_at, PROXY_HEADER_TIMEOUT)
            }
            (CloseReason::AddressFull, None) => !ledger.unannounced && is_address_full,
            (CloseReason::Rejected(_), departure) => *departure == Some(Departure::Rejected),
            (CloseReason::Reset, departure) if self.kind != Kind::Tunnel => {
                *departure == Some(Departure::Reset)
            }
            (CloseReason::Reset, departure) => departure.is_none() && may_reset,
            (CloseReason::Slow(reason), Some(departure)) => *departure == Departure::Slow(*reason),
            // Its queue was within an old mark and is beyond a lowered hard limit.
            (CloseReason::Slow(SlowReason::HardLimit), None) if self.kind == Kind::FramedEcho => {
                ledger.unpaused_bytes + SMALLEST_READ_BYTES > limits.hard_limit_bytes()
            }
            // What its service wrote to it after it was marked counts for nothing.
            (CloseReason::Idle(_), None | Some(Departure::Slow(_))) => limits
                .idle_timeout
                .is_some_and(|time| ledger.was_silent_for(time, now)),
            (CloseReason::HalfClosed(_), None | Some(Departure::Slow(_))) => {
                let is_half = ledger.end_read != ledger.ended || partner_interrupted;
                is_half && ledger.was_silent_for(limits.half_closed_timeout, now)
            }
            (_, Some(_)) => false,
            // Not without one last flush, and not both ends of a pair.
            (CloseReason::Slow(SlowReason::WriteTimeout | SlowReason::DrainTimeout), None)
                if !was_tried || partner_was_slow && self.kind == Kind::Tunnel =>
            {
                false
            }
            (CloseReason::Slow(SlowReason::WriteTimeout), None) => {
                over(ledger.over_since, raised(own_limits, own_limits.grace, ledger))
            }
            (CloseReason::Slow(SlowReason::DrainTimeout), None) => over(
                ledger.waiting_since,
                raised(own_limits, own_limits.drain_timeout(), ledger),
            ),
            (CloseReason::Finished, None) => {
                ledger.ended
                    && ledger.queue == 0
                    && (ledger.end_read || ledger.closing)
                    && was_settled
                    && !(ledger.stopped && ledger.thrown > 0)
            }
            (CloseReason::NotAcknowledged, None) => {
                over(ledger.both_ended_since, raised(limits, limits.grace, ledger)) && !was_quiet
            }
            (CloseReason::Stopped, None) => ledger.stopped,
            (CloseReason::FrameTimeout(_), None) => ledger
                .coming
                .is_some_and(|coming| coming.age(now) >= self.frame_timeout && ends_open),
            (CloseReason::ConnectTimedOut(_), None) => over(ledger.connecting_since, limits.connect_timeout),
            // The model knows all disconnects by hard limit and budget; and a
            // new reason has to be added to the model.
            (_, None) => false,
        };
        let fits = match reason {
            CloseReason::Slow(_) | CloseReason::Failed(..) | CloseReason::Rejected(_) => true,
            _ => ledger.must_go.is_none(),
        };
        if !owed || !fits {
            let page = format!("{ledger:?}");
            self.accuse(|| {
                format!(
                    "link {number}: closed as '{reason}', which was not owed (settled {was_settled}); {page}"
                )
            });
        }
        self.count(reason);
        let ledger = &self.ledgers[number];
        if ledger.shadowed.is_none() && self.broken_rule(ledger).is_some() {
            // Whether it was kept before it was closed cannot be seen from outside.
            self.perhaps_shadowed += u64::from(self.limits.shadow);
        }
        self.gone.push(Gone {
            reason: reason.word(),
            read: ledger.read,
            taken: ledger.taken,
        });
        self.depart(number, Departure::Closed);
        self.ledgers[number].departure = Some(Departure::Closed);
        self.alive.retain(|&there| there != number);
    }

    /// The most bytes that a framed service holds for one client: a frame, and
    /// the rest of a read, in a buffer that grows by doubling.
    const fn most_held(&self) -> usize {
        4 * (self.max_frame_bytes + 4 + 2 * SMALLEST_READ_BYTES + self.limits.high_water_mark_bytes)
    }

    /// Whether all queues and all held bytes may have been over the budget in
    /// this turn.
    fn over_budget_possible(&self) -> bool {
        let with_bytes = self.ledgers.iter().filter(|ledger| ledger.read > 0);
        let most = |ledger: &Ledger| ledger.turn_range.1 + self.most_held();
        with_bytes.map(most).sum::<usize>() > self.budget_bytes
    }

    /// Whether no other client certainly had more bytes than this one during the
    /// whole turn.
    fn may_have_been_longest(&self, number: usize) -> bool {
        let (ledger, now) = (&self.ledgers[number], self.now);
        let held = match self.kind {
            Kind::FramedEcho => self.most_held(),
            _ => ledger.turn_held,
        };
        let queued_since = ledger.turn_waiting_since.or(ledger.waiting_since);
        let held_since = ledger.turn_held_since.or(ledger.held_since);
        let most = byte_time(ledger.turn_range.1, queued_since, now) + byte_time(held, held_since, now);
        let least = |other: &Ledger| {
            byte_time(other.turn_range.0, other.waiting_since, now)
                + byte_time(other.turn_least_held, other.held_since, now)
        };
        let others = self.alive.iter().filter(|&&other| other != number);
        others
            .map(|&other| &self.ledgers[other])
            .filter(|other| other.is_alive())
            .all(|other| least(other) <= most)
    }

    const fn count(&mut self, reason: &CloseReason) {
        let seen = &mut self.seen;
        let counter = match reason {
            CloseReason::Finished => &mut seen.finished,
            CloseReason::Slow(reason) => &mut seen.slow[*reason as usize],
            CloseReason::Failed(..) => &mut seen.failed,
            CloseReason::Rejected(_) => &mut seen.rejected,
            CloseReason::AddressFull => &mut seen.address_refused,
            CloseReason::Reset => &mut seen.reset,
            CloseReason::NotAcknowledged => &mut seen.not_acknowledged,
            CloseReason::Stopped => &mut seen.stopped,
            CloseReason::ConnectTimedOut(_) => &mut seen.connect_timed_out,
            CloseReason::Idle(_) => &mut seen.idle,
            CloseReason::HalfClosed(_) => &mut seen.half_closed,
            CloseReason::FrameTimeout(_) => &mut seen.late_frames,
            // A reason unknown to the model is a fault already.
            _ => return,
        };
        *counter += 1;
    }

    /// Everything that must hold after a turn.
    pub(crate) fn check_turn(&mut self, next: Next, queued_bytes: usize, clients: usize) {
        self.settle();
        if clients != self.alive.len() {
            let alive = self.alive.len();
            self.accuse(|| format!("{clients} clients in the table, {alive} should be"));
        }
        let mut overdue = 0;
        self.leftover = false;
        for at in 0..self.alive.len() {
            overdue += usize::from(self.check_client(self.alive[at]));
        }
        if overdue > 0 && self.due < EXPIRIES_IN_ONE_TURN && !self.is_crowded {
            let now = self.now;
            let who: Vec<_> = self
                .alive
                .iter()
                .filter(|&&number| self.is_overdue(number))
                .collect();
            let pages: Vec<_> = who.iter().map(|&&number| &self.ledgers[number]).collect();
            let fault =
                format!("links {who:?}: their time is over and they are still there; now {now:?}; {pages:?}");
            self.accuse(|| fault);
        }
        let overdue_ack_checks = self.overdue_ack_checks();
        if overdue_ack_checks > 0 && self.ack_checks_due < EXPIRIES_IN_ONE_TURN && self.kind != Kind::Meddler
        {
            self.accuse(|| {
                format!("{overdue_ack_checks} clients are over the limit, and nobody checks their ACKs")
            });
        }
        self.enter_shadowed();
        self.check_frames();
        self.carried = self.carried_bytes();
        self.check_sum(queued_bytes);
        self.check_next(next);
        if self.leftover && next != Next::WaitFor(Duration::ZERO) {
            self.accuse(|| format!("{next:?}, though somebody is still to be closed"));
        }
        let by = self.stopping_since.map(|since| since + self.limits.stop_timeout);
        if by.is_some_and(|by| by <= self.now) && next != Next::Stopped {
            self.accuse(|| format!("{next:?}, though the time to stop is over"));
        }
    }

    /// No unfinished frame that comes too slowly is left. They are looked at sixteen
    /// times within their time, and a look may be missed by one turn.
    fn check_frames(&mut self) {
        if self.kind != Kind::FramedEcho || self.stopping_since.is_some() {
            return;
        }
        let looks = (self.frame_timeout / 16).max(Duration::from_millis(1));
        let most = self.frame_timeout + 2 * looks;
        let now = self.now;
        let late = self.alive.iter().copied().find(|&number| {
            let ledger = &self.ledgers[number];
            let is_watched = ledger.is_alive() && !ledger.closing && !ledger.paused;
            let coming = ledger.coming.filter(|_| is_watched);
            coming.is_some_and(|coming| coming.age(now) >= most)
        });
        if let Some(number) = late {
            let page = format!("{:?}", self.ledgers[number]);
            self.accuse(|| format!("link {number}: its frame is late, and it is still there; {page}"));
        }
    }

    fn carried_bytes(&self) -> usize {
        if !self.loose || !self.over_budget_seen {
            return 0;
        }
        let alive = self.alive.iter().map(|&number| &self.ledgers[number]);
        alive
            .filter(|ledger| ledger.connecting_since.is_some() && ledger.admitted_turn == self.turn)
            .map(|ledger| ledger.queue + ledger.held)
            .sum()
    }

    fn check_sum(&mut self, queued_bytes: usize) {
        let sum = self.sum;
        let held = |ledger: &Ledger| (ledger.read - ledger.thrown).saturating_sub(ledger.asked) as usize;
        let (least, most) = match self.kind {
            Kind::FramedEcho => {
                let alive = self.alive.iter().map(|&number| &self.ledgers[number]);
                let least: usize = alive
                    .clone()
                    .filter(|ledger| !ledger.end_read && !ledger.closing)
                    .map(held)
                    .sum();
                let most = alive.filter(|ledger| ledger.read > 0).count() * self.most_held();
                (sum + least, sum + most)
            }
            Kind::Meddler => (0, usize::MAX),
            _ => (sum - self.carried, sum),
        };
        if queued_bytes < least || queued_bytes > most {
            self.accuse(|| {
                format!("the budget counts {queued_bytes} bytes, the queues have {least} to {most}")
            });
        }
        let budget = self.budget_bytes;
        if queued_bytes > budget {
            self.accuse(|| format!("{queued_bytes} bytes are queued, budget {budget}"));
        }
    }

    fn is_overdue(&self, number: usize) -> bool {
        let ledger = &self.ledgers[number];
        let gone_by =
            |since: Option<Instant>, time: Duration| since.is_some_and(|since| since + time <= self.now);
        let is_kept = self.limits.shadow;
        !is_kept && self.broken_rule(ledger).is_some()
            || gone_by(
                ledger.both_ended_since,
                raised(&self.limits, self.limits.grace, ledger) + LINGER_SLACK,
            )
            || gone_by(ledger.connecting_since, self.limits.connect_timeout)
    }

    /// The first rule that a client breaks, whatever shadow mode makes of it.
    fn broken_rule(&self, ledger: &Ledger) -> Option<SlowReason> {
        let limits = self.limits_of(ledger);
        let gone_by = |since: Option<Instant>, time: Duration| {
            since.is_some_and(|since| since + raised(limits, time, ledger) <= self.now)
        };
        if gone_by(ledger.over_since, limits.grace) {
            return Some(SlowReason::WriteTimeout);
        }
        gone_by(ledger.waiting_since, limits.drain_timeout()).then_some(SlowReason::DrainTimeout)
    }

    /// Enters that a client which is kept has not drained in time either: it
    /// recovers once it has drained.
    fn enter_undrained(&mut self, number: usize) {
        let limits = self.limits_of(&self.ledgers[number]);
        let is_over = |ledger: &Ledger| {
            let time = raised(limits, limits.drain_timeout(), ledger);
            ledger.waiting_since.is_some_and(|since| since + time <= self.now)
        };
        let ledger = &self.ledgers[number];
        let was_known = Ledger {
            largest_window: ledger.turn_window.0,
            withdrawn: ledger.turn_window.1,
            waiting_since: ledger.waiting_since,
            ..Ledger::default()
        };
        let (is_over, was_over) = (is_over(ledger), is_over(&was_known));
        if is_over || was_over {
            // The judge may have known a larger window than at the start of the turn.
            self.perhaps_shadowed += u64::from(!is_over);
            self.ledgers[number].shadowed = Some(SlowReason::DrainTimeout);
        }
    }

    /// Whether a rule was broken by what the turn began with.
    fn was_broken(&mut self, number: usize) -> bool {
        let ledger = &mut self.ledgers[number];
        let known = (ledger.largest_window, ledger.withdrawn);
        (ledger.largest_window, ledger.withdrawn) = ledger.turn_window;
        let was_broken = self.broken_rule(&self.ledgers[number]).is_some();
        let ledger = &mut self.ledgers[number];
        (ledger.largest_window, ledger.withdrawn) = known;
        was_broken
    }

    /// Enters who is kept by shadow mode, once until it has recovered.
    fn enter_shadowed(&mut self) {
        if !self.limits.shadow {
            return;
        }
        for at in 0..self.alive.len() {
            let number = self.alive[at];
            let ledger = &self.ledgers[number];
            if !ledger.is_alive() || ledger.shadowed == Some(SlowReason::DrainTimeout) {
                continue;
            }
            if ledger.shadowed.is_some() {
                self.enter_undrained(number);
                continue;
            }
            let rule = self.broken_rule(ledger);
            if rule.is_none() && self.was_broken(number) {
                // A look behind that of the judge showed a larger window.
                self.perhaps_shadowed += 1;
            }
            self.shadowed += u64::from(rule.is_some());
            self.ledgers[number].shadowed = rule;
        }
    }

    /// By how much the two last looks at a silent client may be late because others
    /// are due before it: one turn takes so many looks.
    fn time_of_looks(&self) -> Duration {
        let most = self.turns_at.iter().map(|&(_, clients)| clients).max();
        let turns = 2 * (most.unwrap_or(0) / EXPIRIES_PER_TURN);
        let since = self.turns_at.get(turns).or(self.turns_at.back());
        since.map_or(Duration::ZERO, |&(since, _)| {
            self.now.saturating_duration_since(since)
        })
    }

    /// A client for which nothing waits and nothing moves is gone in time, whole or
    /// half-closed.
    fn check_silence(&mut self, number: usize, partner_queue: usize) {
        let (now, slack) = (self.now, SILENCE_SLACK + self.time_of_looks());
        let ledger = &mut self.ledgers[number];
        let is_half = ledger.end_read != ledger.ended && !ledger.closing;
        ledger.half_closed_since = ledger.half_closed_since.or(Some(now)).filter(|_| is_half);
        let is_open = !ledger.closing && ledger.both_ended_since.is_none() && ledger.is_alive();
        if ledger.queue > 0 || partner_queue > 0 {
            ledger.waited_at = Some(now);
        }
        if ledger.is_upstream || !is_open || ledger.waited_at == Some(now) {
            return;
        }
        let moved_at = ledger.moved_at.or(ledger.admitted_at).max(ledger.waited_at);
        let Some(moved_at) = moved_at.max(ledger.looked_anew) else {
            return;
        };
        let half_since = ledger.half_closed_since.map(|since| since.max(moved_at));
        let half_limit = half_since.map(|since| (since, self.limits.half_closed_timeout));
        let idle_limit = self.limits.idle_timeout.map(|limit| (moved_at, limit));
        let late =
            |&(since, limit): &(Instant, Duration)| since + limit + limit * 2 / SILENCE_LOOKS + slack <= now;
        if let Some((since, limit)) = [half_limit, idle_limit].into_iter().flatten().find(late) {
            let fault = format!(
                "link {number}: silent for {:?}, longest {limit:?}, {slack:?} late at most",
                now - since
            );
            self.accuse(|| fault);
        }
    }

    /// Answers whether the client's time is over.
    fn check_client(&mut self, number: usize) -> bool {
        if self.kind == Kind::Meddler {
            // The books do not know what this service asks for.
            return false;
        }
        let ledger = &self.ledgers[number];
        if let Some(departure) = &ledger.departure {
            if ledger.connecting_since.is_some() && ledger.admitted_turn == self.turn {
                // It was begun during a sweep, and is closed in the next turn.
                self.leftover = true;
                return false;
            }
            let fault = format!("link {number}: is still there after {departure:?}; {ledger:?}");
            self.accuse(|| fault);
            return false;
        }
        if let Some(why) = ledger.must_go {
            self.accuse(|| format!("link {number}: is still there, though {why}"));
            return false;
        }
        if ledger.drains_said != ledger.drains_owed {
            let (said, owed) = (ledger.drains_said, ledger.drains_owed);
            self.accuse(|| format!("link {number}: drain said {said} times, owed {owed} times"));
        }
        self.is_overdue(number)
    }

    /// The loop may not wait past the first timer, nor so long that a stopped
    /// process could not be told from the wait.
    fn check_next(&mut self, next: Next) {
        let clocks = self
            .alive
            .iter()
            .filter_map(|&number| self.earliest(number))
            .min();
        let Some(due) = clocks else { return };
        let most = due.saturating_duration_since(self.now).min(LONGEST_WAIT);
        let ends = self
            .alive
            .iter()
            .any(|&number| self.ledgers[number].both_ended_since.is_some());
        let most = if ends { LONGEST_WAIT } else { most };
        match next {
            Next::WaitFor(wait) if wait <= most => {}
            Next::Stopped => {}
            _ => self.accuse(|| format!("{next:?}, though a deadline is at most {most:?} away")),
        }
    }

    /// While a service is called, every queue is as in the books, and all of them
    /// are within the budget.
    pub(crate) fn check_queues(&mut self, queues: &[(usize, usize)]) {
        let budget = self.budget_bytes;
        let sum: usize = queues.iter().map(|&(_, queued)| queued).sum();
        if sum > budget {
            self.accuse(|| format!("{sum} bytes are queued while a service is called, budget {budget}"));
        }
        let exact = matches!(self.kind, Kind::Echo | Kind::Herald) && !self.loose;
        let other = queues
            .iter()
            .find(|&&(number, queued)| exact && self.ledgers[number].queue != queued);
        if let Some(&(number, queued)) = other {
            let queue = self.ledgers[number].queue;
            self.accuse(|| format!("link {number}: {queued} bytes are queued, {queue} should be"));
        }
    }

    /// Whether the order of events in this turn is unknown from outside.
    pub(crate) const fn is_loose(&self) -> bool {
        self.loose
    }

    /// Checks that no client is silent for too long; `partner` answers the other end
    /// of a pair.
    pub(crate) fn check_silences(&mut self, partner: impl Fn(usize) -> Option<usize>) {
        if self.kind == Kind::Meddler {
            return;
        }
        for at in 0..self.alive.len() {
            let number = self.alive[at];
            let queue = partner(number).map_or(0, |partner| self.ledgers[partner].queue);
            self.check_silence(number, queue);
        }
    }

    /// Clients that are connected and need not be closed.
    pub(crate) fn alive(&self) -> &[usize] {
        &self.alive
    }

    /// Whether a client may be read now, because its destination does not wait
    /// for drain.
    pub(crate) fn may_be_read(&self, number: usize, to: Option<usize>) -> bool {
        let ledger = &self.ledgers[number];
        if !ledger.is_alive() || ledger.end_read || ledger.connecting_since.is_some() {
            return false;
        }
        if ledger.closing || ledger.unannounced {
            return true;
        }
        match self.kind {
            Kind::Echo | Kind::FramedEcho => !ledger.paused,
            Kind::Herald => true,
            // The books do not know what this service pauses or pipes.
            Kind::Meddler => false,
            Kind::Tunnel => {
                to.is_some_and(|to| !self.ledgers[to].paused && self.ledgers[to].connecting_since.is_none())
            }
        }
    }
}
