//! Accepting: until nobody waits, up to the client limit, and with a pause
//! when descriptors have run out.
//!
//! Owns the decision whether to accept now and what to do with the outcome,
//! and the few lines that the log gets of it. Refuses to own the socket.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use log::{info, warn};

use crate::limits::{ACCEPT_RETRY, LOG_REPEAT_INTERVAL};

/// Whether connections are accepted now.
#[derive(Debug)]
pub(crate) struct Acceptor {
    max_clients: usize,
    /// An edge that is not yet used up.
    announced: bool,
    /// Set while accepting fails for want of descriptors or memory.
    failing: Option<Failing>,
    failure_last_logged: Option<Instant>,
    refused: Refused,
    stopped: bool,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    retry_at: Instant,
    /// The log was told of it.
    logged: bool,
}

#[derive(Debug, Default)]
struct Refused {
    last_logged: Option<Instant>,
    since: u64,
}

/// What to do with what `accept` brought.
#[derive(Debug)]
pub(crate) enum Admission<S> {
    Serve(S, SocketAddr),
    /// The server is full.
    Refuse(S),
    /// Nobody waits, or the one who did is gone already.
    Nobody,
    /// Descriptors or memory have run out.
    Failed,
}

impl Acceptor {
    pub(crate) fn new(max_clients: usize) -> Self {
        Self {
            max_clients,
            announced: false,
            failing: None,
            failure_last_logged: None,
            refused: Refused::default(),
            stopped: false,
        }
    }

    pub(crate) const fn announce(&mut self) {
        self.announced = true;
    }

    pub(crate) const fn stop(&mut self) {
        self.stopped = true;
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let blocked = self
            .failing
            .as_ref()
            .is_some_and(|failing| now < failing.retry_at);
        self.announced && !blocked && !self.stopped
    }

    /// When to try again after a failure.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        let failing = self.failing.as_ref().filter(|_| self.announced && !self.stopped);
        failing.map(|failing| failing.retry_at)
    }

    /// A client has left, so a descriptor is free: the next turn may accept.
    pub(crate) fn descriptor_freed(&mut self) {
        if let Some(failing) = &mut self.failing {
            failing.retry_at = failing.since;
        }
    }

    pub(crate) fn judge<S>(
        &mut self,
        accepted: io::Result<(S, SocketAddr)>,
        clients: usize,
        now: Instant,
    ) -> Admission<S> {
        match accepted {
            Ok((stream, peer)) => {
                if let Some(failing) = &mut self.failing {
                    // There is a descriptor now, and perhaps another.
                    failing.retry_at = now;
                }
                if clients >= self.max_clients {
                    self.log_refused(peer, now);
                    return Admission::Refuse(stream);
                }
                Admission::Serve(stream, peer)
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
    pub(crate) fn fail(&mut self, error: &io::Error, now: Instant) {
        let retry_at = now + ACCEPT_RETRY;
        let failing = self.failing.get_or_insert(Failing {
            since: now,
            retry_at,
            logged: false,
        });
        failing.retry_at = retry_at;
        // A server that stays at its limit fails and recovers all the time.
        if !failing.logged && !is_recent(self.failure_last_logged, now) {
            failing.logged = true;
            self.failure_last_logged = Some(now);
            warn!(
                "cannot accept: {error}; new clients wait in the backlog, trying again every {} ms",
                ACCEPT_RETRY.as_millis()
            );
        }
    }

    /// The shortage is over only once nobody waits any more: else every client
    /// that leaves would bring two lines.
    fn recover(&mut self, now: Instant) {
        if let Some(failing) = self.failing.take().filter(|failing| failing.logged) {
            let outage = now.saturating_duration_since(failing.since);
            info!("accepting again after {:.3} s", outage.as_secs_f64());
        }
    }

    fn log_refused(&mut self, peer: SocketAddr, now: Instant) {
        self.refused.since += 1;
        let quiet = is_recent(self.refused.last_logged, now);
        if !quiet {
            warn!(
                "refused {} new clients, the last one {peer}: {} are served, --max-clients {}",
                self.refused.since, self.max_clients, self.max_clients,
            );
            self.refused = Refused {
                last_logged: Some(now),
                since: 0,
            };
        }
    }
}

/// Whether the log was told so lately that it is not told again.
fn is_recent(last_logged: Option<Instant>, now: Instant) -> bool {
    last_logged.is_some_and(|last| now.saturating_duration_since(last) < LOG_REPEAT_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
    const EMFILE: i32 = 24;

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn announced(max_clients: usize) -> Acceptor {
        let mut accepting = Acceptor::new(max_clients);
        accepting.announce();
        accepting
    }

    #[test]
    fn accepting_goes_on_until_nobody_waits() {
        let now = start();
        let mut accepting = announced(10);
        assert!(matches!(
            accepting.judge(Ok(((), PEER)), 0, now),
            Admission::Serve(..)
        ));
        assert!(accepting.is_due(now));
        let nobody = accepting.judge::<()>(Err(ErrorKind::WouldBlock.into()), 1, now);
        assert!(matches!(nobody, Admission::Nobody));
        assert!(!accepting.is_due(now));
    }

    #[test]
    fn out_of_descriptors_it_pauses_and_tries_again_without_an_edge() {
        let now = start();
        let mut accepting = announced(10);
        let failed = accepting.judge::<()>(Err(io::Error::from_raw_os_error(EMFILE)), 1, now);
        assert!(matches!(failed, Admission::Failed));
        assert!(!accepting.is_due(now), "no spinning");
        assert_eq!(accepting.retry_at(), Some(now + ACCEPT_RETRY));
        assert!(accepting.is_due(now + ACCEPT_RETRY));
        accepting.judge(Ok(((), PEER)), 1, now + ACCEPT_RETRY);
        assert!(accepting.is_due(now + ACCEPT_RETRY), "perhaps there is another");
        accepting.judge::<()>(Err(ErrorKind::WouldBlock.into()), 2, now + ACCEPT_RETRY);
        assert!(accepting.failing.is_none(), "nobody waits, so it is over");
    }

    #[test]
    fn a_shortage_that_lets_one_in_now_and_then_is_still_one_shortage() {
        let now = start();
        let mut accepting = announced(10);
        for second in 0..10 {
            let now = now + Duration::from_secs(second);
            accepting.fail(&io::Error::from_raw_os_error(EMFILE), now);
            accepting.descriptor_freed();
            accepting.judge(Ok(((), PEER)), 1, now);
        }
        assert_eq!(accepting.failing.map(|failing| failing.since), Some(now));
    }

    #[test]
    fn shortages_that_follow_each_other_closely_are_one_line_unless_they_last() {
        let now = start();
        let mut accepting = announced(10);
        let logged = |accepting: &Acceptor| accepting.failing.as_ref().map(|failing| failing.logged);
        accepting.fail(&io::Error::from_raw_os_error(EMFILE), now);
        assert_eq!(logged(&accepting), Some(true));
        accepting.judge::<()>(Err(ErrorKind::WouldBlock.into()), 2, now);
        accepting.fail(&io::Error::from_raw_os_error(EMFILE), now + ACCEPT_RETRY);
        assert_eq!(logged(&accepting), Some(false));
        accepting.fail(&io::Error::from_raw_os_error(EMFILE), now + LOG_REPEAT_INTERVAL);
        assert_eq!(logged(&accepting), Some(true));
    }

    #[test]
    fn a_client_that_leaves_ends_the_pause() {
        let now = start();
        let mut accepting = announced(10);
        accepting.fail(&io::Error::from_raw_os_error(EMFILE), now);
        accepting.descriptor_freed();
        assert!(accepting.is_due(now + Duration::from_nanos(1)));
    }

    #[test]
    fn a_connection_that_was_reset_before_it_was_accepted_is_nobodys_trouble() {
        let now = start();
        let mut accepting = announced(10);
        accepting.judge::<()>(Err(ErrorKind::ConnectionAborted.into()), 0, now);
        assert!(accepting.is_due(now));
    }

    #[test]
    fn one_more_than_the_most_is_refused_and_one_fewer_is_not() {
        let now = start();
        let mut accepting = announced(2);
        assert!(matches!(
            accepting.judge(Ok(((), PEER)), 1, now),
            Admission::Serve(..)
        ));
        assert!(matches!(
            accepting.judge(Ok(((), PEER)), 2, now),
            Admission::Refuse(())
        ));
    }

    #[test]
    fn a_server_that_stops_accepts_nobody() {
        let mut accepting = announced(2);
        accepting.stop();
        assert!(!accepting.is_due(start()));
    }
}
