//! Every limit of the engine: its name with its unit, its default, and why
//! that number.
//!
//! Owns the numbers and the check that they fit together. Refuses to act on
//! them: each is enforced where the thing that it bounds lives.

use std::fmt;
use std::time::Duration;

use crate::units::format_size;

/// High-water mark: queue length at or above which a write answers *pause*.
/// Node uses 64 KiB from version 22 on; it is also one full read buffer.
pub const HIGH_WATER_MARK_BYTES: usize = 64 * 1024;

/// How long a client may stay over the limit before it is disconnected.
pub const GRACE: Duration = Duration::from_secs(5);

/// The part of the grace after which a client over the limit is looked at
/// once: whether it is our own kernel that keeps its acknowledgements out.
/// After half a second of five the kernel has sent again once (200 ms), and
/// what it sends the next time (600 ms) is answered.
pub const UNHEARD_GRACE_SHARE: u32 = 10;

/// How long a queue may stay non-empty without a break. It catches those who
/// trickle and those who are stuck below the limit. Twelve graces: a client
/// that still has something queued after a minute is not coming back.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The hard limit as a multiple of the high-water mark. Only a source that
/// cannot be paused gets there; sixteen marks let it run on for a while.
pub const HARD_LIMIT_MARKS: usize = 16;

/// The share of this machine's memory that all queues together may take.
pub const MEMORY_BUDGET_SHARE: usize = 4;

/// The memory budget where the size of this machine's memory is not known.
pub const MEMORY_BUDGET_FALLBACK_BYTES: usize = 1024 * 1024 * 1024;

/// The longest frame that a framed service takes.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// The largest maximum that a frame may be given: what the 4-byte length of
/// the protocol can say.
pub const MAX_FRAME_CEILING_BYTES: usize = u32::MAX as usize;

/// Unsent bytes that the kernel may hold for one client (`TCP_NOTSENT_LOWAT`).
/// Measured: 16 KiB leaves 54 KB in a stalled client's send queue instead of
/// 4.2 MB and costs no throughput.
pub const UNSENT_BYTES: usize = 16 * 1024;

/// The receive buffer (`SO_RCVBUF`) of a client that takes back nothing, and
/// the step in which it grows with what its peer takes. Measured: with 64 KiB
/// a stalled client holds 137 KB of kernel memory, 175 KB after fast traffic,
/// and bulk traffic costs what it costs with the kernel's own sizing.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// How often the base of a receive buffer may double among many clients, to
/// 256 KiB. With 1 MiB, 16 bulk clients cost 8 % more CPU for each byte, as what
/// lies in buffers is no longer in the caches.
pub const RECEIVE_BUFFER_DOUBLINGS: u8 = 2;

/// How often it may double while there are at most [`FEW_CLIENTS`], to 1 MiB.
/// One client with 1 MiB on the way, side by side with 256 KiB, to a loop that
/// leaves its buffers to the kernel: rate 1.14 and 1.26 instead of 0.81 and
/// 0.84 in frames of 64 KiB, 1.19 instead of 1.00 in a plain stream, 1.05
/// instead of 0.98 through a tunnel. One that stalls after fast traffic holds
/// no more for it.
pub const RECEIVE_BUFFER_DOUBLINGS_OF_FEW: u8 = 4;

/// Clients, upstreams included, that are few enough for that.
pub const FEW_CLIENTS: usize = 4;

/// The round trip above which a path is long: its speed is the window divided
/// by the round trip, and a bounded window would throttle it (256 KiB at 50 ms
/// are 5 MB/s).
pub const LONG_PATH: Duration = Duration::from_millis(2);

/// How often the peer's window is looked at while a source sends: once per so
/// many bytes, where it can have become too narrow since. Asked half as
/// often, a client that stalls at once holds 220 KB instead of 135; asked each
/// time, bulk through a tunnel costs 7 % more.
pub const WINDOW_CHECK_BYTES: u64 = 64 * 1024;

/// The read buffer that an event loop owns, shared by all its clients. More
/// than 64 KiB a call brings no measurable gain on loopback.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Frames from this length on are read into memory of their own. Of shorter
/// ones the loop's buffer takes two or more with one read, which is worth more
/// than the copy of the one that is cut.
pub const LONG_FRAME_BYTES: usize = READ_BUFFER_BYTES / 2;

/// The smallest read. A queue just below its mark is still offered this much,
/// so that the last bytes below the mark do not cost one system call each;
/// a queue therefore ends at most this much past its mark.
pub const SMALLEST_READ_BYTES: usize = 4 * 1024;

/// How much one client may read, and write, in one turn before it goes to the
/// back of the ready list. Fairness has a price, for what one client sent is
/// in the caches only once. Measured with 16 bulk clients, CPU per byte to
/// that of a loop that reads each until nothing is left: 1.23-1.37 with 64
/// KiB, 1.16 with 128, 0.95-1.05 with 256. Beside three bulk clients a
/// neighbour's ping-pong takes 0.3, 0.5 and 0.8 ms, at most 5-24 ms; with that
/// loop 0.1 ms, and at most 117 ms.
pub const TURN_BUDGET_BYTES: usize = 256 * 1024;

/// A client whose last read brought at least this much is moving bulk, which
/// is spliced to its destination, not copied. Below, two more system calls
/// cost more than the copy.
pub const SPLICE_FROM_BYTES: usize = 32 * 1024;

/// The pipe that bulk goes through (`F_SETPIPE_SZ`). Its 64 places hold 64 KiB
/// also where each packet of 1.5 KB takes one.
pub const SPLICE_PIPE_BYTES: usize = 256 * 1024;

/// How much all clients together may read and write in one turn before the
/// rest of them wait for the next: some 2 ms. It bounds how late a deadline
/// is noticed: without it a thousand flooding clients made a turn of 100 ms.
pub const TURN_BUDGET_ALL_BYTES: u64 = 1024 * 1024;

/// How much of that newcomers may use up before those who flood have their turn:
/// of thousands that connect at once each may be about to.
pub const TURN_BUDGET_NEW_BYTES: u64 = TURN_BUDGET_ALL_BYTES / 4;

/// A client whose last turn moved at least so much is served after those whose
/// last turn moved less. While 5,000 clients connected and sent what they could
/// within half a second, 50 others with messages of 64 bytes waited for at most
/// 21 to 32 ms; where all stand in one line it was 138 to 232.
pub const HEAVY_TURN_BYTES: u64 = 16 * 1024;

/// Most events taken from the kernel at once, and so most clients served in a
/// turn: it bounds how stale the turn's clock can get.
pub const EVENTS_PER_TURN: usize = 1024;

/// Most connections accepted in one turn: a storm of connects must not keep
/// those who are already in from being served.
pub const ACCEPTS_PER_TURN: usize = 128;

/// Connections that the kernel keeps ready for us to accept. The usual 128
/// makes a storm of 3,000 connects wait for a second each.
pub const BACKLOG_CONNECTIONS: i32 = 4096;

/// Pause before `accept` is tried again when descriptors have run out. No
/// edge announces that one is free again, so only a timer can tell.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Descriptors kept back from clients: standard streams, the listener, epoll,
/// the log file, signals, name look-ups, and some for the program around.
pub const RESERVED_DESCRIPTORS: usize = 32;

/// The longest wait for events while a deadline is armed. A process that was
/// stopped inside a wait is told by the excess over what it asked for, so a
/// short wait makes that tell-tale sharp.
pub const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// How much longer than its wait a turn may take before the excess counts as
/// time in which the loop did not run, and is charged to nobody.
pub const TURN_ALLOWANCE: Duration = Duration::from_millis(100);

/// Most clients disconnected at deadlines in one turn. Each costs the kernel
/// some 15 µs, mostly to free its buffers; the others are served in between.
pub const EXPIRIES_PER_TURN: usize = 64;

/// How often a server that is stopping asks whether the last bytes of its
/// clients have arrived; no edge tells.
pub const STOP_POLL: Duration = Duration::from_millis(10);

/// The shortest interval between two ticks of a service; one that asks for
/// less gets this. A wait for events is a whole number of milliseconds, and an
/// interval of nothing would keep the loop from ever waiting.
pub const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// Freed queue memory below which asking the allocator to give pages back to
/// the system is not worth its time.
pub const TRIM_AFTER_FREED_BYTES: usize = 1024 * 1024;

/// Freed queue memory that is given back without waiting for more: 2 to 5 ms in
/// which nobody is served.
pub const TRIM_AT_ONCE_BYTES: usize = 16 * 1024 * 1024;

/// Shortest time between two such requests for less.
pub const TRIM_INTERVAL: Duration = Duration::from_millis(500);

/// Log lines that wait for a slow terminal, pipe or disk; further ones are
/// dropped and counted.
pub const LOG_BACKLOG_LINES: usize = 16 * 1024;

/// How long log lines are gathered before they are written. To wake the thread
/// that writes them costs the event loop as much as a disconnect; thousands of
/// those at once need it once in this time.
pub const LOG_GATHER_TIME: Duration = Duration::from_millis(1);

/// How long the end of the program waits for the last log lines to be taken.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How often the same kind of event of one client, or one kind of event of
/// the listener, is logged at most; what happens between is summed up.
pub const LOG_REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a connection must have been silent before the kernel asks whether
/// the peer is still there (`TCP_KEEPIDLE`). Nothing else would tell of a
/// peer that vanished while neither side had anything to say.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// Time between two such questions without an answer (`TCP_KEEPINTVL`).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Questions without an answer after which the peer counts as gone
/// (`TCP_KEEPCNT`): a minute in all.
pub const KEEPALIVE_PROBES: u32 = 4;

/// How long the tunnel waits for its upstream to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most addresses of one name that are tried; each may cost a client the
/// connect timeout.
pub const MAX_ADDRESSES: usize = 16;

/// How long the addresses of a name are taken to be right, while they work.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest time between two look-ups of a name, however many connections
/// fail: those who answer them have other work too.
pub const RESOLVE_SPACING: Duration = Duration::from_secs(1);

/// How often clients that wait for a name to be resolved are looked at; only
/// while there are any.
pub const UNRESOLVED_POLL: Duration = Duration::from_millis(100);

/// The limits of one server. [`Limits::default`] gives every default; change
/// fields, then [`Limits::check`].
///
/// The worst case for memory is `max_clients x (high_water_mark + one read of
/// 4 KiB + the kernel's share)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queue length in bytes at or above which a write answers *pause*.
    pub high_water_mark_bytes: usize,
    /// Queue length in bytes at or above which a client is over the limit;
    /// `None` stands for the high-water mark.
    pub limit_bytes: Option<usize>,
    /// How long a client may stay over the limit. Also the time that an
    /// orderly end, and the stopping of the server, wait at most.
    pub grace: Duration,
    /// How long a queue may stay non-empty without a break; `None` stands for
    /// [`DRAIN_TIMEOUT`], or the grace where that is longer.
    pub drain_timeout: Option<Duration>,
    /// Queue length in bytes that no write may exceed; `None` stands for
    /// [`HARD_LIMIT_MARKS`] times the high-water mark.
    pub hard_limit_bytes: Option<usize>,
    /// Bytes that all queues (and unfinished frames) together may hold;
    /// `None` stands for a quarter of this machine's memory.
    pub memory_budget_bytes: Option<usize>,
    /// How long a connection to another server may take to come about.
    pub connect_timeout: Duration,
    /// Clients served at a time; `None` stands for what the descriptors allow.
    pub max_clients: Option<usize>,
    /// Unsent bytes that the kernel may hold for a client
    /// (`TCP_NOTSENT_LOWAT`); 0 leaves the kernel's own default.
    pub unsent_bytes: usize,
    /// Receive buffer (`SO_RCVBUF`) of a client whose bytes nobody takes; it
    /// doubles up to [`RECEIVE_BUFFER_DOUBLINGS`] times (of few clients
    /// [`RECEIVE_BUFFER_DOUBLINGS_OF_FEW`]) as they are taken
    /// faster. 0 leaves the kernel's own sizing.
    pub receive_buffer_bytes: usize,
    /// A client whose last read brought at least this much is moving bulk:
    /// what it sends next goes to its destination without being copied.
    /// 0 copies everything.
    pub splice_from_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            high_water_mark_bytes: HIGH_WATER_MARK_BYTES,
            limit_bytes: None,
            grace: GRACE,
            drain_timeout: None,
            hard_limit_bytes: None,
            memory_budget_bytes: None,
            connect_timeout: CONNECT_TIMEOUT,
            max_clients: None,
            unsent_bytes: UNSENT_BYTES,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            splice_from_bytes: SPLICE_FROM_BYTES,
        }
    }
}

/// Two limits that contradict each other, or one that can never hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsError(String);

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LimitsError {}

impl Limits {
    /// The limit that is in force, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit_bytes.unwrap_or(self.high_water_mark_bytes)
    }

    /// The hard limit that is in force, in bytes.
    #[must_use]
    pub fn hard_limit(&self) -> usize {
        self.hard_limit_bytes.unwrap_or_else(|| {
            self.high_water_mark_bytes
                .saturating_mul(HARD_LIMIT_MARKS)
                .max(self.limit().saturating_mul(2))
                .max(self.high_water_mark_bytes.saturating_add(SMALLEST_READ_BYTES))
        })
    }

    /// The drain timeout that is in force.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(DRAIN_TIMEOUT.max(self.grace))
    }

    /// How long after it came over the limit a client is looked at once.
    #[must_use]
    pub fn unheard_delay(&self) -> Duration {
        self.grace / UNHEARD_GRACE_SHARE
    }

    /// Whether a read of so many bytes means that a client is moving bulk.
    pub(crate) const fn is_bulk(&self, count_bytes: usize) -> bool {
        self.splice_from_bytes > 0 && count_bytes >= self.splice_from_bytes
    }

    /// Checks that the limits fit together.
    ///
    /// # Errors
    ///
    /// One sentence that names the option, what is wrong with it, and what
    /// would be right.
    pub fn check(&self) -> Result<(), LimitsError> {
        let refuse = |sentence: String| Err(LimitsError(sentence));
        let mark = self.high_water_mark_bytes;
        if mark == 0 {
            return refuse(
                "--high-water-mark 0 would pause every client for ever: give it at least 1, such as 64KiB"
                    .into(),
            );
        }
        if self.limit() == 0 {
            return refuse(
                "--limit 0 would put every client over the limit: give it at least 1, such as 64KiB".into(),
            );
        }
        if self.grace.is_zero() {
            return refuse("--grace 0 would disconnect every client at its first full buffer: give it at least 1ms, such as 5s".into());
        }
        if self.drain_timeout() == Duration::ZERO {
            return refuse(
                "--drain-timeout 0 would disconnect every client that ever waits: give it at least 1ms, such as 60s"
                    .into(),
            );
        }
        let hard_limit = self.hard_limit();
        if hard_limit < self.limit() {
            return refuse(format!(
                "--limit {} is above --hard-limit {}: lower the limit or raise the hard limit",
                format_size(self.limit()),
                format_size(hard_limit),
            ));
        }
        // Pausing works only if a write that starts below the mark and brings
        // one read cannot reach the hard limit on the way to the pause.
        let paused_at_most = mark.saturating_add(SMALLEST_READ_BYTES);
        if hard_limit < paused_at_most {
            return refuse(format!(
                "--hard-limit {} is below --high-water-mark {} plus one read of {}: make it at least {}",
                format_size(hard_limit),
                format_size(mark),
                format_size(SMALLEST_READ_BYTES),
                format_size(paused_at_most),
            ));
        }
        if let Some(budget) = self.memory_budget_bytes
            && budget < paused_at_most
        {
            return refuse(format!(
                "--memory-budget {} does not hold one client's queue: make it at least {}",
                format_size(budget),
                format_size(paused_at_most),
            ));
        }
        if self.connect_timeout.is_zero() {
            return refuse(
                "--connect-timeout 0 would give up before trying: give it at least 1ms, such as 5s".into(),
            );
        }
        if self.max_clients == Some(0) {
            return refuse("--max-clients 0 would refuse everybody: give it at least 1".into());
        }
        for (name, bytes) in [
            ("--unsent", self.unsent_bytes),
            ("--receive-buffer", self.receive_buffer_bytes),
        ] {
            if bytes > LARGEST_SOCKET_OPTION_BYTES {
                return refuse(format!(
                    "{name} {} is more than a socket takes: make it at most {}",
                    format_size(bytes),
                    format_size(LARGEST_SOCKET_OPTION_BYTES),
                ));
            }
        }
        Ok(())
    }
}

/// The largest value that a socket option of type `int` takes after the
/// kernel has doubled it (`SO_RCVBUF`, socket(7)).
const LARGEST_SOCKET_OPTION_BYTES: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Limits)) -> String {
        let mut limits = Limits::default();
        change(&mut limits);
        limits.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(Limits::default().limit(), 64 * 1024);
        assert_eq!(Limits::default().hard_limit(), 1024 * 1024);
    }

    #[test]
    fn a_limit_above_the_hard_limit_is_refused_with_both_numbers() {
        let sentence = refusal(|limits| {
            limits.limit_bytes = Some(256 * 1024);
            limits.hard_limit_bytes = Some(128 * 1024);
        });
        assert!(
            sentence.contains("--limit 256KiB") && sentence.contains("--hard-limit 128KiB"),
            "{sentence}"
        );
    }

    #[test]
    fn a_tiny_mark_alone_is_no_contradiction() {
        let limits = Limits {
            high_water_mark_bytes: 1,
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn a_limit_alone_moves_the_hard_limit_with_it() {
        let limits = Limits {
            limit_bytes: Some(64 * 1024 * 1024),
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn zero_is_refused_where_it_would_disconnect_or_pause_everybody() {
        assert!(refusal(|limits| limits.grace = Duration::ZERO).contains("--grace 0"));
        assert!(refusal(|limits| limits.high_water_mark_bytes = 0).contains("--high-water-mark 0"));
        assert!(refusal(|limits| limits.limit_bytes = Some(0)).contains("--limit 0"));
        assert!(refusal(|limits| limits.max_clients = Some(0)).contains("--max-clients 0"));
        assert!(refusal(|limits| limits.drain_timeout = Some(Duration::ZERO)).contains("--drain-timeout 0"));
        assert!(refusal(|limits| limits.connect_timeout = Duration::ZERO).contains("--connect-timeout 0"));
    }

    #[test]
    fn a_hard_limit_that_a_paused_client_could_reach_is_refused() {
        let just_enough = HIGH_WATER_MARK_BYTES + SMALLEST_READ_BYTES;
        assert!(refusal(|limits| limits.hard_limit_bytes = Some(just_enough - 1)).contains("68KiB"));
        let limits = Limits {
            hard_limit_bytes: Some(just_enough),
            ..Limits::default()
        };
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn a_budget_below_one_queue_and_a_socket_option_beyond_the_kernels_are_refused() {
        assert!(refusal(|limits| limits.memory_budget_bytes = Some(1024)).contains("--memory-budget 1KiB"));
        assert!(refusal(|limits| limits.unsent_bytes = usize::MAX / 2).contains("--unsent"));
    }

    #[test]
    fn the_default_drain_timeout_grows_with_the_grace_and_a_given_one_stands() {
        let hour = Duration::from_secs(3600);
        let mut limits = Limits {
            grace: hour,
            ..Limits::default()
        };
        assert_eq!(limits.drain_timeout(), hour);
        limits.drain_timeout = Some(DRAIN_TIMEOUT);
        assert_eq!(limits.drain_timeout(), DRAIN_TIMEOUT);
        assert_eq!(limits.check(), Ok(()));
    }
}
