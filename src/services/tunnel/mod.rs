//! Tunnel: every client gets a connection of its own to another server, the
//! upstream, and every byte goes from one to the other, both ways.
//!
//! Owns who belongs to whom, and what is said when no upstream answers. The
//! pipes between the two ends carry bytes, pauses and ends. Refuses to let one
//! end outlive an error of the other: a stream that was cut is reset on both
//! sides, never ended.

mod addresses;
mod attempt;
mod balancers;
mod connecting;
mod failures;
mod introducing;
mod joining;
mod looping;
mod proxy_header;
mod resolver;
mod target;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::limits::CONNECT_POLL;
use crate::protocol::proxy;
use crate::{Actions, ClientId, CloseReason, Limits, Remote, Service};
use addresses::Addresses;
use attempt::Attempt;
pub use balancers::{AddressRange, AddressRangeError};
use balancers::{Balancers, Introduced};
use failures::Failures;
pub use proxy_header::ProxyProtocol;
use resolver::Resolver;
pub use target::{Target, TargetError};

/// Carries every client's bytes to an upstream and back.
///
/// ```no_run
/// use highwater::EventLoop;
/// use highwater::limits::Limits;
/// use highwater::services::Tunnel;
///
/// let limits = Limits::default();
/// let timeout = limits.connect_timeout;
/// let listen = ([127, 0, 0, 1], 9000).into();
/// let target = "redis:6379".parse()?;
/// let mut server =
///     EventLoop::listen_with(listen, limits, |remote| Tunnel::new(target, timeout, remote))?;
/// println!("{}", server.run()?.summary("carried"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tunnel {
    /// The upstream as it was typed, for the log.
    target: String,
    proxy_protocol: Option<ProxyProtocol>,
    /// Present if clients come with a PROXY header.
    balancers: Option<Balancers>,
    /// What such headers said, until the upstream is there.
    introduced: HashMap<ClientId, Introduced>,
    /// How long one client waits for its upstream in all.
    connect_timeout: Duration,
    addresses: Addresses,
    /// Where the target is a name.
    resolver: Option<Resolver>,
    ends: HashMap<ClientId, End>,
    /// Clients that wait for an upstream, by the instant of their next step.
    waiting: BTreeSet<(Instant, ClientId)>,
    not_connected: Failures,
    not_resolved: Failures,
    no_local_port: Failures,
    /// Why the name has no address yet.
    unresolved: String,
    slow_upstream_advice: Option<String>,
}

/// What one connection is to the tunnel.
#[derive(Debug)]
enum End {
    /// A client whose PROXY header is not whole: what is there of it.
    Unannounced(Vec<u8>),
    /// A client whose upstream is being connected.
    Connecting(Box<Attempt>),
    /// An upstream that is being connected for this client.
    UpstreamOf(ClientId),
    /// A client and its upstream, each with the other.
    Joined(ClientId),
}

impl Tunnel {
    /// A tunnel to `target`. If that is a name, a thread begins to look it up
    /// and wakes the loop by `remote`. A client waits at most
    /// `connect_timeout` for its upstream, retries included. Give the same to
    /// [`Limits::connect_timeout`](crate::limits::Limits::connect_timeout).
    #[must_use]
    pub fn new(target: Target, connect_timeout: Duration, remote: Remote) -> Self {
        let name = target.to_string();
        match target.address() {
            Some(address) => Self::to_addresses(name, vec![address], connect_timeout),
            None => Self::to_name(name, connect_timeout, remote, move || target.look_up()),
        }
    }

    /// Like [`new`](Self::new), with a look-up of your own. It is called on a
    /// thread of its own: at the start, once a minute, and after failures.
    /// `name` is the upstream's name in the log.
    #[must_use]
    pub fn to_name(
        name: String,
        connect_timeout: Duration,
        remote: Remote,
        look_up: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Self {
        let mut tunnel = Self::to_addresses(name, Vec::new(), connect_timeout);
        tunnel.resolver = Some(Resolver::start(look_up, move || remote.wake()));
        tunnel
    }

    /// Like [`new`](Self::new), to known addresses, without a look-up. Each
    /// client tries first the address that worked last. `target` is the
    /// upstream's name in the log.
    #[must_use]
    pub fn to_addresses(target: String, addresses: Vec<SocketAddr>, connect_timeout: Duration) -> Self {
        Self {
            target,
            proxy_protocol: None,
            balancers: None,
            introduced: HashMap::new(),
            connect_timeout,
            addresses: Addresses::new(addresses),
            resolver: None,
            ends: HashMap::new(),
            waiting: BTreeSet::new(),
            not_connected: Failures::default(),
            not_resolved: Failures::default(),
            no_local_port: Failures::default(),
            unresolved: "its name is not resolved yet".to_owned(),
            slow_upstream_advice: None,
        }
    }

    /// Sends each client's address to the upstream, before anything else.
    #[must_use]
    pub const fn with_proxy_protocol(mut self, version: Option<ProxyProtocol>) -> Self {
        self.proxy_protocol = version;
        self
    }

    /// Takes a PROXY header from each client, and refuses clients that come
    /// from anywhere else than `from`. Log and upstream then see the client
    /// that the header names.
    #[must_use]
    pub fn accepting_proxy_protocol(mut self, from: Vec<AddressRange>) -> Self {
        self.balancers = Some(Balancers::new(from));
        self
    }

    /// Ends the log line of an upstream that was too slow with this advice,
    /// such as the setting that gives it longer.
    #[must_use]
    pub fn with_slow_upstream_advice(mut self, advice: impl Into<String>) -> Self {
        self.slow_upstream_advice = Some(advice.into());
        self
    }
}

impl Service for Tunnel {
    fn connected(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        match self.ends.get(&id) {
            Some(&End::UpstreamOf(client)) => self.join(client, id, actions),
            _ => self.welcome(id, actions),
        }
    }

    fn read_buffer(&mut self, id: ClientId) -> Option<&mut [u8]> {
        let Some(End::Unannounced(bytes)) = self.ends.get(&id) else {
            return None;
        };
        let room_bytes = proxy::MAX_HEADER_BYTES - bytes.len();
        self.balancers
            .as_mut()
            .map(|balancers| &mut balancers.buffer[..room_bytes])
    }

    fn filled(&mut self, id: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        self.take_header(id, count_bytes, actions);
    }

    fn ended(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        match self.ends.get(&id) {
            Some(End::Unannounced(bytes)) if !bytes.is_empty() => {
                let why = format!(
                    "PROXY header not whole: the client ended after {} bytes",
                    bytes.len()
                );
                actions.reject(id, why);
            }
            // A health check connects and says nothing.
            _ => actions.end(id),
        }
    }

    fn received(&mut self, id: ClientId, _: &[u8], actions: &mut Actions<'_>) {
        // Both ends are piped before they are read. Should that ever fail,
        // bytes must not vanish without a sign.
        actions.reset(id);
    }

    fn closed(&mut self, id: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        match self.ends.remove(&id) {
            // An orderly end has been passed on. After a stop the other end
            // keeps its own time to take what is queued.
            Some(End::Joined(_)) if matches!(reason, CloseReason::Finished | CloseReason::Stopped) => {}
            Some(End::Joined(partner)) => actions.reset(partner),
            Some(End::Connecting(attempt)) => {
                self.waiting.remove(&(attempt.wakes_at, id));
                for upstream in attempt.upstreams() {
                    self.abandon(upstream, actions);
                }
            }
            Some(End::UpstreamOf(client)) => self.connect_failed(client, id, reason, actions),
            Some(End::Unannounced(_)) | None => {}
        }
        self.introduced.remove(&id);
        if self.ends.is_empty() {
            self.ends = HashMap::new();
        }
    }

    fn reloaded(&mut self, limits: &Limits, _: &mut Actions<'_>) {
        self.connect_timeout = limits.connect_timeout;
    }

    fn introduces_clients(&self) -> bool {
        self.balancers.is_some()
    }

    fn refusal_hint(&self, peer: SocketAddr, actions: &mut Actions<'_>) -> String {
        self.loop_hint(peer, actions)
    }

    fn sockets_per_client(&self) -> usize {
        2
    }

    fn slow_upstream_advice(&self) -> Option<String> {
        self.slow_upstream_advice.clone()
    }

    fn tick_interval(&self) -> Option<Duration> {
        let owes_header = self
            .balancers
            .as_ref()
            .is_some_and(|balancers| !balancers.due.is_empty());
        let owes_sum = self.not_connected.sum_at().is_some();
        (!self.waiting.is_empty() || owes_header || owes_sum).then_some(CONNECT_POLL)
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        self.end_unannounced(actions);
        if self.not_connected.sum_at().is_some_and(|due| due <= now) {
            self.sum_up_failures(now);
        }
        while let Some(&(due, client)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            if let Some(attempt) = self.take_waiting(client) {
                self.advance(client, attempt, actions);
            }
        }
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        match self.resolver.as_ref().and_then(Resolver::take) {
            Some(Ok(found)) => self.resolved(found, actions),
            Some(Err(error)) => self.not_resolved(&error, actions.now()),
            None => {}
        }
    }

    fn stopping(&mut self, actions: &mut Actions<'_>) {
        self.sum_up_failures(actions.now());
    }
}
