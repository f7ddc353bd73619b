//! What happened to clients, in numbers.
//!
//! Owns the counters, and the one line that sums them up. Refuses to decide
//! anything by them, and to log.

use crate::backpressure::SlowReason;
use crate::error::{CloseReason, Operation};

/// Counters of one server since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Clients that were accepted and served.
    pub served_clients: u64,
    /// Clients that were refused because the server was full.
    pub refused_clients: u64,
    /// Clients that were refused because their address had too many.
    pub address_refused_clients: u64,
    /// Connections that were made to other servers.
    pub upstreams: u64,
    /// Attempts to connect to another server that failed.
    pub failed_connects: u64,
    /// Most clients and upstreams at a time.
    pub most_clients: usize,
    /// Bytes read from all clients.
    pub received_bytes: u64,
    /// Bytes written to all clients that are closed.
    pub sent_bytes: u64,
    /// Clients that ended in order.
    pub finished_clients: u64,
    /// Clients disconnected by a rule, in the order of [`SlowReason::ALL`].
    slow_clients: [u64; SlowReason::ALL.len()],
    /// Clients that shadow mode has kept, in the same order.
    would_disconnect: [u64; SlowReason::ALL.len()],
    /// Clients whose socket failed, mostly because the peer reset it.
    pub failed_clients: u64,
    /// Clients that the service rejected.
    pub rejected_clients: u64,
    /// Clients that the service reset because their partner was gone.
    pub reset_clients: u64,
    /// Clients that never acknowledged the last bytes sent to them.
    pub unacknowledged_clients: u64,
    /// Clients that moved nothing for the idle timeout.
    pub idle_clients: u64,
    /// Half-closed clients that moved nothing for the half-closed timeout.
    pub half_closed_clients: u64,
    /// Clients whose frame came too slowly.
    pub late_frame_clients: u64,
    /// Clients that were still busy when the server stopped.
    pub stopped_clients: u64,
    /// Times that accepting failed because descriptors or memory ran out.
    pub failed_accepts: u64,
}

impl Counters {
    /// Clients disconnected by this rule.
    #[must_use]
    pub const fn slow(&self, reason: SlowReason) -> u64 {
        self.slow_clients[reason as usize]
    }

    /// Clients and episodes that this rule would have disconnected, had shadow
    /// mode not kept them.
    #[must_use]
    pub const fn would_disconnect(&self, reason: SlowReason) -> u64 {
        self.would_disconnect[reason as usize]
    }

    /// How many clients were closed for each reason, by its
    /// [`word`](CloseReason::word). Those of a full address count as refused.
    pub fn closed_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let slow = SlowReason::ALL.map(|reason| (reason.word(), self.slow(reason)));
        slow.into_iter().chain([
            ("end not acknowledged", self.unacknowledged_clients),
            ("rejected", self.rejected_clients),
            ("idle", self.idle_clients),
            ("half-closed", self.half_closed_clients),
            ("frame timeout", self.late_frame_clients),
            ("server stopped", self.stopped_clients),
            ("reset", self.reset_clients),
            ("failed", self.failed_clients),
            ("finished", self.finished_clients),
        ])
    }

    pub(super) const fn count_would_disconnect(&mut self, reason: SlowReason) {
        self.would_disconnect[reason as usize] += 1;
    }

    pub(super) const fn count_closed(&mut self, reason: &CloseReason) {
        let counter = match reason {
            CloseReason::Finished => &mut self.finished_clients,
            CloseReason::Slow(reason) => &mut self.slow_clients[*reason as usize],
            CloseReason::Failed(Operation::Connect, _) | CloseReason::ConnectTimedOut(_) => {
                &mut self.failed_connects
            }
            CloseReason::Failed(..) => &mut self.failed_clients,
            CloseReason::Rejected(_) => &mut self.rejected_clients,
            // Counted when it was refused.
            CloseReason::AddressFull => return,
            CloseReason::Reset => &mut self.reset_clients,
            CloseReason::NotAcknowledged => &mut self.unacknowledged_clients,
            CloseReason::Idle(_) => &mut self.idle_clients,
            CloseReason::HalfClosed(_) => &mut self.half_closed_clients,
            CloseReason::FrameTimeout(_) => &mut self.late_frame_clients,
            CloseReason::Stopped => &mut self.stopped_clients,
        };
        *counter += 1;
    }

    /// The one line that sums up a server when it stops. `done` says what
    /// became of the bytes, such as `echoed`.
    #[must_use]
    pub fn summary(&self, done: &str) -> String {
        let mut line = format!(
            "{} clients served, {} bytes {done}; disconnected:",
            self.served_clients, self.sent_bytes,
        );
        for reason in SlowReason::ALL {
            line.push_str(&format!(" {} {reason},", self.slow(reason)));
        }
        line.push_str(&format!(
            " {} end not acknowledged, {} rejected, {} at the stop; {} refused, {} failed",
            self.unacknowledged_clients,
            self.rejected_clients,
            self.stopped_clients,
            self.refused_clients,
            self.failed_clients,
        ));
        if self.address_refused_clients > 0 {
            line.push_str(&format!("; {} refused by address", self.address_refused_clients));
        }
        if self.idle_clients + self.half_closed_clients > 0 {
            line.push_str(&format!(
                "; {} idle, {} half-closed",
                self.idle_clients, self.half_closed_clients,
            ));
        }
        if self.late_frame_clients > 0 {
            line.push_str(&format!("; {} frame timeout", self.late_frame_clients));
        }
        if self.upstreams + self.failed_connects > 0 {
            line.push_str(&format!(
                "; {} upstreams, {} failed to connect, {} reset with their partner",
                self.upstreams, self.failed_connects, self.reset_clients,
            ));
        }
        line
    }
}
