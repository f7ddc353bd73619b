//! Why is it stuck: is the peer not reading, or is the network gone?
//!
//! Owns the reading of the kernel's view of one connection (`TCP_INFO`,
//! tcp(7)) into one of four words. Refuses to ask the kernel itself.

use std::fmt;
use std::time::Duration;

/// What the kernel knows of a connection that bears on why it is stuck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFacts {
    /// Bytes that the peer's last word allows us to send (`tcpi_snd_wnd`);
    /// `None` where the kernel does not tell.
    pub send_window_bytes: Option<u32>,
    /// Segments that are out and not yet acknowledged.
    pub unacknowledged_segments: u32,
    /// Times that the oldest of them was sent again, without an answer.
    pub retransmits: u32,
    /// Probes of a closed window that went unanswered.
    pub probes: u32,
    /// Time since the peer last acknowledged anything.
    pub last_acknowledged: Duration,
    /// Largest segment that we may send, in bytes.
    pub segment_bytes: u32,
}

impl TcpFacts {
    /// Whether something that we sent has had no answer for this long.
    #[must_use]
    pub fn is_unheard(&self, silence: Duration) -> bool {
        self.unacknowledged_segments > 0 && self.last_acknowledged >= silence
    }
}

/// Why a connection is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// The peer is there and answers, but its window is closed: the program
    /// behind it does not read.
    NotReading,
    /// What we sent is not even acknowledged: the network or the machine is
    /// gone, and has been for this long.
    NetworkGone(Duration),
    /// The window is open and data gets through, only too slowly.
    ReadingSlowly,
    /// The kernel does not tell.
    Unknown,
}

/// Two probes may be out at once on a healthy path; a third without an answer
/// means that nobody is there.
const UNANSWERED_PROBES: u32 = 3;

impl PeerState {
    /// Reads the facts. The counters of all retransmissions so far are no
    /// help: they are not zero on healthy connections.
    #[must_use]
    pub const fn read(facts: &TcpFacts) -> Self {
        let unanswered = facts.unacknowledged_segments > 0 && facts.retransmits > 0;
        if unanswered || facts.probes >= UNANSWERED_PROBES {
            return Self::NetworkGone(facts.last_acknowledged);
        }
        match facts.send_window_bytes {
            None => Self::Unknown,
            Some(window) if window < facts.segment_bytes || window == 0 => Self::NotReading,
            Some(_) => Self::ReadingSlowly,
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReading => f.write_str("peer is not reading"),
            Self::NetworkGone(since) => write!(f, "network gone for {:.1} s", since.as_secs_f64()),
            Self::ReadingSlowly => f.write_str("peer reads too slowly"),
            Self::Unknown => f.write_str("state of the peer unknown"),
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
    fn a_peer_that_has_not_acknowledged_what_was_sent_for_long_is_unheard() {
        let facts = TcpFacts {
            unacknowledged_segments: 1,
            last_acknowledged: Duration::from_millis(250),
            ..HEALTHY
        };
        assert!(facts.is_unheard(Duration::from_millis(250)));
        assert!(!facts.is_unheard(Duration::from_millis(251)));
        assert!(!HEALTHY.is_unheard(Duration::ZERO), "all of it is acknowledged");
    }

    #[test]
    fn a_closed_window_whose_probes_are_answered_is_a_peer_that_does_not_read() {
        let facts = TcpFacts {
            send_window_bytes: Some(0),
            probes: 1,
            ..HEALTHY
        };
        assert_eq!(PeerState::read(&facts), PeerState::NotReading);
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
        assert_eq!(PeerState::read(&facts), PeerState::NetworkGone(outage));
        let closed_before = TcpFacts {
            send_window_bytes: Some(0),
            probes: 3,
            last_acknowledged: outage,
            ..HEALTHY
        };
        assert_eq!(PeerState::read(&closed_before), PeerState::NetworkGone(outage));
    }

    #[test]
    fn an_open_window_is_a_slow_reader_and_silence_of_the_kernel_is_unknown() {
        assert_eq!(PeerState::read(&HEALTHY), PeerState::ReadingSlowly);
        let untold = TcpFacts {
            send_window_bytes: None,
            ..HEALTHY
        };
        assert_eq!(PeerState::read(&untold), PeerState::Unknown);
    }
}
