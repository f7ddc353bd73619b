//! What a probe is to do: whom, in which way, with how many clients of each kind.
//!
//! Owns the defaults and the check that the numbers fit together. Does nothing.

use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use crate::probe::clients::opening::Step;
use crate::probe::error::ProbeError;
use crate::probe::kind::{KINDS, Reading, SlowKind};
use crate::probe::protocol::Protocol;
use crate::probe::protocol::echo::Echo;
use crate::probe::protocol::push::numbers::{NUMBER_PLACEHOLDER, count_places};
use crate::probe::report::verdict::judgement::Judgement;
#[cfg(feature = "tls")]
use crate::probe::trust::Tls;

/// A whole probe as one value. [`Plan::new`] gives the defaults of the command.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// The way in which it is made to send.
    pub protocol: Arc<dyn Protocol>,
    /// Healthy clients.
    pub fast: usize,
    /// Bytes of one message of a healthy client.
    pub size: usize,
    /// Messages that a healthy client has on the way at once.
    pub pipeline: u32,
    /// Slow clients, by kind.
    pub slow: Groups,
    /// How long those pause that read after a pause.
    pub pause: Duration,
    /// How soon after it filled up a stalled client must be gone.
    pub within: Duration,
    /// How long the healthy clients are measured alone, before and after.
    pub baseline: Duration,
    /// The most that a slow client offers without reading an answer, in bytes.
    pub fill: u64,
    /// What every client does before its protocol begins, in this order.
    pub opening: Vec<Step>,
    /// The PROXY protocol header that every client sends first, as a balancer would.
    pub proxy_header: Option<ProxyVersion>,
    /// TLS on every connection.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// The longest time up to the first whole answer, connecting included; and for all clients of
    /// one kind to connect.
    pub timeout: Duration,
    /// The server's process, where its port does not tell.
    pub pid: Option<i32>,
    /// Which findings decide the verdict.
    pub judgement: Judgement,
}

/// See [`Plan::fill`]: three times what Linux hides of a stalled client with
/// default buffers (4.3 MB of send queue, up to 1 MB of receive queue).
pub const FILL_BYTES: u64 = 16 << 20;
/// The most messages on the way at once, over which a client's memory grows.
pub const MOST_PIPELINED_MESSAGES: u32 = 65_536;
/// The largest message; it bounds what one client may have on the way.
pub const LARGEST_MESSAGE_BYTES: usize = 64 << 20;
/// What a publisher sends in a second: fills what a kernel hides of a stalled client in about a second.
pub const PUBLISH_RATE_BYTES: u64 = 4 << 20;
/// Message and pipeline of healthy clients that move bulk: 1 MiB on the way, so that the socket
/// buffers never run dry and a wait is still told in milliseconds.
pub const BULK_MESSAGE_BYTES: usize = 64 << 10;
/// See [`BULK_MESSAGE_BYTES`].
pub const BULK_PIPELINE_MESSAGES: u32 = 16;

/// How long the first answer may take: longer than a page that is rendered once and then kept.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// A binary header.
    V2,
}

/// How many slow clients of one kind, and how fast they read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub clients: usize,
    /// Bytes that each reads in a second, where its kind reads at a rate.
    pub rate_bytes: u64,
}

/// The slow clients of a plan: one [`Group`] for each [`SlowKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups([Group; KINDS.len()]);

impl Default for Groups {
    /// What the table of kinds has.
    fn default() -> Self {
        Self(KINDS.map(|row| Group {
            clients: row.clients,
            rate_bytes: row.rate_bytes,
        }))
    }
}

impl Index<SlowKind> for Groups {
    type Output = Group;

    fn index(&self, kind: SlowKind) -> &Group {
        &self.0[kind as usize]
    }
}

impl IndexMut<SlowKind> for Groups {
    fn index_mut(&mut self, kind: SlowKind) -> &mut Group {
        &mut self.0[kind as usize]
    }
}

impl Groups {
    /// How many slow clients there are in all.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.0.iter().map(|group| group.clients).sum()
    }
}

impl Plan {
    /// The defaults: enough of every kind for a useful verdict in 15 s.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            protocol: Arc::new(Echo),
            fast: 10,
            size: 64,
            pipeline: 1,
            slow: Groups::default(),
            pause: Duration::from_secs(4),
            within: Duration::from_secs(6),
            baseline: Duration::from_secs(2),
            fill: FILL_BYTES,
            opening: Vec::new(),
            proxy_header: None,
            #[cfg(feature = "tls")]
            tls: None,
            timeout: TIMEOUT,
            pid: None,
            judgement: Judgement::default(),
        }
    }

    /// The same plan without any slow client, to add the wanted ones to.
    #[must_use]
    pub fn without_slow_clients(mut self) -> Self {
        for group in &mut self.slow.0 {
            group.clients = 0;
        }
        self
    }

    /// The same plan with so many slow clients of this kind.
    #[must_use]
    pub fn with(mut self, kind: SlowKind, clients: usize) -> Self {
        self.slow[kind].clients = clients;
        self
    }

    /// The same plan with this protocol.
    #[must_use]
    pub fn speaking(mut self, protocol: impl Protocol + 'static) -> Self {
        self.protocol = Arc::new(protocol);
        self
    }

    /// Whether what goes over a connection is not what clients say.
    pub(crate) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Slow clients that the loop of the probe drives, in the order in which they join.
    pub(crate) fn slow_kinds(&self) -> Vec<SlowKind> {
        let rows = KINDS.iter().filter(|row| match row.reading {
            Reading::NeverInSteps => false,
            _ if !self.protocol.traits().fills => false,
            // Where the server sends by itself, nobody talks.
            Reading::NeverButTalks => self.protocol.traits().talks,
            _ => !self.outpaces(row.kind),
        });
        rows.flat_map(|row| std::iter::repeat_n(row.kind, self.slow[row.kind].clients))
            .collect()
    }

    /// What is published in a second, in bytes, where the prober itself publishes.
    pub(crate) fn published_rate_bytes(&self) -> Option<u64> {
        Some(self.protocol.publishing()?.bytes_per_second)
    }

    /// Whether more is published than a reader of this kind, which should be kept, ever reads: then
    /// no server could keep it without loss.
    pub(crate) fn outpaces(&self, kind: SlowKind) -> bool {
        let is_kept_reader = kind.is_kept() && kind.row().reading == Reading::Paced;
        let published = self.published_rate_bytes().filter(|_| is_kept_reader);
        published.is_some_and(|published| published > self.slow[kind].rate_bytes)
    }

    /// Whether the numbers fit together.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Field`] names the first field that does not.
    pub fn check(&self) -> Result<(), ProbeError> {
        let refuse = |field, problem: String| Err(ProbeError::Field { field, problem });
        if self.fast == 0 && self.slow.clients() == 0 {
            return refuse(
                "fast",
                "is 0 and there are no slow clients: ask for some clients".into(),
            );
        }
        if self.size == 0 || self.size > LARGEST_MESSAGE_BYTES {
            return refuse("size", format!("{} is not between 1 and 64MiB", self.size));
        }
        if self.pipeline == 0 || self.pipeline > MOST_PIPELINED_MESSAGES {
            let problem = format!("{} is not between 1 and {MOST_PIPELINED_MESSAGES}", self.pipeline);
            return refuse("pipeline", problem);
        }
        for (field, time) in [
            ("within", self.within),
            ("baseline", self.baseline),
            ("pause", self.pause),
            ("timeout", self.timeout),
        ] {
            if time.is_zero() || time > Duration::from_secs(3600) {
                return refuse(field, "must be above 0 and at most 1h".into());
            }
        }
        for (field, kind) in [
            ("trickle-rate", SlowKind::Trickle),
            ("steady-rate", SlowKind::Steady),
        ] {
            let rate = self.slow[kind].rate_bytes;
            if rate == 0 || rate > 1 << 40 {
                return refuse(field, "must be above 0 and at most 1TiB a second".into());
            }
        }
        if let Some(publishing) = self.protocol.publishing() {
            if publishing.line.is_empty() {
                return refuse("publish", "must not be empty".into());
            }
            if count_places(&publishing.line) > 1 {
                return refuse("publish", format!("has {NUMBER_PLACEHOLDER} more than once"));
            }
            if publishing.bytes_per_second == 0 {
                return refuse("publish-rate", "must be above 0".into());
            }
        }
        self.judgement.check()?;
        if self.fill < 1 << 16 {
            return refuse(
                "fill",
                "must be 64KiB or more, else no client would ever look full".into(),
            );
        }
        Ok(())
    }
}
