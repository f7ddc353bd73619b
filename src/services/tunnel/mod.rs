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
mod failures;
mod proxy_header;
mod resolver;
mod target;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::ConnectError;
use crate::limits::{CONNECT_POLL, PROXY_HEADER_TIMEOUT};
use crate::protocol::proxy::{self, ProxyHeaderError};
use crate::units::format_time;
use crate::{Actions, ClientId, CloseReason, Remote, Service};
use addresses::Addresses;
use attempt::{Attempt, Step};
pub use balancers::{AddressRange, AddressRangeError};
use balancers::{Balancers, Introduced};
use failures::{Failures, and_before};
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

    /// A client has come. With balancers it has to be introduced first.
    fn welcome(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let Some(balancers) = &mut self.balancers else {
            return self.begin(client, actions);
        };
        if !actions
            .peer(client)
            .is_some_and(|peer| balancers.may_introduce(peer))
        {
            return actions.reject(client, "may not send a PROXY header from this address");
        }
        balancers.due.push_back((client, actions.now()));
        self.ends.insert(client, End::Unannounced(Vec::new()));
    }

    /// More of a PROXY header has come.
    fn take_header(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        let (Some(balancers), Some(End::Unannounced(bytes))) = (&self.balancers, self.ends.get_mut(&client))
        else {
            return;
        };
        bytes.extend_from_slice(&balancers.buffer[..count_bytes]);
        match proxy::parse(bytes) {
            Ok(None) => actions.hold(client, bytes.len()),
            Err(error) => self.refuse_header(client, &error, actions),
            Ok(Some(header)) => {
                let rest = bytes.split_off(header.length_bytes);
                actions.hold(client, rest.len());
                if let Some((peer, _)) = header.addresses {
                    actions.set_peer(client, peer);
                }
                let addresses = header.addresses;
                self.introduced.insert(client, Introduced { addresses, rest });
                self.begin(client, actions);
            }
        }
    }

    fn refuse_header(&mut self, client: ClientId, error: &ProxyHeaderError, actions: &mut Actions<'_>) {
        self.ends.remove(&client);
        actions.reject(client, error.to_string());
    }

    /// Ends clients whose header is not whole in time.
    fn end_unannounced(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        let Some(balancers) = &mut self.balancers else {
            return;
        };
        while let Some(&(client, since)) = balancers.due.front()
            && now.saturating_duration_since(since) >= PROXY_HEADER_TIMEOUT
        {
            balancers.due.pop_front();
            if let Some(End::Unannounced(bytes)) = self.ends.get(&client) {
                let after = format_time(PROXY_HEADER_TIMEOUT);
                let why = format!("PROXY header not whole after {after}: {} bytes came", bytes.len());
                self.ends.remove(&client);
                actions.reject(client, why);
            }
        }
    }

    /// A client needs an upstream.
    fn begin(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        // What the client sends waits in the kernel until then.
        actions.pause(client);
        let now = actions.now();
        let attempt = Attempt::new(&self.addresses, now, self.connect_timeout);
        let own = actions
            .local(client)
            .and_then(|local| self.addresses.note_own(local));
        let ends_others = own.is_some_and(|own| self.end_loop(own, actions));
        if ends_others {
            // It is the upstream of one of those, come back to us.
            return actions.reset(client);
        }
        self.advance(client, Box::new(attempt), actions);
    }

    /// Does what the attempt says until there is something to wait for.
    fn advance(&mut self, client: ClientId, mut attempt: Box<Attempt>, actions: &mut Actions<'_>) {
        let now = actions.now();
        loop {
            match attempt.step(&self.addresses, now) {
                Step::Connect(address) => self.connect(client, address, &mut attempt, actions),
                Step::Abandon(upstream) => self.abandon(upstream, actions),
                Step::LookUp => self.look_up(),
                Step::GiveUp => return self.turn_away(client, &attempt, actions),
                Step::Wait(until) => {
                    attempt.wakes_at = until;
                    self.waiting.insert((until, client));
                    self.ends.insert(client, End::Connecting(attempt));
                    return;
                }
            }
        }
    }

    fn connect(
        &mut self,
        client: ClientId,
        address: SocketAddr,
        attempt: &mut Attempt,
        actions: &mut Actions<'_>,
    ) {
        match actions.connect(address, client) {
            Ok(upstream) => {
                attempt.begun(upstream, address, actions.now());
                self.ends.insert(upstream, End::UpstreamOf(client));
            }
            Err(error @ ConnectError::OutOfDescriptors(_)) => {
                let why = format!("{error}; raise `ulimit -n` or lower --max-clients");
                attempt.failed_to_begin(address, &why, true);
            }
            Err(error) => {
                if let ConnectError::Io(error) = &error
                    && error.kind() == io::ErrorKind::AddrNotAvailable
                {
                    self.warn_of_local_ports(address, error, actions.now());
                }
                attempt.failed_to_begin(address, &error.to_string(), false);
            }
        }
    }

    /// Each connection to one address needs a local port of its own.
    fn warn_of_local_ports(&mut self, address: SocketAddr, error: &io::Error, now: Instant) {
        if let Some(unlogged) = self.no_local_port.note(now) {
            warn!(
                "no local port is free for a connection to {address}: {error}; widen \
                 net.ipv4.ip_local_port_range or give {} more addresses{}",
                self.target,
                and_before(unlogged),
            );
        }
    }

    /// Closes a connection that is being made and that nobody needs any more.
    fn abandon(&mut self, upstream: ClientId, actions: &mut Actions<'_>) {
        self.ends.remove(&upstream);
        actions.reset(upstream);
    }

    fn look_up(&self) {
        if let Some(resolver) = &self.resolver {
            resolver.ask();
        }
    }

    /// Takes out a client that waits for its upstream.
    fn take_waiting(&mut self, client: ClientId) -> Option<Box<Attempt>> {
        let End::Connecting(attempt) = self.ends.remove(&client)? else {
            return None;
        };
        self.waiting.remove(&(attempt.wakes_at, client));
        Some(attempt)
    }

    /// Disconnects a client for which there is no upstream.
    fn turn_away(&mut self, client: ClientId, attempt: &Attempt, actions: &mut Actions<'_>) {
        for upstream in attempt.upstreams() {
            self.abandon(upstream, actions);
        }
        let (Some(name), Some(peer)) = (actions.name(client), actions.peer(client)) else {
            return;
        };
        let (waited, mut why) = attempt.outcome(actions.now());
        if let Some(own) = self.addresses.all_own() {
            let each = own.iter().map(|own| format!("{own}: that is this tunnel itself"));
            why = each.collect::<Vec<_>>().join(", ");
        } else if why.is_empty() {
            why.clone_from(&self.unresolved);
        }
        if let Some(unlogged) = self.not_connected.note(actions.now()) {
            warn!(
                "{name} disconnecting: cannot connect to {}: {why}, after {:.3} s{} ({peer})",
                self.target,
                waited.as_secs_f64(),
                and_before(unlogged),
            );
        }
        actions.reset(client);
    }

    /// An address of the upstream leads back to this tunnel. Ends all
    /// connections to it, and says whether there were any.
    fn end_loop(&mut self, own: SocketAddr, actions: &mut Actions<'_>) -> bool {
        let mut found = false;
        for client in self.waiting_clients() {
            let Some(mut attempt) = self.take_waiting(client) else {
                continue;
            };
            for upstream in attempt.take_connects_to(own) {
                self.abandon(upstream, actions);
                found = true;
            }
            self.advance(client, attempt, actions);
        }
        let joined = self.ends.iter().filter_map(|(&id, end)| match end {
            End::Joined(client) if actions.peer(id) == Some(own) => Some(*client),
            _ => None,
        });
        for client in joined.collect::<Vec<_>>() {
            actions.reject(client, format!("{own} is this tunnel itself"));
            found = true;
        }
        found
    }

    fn waiting_clients(&self) -> Vec<ClientId> {
        self.waiting.iter().map(|&(_, client)| client).collect()
    }

    /// The upstream is there: from here on the pipes do the work.
    fn join(&mut self, client: ClientId, upstream: ClientId, actions: &mut Actions<'_>) {
        if let Some(attempt) = self.take_waiting(client) {
            for loser in attempt.upstreams().filter(|&other| other != upstream) {
                self.abandon(loser, actions);
            }
        }
        if let Some(address) = actions.peer(upstream) {
            self.addresses.set_worked(address);
        }
        if let Some((outage, times)) = self.not_connected.recover(actions.now()) {
            info!(
                "connected to {} again after {:.3} s; {times} clients were turned away",
                self.target,
                outage.as_secs_f64(),
            );
        }
        self.ends.insert(client, End::Joined(upstream));
        self.ends.insert(upstream, End::Joined(client));
        let introduced = self.introduced.remove(&client).unwrap_or_default();
        if let Some(version) = self.proxy_protocol {
            let (peer, local) = match introduced.addresses {
                Some((peer, local)) => (Some(peer), Some(local)),
                None => (actions.peer(client), actions.local(client)),
            };
            let header = proxy_header::encode(version, peer, local);
            match header {
                Ok(header) => {
                    actions.send(upstream, &header);
                }
                Err(error) => return actions.reject(client, format!("no proxy header: {error}")),
            }
        }
        if !introduced.rest.is_empty() {
            actions.hold(client, 0);
            actions.send(upstream, &introduced.rest);
        }
        actions.pipe(client, upstream);
        actions.pipe(upstream, client);
        actions.resume(client);
    }

    /// A connection that was being made for a client has failed.
    fn connect_failed(
        &mut self,
        client: ClientId,
        upstream: ClientId,
        reason: &CloseReason,
        actions: &mut Actions<'_>,
    ) {
        let Some(mut attempt) = self.take_waiting(client) else {
            return;
        };
        let why = match reason {
            CloseReason::Failed(_, error) => error.to_string(),
            other => other.to_string(),
        };
        attempt.failed(upstream, &why, actions.now());
        self.advance(client, attempt, actions);
    }

    /// A look-up has found these addresses.
    fn resolved(&mut self, found: Vec<SocketAddr>, actions: &mut Actions<'_>) {
        let now = actions.now();
        if let Some((outage, _)) = self.not_resolved.recover(now) {
            info!(
                "{} resolves again after {:.3} s",
                self.target,
                outage.as_secs_f64()
            );
        }
        if !self.addresses.replace(found) {
            return;
        }
        info!("{} is at {}", self.target, self.addresses.list());
        for client in self.waiting_clients() {
            if let Some(mut attempt) = self.take_waiting(client) {
                attempt.take_up(&self.addresses, now);
                self.advance(client, attempt, actions);
            }
        }
    }

    fn not_resolved(&mut self, error: &io::Error, now: Instant) {
        if self.addresses.is_empty() {
            self.unresolved = error.to_string();
        }
        if let Some(unlogged) = self.not_resolved.note(now) {
            let so = match self.addresses.is_empty() {
                true => "clients wait for it".to_owned(),
                false => format!("going on with {}", self.addresses.list()),
            };
            let before = and_before(unlogged);
            warn!("cannot resolve {}: {error}; {so}{before}", self.target);
        }
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
        (!self.waiting.is_empty() || owes_header).then_some(CONNECT_POLL)
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        self.end_unannounced(actions);
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

    fn stopping(&mut self, _: &mut Actions<'_>) {
        let unlogged = self.not_connected.take_unlogged();
        if unlogged > 0 {
            warn!(
                "cannot connect to {}: {unlogged} more clients were turned away",
                self.target
            );
        }
    }
}
