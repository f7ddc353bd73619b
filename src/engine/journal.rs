//! What happened so far, in numbers.
//!
//! Owns the counters of one event loop and the line that sums them up.
//! Refuses to decide anything by them.

use crate::backpressure::SlowReason;
use crate::error::{CloseReason, Operation};

/// Counters of one server, from its start on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Clients that were accepted and served.
    pub served_clients: u64,
    /// Clients that were refused, as the server was full.
    pub refused_clients: u64,
    /// Connections that were made to other servers.
    pub upstreams: u64,
    /// Attempts to connect to another server that failed.
    pub failed_connects: u64,
    /// Most clients (and upstreams) at a time.
    pub most_clients: usize,
    /// Bytes read from all clients.
    pub received_bytes: u64,
    /// Bytes written to all clients.
    pub sent_bytes: u64,
    /// Clients that ended in order.
    pub finished_clients: u64,
    /// Clients disconnected by policy, in the order of [`SlowReason::ALL`].
    pub slow_clients: [u64; SlowReason::ALL.len()],
    /// Clients whose socket failed; mostly the peer reset it.
    pub failed_clients: u64,
    /// Clients that the service rejected.
    pub rejected_clients: u64,
    /// Clients reset by the service, as their partner was gone.
    pub reset_clients: u64,
    /// Clients that never took the last of what was sent to them.
    pub unacknowledged_clients: u64,
    /// Clients that were still busy when the server stopped.
    pub stopped_clients: u64,
    /// Times that accepting failed for want of descriptors or memory.
    pub failed_accepts: u64,
}

impl Counters {
    /// Clients disconnected for this reason.
    #[must_use]
    pub const fn slow(&self, reason: SlowReason) -> u64 {
        self.slow_clients[reason as usize]
    }

    pub(crate) const fn count_closed(&mut self, reason: &CloseReason) {
        let counter = match reason {
            CloseReason::Finished => &mut self.finished_clients,
            CloseReason::Slow(reason) => &mut self.slow_clients[*reason as usize],
            CloseReason::Failed(Operation::Connect, _) | CloseReason::ConnectTimedOut(_) => {
                &mut self.failed_connects
            }
            CloseReason::Failed(..) => &mut self.failed_clients,
            CloseReason::Rejected(_) => &mut self.rejected_clients,
            CloseReason::Reset => &mut self.reset_clients,
            CloseReason::NotAcknowledged => &mut self.unacknowledged_clients,
            CloseReason::Stopped => &mut self.stopped_clients,
        };
        *counter += 1;
    }

    /// The one line that sums a server up when it stops. `done` says what
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
        if self.upstreams + self.failed_connects > 0 {
            line.push_str(&format!(
                "; {} upstreams, {} failed to connect, {} reset with their partner",
                self.upstreams, self.failed_connects, self.reset_clients,
            ));
        }
        line
    }
}
