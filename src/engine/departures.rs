//! The clients that have left, in one ring for each reason: thousands of health
//! checks cannot push out the one that was too slow.
//!
//! Owns the rings and their length. Refuses to know clients.

use std::collections::VecDeque;

use super::report::ClientReport;
use crate::error::CloseReason;
use crate::limits::GONE_CLIENTS;

/// The last clients that left for each reason.
pub(super) struct Departures {
    rings: Vec<(&'static str, VecDeque<ClientReport>)>,
}

impl Default for Departures {
    fn default() -> Self {
        Self {
            rings: CloseReason::words().map(|word| (word, VecDeque::new())).collect(),
        }
    }
}

impl Departures {
    pub(super) fn keep(&mut self, report: ClientReport) {
        let of_reason = |(word, _): &&mut (&'static str, _)| Some(*word) == report.reason;
        if let Some((_, ring)) = self.rings.iter_mut().find(of_reason) {
            if ring.len() == GONE_CLIENTS {
                ring.pop_front();
            }
            ring.push_back(report);
        }
    }

    /// The last of one ring, the last one first; `None` behind the last ring.
    pub(super) fn last(&self, ring: usize, most: usize) -> Option<(&'static str, Vec<ClientReport>)> {
        let (word, ring) = self.rings.get(ring)?;
        Some((word, ring.iter().rev().take(most).cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::client::ClientName;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    fn left(reason: &'static str, sent_bytes: u64) -> ClientReport {
        ClientReport {
            name: ClientName::of_client(5),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            age: Duration::ZERO,
            queued_bytes: 0,
            peak_bytes: 0,
            over_limit: None,
            received_bytes: 0,
            sent_bytes,
            largest_window_bytes: 0,
            state: String::new(),
            reason: Some(reason),
        }
    }

    #[test]
    fn a_ring_keeps_the_last_thousand_and_pushes_nobody_out_of_another() {
        let mut departures = Departures::default();
        departures.keep(left("write timeout", 7));
        for number in 0..=GONE_CLIENTS as u64 {
            departures.keep(left("finished", number));
        }
        let rings: Vec<_> = (0..)
            .map_while(|ring| departures.last(ring, usize::MAX))
            .collect();
        let ring = |reason| &rings.iter().find(|(word, _)| *word == reason).unwrap().1;
        assert_eq!(ring("write timeout").len(), 1);
        let finished = ring("finished");
        assert_eq!(finished.len(), GONE_CLIENTS);
        let ends = [finished[0].sent_bytes, finished[GONE_CLIENTS - 1].sent_bytes];
        assert_eq!(
            ends,
            [GONE_CLIENTS as u64, 1],
            "the last one first, and the first is out"
        );
        assert_eq!(rings.len(), CloseReason::words().count());
    }
}
