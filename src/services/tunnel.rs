//! Tunnel: each client gets a connection of its own to one other server, and
//! bytes go both ways.
//!
//! Owns who belongs to whom, and the making of connections: which address comes
//! next, and what the log says when none answers. The pipes between both ends
//! carry bytes, pauses and ends; none of these pass through here. Refuses to
//! let one end outlive an error of the other: a truncated stream is reset on
//! both sides, never ended.

mod failures;
mod proxy_header;
mod resolver;
mod target;

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::engine::ConnectError;
use crate::limits::UNRESOLVED_POLL;
use crate::{Actions, ClientId, CloseReason, Remote, Service};
use failures::{Failures, and_before};
pub use proxy_header::ProxyProtocol;
use resolver::Resolver;
pub use target::Target;

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
    /// The name of the upstream in the log, as typed.
    target: String,
    proxy_protocol: Option<ProxyProtocol>,
    /// Longest wait of a client for the look-up; the engine grants each
    /// connection the same time.
    connect_timeout: Duration,
    addresses: Addresses,
    /// Present if the target is a name.
    resolver: Option<Resolver>,
    ends: HashMap<ClientId, End>,
    /// Clients that wait for the look-up, in order of arrival. Entries of
    /// clients that left meanwhile are stale.
    unresolved: VecDeque<(ClientId, Instant)>,
    not_connected: Failures,
    not_resolved: Failures,
}

/// The part that a connection plays in the tunnel.
#[derive(Debug)]
enum End {
    /// A client that waits for the look-up.
    Unresolved,
    /// A client whose upstream is being connected.
    Connecting(Box<Attempt>),
    /// An upstream that is being connected for this client.
    UpstreamOf(ClientId),
    /// One end of a pair, with the other end.
    Joined(ClientId),
}

/// The addresses of the upstream after the latest look-up.
#[derive(Debug)]
struct Addresses {
    known: Arc<[SocketAddr]>,
    /// The address to begin with: the one that worked last.
    first: usize,
}

/// One client's attempts at the addresses.
#[derive(Debug)]
struct Attempt {
    addresses: Arc<[SocketAddr]>,
    next: usize,
    untried: usize,
    since: Instant,
    /// The connection under way.
    upstream: ClientId,
    /// The failures of the addresses tried so far.
    failed: String,
}

impl Tunnel {
    /// A tunnel to `target`. If `target` is a name, a thread looks it up and
    /// wakes the loop through `remote`. A client waits for that, and for a
    /// connection to each address, at most `connect_timeout`. Give
    /// [`Limits::connect_timeout`](crate::limits::Limits::connect_timeout) the
    /// same value.
    #[must_use]
    pub fn new(target: Target, connect_timeout: Duration, remote: Remote) -> Self {
        let name = target.to_string();
        match target.address() {
            Some(address) => Self::to_addresses(name, vec![address], connect_timeout),
            None => Self::to_name(name, connect_timeout, remote, move || target.look_up()),
        }
    }

    /// A tunnel with a look-up of the caller's own. A thread of its own calls
    /// it at once, after failures, and once a minute. `name` is the name of the
    /// upstream in the log.
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

    /// A tunnel to known addresses, without a look-up. Each client tries the
    /// address that worked last first, then the others. `target` is the name of
    /// the upstream in the log.
    #[must_use]
    pub fn to_addresses(target: String, addresses: Vec<SocketAddr>, connect_timeout: Duration) -> Self {
        Self {
            target,
            proxy_protocol: None,
            connect_timeout,
            addresses: Addresses {
                known: addresses.into(),
                first: 0,
            },
            resolver: None,
            ends: HashMap::new(),
            unresolved: VecDeque::new(),
            not_connected: Failures::default(),
            not_resolved: Failures::default(),
        }
    }

    /// Sends each client's address to the upstream in front of its stream.
    #[must_use]
    pub const fn with_proxy_protocol(mut self, version: Option<ProxyProtocol>) -> Self {
        self.proxy_protocol = version;
        self
    }

    /// Starts a client's attempts at the addresses.
    fn begin(&mut self, client: ClientId, since: Instant, actions: &mut Actions<'_>) {
        let attempt = Attempt {
            addresses: self.addresses.known.clone(),
            next: self.addresses.first,
            untried: self.addresses.known.len(),
            since,
            upstream: client,
            failed: String::new(),
        };
        self.try_next(client, Box::new(attempt), actions);
    }

    /// Connects to the next address, or gives up when none is left.
    fn try_next(&mut self, client: ClientId, mut attempt: Box<Attempt>, actions: &mut Actions<'_>) {
        while let Some(address) = attempt.take_next() {
            let connected = if actions.local(client) == Some(address) {
                Err(io::Error::other("that is this tunnel itself").into())
            } else {
                actions.connect(address, client)
            };
            match connected {
                Ok(upstream) => {
                    attempt.upstream = upstream;
                    self.ends.insert(upstream, End::UpstreamOf(client));
                    self.ends.insert(client, End::Connecting(attempt));
                    return;
                }
                Err(error) => {
                    attempt.note_failure(address, &error.to_string());
                    // The process is short of descriptors, and no other address
                    // cures that.
                    if matches!(error, ConnectError::OutOfDescriptors(_)) {
                        attempt
                            .failed
                            .push_str("; raise `ulimit -n` or lower --max-clients");
                        break;
                    }
                }
            }
        }
        let failed = std::mem::take(&mut attempt.failed);
        self.turn_away(client, attempt.since, &failed, actions);
    }

    /// Disconnects a client for which no upstream can be connected.
    fn turn_away(&mut self, client: ClientId, since: Instant, why: &str, actions: &mut Actions<'_>) {
        if let Some(resolver) = &self.resolver {
            resolver.ask();
        }
        self.ends.remove(&client);
        let (Some(name), Some(peer)) = (actions.name(client), actions.peer(client)) else {
            return;
        };
        if let Some(unlogged) = self.not_connected.note(actions.now()) {
            warn!(
                "{name} disconnecting: cannot connect to {}: {why}, after {:.3} s{} ({peer})",
                self.target,
                actions.now().saturating_duration_since(since).as_secs_f64(),
                and_before(unlogged),
            );
        }
        actions.reset(client);
    }

    /// Joins client and upstream: from here on the pipes do the work.
    fn join(&mut self, client: ClientId, upstream: ClientId, actions: &mut Actions<'_>) {
        if let Some(address) = actions.peer(upstream) {
            self.addresses.note_success(address);
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
        if let Some(version) = self.proxy_protocol {
            let header = proxy_header::encode(version, actions.peer(client), actions.local(client));
            match header {
                Ok(header) => {
                    actions.send(upstream, &header);
                }
                Err(error) => return actions.reject(client, format!("no proxy header: {error}")),
            }
        }
        actions.pipe(client, upstream);
        actions.pipe(upstream, client);
        actions.resume(client);
    }

    /// Goes on after a client's connection attempt has failed.
    fn go_on(&mut self, client: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        let Some(End::Connecting(mut attempt)) = self.ends.remove(&client) else {
            return;
        };
        let address = attempt.tried();
        match reason {
            CloseReason::Failed(_, error) => attempt.note_failure(address, &error.to_string()),
            other => attempt.note_failure(address, &other.to_string()),
        }
        self.try_next(client, attempt, actions);
    }

    /// Ends the wait for the look-up: each waiting client starts its attempts,
    /// or is turned away.
    fn end_waiting(&mut self, failure: Option<&io::Error>, actions: &mut Actions<'_>) {
        while let Some((client, since)) = self.unresolved.pop_front() {
            if !matches!(self.ends.get(&client), Some(End::Unresolved)) {
                continue;
            }
            match failure {
                None => self.begin(client, since, actions),
                Some(error) => self.turn_away(client, since, &error.to_string(), actions),
            }
        }
        self.unresolved = VecDeque::new();
    }
}

impl Service for Tunnel {
    fn connected(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        if let Some(&End::UpstreamOf(client)) = self.ends.get(&id) {
            return self.join(client, id, actions);
        }
        // Its bytes wait in the kernel, which then makes the client wait.
        actions.pause(id);
        let now = actions.now();
        if !self.addresses.known.is_empty() {
            return self.begin(id, now, actions);
        }
        self.ends.insert(id, End::Unresolved);
        self.unresolved.push_back((id, now));
        if let Some(resolver) = &self.resolver {
            resolver.ask();
        }
    }

    fn received(&mut self, id: ClientId, _: &[u8], actions: &mut Actions<'_>) {
        // Both ends are piped before they are read. If that ever fails, bytes
        // must not vanish without a sign.
        actions.reset(id);
    }

    fn closed(&mut self, id: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        match self.ends.remove(&id) {
            Some(End::Joined(partner)) => {
                // An end that closed in order has passed its FIN on. After a
                // stop the other end keeps its own time to take its queue.
                if !matches!(reason, CloseReason::Finished | CloseReason::Stopped) {
                    actions.reset(partner);
                }
            }
            Some(End::Connecting(attempt)) => {
                self.ends.remove(&attempt.upstream);
                actions.reset(attempt.upstream);
            }
            Some(End::UpstreamOf(client)) => self.go_on(client, reason, actions),
            Some(End::Unresolved) | None => {}
        }
        if self.ends.is_empty() {
            self.ends = HashMap::new();
        }
    }

    fn sockets_per_client(&self) -> usize {
        2
    }

    fn tick_interval(&self) -> Option<Duration> {
        (!self.unresolved.is_empty()).then_some(UNRESOLVED_POLL)
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        while let Some(&(client, since)) = self.unresolved.front()
            && now.saturating_duration_since(since) >= self.connect_timeout
        {
            self.unresolved.pop_front();
            if matches!(self.ends.get(&client), Some(End::Unresolved)) {
                self.turn_away(client, since, "its name is not resolved yet", actions);
            }
        }
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        let Some(found) = self.resolver.as_ref().and_then(Resolver::take) else {
            return;
        };
        let now = actions.now();
        match found {
            Ok(addresses) => {
                if let Some((outage, _)) = self.not_resolved.recover(now) {
                    info!(
                        "{} resolves again after {:.3} s",
                        self.target,
                        outage.as_secs_f64()
                    );
                }
                if self.addresses.replace(addresses) {
                    info!("{} is at {}", self.target, list(&self.addresses.known));
                }
                self.end_waiting(None, actions);
            }
            Err(error) => {
                if let Some(unlogged) = self.not_resolved.note(now) {
                    let so = match self.addresses.known.len() {
                        0 => "clients are turned away".to_owned(),
                        _ => format!("going on with {}", list(&self.addresses.known)),
                    };
                    let before = and_before(unlogged);
                    warn!("cannot resolve {}: {error}; {so}{before}", self.target);
                }
                if self.addresses.known.is_empty() {
                    self.end_waiting(Some(&error), actions);
                }
            }
        }
    }

    fn stopping(&mut self, actions: &mut Actions<'_>) {
        let unlogged = self.not_connected.take_unlogged();
        if unlogged > 0 {
            warn!(
                "cannot connect to {}: {unlogged} more clients were turned away",
                self.target
            );
        }
        // A client without an upstream was never served, so an orderly end
        // would be wrong.
        for (&id, end) in &self.ends {
            if matches!(end, End::Unresolved | End::Connecting(_)) {
                actions.reset(id);
            }
        }
    }
}

impl Attempt {
    fn take_next(&mut self) -> Option<SocketAddr> {
        self.untried = self.untried.checked_sub(1)?;
        let address = self.addresses.get(self.next % self.addresses.len()).copied();
        self.next += 1;
        address
    }

    /// The address that was taken last.
    fn tried(&self) -> SocketAddr {
        self.addresses[(self.next - 1) % self.addresses.len()]
    }

    fn note_failure(&mut self, address: SocketAddr, why: &str) {
        let separator = if self.failed.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(self.failed, "{separator}{address}: {why}");
    }
}

impl Addresses {
    /// Stores the result of a look-up, and says whether it is new. Name servers
    /// rotate the order to spread the load, which is not new.
    fn replace(&mut self, mut found: Vec<SocketAddr>) -> bool {
        found.dedup();
        let is_same = found.len() == self.known.len() && found.iter().all(|new| self.known.contains(new));
        if is_same || found.is_empty() {
            return false;
        }
        let worked = self.known.get(self.first).copied();
        self.first = found.iter().position(|new| Some(*new) == worked).unwrap_or(0);
        self.known = found.into();
        true
    }

    fn note_success(&mut self, address: SocketAddr) {
        if let Some(index) = self.known.iter().position(|known| *known == address) {
            self.first = index;
        }
    }
}

/// Addresses, separated by commas.
fn list(addresses: &[SocketAddr]) -> String {
    let each: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    each.join(", ")
}
