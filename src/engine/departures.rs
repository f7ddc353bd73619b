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
