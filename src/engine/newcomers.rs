//! Newcomers that wait for a seat: accepted while all seats were taken.
//!
//! Owns them for as long as a seat that was given up before they came may still
//! be found free: the events of one more wait are served first. Refuses to know
//! who is served, and to close anybody.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use crate::limits::{MAX_WAITING_NEWCOMERS, SEAT_WAIT};

/// One connection that was accepted and is neither served nor refused.
#[derive(Debug)]
pub(super) struct Newcomer<S> {
    pub(super) stream: S,
    pub(super) peer: SocketAddr,
    came: Instant,
    /// A wait for events has ended since it came, so that every end before its
    /// own beginning was announced.
    ends_announced: bool,
}

/// Newcomers that wait, in order of arrival.
#[derive(Debug)]
pub(super) struct Newcomers<S> {
    waiting: VecDeque<Newcomer<S>>,
}

impl<S> Newcomers<S> {
    pub(super) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no more may wait; the others stay in the kernel's backlog.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_NEWCOMERS
    }

    pub(super) fn streams(&mut self) -> impl Iterator<Item = &mut S> {
        self.waiting.iter_mut().map(|newcomer| &mut newcomer.stream)
    }

    pub(super) fn push(&mut self, stream: S, peer: SocketAddr, now: Instant) {
        self.waiting.push_back(Newcomer {
            stream,
            peer,
            came: now,
            ends_announced: false,
        });
    }

    /// Ends a turn for all that wait. `all_served` says that no client is left
    /// over that the events before this turn concern. Answers the newcomers,
    /// each with whether it may be refused now.
    pub(super) fn take_all(&mut self, all_served: bool, now: Instant) -> Vec<(Newcomer<S>, bool)> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let judged = waiting.map(|mut newcomer| {
            let has_waited = now.saturating_duration_since(newcomer.came) >= SEAT_WAIT;
            let may_refuse = newcomer.ends_announced && (all_served || has_waited);
            newcomer.ends_announced = true;
            (newcomer, may_refuse)
        });
        judged.collect()
    }

    /// Takes back a newcomer that has to wait for longer.
    pub(super) fn put_back(&mut self, newcomer: Newcomer<S>) {
        self.waiting.push_back(newcomer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    /// Ends a turn, and answers who may be refused.
    fn end_turn(newcomers: &mut Newcomers<char>, all_served: bool, now: Instant) -> String {
        let judged = newcomers.take_all(all_served, now);
        let mut refused = String::new();
        for (newcomer, may_refuse) in judged {
            if may_refuse {
                refused.push(newcomer.stream);
            } else {
                newcomers.put_back(newcomer);
            }
        }
        refused
    }

    #[test]
    fn a_newcomer_is_refused_after_the_events_of_one_more_wait_and_not_before() {
        let now = start();
        let mut newcomers = Newcomers::new();
        newcomers.push('a', PEER, now);
        assert_eq!(end_turn(&mut newcomers, true, now), "");
        newcomers.push('b', PEER, now);
        assert_eq!(end_turn(&mut newcomers, true, now), "a");
        assert_eq!(end_turn(&mut newcomers, true, now), "b");
        assert!(newcomers.is_empty());
    }

    #[test]
    fn while_clients_are_left_over_a_newcomer_waits_but_not_for_ever() {
        let now = start();
        let mut newcomers = Newcomers::new();
        newcomers.push('a', PEER, now);
        for _ in 0..10 {
            assert_eq!(end_turn(&mut newcomers, false, now), "");
        }
        assert_eq!(end_turn(&mut newcomers, false, now + SEAT_WAIT), "a");
    }

    #[test]
    fn only_so_many_wait_in_order_of_arrival() {
        let now = start();
        let mut newcomers = Newcomers::new();
        for name in ('a'..).take(MAX_WAITING_NEWCOMERS) {
            assert!(!newcomers.is_full());
            newcomers.push(name, PEER, now);
        }
        assert!(newcomers.is_full());
        end_turn(&mut newcomers, true, now);
        let expected: String = ('a'..).take(MAX_WAITING_NEWCOMERS).collect();
        assert_eq!(end_turn(&mut newcomers, true, now), expected);
    }
}
