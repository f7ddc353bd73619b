//! Whether to accept now: until nobody waits, and with a pause when descriptors
//! have run out.
//!
//! Owns that decision, what the outcome of an accept means, and the log lines
//! about it. Refuses to own the socket.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use log::{info, warn};

use crate::limits::{ACCEPT_RETRY, LOG_REPEAT_INTERVAL};
use crate::log_limit::LogLimit;

/// Whether connections are accepted now.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// The start, from which log limits count.
    started: Instant,
    /// An edge was announced and is not used up.
    announced: bool,
    /// Set while accepting fails because descriptors or memory ran out.
    failing: Option<Failing>,
    failure_log: LogLimit,
    stopped: bool,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    retry_at: Instant,
    /// The log was told of it.
    logged: bool,
}

/// What the outcome of an accept leads to.
#[derive(Debug)]
pub(super) enum Admission<S> {
    /// A connection was made.
    Newcomer(S, SocketAddr),
    /// No connection waits, or the one that did is gone already.
    Nobody,
    /// Descriptors or memory have run out.
    Failed,
}

impl Acceptor {
    pub(super) const fn new(started: Instant) -> Self {
        Self {
            started,
            announced: false,
            failing: None,
            failure_log: LogLimit::NEW,
            stopped: false,
        }
    }

    pub(super) const fn announce(&mut self) {
        self.announced = true;
    }

    pub(super) const fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        let blocked = self
            .failing
            .as_ref()
            .is_some_and(|failing| now < failing.retry_at);
        self.announced && !blocked && !self.stopped
    }

    /// When to call again, after a failure.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let failing = self.failing.as_ref().filter(|_| self.announced && !self.stopped);
        failing.map(|failing| failing.retry_at)
    }

    /// A client has left, so a descriptor is free: the next turn may accept.
    pub(super) fn descriptor_freed(&mut self) {
        if let Some(failing) = &mut self.failing {
            failing.retry_at = failing.since;
        }
    }

    pub(super) fn judge<S>(&mut self, accepted: io::Result<(S, SocketAddr)>, now: Instant) -> Admission<S> {
        match accepted {
            Ok((stream, peer)) => {
                if let Some(failing) = &mut self.failing {
                    // There was a descriptor, and perhaps there is another.
                    failing.retry_at = now;
                }
                Admission::Newcomer(stream, peer)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    self.announced = false;
                    self.recover(now);
                    Admission::Nobody
                }
                // Errors of the one connection that waited, which accept(2)
                // passes on; the next may be fine.
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {
                    Admission::Nobody
                }
                _ => {
                    self.fail(&error, now);
                    Admission::Failed
                }
            },
        }
    }

    /// Pauses accepting: no edge tells when there is a descriptor again.
    pub(super) fn fail(&mut self, error: &io::Error, now: Instant) {
        let retry_at = now + ACCEPT_RETRY;
        let failing = self.failing.get_or_insert(Failing {
            since: now,
            retry_at,
            logged: false,
        });
        failing.retry_at = retry_at;
        // A server that stays at its limit fails and recovers all the time.
        let elapsed = now.saturating_duration_since(self.started);
        if !failing.logged && self.failure_log.admit(elapsed, LOG_REPEAT_INTERVAL).is_some() {
            failing.logged = true;
            warn!(
                event = "accept_failed";
                "cannot accept: {error}; new clients wait in the backlog, trying again every {} ms",
                ACCEPT_RETRY.as_millis()
            );
        }
    }

    /// The shortage is over only once nobody waits any more. Otherwise every
    /// client that leaves would bring two lines.
    fn recover(&mut self, now: Instant) {
        if let Some(failing) = self.failing.take().filter(|failing| failing.logged) {
            let outage = now.saturating_duration_since(failing.since);
            info!(event = "accept_recovered"; "accepting again after {:.3} s", outage.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;
    use std::time::Duration;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
    const EMFILE: i32 = 24;

    fn announced(now: Instant) -> Acceptor {
        let mut acceptor = Acceptor::new(now);
        acceptor.announce();
        acceptor
    }

    #[test]
    fn accepting_goes_on_until_nobody_waits() {
        let now = start();
        let mut acceptor = announced(now);
        assert!(matches!(
            acceptor.judge(Ok(((), PEER)), now),
            Admission::Newcomer(..)
        ));
        assert!(acceptor.is_due(now));
        let nobody = acceptor.judge::<()>(Err(ErrorKind::WouldBlock.into()), now);
        assert!(matches!(nobody, Admission::Nobody));
        assert!(!acceptor.is_due(now));
    }

    #[test]
    fn out_of_descriptors_it_pauses_and_tries_again_without_an_edge() {
        let now = start();
        let mut acceptor = announced(now);
        let failed = acceptor.judge::<()>(Err(io::Error::from_raw_os_error(EMFILE)), now);
        assert!(matches!(failed, Admission::Failed));
        assert!(!acceptor.is_due(now), "no spinning");
        assert_eq!(acceptor.due_at(), Some(now + ACCEPT_RETRY));
        assert!(acceptor.is_due(now + ACCEPT_RETRY));
        acceptor.judge(Ok(((), PEER)), now + ACCEPT_RETRY);
        assert!(acceptor.is_due(now + ACCEPT_RETRY), "perhaps there is another");
        acceptor.judge::<()>(Err(ErrorKind::WouldBlock.into()), now + ACCEPT_RETRY);
        assert!(acceptor.failing.is_none(), "nobody waits, so it is over");
    }

    #[test]
    fn a_shortage_that_lets_one_in_now_and_then_is_still_one_shortage() {
        let now = start();
        let mut acceptor = announced(now);
        for second in 0..10 {
            let now = now + Duration::from_secs(second);
            acceptor.fail(&io::Error::from_raw_os_error(EMFILE), now);
            acceptor.descriptor_freed();
            acceptor.judge(Ok(((), PEER)), now);
        }
        assert_eq!(acceptor.failing.map(|failing| failing.since), Some(now));
    }

    #[test]
    fn shortages_that_follow_each_other_closely_are_one_line_unless_they_last() {
        let now = start();
        let mut acceptor = announced(now);
        let logged = |acceptor: &Acceptor| acceptor.failing.as_ref().map(|failing| failing.logged);
        acceptor.fail(&io::Error::from_raw_os_error(EMFILE), now);
        assert_eq!(logged(&acceptor), Some(true));
        acceptor.judge::<()>(Err(ErrorKind::WouldBlock.into()), now);
        acceptor.fail(&io::Error::from_raw_os_error(EMFILE), now + ACCEPT_RETRY);
        assert_eq!(logged(&acceptor), Some(false));
        acceptor.fail(&io::Error::from_raw_os_error(EMFILE), now + LOG_REPEAT_INTERVAL);
        assert_eq!(logged(&acceptor), Some(true));
    }

    #[test]
    fn a_client_that_leaves_ends_the_pause() {
        let now = start();
        let mut acceptor = announced(now);
        acceptor.fail(&io::Error::from_raw_os_error(EMFILE), now);
        acceptor.descriptor_freed();
        assert!(acceptor.is_due(now + Duration::from_nanos(1)));
    }

    #[test]
    fn a_connection_that_was_reset_before_it_was_accepted_is_nobodys_trouble() {
        let now = start();
        let mut acceptor = announced(now);
        acceptor.judge::<()>(Err(ErrorKind::ConnectionAborted.into()), now);
        assert!(acceptor.is_due(now));
    }

    #[test]
    fn a_server_that_stops_accepts_nobody() {
        let now = start();
        let mut acceptor = announced(now);
        acceptor.stop();
        assert!(!acceptor.is_due(now));
    }
}
