//! One client's way to an upstream: which address to connect to, and when.
//!
//! Owns the race between several addresses (RFC 8305), the pauses between
//! retries, and the time that the client waits in all. Refuses to connect and
//! to read the clock: the tunnel does what [`Attempt::step`] says.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::addresses::Addresses;
use crate::ClientId;
use crate::limits::{
    CONNECT_RETRY_FIRST, CONNECT_RETRY_LONGEST, CONNECT_SILENCE, HEAD_START, MAX_ADDRESSES,
    MAX_RACING_CONNECTS, RESOLVE_SPACING,
};

/// What to do next for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Connect to this address, then tell [`Attempt::begun`] or
    /// [`Attempt::failed_to_begin`], and ask again.
    Connect(SocketAddr),
    /// Give up this connection, which has been silent for longest, and ask
    /// again.
    Abandon(ClientId),
    /// Look the name up again, and ask again.
    LookUp,
    /// Nothing until then, unless a connection is made or fails.
    Wait(Instant),
    /// The client has waited long enough, or nothing is left to wait for.
    GiveUp,
}

#[derive(Debug)]
pub(super) struct Attempt {
    since: Instant,
    deadline: Instant,
    /// When [`Step::Wait`] ends.
    pub(super) wakes_at: Instant,
    /// Addresses of this round that have not been tried.
    untried: VecDeque<SocketAddr>,
    under_way: Vec<Connect>,
    /// The next address may be tried at this time, though others are under way.
    next_start: Instant,
    /// When all addresses are tried again.
    next_round: Option<Instant>,
    pause: Duration,
    looked_up: Option<Instant>,
    failures: Vec<Failure>,
    is_hopeless: bool,
}

/// A connection that is being made.
#[derive(Clone, Copy, Debug)]
struct Connect {
    upstream: ClientId,
    address: SocketAddr,
    since: Instant,
}

#[derive(Debug)]
struct Failure {
    address: SocketAddr,
    why: String,
    times: u32,
}

impl Attempt {
    /// The client waits since `now`, for at most `timeout`.
    pub(super) fn new(addresses: &Addresses, now: Instant, timeout: Duration) -> Self {
        Self {
            since: now,
            deadline: now + timeout,
            wakes_at: now,
            untried: addresses.in_order().collect(),
            under_way: Vec::new(),
            next_start: now,
            next_round: None,
            pause: CONNECT_RETRY_FIRST,
            looked_up: None,
            failures: Vec::new(),
            is_hopeless: false,
        }
    }

    /// What to do at `now`. Ask again after each answer but `Wait` and
    /// `GiveUp`, and whenever something has changed.
    pub(super) fn step(&mut self, addresses: &Addresses, now: Instant) -> Step {
        if now >= self.deadline || self.is_hopeless || addresses.all_own().is_some() {
            return Step::GiveUp;
        }
        if self.next_round.is_some_and(|at| now >= at) {
            self.next_round = None;
            let waits = |address: &SocketAddr| !self.is_under_way(*address);
            self.untried = addresses.in_order().filter(waits).collect();
        }
        if !self.untried.is_empty() && (self.under_way.is_empty() || now >= self.next_start) {
            if self.under_way.len() >= MAX_RACING_CONNECTS {
                return Step::Abandon(self.abandon_first(now));
            }
            if let Some(address) = self.untried.pop_front() {
                return Step::Connect(address);
            }
        }
        if self.is_look_up_due(now) {
            self.looked_up = Some(now);
            return Step::LookUp;
        }
        self.plan_round(addresses, now)
            .unwrap_or_else(|| Step::Wait(self.next_event()))
    }

    /// Plans the next round once all addresses of this one are tried and some
    /// have failed: they, or the look-up, may be better by then.
    fn plan_round(&mut self, addresses: &Addresses, now: Instant) -> Option<Step> {
        let all_under_way =
            !addresses.is_empty() && addresses.in_order().all(|address| self.is_under_way(address));
        if !self.untried.is_empty() || self.next_round.is_some() || all_under_way {
            return None;
        }
        self.next_round = Some(now + self.pause);
        self.pause = (2 * self.pause).min(CONNECT_RETRY_LONGEST);
        self.looked_up = Some(now);
        Some(Step::LookUp)
    }

    fn next_event(&self) -> Instant {
        let start = (!self.untried.is_empty()).then_some(self.next_start);
        let look_up = self.look_up_at();
        let events = [start, self.next_round, look_up, Some(self.deadline)];
        events.into_iter().flatten().min().unwrap_or(self.deadline)
    }

    /// When a connection will have been without an answer for so long that its
    /// address may be out of date.
    fn look_up_at(&self) -> Option<Instant> {
        let silent_at = self.under_way.first()?.since + CONNECT_SILENCE;
        Some(
            self.looked_up
                .map_or(silent_at, |last| silent_at.max(last + RESOLVE_SPACING)),
        )
    }

    fn is_look_up_due(&self, now: Instant) -> bool {
        self.look_up_at().is_some_and(|at| now >= at)
    }

    /// A connection is being made.
    pub(super) fn begun(&mut self, upstream: ClientId, address: SocketAddr, now: Instant) {
        self.next_start = now + HEAD_START;
        self.under_way.push(Connect {
            upstream,
            address,
            since: now,
        });
    }

    /// A connection could not even be begun. Where the reason lies with this
    /// process, no other address and no retry would help.
    pub(super) fn failed_to_begin(&mut self, address: SocketAddr, why: &str, is_hopeless: bool) {
        self.is_hopeless = is_hopeless && self.under_way.is_empty();
        self.note_failure(address, why);
    }

    /// The connection by this id has failed: the next address is tried at once.
    pub(super) fn failed(&mut self, upstream: ClientId, why: &str, now: Instant) {
        if let Some(index) = self.under_way.iter().position(|one| one.upstream == upstream) {
            let address = self.under_way.remove(index).address;
            self.next_start = now;
            self.note_failure(address, why);
        }
    }

    /// Takes up the addresses of a look-up that changed them.
    pub(super) fn take_up(&mut self, addresses: &Addresses, now: Instant) {
        let new = |address: &SocketAddr| {
            let is_tried = self.failures.iter().any(|failure| failure.address == *address);
            !is_tried && !self.is_under_way(*address)
        };
        let new: VecDeque<_> = addresses.in_order().filter(new).collect();
        if !new.is_empty() {
            self.next_round = None;
            self.next_start = now;
        }
        self.untried = new;
    }

    /// The connections to an address, taken out: they lead nowhere.
    pub(super) fn take_connects_to(&mut self, address: SocketAddr) -> Vec<ClientId> {
        let is_this = |one: &Connect| one.address == address;
        let taken = self.under_way.iter().filter(|one| is_this(one));
        let taken = taken.map(|one| one.upstream).collect();
        self.under_way.retain(|one| !is_this(one));
        taken
    }

    /// All connections that are being made.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.under_way.iter().map(|one| one.upstream)
    }

    /// How long the client has been waiting, and what went wrong meanwhile.
    pub(super) fn outcome(&self, now: Instant) -> (Duration, String) {
        let mut text = String::new();
        let mut add = |address: SocketAddr, why: &dyn std::fmt::Display, times: u32| {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{address}: {why}");
            if times > 1 {
                let _ = write!(text, " ({times} times)");
            }
        };
        for failure in &self.failures {
            if !self.is_under_way(failure.address) {
                add(failure.address, &failure.why, failure.times);
            }
        }
        let longest = self.deadline - self.since;
        for one in &self.under_way {
            let waited = now.saturating_duration_since(one.since).min(longest);
            add(one.address, &timed_out(waited), 1);
        }
        (now.saturating_duration_since(self.since), text)
    }

    fn abandon_first(&mut self, now: Instant) -> ClientId {
        let first = self.under_way.remove(0);
        let waited = now.saturating_duration_since(first.since);
        self.note_failure(first.address, &timed_out(waited));
        first.upstream
    }

    fn is_under_way(&self, address: SocketAddr) -> bool {
        self.under_way.iter().any(|one| one.address == address)
    }

    /// Keeps the latest failure of each address. Look-ups may bring others
    /// for ever, so that the oldest are forgotten.
    fn note_failure(&mut self, address: SocketAddr, why: &str) {
        if let Some(known) = self.failures.iter_mut().find(|known| known.address == address) {
            known.times += 1;
            if known.why != why {
                why.clone_into(&mut known.why);
            }
            return;
        }
        if self.failures.len() >= MAX_ADDRESSES {
            self.failures.remove(0);
        }
        self.failures.push(Failure {
            address,
            why: why.to_owned(),
            times: 1,
        });
    }
}

fn timed_out(after: Duration) -> String {
    format!("connect timed out after {:.3} s", after.as_secs_f64())
}
