//! Why a connection is stuck: its window is closed, or the network is gone.
//!
//! Owns the meaning of the kernel's numbers about one connection (`TCP_INFO`,
//! tcp(7)). Refuses to ask the kernel itself.

use std::time::Duration;

use crate::engine::PeerState;

/// The kernel's numbers that tell why a connection is stuck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpFacts {
    /// The window that the peer announced last, in bytes (`tcpi_snd_wnd`);
    /// `None` where the kernel does not tell.
    pub(crate) send_window_bytes: Option<u32>,
    /// Segments that were sent and not acknowledged.
    pub(crate) unacknowledged_segments: u32,
    /// Retransmissions of the oldest of them without an answer.
    pub(crate) retransmits: u32,
    /// Probes of a closed window without an answer.
    pub(crate) probes: u32,
    /// Time since the last ACK of the peer.
    pub(crate) last_acknowledged: Duration,
    /// Largest segment that we may send, in bytes.
    pub(crate) segment_bytes: u32,
}

impl TcpFacts {
    /// Whether something that we sent has had no ACK for this long.
    #[must_use]
    pub(crate) fn lacks_ack_for(&self, silence: Duration) -> bool {
        self.unacknowledged_segments > 0 && self.last_acknowledged >= silence
    }
}

/// On a healthy path two probes may be on their way; a third without an answer
/// means that no peer is there.
const UNANSWERED_PROBES: u32 = 3;

impl TcpFacts {
    /// Why the connection is stuck. The counters of all retransmissions so far
    /// do not help: they are not zero on healthy connections.
    #[must_use]
    pub(crate) const fn peer_state(&self) -> PeerState {
        let unanswered = self.unacknowledged_segments > 0 && self.retransmits > 0;
        if unanswered || self.probes >= UNANSWERED_PROBES {
            return PeerState::NetworkGone(self.last_acknowledged);
        }
        match self.send_window_bytes {
            None => PeerState::Unknown,
            Some(window) if window < self.segment_bytes || window == 0 => PeerState::WindowClosed,
            Some(_) => PeerState::ReadingSlowly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: TcpFacts = TcpFacts {
        send_window_bytes: Some(60_000),
        unacknowledged_segments: 0,
        retransmits: 0,
        probes: 0,
        last_acknowledged: Duration::from_millis(3),
        segment_bytes: 1448,
    };

    #[test]
    fn a_peer_that_has_not_acknowledged_what_was_sent_for_long_lacks_ack_for() {
        let facts = TcpFacts {
            unacknowledged_segments: 1,
            last_acknowledged: Duration::from_millis(250),
            ..HEALTHY
        };
        assert!(facts.lacks_ack_for(Duration::from_millis(250)));
        assert!(!facts.lacks_ack_for(Duration::from_millis(251)));
        assert!(
            !HEALTHY.lacks_ack_for(Duration::ZERO),
            "all of it is acknowledged"
        );
    }

    #[test]
    fn a_closed_window_whose_probes_are_answered_is_no_outage() {
        let facts = TcpFacts {
            send_window_bytes: Some(0),
            probes: 1,
            ..HEALTHY
        };
        assert_eq!(facts.peer_state(), PeerState::WindowClosed);
    }

    #[test]
    fn data_sent_again_without_an_answer_is_a_network_that_is_gone() {
        let outage = Duration::from_secs(4);
        let facts = TcpFacts {
            unacknowledged_segments: 3,
            retransmits: 2,
            last_acknowledged: outage,
            ..HEALTHY
        };
        assert_eq!(facts.peer_state(), PeerState::NetworkGone(outage));
        let closed_before = TcpFacts {
            send_window_bytes: Some(0),
            probes: 3,
            last_acknowledged: outage,
            ..HEALTHY
        };
        assert_eq!(closed_before.peer_state(), PeerState::NetworkGone(outage));
    }

    #[test]
    fn an_open_window_is_a_slow_reader_and_silence_of_the_kernel_is_unknown() {
        assert_eq!(HEALTHY.peer_state(), PeerState::ReadingSlowly);
        let untold = TcpFacts {
            send_window_bytes: None,
            ..HEALTHY
        };
        assert_eq!(untold.peer_state(), PeerState::Unknown);
    }
}
