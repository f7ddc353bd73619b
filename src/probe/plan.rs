//! What a probe is to do: whom, in which way, with how many clients of each kind.
//!
//! Owns the defaults and the check that the numbers fit together. Does nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::probe::error::ProbeError;

/// The way in which a server is made to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// The server returns every byte; all of them are verified.
    Echo,
    /// The server returns whole frames: 4-byte big-endian length, then payload.
    Framed,
    /// GET again and again on a kept connection.
    Http {
        /// What is asked for, such as `/large.bin`.
        path: String,
        /// The value of the `Host` field.
        host: String,
    },
    /// The client says something once, and then the server sends by itself.
    Push {
        /// What every client sends once; may be empty.
        send: Vec<u8>,
        /// What one more connection sends again and again, if any.
        publish: Option<Vec<u8>>,
        /// How much of that in a second, in bytes.
        publish_rate: u64,
    },
}

impl Protocol {
    /// The name by which `--protocol` chooses it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Framed => "framed",
            Self::Http { .. } => "http",
            Self::Push { .. } => "push",
        }
    }
}

/// A whole probe as one value. [`Plan::new`] gives the defaults of the command.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// The way in which it is made to send.
    pub protocol: Protocol,
    /// Healthy clients.
    pub fast: usize,
    /// Bytes of one message of a healthy client.
    pub size: usize,
    /// Messages that a healthy client has on the way at once.
    pub pipeline: u32,
    /// Clients that fill up and never read.
    pub stalled: usize,
    /// Clients that fill up and never read, and of which the server has read
    /// everything; `None`: one, where that can be seen and makes sense.
    pub quiet: Option<usize>,
    /// Clients that read at `trickle_rate`.
    pub trickle: usize,
    /// Bytes per second.
    pub trickle_rate: u64,
    /// Clients that fill up, pause, and then read everything.
    pub paused: usize,
    /// How long they pause.
    pub pause: Duration,
    /// Clients that go on sending and never read.
    pub talkers: usize,
    /// Clients that read at `steady_rate`.
    pub steady: usize,
    /// Bytes per second.
    pub steady_rate: u64,
    /// How soon after it filled up a stalled client must be gone.
    pub within: Duration,
    /// How long the healthy clients are measured alone, before and after.
    pub baseline: Duration,
    /// The most that a slow client offers without reading an answer, in bytes.
    pub fill: u64,
    /// The server's process, where its port does not tell.
    pub pid: Option<i32>,
}

/// See [`Plan::fill`]: three times what Linux hides of a stalled client with
/// default buffers (4.3 MB of send queue, up to 1 MB of receive queue).
pub const FILL_BYTES: u64 = 16 << 20;
/// The most messages on the way at once, over which a client's memory grows.
pub const MOST_PIPELINED_MESSAGES: u32 = 65_536;
/// The largest message; it bounds what one client may have on the way.
pub const LARGEST_MESSAGE_BYTES: usize = 64 << 20;
/// What `--publish` sends in a second: fills what a kernel hides of a stalled client in about a second.
pub const PUBLISH_RATE_BYTES: u64 = 4 << 20;
/// Message and pipeline of `--bulk`: 1 MiB on the way, so that the socket
/// buffers never run dry and a wait is still told in milliseconds.
pub const BULK_MESSAGE_BYTES: usize = 64 << 10;
/// See [`BULK_MESSAGE_BYTES`].
pub const BULK_PIPELINE_MESSAGES: u32 = 16;

impl Plan {
    /// The defaults: enough of every kind for a useful verdict in 15 s.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            protocol: Protocol::Echo,
            fast: 10,
            size: 64,
            pipeline: 1,
            stalled: 5,
            quiet: None,
            trickle: 0,
            trickle_rate: 1 << 10,
            paused: 2,
            pause: Duration::from_secs(4),
            talkers: 1,
            steady: 2,
            steady_rate: 64 << 10,
            within: Duration::from_secs(6),
            baseline: Duration::from_secs(2),
            fill: FILL_BYTES,
            pid: None,
        }
    }

    /// The same plan without any slow client, to add the wanted ones to.
    #[must_use]
    pub fn without_slow_clients(mut self) -> Self {
        self.stalled = 0;
        self.quiet = Some(0);
        self.trickle = 0;
        self.paused = 0;
        self.talkers = 0;
        self.steady = 0;
        self
    }

    /// Slow clients of all kinds, those chosen by default not included.
    #[must_use]
    pub fn slow(&self) -> usize {
        self.stalled + self.trickle + self.paused + self.talkers + self.steady + self.quiet.unwrap_or(0)
    }

    /// Whether the numbers fit together.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Usage`] with one sentence that names what does not.
    pub fn check(&self) -> Result<(), ProbeError> {
        let refuse = |why: String| Err(ProbeError::Usage(why));
        if self.fast == 0 && self.slow() == 0 {
            return refuse("no clients: ask for some with --fast, --stalled, --paused or --steady".into());
        }
        if self.size == 0 || self.size > LARGEST_MESSAGE_BYTES {
            return refuse(format!("--size {} is not between 1 and 64MiB", self.size));
        }
        if self.pipeline == 0 || self.pipeline > MOST_PIPELINED_MESSAGES {
            return refuse(format!(
                "--pipeline {} is not between 1 and {MOST_PIPELINED_MESSAGES}",
                self.pipeline
            ));
        }
        for (option, time) in [
            ("--within", self.within),
            ("--baseline", self.baseline),
            ("--pause", self.pause),
        ] {
            if time.is_zero() || time > Duration::from_secs(3600) {
                return refuse(format!("{option} must be above 0 and at most 1h"));
            }
        }
        for (option, rate) in [
            ("--trickle-rate", self.trickle_rate),
            ("--steady-rate", self.steady_rate),
        ] {
            if rate == 0 || rate > 1 << 40 {
                return refuse(format!("{option} must be above 0 and at most 1TiB a second"));
            }
        }
        if let Protocol::Push {
            publish: Some(line),
            publish_rate,
            ..
        } = &self.protocol
            && (line.is_empty() || *publish_rate == 0)
        {
            return refuse("--publish must not be empty, and --publish-rate must be above 0".into());
        }
        if self.fill < 1 << 16 {
            return refuse("--fill must be 64KiB or more, else no client would ever look full".into());
        }
        Ok(())
    }
}
