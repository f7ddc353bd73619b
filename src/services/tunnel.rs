//! Tunnel: every client gets a connection of its own to one other server, and
//! every byte goes from the one to the other, both ways.
//!
//! Owns who belongs to whom, and the making of the connections: which
//! addresses, in which order, and what is said when none answers. The pipes
//! between the two ends carry the bytes, the pauses and the ends; nothing of
//! that passes through here. Refuses to let one end outlive an error of the
//! other: a stream that was cut is reset on both sides, never ended.

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

use crate::error::{CloseReason, is_out_of_descriptors};
use crate::event_loop::{Actions, ClientId, Remote, Service};
use crate::limits::UNRESOLVED_POLL;
use failures::{Failures, and_before};
pub use proxy_header::ProxyProtocol;
use resolver::Resolver;
pub use target::Target;

/// Carries every client's bytes to an upstream and back.
///
/// ```no_run
/// use highwater::event_loop::EventLoop;
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
    /// What the log calls the upstream, as it was typed.
    target: String,
    proxy_protocol: Option<ProxyProtocol>,
    /// How long a client waits for the name to be resolved; the engine has
    /// the same time for each connection.
    connect_timeout: Duration,
    addresses: Addresses,
    /// Where the target is a name.
    resolver: Option<Resolver>,
    ends: HashMap<ClientId, End>,
    /// Clients that wait for the name to be resolved, in order of arrival;
    /// those who left meanwhile are stale.
    unresolved: VecDeque<(ClientId, Instant)>,
    not_connected: Failures,
    not_resolved: Failures,
}

/// What one connection is to the tunnel.
#[derive(Debug)]
enum End {
    /// A client that waits for the name to be resolved.
    Unresolved,
    /// A client whose upstream is being connected.
    Connecting(Box<Attempt>),
    /// An upstream that is being connected for this client.
    UpstreamOf(ClientId),
    /// A client and its upstream, each with the other.
    Joined(ClientId),
}

/// The addresses of the upstream, as last heard.
#[derive(Debug)]
struct Addresses {
    known: Arc<[SocketAddr]>,
    /// The one to begin with: that which worked last.
    first: usize,
}

/// One client's way through the addresses.
#[derive(Debug)]
struct Attempt {
    addresses: Arc<[SocketAddr]>,
    next: usize,
    untried: usize,
    since: Instant,
    /// The connection that is being made.
    upstream: ClientId,
    /// What went wrong with the addresses tried so far.
    failed: String,
}

impl Tunnel {
    /// A tunnel to `target`. If that is a name, a thread begins to look it up
    /// and rings `remote`; a client waits for that, and for a connection to
    /// each address, at most `connect_timeout`. Give the same to
    /// [`Limits::connect_timeout`](crate::limits::Limits::connect_timeout).
    #[must_use]
    pub fn new(target: Target, connect_timeout: Duration, remote: Remote) -> Self {
        let name = target.to_string();
        match target.address() {
            Some(address) => Self::to_addresses(name, vec![address], connect_timeout),
            None => Self::to_name(name, connect_timeout, remote, move || target.look_up()),
        }
    }

    /// As [`new`](Self::new), with a look-up of one's own, which is called on
    /// a thread of its own, again after failures, and once a minute. `name`
    /// is what the log calls the upstream.
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

    /// As [`new`](Self::new), to addresses that are known, so that nothing is
    /// looked up: for each client the one that worked last is tried first, and
    /// then the others. `target` is what the log calls the upstream.
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

    /// Tells the upstream each client's address, first of all.
    #[must_use]
    pub const fn with_proxy_protocol(mut self, version: Option<ProxyProtocol>) -> Self {
        self.proxy_protocol = version;
        self
    }

    /// Begins the way of a client through the addresses.
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
                Err(io::Error::other("that is this tunnel itself"))
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
                    // This is our own want, and no other address cures it.
                    if is_out_of_descriptors(&error) {
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

    /// Disconnects a client for which there is no upstream.
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

    /// The upstream is there: from here on the pipes do the work.
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

    /// The connection that was being made for a client has failed.
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

    /// Everybody who waited for the name gets on, or is turned away.
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
        // What it sends waits in the kernel, which then makes it wait.
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
        // Both ends are piped before they are read. Should that ever fail,
        // bytes must not vanish without a sign.
        actions.reset(id);
    }

    fn closed(&mut self, id: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        match self.ends.remove(&id) {
            Some(End::Joined(partner)) => {
                // One that ended in order has passed its end on; one that was
                // stopped leaves the other its own time to take what is queued.
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
        // Those who have no upstream yet were never served: not an orderly end.
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
    /// Takes what a look-up found, and says whether that is anything new.
    /// Servers of names turn the order round to spread the load, which is
    /// nothing new.
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

/// Addresses with commas between.
fn list(addresses: &[SocketAddr]) -> String {
    let each: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    each.join(", ")
}
