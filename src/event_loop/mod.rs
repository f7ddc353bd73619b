//! The event loop: wait, read the clock once, take one turn, repeat.
//!
//! Owns mio's poll and the real clock. Refuses to touch clients: the engine
//! decides what happens in a turn.

mod beat;
mod heartbeat;
mod offer;
mod remote;
mod trimmer;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use log::info;
use mio::{Events, Poll, Token};

pub use remote::Remote;

use crate::engine::{ClientId, Clock, Counters, Engine, Event, Next, Service};
use crate::error::ServerError;
use crate::kernel::{KernelNetwork, allocator};
use crate::limits::{EVENTS_PER_TURN, Limits};
use beat::Beat;
use heartbeat::Heartbeat;
use offer::Offer;
use remote::{Done, Reload};
use trimmer::Trimmer;

/// Tokens that no client's id can take.
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// A server: its listeners, one thread, one service.
///
/// ```no_run
/// use highwater::services::Echo;
/// use highwater::{EventLoop, Limits};
///
/// let mut server = EventLoop::listen(([127, 0, 0, 1], 9000).into(), Limits::default(), Echo)?;
/// println!("{}", server.run()?.summary("echoed"));
/// # Ok::<(), highwater::ServerError>(())
/// ```
pub struct EventLoop<S> {
    poll: Poll,
    events: Events,
    engine: Engine<KernelNetwork, S>,
    clock: Clock,
    trimmer: Trimmer,
    heartbeat: Option<Heartbeat>,
    remote: Remote,
    addresses: Vec<SocketAddr>,
    offer: Offer,
    /// Set while the loop is watched.
    beat: Option<Beat>,
    /// Hears that the turn has put other limits in force.
    reloaded: Option<Done>,
}

impl<S: Service> EventLoop<S> {
    /// Listens on `address`; port 0 takes a free port. Connections wait in the
    /// kernel until [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// The limits contradict each other, the address cannot be listened on,
    /// or the kernel refuses an event loop.
    pub fn listen(address: SocketAddr, limits: Limits, service: S) -> Result<Self, ServerError> {
        Self::listen_with(address, limits, |_| service)
    }

    /// Listens as [`listen`](Self::listen) does, with a service that other
    /// threads call: `service` makes it from the [`Remote`] of this loop.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn listen_with(
        address: SocketAddr,
        limits: Limits,
        service: impl FnOnce(Remote) -> S,
    ) -> Result<Self, ServerError> {
        Self::listen_on(&[address], limits, service)
    }

    /// Listens as [`listen_with`](Self::listen_with) does, on several
    /// addresses. With port 0 the kernel chooses one port for all of them.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen), or there is no address.
    pub fn listen_on(
        addresses: &[SocketAddr],
        limits: Limits,
        service: impl FnOnce(Remote) -> S,
    ) -> Result<Self, ServerError> {
        Self::listen_through(Vec::new(), addresses, limits, service)
    }

    /// Accepts from `listeners`, sockets that listen already, and listens on
    /// `addresses` beside them. A service manager or a server that is replaced
    /// passes such sockets, and connections that wait in them lose nothing.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen), or there is neither a listener nor an
    /// address.
    #[expect(clippy::disallowed_methods, reason = "the event loop owns the clock")]
    pub fn listen_through(
        listeners: Vec<TcpListener>,
        addresses: &[SocketAddr],
        limits: Limits,
        service: impl FnOnce(Remote) -> S,
    ) -> Result<Self, ServerError> {
        limits.check()?;
        let set_up = |error| ServerError::EventLoop("be set up", error);
        let poll = Poll::new().map_err(set_up)?;
        let registry = poll.registry().try_clone().map_err(set_up)?;
        let remote = Remote::new(poll.registry(), WAKER).map_err(set_up)?;
        if addresses.is_empty() && listeners.is_empty() {
            return Err(set_up(io::Error::new(
                io::ErrorKind::InvalidInput,
                "there is no address to listen on",
            )));
        }
        let network = KernelNetwork::listen(registry, LISTENER, listeners, addresses, &limits)
            .map_err(|(address, error)| ServerError::Listen(address, error))?;
        let addresses = network.local_addrs().map_err(set_up)?;
        let now = Instant::now();
        let service = service(remote.clone());
        let offer = Offer::look_up();
        let (limits, budget_bytes, max_clients) = offer.complete(limits, service.sockets_per_client());
        let engine = Engine::new(network, service, &limits, budget_bytes, max_clients, now)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            engine,
            clock: Clock::new(now),
            trimmer: Trimmer::new(now),
            heartbeat: None,
            remote,
            addresses,
            offer,
            beat: None,
            reloaded: None,
        })
    }

    /// The address of the first listener, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The addresses of all listeners, in the order in which they were given.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Keeps what an operator may ask for by [`Remote::ask`]: who is connected,
    /// who has left and why, how late the loop is. The loop then wakes ten times
    /// a second while it has work, and remembers the last clients that left for each reason
    /// ([`GONE_CLIENTS`](crate::limits::GONE_CLIENTS)).
    pub fn watch(&mut self) {
        self.engine.watch();
        self.beat = Some(Beat::default());
    }

    /// The listening sockets once more, for another process that accepts on
    /// them. A socket listens until every copy of it is closed.
    ///
    /// # Errors
    ///
    /// Descriptors have run out.
    pub fn clone_listeners(&mut self) -> io::Result<Vec<TcpListener>> {
        self.engine.network().clone_listeners()
    }

    /// Has `beat` called on the thread of this loop about once in `interval`,
    /// between two turns, with the number of connections and the counters. It
    /// must not block. A loop that hangs beats no more, so a watchdog that
    /// misses the beat is right to start the server anew.
    #[expect(clippy::disallowed_methods, reason = "the event loop owns the clock")]
    pub fn set_heartbeat(&mut self, interval: Duration, beat: impl FnMut(usize, &Counters) + Send + 'static) {
        self.heartbeat = Some(Heartbeat::new(interval, Instant::now(), beat));
    }

    /// A handle by which other threads and signal handlers reach this loop.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Serves until [`Remote::stop`] or [`Actions::stop`](crate::Actions::stop)(crate::Actions::stop), and returns the
    /// counters.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait for events. No client can cause that.
    #[expect(clippy::disallowed_methods, reason = "the event loop owns the clock")]
    pub fn run(&mut self) -> Result<Counters, ServerError> {
        if !self.engine.has_role() {
            for address in &self.addresses {
                info!(event = "listening", address:% = address; "listening on {address}");
            }
            self.offer.log();
            self.engine.log_limits();
        }
        let mut wait = Some(Duration::ZERO);
        loop {
            if let Err(error) = self.poll.poll(&mut self.events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(ServerError::EventLoop("wait for events", error));
            }
            let real = Instant::now();
            let now = self.clock.advance(real, wait);
            self.dispatch();
            self.look_at_watch(real);
            let next = self.engine.turn(now);
            if let Some(done) = self.reloaded.take() {
                done(Ok(()));
            }
            match next {
                Next::Stopped => {
                    if self.engine.shadow_report().is_some() {
                        self.engine.log_shadow();
                    }
                    return Ok(*self.engine.counters());
                }
                Next::WaitFor(time) => wait = Some(time),
                Next::Wait => wait = None,
            }
            wait = self.give_memory_back(now, wait);
            if let Some(beat) = &mut self.beat {
                wait = beat.shorten(wait, real);
            }
            if let Some(heartbeat) = &mut self.heartbeat {
                let until = heartbeat.beat(real, self.engine.client_count(), self.engine.counters());
                wait = Some(wait.map_or(until, |wait| wait.min(until)));
            }
        }
    }

    /// Takes what operators ask, and notes how late the loop is.
    fn look_at_watch(&mut self, real: Instant) {
        let Some(beat) = &mut self.beat else {
            return;
        };
        if let Some(lag) = beat.woke(real, !self.events.is_empty()) {
            self.engine.observe_lag(lag);
        }
        if self.remote.is_asked() {
            for (question, reply) in self.remote.take_questions() {
                self.engine.inspect(question, reply);
            }
        }
    }

    /// Hands the events to the engine.
    fn dispatch(&mut self) {
        let mut is_called = false;
        for event in &self.events {
            match event.token() {
                LISTENER => self.engine.handle_listener(),
                WAKER => {
                    is_called = true;
                    if self.remote.take_stop() {
                        self.engine.stop();
                    }
                    if self.remote.take_hand_over() {
                        self.engine.hand_over();
                    }
                    if self.remote.take_tell_shadow() {
                        self.engine.log_shadow();
                    }
                    if self.remote.take_wake() {
                        self.engine.handle_wake();
                    }
                }
                token => self.engine.handle_event(
                    ClientId::from_token(token.0),
                    Event {
                        readable: event.is_readable()
                            || event.is_priority()
                            || event.is_error()
                            || event.is_read_closed(),
                        writable: event.is_writable() || event.is_error() || event.is_write_closed(),
                        read_again: event.is_read_closed() || event.is_error() || event.is_priority(),
                    },
                ),
            }
        }
        if is_called && let Some(reload) = self.remote.take_reload() {
            self.reload(reload);
        }
    }

    /// Has the next turn put other limits in force.
    fn reload(&mut self, Reload { limits, done }: Reload) {
        let (limits, budget_bytes, max_clients) =
            self.offer.complete(limits, self.engine.sockets_per_client());
        match self.engine.reload(&limits, budget_bytes, max_clients) {
            Ok(()) => self.reloaded = Some(done),
            Err(error) => done(Err(error)),
        }
    }

    /// Gives freed memory back to the system when it is due, and shortens the
    /// wait to be there in time.
    fn give_memory_back(&mut self, now: Instant, wait: Option<Duration>) -> Option<Duration> {
        self.trimmer.queued_now(self.engine.kept_bytes());
        if self.trimmer.take_due(now) {
            self.engine.shrink();
            allocator::trim();
        }
        let due = self.trimmer.due().map(|due| due.saturating_duration_since(now));
        match (wait, due) {
            (Some(wait), Some(due)) => Some(wait.min(due)),
            (wait, due) => wait.or(due),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Actions;
    use crate::services::Echo;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};

    /// Greets its clients, and reads nothing.
    struct Greeter;

    impl Service for Greeter {
        fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
            actions.send(client, b"hello");
        }
    }

    #[test]
    fn a_client_that_sends_to_a_service_that_does_not_read_is_rejected_and_a_silent_one_is_not() {
        let any_port = (Ipv4Addr::LOCALHOST, 0).into();
        let mut server = EventLoop::listen(any_port, Limits::default(), Greeter).unwrap();
        let connect = || {
            let client = TcpStream::connect(server.local_addr()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client
        };
        let (mut silent, mut talker) = (connect(), connect());
        let remote = server.remote();
        let running = std::thread::spawn(move || server.run());
        let mut greeting = [0; 5];
        silent.read_exact(&mut greeting).unwrap();
        talker.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
        talker.write_all(b"?").unwrap();
        let rejected = talker.read(&mut greeting);
        silent.shutdown(std::net::Shutdown::Write).unwrap();
        let ended = silent.read(&mut greeting);
        remote.stop();
        let counters = running.join().unwrap().unwrap();
        assert_eq!(rejected.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(ended.unwrap(), 0, "an end is no data");
        assert_eq!(counters.rejected_clients, 1);
        assert_eq!(counters.finished_clients, 1);
    }

    #[test]
    fn urgent_bytes_stay_in_the_stream_and_what_follows_is_read_though_a_read_stops_there() {
        let any_port = (Ipv4Addr::LOCALHOST, 0).into();
        let mut server = EventLoop::listen(any_port, Limits::default(), Echo).unwrap();
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // All of it is there before the server looks for the first time.
        client.write_all(b"before").unwrap();
        let socket = socket2::SockRef::from(&client);
        assert_eq!(socket.send_out_of_band(b"!").unwrap(), 1);
        client.write_all(b"behind").unwrap();
        let remote = server.remote();
        let running = std::thread::spawn(move || server.run());
        let mut echoed = [0; 13];
        let outcome = client.read_exact(&mut echoed);
        remote.stop();
        running.join().unwrap().unwrap();
        outcome.unwrap();
        assert_eq!(&echoed, b"before!behind");
    }
}
