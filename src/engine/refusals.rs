//! Clients for whom there is no seat: why, and what the log says of them.
//!
//! Owns the reasons, and how often each deserves a line: the first at once, the
//! others summed up within [`LOG_REPEAT_INTERVAL`]. Refuses to decide who is
//! refused.

use std::net::SocketAddr;
use std::time::Instant;

use log::warn;

use crate::limits::LOG_REPEAT_INTERVAL;
use crate::log_limit::LogLimit;

/// Which seats are all taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Those of the server.
    Server,
    /// Those of the address that the client comes from.
    Address,
}

/// What the log was told of refused clients.
#[derive(Debug)]
pub(super) struct Refusals {
    /// The start, from which log limits count.
    started: Instant,
    /// In the order of [`Full`].
    kinds: [Kind; 2],
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Seats in all.
    most: usize,
    /// What stands in the line between the address and that number.
    words: &'static str,
    log: LogLimit,
    /// The last client that was refused.
    last: Option<SocketAddr>,
}

impl Refusals {
    /// Most clients at a time.
    pub(super) const fn max_clients(&self) -> usize {
        self.kinds[Full::Server as usize].most
    }

    pub(super) fn new(max_clients: usize, max_clients_per_address: Option<usize>, started: Instant) -> Self {
        let kind = |most, words| Kind {
            most,
            words,
            log: LogLimit::NEW,
            last: None,
        };
        let of_address = max_clients_per_address.unwrap_or(usize::MAX);
        Self {
            started,
            kinds: [
                kind(max_clients, "are served, --max-clients"),
                kind(of_address, "of its address are served, --max-clients-per-address"),
            ],
        }
    }

    /// Other numbers of seats, which lines from here on tell.
    pub(super) fn limits_changed(&mut self, max_clients: usize, max_clients_per_address: Option<usize>) {
        self.kinds[Full::Server as usize].most = max_clients;
        self.kinds[Full::Address as usize].most = max_clients_per_address.unwrap_or(usize::MAX);
    }

    /// Counts a refused client. `Some` asks to [`write`](Self::write) a line about
    /// so many.
    pub(super) fn count(&mut self, full: Full, peer: SocketAddr, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.started);
        let kind = &mut self.kinds[full as usize];
        kind.last = Some(peer);
        let before = kind.log.admit(elapsed, LOG_REPEAT_INTERVAL)?;
        Some(u64::from(before) + 1)
    }

    /// Writes a line about so many refused clients, which ends with `hint`.
    pub(super) fn write(&self, full: Full, clients: u64, hint: &str) {
        self.kinds[full as usize].write(clients, hint);
    }

    /// When the sum of the refusals that had no line is due.
    pub(super) fn sum_at(&self) -> Option<Instant> {
        self.kinds.iter().filter_map(|kind| self.sum_of(kind)).min()
    }

    fn sum_of(&self, kind: &Kind) -> Option<Instant> {
        Some(self.started + kind.log.sum_due(LOG_REPEAT_INTERVAL)?)
    }

    /// Writes the sums that are due.
    pub(super) fn sum_up(&mut self, now: Instant) {
        if self.sum_at().is_some_and(|due| due <= now) {
            for at in 0..self.kinds.len() {
                if self.sum_of(&self.kinds[at]).is_some_and(|due| due <= now) {
                    self.write_sum(at, now);
                }
            }
        }
    }

    /// Writes all sums, because the server stops.
    pub(super) fn stop(&mut self, now: Instant) {
        for at in 0..self.kinds.len() {
            self.write_sum(at, now);
        }
    }

    fn write_sum(&mut self, at: usize, now: Instant) {
        let kind = &mut self.kinds[at];
        let elapsed = now.saturating_duration_since(self.started);
        if let Some(sum) = kind.log.take_sum(elapsed) {
            kind.write(u64::from(sum.get()), "");
        }
    }
}

impl Kind {
    fn write(&self, clients: u64, hint: &str) {
        if let Some(peer) = self.last {
            let (most, words) = (self.most, self.words);
            warn!(
                event = "refuse",
                address:% = peer,
                refused_clients = clients;
                "refused {clients} new clients, the last one {peer}: {most} {words} {most}{hint}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn refusals_without_a_line_are_due_for_their_sum_once() {
        let now = start();
        let mut refusals = Refusals::new(1, None, now);
        assert_eq!(refusals.count(Full::Server, PEER, now), Some(1));
        assert_eq!(refusals.sum_at(), None, "the first has its line");
        assert_eq!(refusals.count(Full::Server, PEER, now), None);
        assert_eq!(refusals.sum_at(), Some(now + LOG_REPEAT_INTERVAL));
        refusals.sum_up(now + LOG_REPEAT_INTERVAL / 2);
        assert!(refusals.sum_at().is_some(), "not before it is due");
        refusals.sum_up(now + LOG_REPEAT_INTERVAL);
        assert_eq!(refusals.sum_at(), None);
        refusals.count(Full::Server, PEER, now + LOG_REPEAT_INTERVAL);
        refusals.stop(now + LOG_REPEAT_INTERVAL);
        assert_eq!(refusals.sum_at(), None, "the stop sums up");
    }

    #[test]
    fn the_two_kinds_of_refusal_have_a_line_each() {
        let now = start();
        let mut refusals = Refusals::new(1, Some(1), now);
        let kinds = [Full::Server, Full::Address, Full::Server, Full::Address];
        let lines = kinds.map(|full| refusals.count(full, PEER, now));
        assert_eq!(lines, [Some(1), Some(1), None, None]);
        assert_eq!(refusals.sum_at(), Some(now + LOG_REPEAT_INTERVAL));
    }
}
