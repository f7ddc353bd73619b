//! Which of the addresses of a server answers first: each has a head start before the next.
//!
//! Owns the race that RFC 8305 describes. Refuses to resolve names.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll};

use crate::probe::driver::clock;
use crate::probe::driver::socket::{self, Buffers};
use crate::probe::error::ProbeError;
use crate::probe::watcher::ProgressSink;

/// The head start of one address before the next (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Between two looks at whether the probe was interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Finds the address to probe: the first of `addresses` that takes a connection. Each is tried
/// 250 ms after the one before it, or at once when that one refuses.
///
/// # Errors
///
/// [`ProbeError::Unreachable`] with the first refusal when none does within `timeout`, and
/// [`ProbeError::Interrupted`] when `sink` says so.
pub fn choose_address(
    addresses: &[SocketAddr],
    timeout: Duration,
    sink: &dyn ProgressSink,
) -> Result<SocketAddr, ProbeError> {
    connect(addresses, clock::now() + timeout, sink).map(|(address, _)| address)
}

/// A connection to the first that takes one; the stream does not block.
pub(crate) fn connect(
    addresses: &[SocketAddr],
    deadline: Instant,
    sink: &dyn ProgressSink,
) -> Result<(SocketAddr, std::net::TcpStream), ProbeError> {
    let mut race = Race {
        poll: Poll::new().map_err(ProbeError::system("make an epoll"))?,
        attempts: Vec::new(),
        refusal: None,
    };
    let mut events = Events::with_capacity(addresses.len().max(1));
    let mut next_at = clock::now();
    loop {
        let now = clock::now();
        if sink.is_interrupted() {
            return Err(ProbeError::Interrupted);
        }
        let started = race.attempts.len();
        if started < addresses.len() && (now >= next_at || race.is_lost()) {
            race.start(addresses[started])?;
            next_at = now + HEAD_START;
        } else if race.is_lost() || now >= deadline {
            return Err(race.into_error());
        }
        let wait = LOOK_EVERY.min(deadline.saturating_duration_since(now));
        if let Err(error) = race.poll.poll(&mut events, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(ProbeError::system("wait for events")(error));
        }
        if let Some(won) = events.iter().find_map(|event| race.finish(event.token().0)) {
            return Ok(won);
        }
    }
}

struct Race {
    poll: Poll,
    /// One for each address tried; `None` once it was refused.
    attempts: Vec<(SocketAddr, Option<TcpStream>)>,
    /// The first.
    refusal: Option<(SocketAddr, io::Error)>,
}

impl Race {
    fn start(&mut self, address: SocketAddr) -> Result<(), ProbeError> {
        let mut attempt = None;
        match socket::start_connecting(address, Buffers::default()) {
            Ok(mut stream) => {
                socket::watch(self.poll.registry(), &mut stream, self.attempts.len())?;
                attempt = Some(stream);
            }
            Err(error) => _ = self.refusal.get_or_insert((address, error)),
        }
        self.attempts.push((address, attempt));
        Ok(())
    }

    /// Whether all that were tried have refused.
    fn is_lost(&self) -> bool {
        self.attempts.iter().all(|(_, stream)| stream.is_none())
    }

    fn finish(&mut self, index: usize) -> Option<(SocketAddr, std::net::TcpStream)> {
        let (address, attempt) = self.attempts.get_mut(index)?;
        let stream = attempt.as_ref()?;
        if let Ok(Some(error)) = stream.take_error() {
            self.refusal.get_or_insert((*address, error));
            *attempt = None;
        } else if stream.peer_addr().is_ok() {
            let mut stream = attempt.take()?;
            let _ = self.poll.registry().deregister(&mut stream);
            return Some((*address, OwnedFd::from(stream).into()));
        }
        None
    }

    fn into_error(self) -> ProbeError {
        let silent = self.attempts.first().map(|(address, _)| *address);
        let (address, source) = match (self.refusal, silent) {
            (Some(refusal), _) => refusal,
            (None, Some(address)) => (address, io::ErrorKind::TimedOut.into()),
            (None, None) => {
                return ProbeError::NoAddress {
                    target: String::new(),
                    source: None,
                };
            }
        };
        ProbeError::Unreachable { address, source }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::probe::watcher::NoProgress;

    /// More than a backlog of none takes: the kernel drops what more would connect.
    const FILLING: usize = 4;
    const ENOUGH: Duration = Duration::from_secs(20);

    fn local() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    /// An address at which nobody answers and nobody refuses, for as long as the sockets live.
    fn silent() -> (SocketAddr, Vec<Socket>) {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&local().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = vec![listener];
        for _ in 0..FILLING {
            let filling = socket();
            filling.set_nonblocking(true).unwrap();
            let _under_way = filling.connect(&address);
            held.push(filling);
        }
        (address.as_socket().unwrap(), held)
    }

    fn refusing() -> SocketAddr {
        TcpListener::bind(local()).unwrap().local_addr().unwrap()
    }

    fn choose(addresses: &[SocketAddr], timeout: Duration) -> (Result<SocketAddr, ProbeError>, Duration) {
        let begun = clock::now();
        (choose_address(addresses, timeout, &NoProgress), begun.elapsed())
    }

    #[test]
    fn an_address_is_tried_250_ms_after_each_silent_one_before_it() {
        let silent = [silent(), silent(), silent(), silent()];
        let listener = TcpListener::bind(local()).unwrap();
        let last = listener.local_addr().unwrap();
        let addresses: Vec<SocketAddr> = silent.iter().map(|(address, _)| *address).chain([last]).collect();
        let begun = clock::now();
        let peer = std::thread::spawn(move || {
            listener.accept().unwrap();
            begun.elapsed()
        });
        assert_eq!(choose(&addresses, ENOUGH).0.unwrap(), last);
        // Four head starts of 250 ms. A busy machine makes them longer, never shorter.
        let tried_after = peer.join().unwrap();
        let right = Duration::from_millis(950)..Duration::from_millis(3000);
        assert!(right.contains(&tried_after), "{tried_after:?}");
    }

    #[test]
    fn an_address_that_refuses_is_followed_by_the_next_at_once() {
        let refusing: Vec<SocketAddr> = (0..80).map(|_| refusing()).collect();
        let listener = TcpListener::bind(local()).unwrap();
        let last = listener.local_addr().unwrap();
        let (chosen, took) = choose(&[&refusing[..], &[last]].concat(), 2 * ENOUGH);
        assert_eq!(chosen.unwrap(), last);
        // With a head start for each it would take 20 s.
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn silent_addresses_end_the_probe_at_its_timeout() {
        let ((first, _one), (second, _other)) = (silent(), silent());
        let timeout = Duration::from_millis(500);
        let (chosen, took) = choose(&[first, second], timeout);
        assert!(matches!(chosen, Err(ProbeError::Unreachable { address, .. }) if address == first));
        assert!(took >= timeout && took < ENOUGH, "{took:?}");
    }
}
