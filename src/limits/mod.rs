//! Every limit: its name with its unit, its default, and the reason for it.
//!
//! Owns the numbers and the check that they fit together. Refuses to enforce
//! them: that happens where the bounded thing lives.

pub mod broadcast;
mod check;
mod in_force;
mod operations;
mod resources;
mod server;
mod slowest_reader;

use std::time::Duration;

pub(crate) use in_force::InForce;

pub use check::{Limit, LimitsError, SHORTEST_TIMEOUT};
pub use operations::{
    BEAT_INTERVAL, GONE_CLIENTS, INSPECTED_CLIENTS_PER_TURN, MAX_PASSED_SOCKETS, MAX_TAKE_OVER_CALLERS,
    NOTIFY_TIMEOUT, RELOAD_TIMEOUT, SHADOW_ENDINGS, STATUS_INTERVAL, TAKE_OVER_ANSWER_TIMEOUT,
    TAKE_OVER_START_TIMEOUT, TOGETHER_CLIENTS,
};
pub use resources::Resources;
pub use server::Limits;
pub use slowest_reader::{
    LARGEST_WINDOW_BYTES, LONGEST_READER_GRACE, UNSHOWN_BYTES, WINDOW_OPENING_SHARE, WITHDRAWN_WINDOW_TIMES,
    reopening_window_bytes,
};

/// High-water mark: queue length from which a write answers *pause*. Node
/// uses 64 KiB from version 22 on; it is also one full read buffer.
pub const HIGH_WATER_MARK_BYTES: usize = 64 * 1024;

/// Longest time over the limit before a client is disconnected.
pub const GRACE: Duration = Duration::from_secs(5);

/// Divisor of the grace after which a client over the limit is checked once:
/// does our own kernel drop its ACKs? After half a second of five the kernel has
/// retransmitted once (200 ms), and its next retransmission (600 ms) is answered.
pub const ACK_CHECK_GRACE_SHARE: u32 = 10;

/// Longest time over the limit of an upstream. A service may pause for a while
/// (a lock, a checkpoint, loading); that must not cost every client that sends
/// to it its connection. A pair that waits is bounded in memory.
pub const UPSTREAM_GRACE: Duration = Duration::from_secs(60);

/// Longest time that a half-closed client may move no byte. Long polls and
/// slow queries answer within it; a pool that never looks at its sockets does
/// not keep them for ever.
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(3600);

/// How often an idle or half-closed client is looked at within the time that
/// it has: it goes at most two such parts late.
pub const SILENCE_LOOKS: u32 = 16;

/// Longest time that conversations may go on after a stop was asked for.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which a client counts as done when the server stops: nothing
/// of it is queued or unread, and it is no part of a pair.
pub const STOP_SILENCE: Duration = Duration::from_millis(300);

/// Time before the end of the stop timeout in which silent clients are closed in
/// order, where another process goes on accepting. Before it nobody has to hurry.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// Longest time without an empty queue. Catches clients that trickle and
/// clients that stay below the limit. Twelve graces: a client that still has
/// something queued after a minute is not coming back.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The hard limit as a multiple of the high-water mark. Only a source that
/// cannot be paused gets there; sixteen marks let it run on for a while.
pub const HARD_LIMIT_MARKS: usize = 16;

/// Divisor of memory, that of the machine or of the smallest control group
/// around the process, for all queues together; and for what the kernel holds
/// for clients whose queue shows nothing yet.
pub const MEMORY_BUDGET_SHARE: usize = 4;

/// Divisor of memory for all queues together with what the kernel holds for the
/// clients behind them.
pub const QUEUES_AND_KERNEL_SHARE: usize = 2;

/// Least default memory budget: a frame of the default length and some queues.
pub const LEAST_MEMORY_BUDGET_BYTES: usize = 2 * 1024 * 1024;

/// Bytes that the kernel holds for a client that reads nothing, beside what
/// [`UNSENT_BYTES`] and [`RECEIVE_BUFFER_BYTES`] allow: it takes whole segments,
/// and counts its own bookkeeping. Measured with the defaults: 141 KiB for a
/// client that stalls at once, 175 KB after fast traffic; this gives 208.
pub const KERNEL_CLIENT_BYTES: usize = 64 * 1024;

/// Unsent bytes that the kernel holds if nothing bounds them (measured).
pub const KERNEL_OWN_UNSENT_BYTES: usize = 4 * 1024 * 1024;

/// What the kernel's receive buffer grows to if nothing bounds it (measured after
/// fast traffic).
pub const KERNEL_OWN_RECEIVE_BYTES: usize = 1024 * 1024;

/// Default memory budget if the size of memory is unknown.
pub const MEMORY_BUDGET_FALLBACK_BYTES: usize = 1024 * 1024 * 1024;

/// Longest frame payload that a framed service takes by default.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// Largest value of the maximum frame: the most that the 4-byte length of
/// the protocol can say.
pub const MAX_FRAME_CEILING_BYTES: usize = u32::MAX as usize;

/// Rate below which an unfinished frame is too slow, in bytes a second.
pub const SLOWEST_FRAME_BYTES_PER_S: u64 = 1024;

/// Longest time in which an unfinished frame, or a part of its header, may bring
/// less than that.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How often unfinished frames are looked at within that time: a frame is ended
/// at most one such part late.
pub const FRAME_LOOKS: u32 = 16;

/// Unsent bytes that the kernel may hold for one client (`TCP_NOTSENT_LOWAT`).
/// Measured: 16 KiB leaves 54 KB in a stalled client's send queue instead of
/// 4.2 MB and costs no throughput.
pub const UNSENT_BYTES: usize = 16 * 1024;

/// Receive buffer (`SO_RCVBUF`) of a client that takes nothing, and the step
/// in which it grows as its peer takes bytes. Measured: with 64 KiB a stalled
/// client holds 137 KB of kernel memory, 175 KB after fast traffic, and bulk
/// traffic costs as much as with the kernel's own sizing.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// Doublings of a receive buffer among many clients: up to 256 KiB. With
/// 1 MiB, 16 bulk clients cost 8 % more CPU per byte, since buffered bytes have
/// left the caches.
pub const RECEIVE_BUFFER_DOUBLINGS: u8 = 2;

/// Doublings of a receive buffer while there are at most [`FEW_CLIENTS`]: up
/// to 1 MiB. Measured with one client and 1 MiB in flight, as a ratio to a loop
/// that leaves its buffers to the kernel, 1 MiB and 256 KiB side by side: frames
/// of 64 KiB 1.14 to 1.26 and 0.81 to 0.84, a plain stream 1.19 and 1.00, a
/// tunnel 1.05 and 0.98. A client that stalls after fast traffic holds no more.
pub const RECEIVE_BUFFER_DOUBLINGS_OF_FEW: u8 = 4;

/// Most clients, upstreams included, that count as few.
pub const FEW_CLIENTS: usize = 4;

/// Round trip from which a path is long. Its speed is the window divided by
/// the round trip, so a bounded window would throttle it (256 KiB at 50 ms are
/// 5 MB/s).
pub const LONG_PATH: Duration = Duration::from_millis(2);

/// Bytes between two checks of the peer's window while a source sends, where
/// the window can have become too narrow. Checked half as often, a client that
/// stalls at once holds 220 KB instead of 135; checked at each read, bulk through
/// a tunnel costs 7 % more.
pub const WINDOW_CHECK_BYTES: u64 = 64 * 1024;

/// Read buffer of an event loop, shared by all its clients. More than 64 KiB
/// per call brings no measurable gain on loopback.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Frame length from which a frame is read into memory of its own. One read of
/// the loop's buffer takes two or more shorter frames, which saves more than the
/// copy of the incomplete one costs.
pub const LONG_FRAME_BYTES: usize = READ_BUFFER_BYTES / 2;

/// Smallest read. A queue just below its mark still gets this much, so that
/// the last bytes below the mark do not cost one system call each. A queue
/// therefore exceeds its mark by at most this much.
pub const SMALLEST_READ_BYTES: usize = 4 * 1024;

/// Bytes that one client may read, and write, in one turn before it goes to
/// the back of the ready list. Fairness has a price, since a client's bytes are in
/// the caches only once. Measured with 16 bulk clients, CPU per byte as a ratio to
/// a loop that empties each socket: 1.23 to 1.37 with 64 KiB, 1.16 with 128, 0.95
/// to 1.05 with 256. The ping-pong of a neighbour of three bulk clients takes 0.3,
/// 0.5 and 0.8 ms, at most 5 to 24 ms; with that loop 0.1 ms, at most 117 ms.
pub const TURN_BUDGET_BYTES: usize = 256 * 1024;

/// Bytes of a file that one client is sent in one turn.
pub const TURN_FILE_BYTES: u64 = 64 * 1024;

/// The same while nobody else is ready: fewer turns for a large file.
pub const LONE_TURN_FILE_BYTES: u64 = 512 * 1024;

/// Divisor of the grace that gives the time between two looks at what a peer
/// has acknowledged, at least [`SHORTEST_PROGRESS_INTERVAL`] and at most
/// [`LONGEST_PROGRESS_INTERVAL`]. A stalled client goes at most one such time
/// after the grace.
pub const PROGRESS_LOOKS: u32 = 30;

/// Shortest time between two looks at what a peer has acknowledged.
pub const SHORTEST_PROGRESS_INTERVAL: Duration = Duration::from_millis(10);

/// Longest time between two looks at what a peer has acknowledged.
pub const LONGEST_PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Read length from which a client counts as moving bulk: its next bytes are
/// spliced to the destination, not copied. Below it, two more system calls cost
/// more than the copy.
pub const SPLICE_FROM_BYTES: usize = 32 * 1024;

/// Size of the pipe for spliced bytes (`F_SETPIPE_SZ`). Its 64 slots hold
/// 64 KiB even if each packet of 1.5 KB takes one.
pub const SPLICE_PIPE_BYTES: usize = 256 * 1024;

/// Bytes that all clients together may read and write in one turn: some 2 ms.
/// Bounds how late an expired timer is noticed. Without it a thousand saturating
/// clients made a turn of 100 ms.
pub const TURN_BUDGET_ALL_BYTES: u64 = 1024 * 1024;

/// Share of that budget that newcomers may use before bulk clients are served:
/// each of thousands that connect at once may be about to saturate.
pub const TURN_BUDGET_NEW_BYTES: u64 = TURN_BUDGET_ALL_BYTES / 4;

/// Bytes moved in its last turn from which a client is served after those with
/// small messages. Copying so much takes less than the system calls of a message;
/// 16,000 bytes take twice as long, and 1,500 clients with such messages then
/// made the p99 of small ones 3.4 ms; with 20,000 bytes, as bulk, it was 1.0.
pub const MODERATE_TURN_BYTES: u64 = 4 * 1024;

/// Bytes moved in its last turn from which a client is served as bulk. While
/// 5,000 clients connected and saturated within half a second, 50 others with
/// messages of 64 bytes waited for at most 21 to 32 ms; with one lane for all it
/// was 138 to 232.
pub const BULK_TURN_BYTES: u64 = 16 * 1024;

/// Most events taken from the kernel at once, and so most clients served in
/// one turn. Bounds how stale the turn's clock gets.
pub const EVENTS_PER_TURN: usize = 1024;

/// Most connections accepted in one turn, so that a storm of connects does not
/// keep connected clients from being served.
pub const ACCEPTS_PER_TURN: usize = 128;

/// Most newcomers that wait for a seat while all are taken. Each has a
/// descriptor, out of those that are kept back; the others wait in the backlog.
pub const MAX_WAITING_NEWCOMERS: usize = 8;

/// Longest wait of a newcomer for a seat while so many clients have work that not
/// all were served since it came. One of them may have left before it came.
pub const SEAT_WAIT: Duration = Duration::from_millis(100);

/// Connections that the kernel keeps ready to be accepted. With the usual 128,
/// each connection in a storm of 3,000 waits for a second.
pub const BACKLOG_CONNECTIONS: i32 = 4096;

/// Pause before `accept` is tried again after descriptors ran out. No edge
/// announces a free descriptor, so only a timer can tell.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Descriptors kept back from clients: standard streams, the listener, epoll,
/// the log file, signals, name look-ups, and some for the surrounding program.
pub const RESERVED_DESCRIPTORS: usize = 32;

/// Longest wait for events while a timer is armed. The excess over this wait
/// tells that the process was stopped, so a short wait makes that sign sharp.
pub const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Excess over its wait that a turn may take before the excess counts as time
/// in which the loop did not run, and is charged to no client.
pub const TURN_ALLOWANCE: Duration = Duration::from_millis(100);

/// Most clients disconnected by timers in one turn. Each takes the kernel some
/// 15 us, mostly to free its buffers; other clients are served in between.
pub const EXPIRIES_PER_TURN: usize = 64;

/// Interval in which a stopping server asks whether the last bytes of its
/// clients have arrived; no edge tells.
pub const STOP_POLL: Duration = Duration::from_millis(10);

/// Shortest interval between two ticks of a service; a shorter one counts as
/// this. A wait for events is a whole number of milliseconds, and an interval of
/// zero would keep the loop from ever waiting.
pub const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// Freed queue memory below which the allocator is not asked to give pages
/// back to the system.
pub const TRIM_AFTER_FREED_BYTES: usize = 1024 * 1024;

/// Freed queue memory that is given back without waiting for more. Takes 2 to
/// 5 ms in which no client is served.
pub const TRIM_AT_ONCE_BYTES: usize = 16 * 1024 * 1024;

/// Shortest time between two such requests for less memory.
pub const TRIM_INTERVAL: Duration = Duration::from_millis(500);

/// Log lines that wait for a slow terminal, pipe or disk. Further lines are
/// dropped and counted.
pub const LOG_BACKLOG_LINES: usize = 16 * 1024;

/// Time in which log lines are gathered before they are written. Waking the
/// thread that writes costs the event loop as much as a disconnect; thousands of
/// disconnects at once wake it once in this time.
pub const LOG_GATHER_TIME: Duration = Duration::from_millis(1);

/// Longest wait for the last log lines at the end of the program.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Most lines of one kind that the command logs in a second by default. Clients
/// that reconnect can cause thousands; ten a second still show what goes on.
pub const LOG_LINES_PER_SECOND: usize = 10;

/// Shortest time between two log lines of one kind about one client, or of one
/// kind about the listener. Events in between are summed up.
pub const LOG_REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Silence after which the kernel asks whether the peer is still there
/// (`TCP_KEEPIDLE`). Nothing else tells that a peer vanished while both sides were
/// silent.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// Time between two keepalive probes without an answer (`TCP_KEEPINTVL`).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Keepalive probes without an answer after which the peer counts as gone
/// (`TCP_KEEPCNT`): a minute in all.
pub const KEEPALIVE_PROBES: u32 = 4;

/// Longest time between two retransmissions (`TCP_RTO_MAX_MS`, Linux 6.15), the
/// least that the kernel takes. They otherwise come after 0.2, 0.6, 1.4, 3.0 and
/// 6.2 s: a peer that is away for 3.3 s hears the next one only after the default
/// grace. With this bound an outage ends for the sender at most 1 s late.
/// [`Limits::longest_retransmission`] is longer where the grace is.
pub const LONGEST_RETRANSMISSION: Duration = Duration::from_secs(1);

/// Part of the grace that may pass between two retransmissions. The kernel gives a
/// connection up after 15 of them (`tcp_retries2`): with 1 s between them that is
/// 14.4 s, and measured 15 s, whatever the grace. With an eighth the kernel always
/// has more patience than the grace.
pub const RETRANSMISSIONS_PER_GRACE: u32 = 8;

/// Longest wait of one client for its upstream, look-ups and retries included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a balancer must have sent a whole PROXY header.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Head start of one address before the next is tried beside it (RFC 8305,
/// section 5).
pub const HEAD_START: Duration = Duration::from_millis(250);

/// Most connections under way at once for one client. The oldest then gives
/// way to the next address: after three head starts an answer is unlikely.
pub const MAX_RACING_CONNECTS: usize = 4;

/// Pause before the addresses are tried again once all have failed; it doubles
/// each time. A service that restarts refuses for a moment only.
pub const CONNECT_RETRY_FIRST: Duration = Duration::from_millis(50);

/// Longest such pause.
pub const CONNECT_RETRY_LONGEST: Duration = Duration::from_secs(1);

/// Time without an answer after which a connection has its name looked up
/// again: the service may have moved. The kernel retransmits after 1 s.
pub const CONNECT_SILENCE: Duration = Duration::from_millis(500);

/// Interval in which clients that wait for an upstream are looked after, while
/// there are any.
pub const CONNECT_POLL: Duration = Duration::from_millis(10);

/// Most addresses of one name that are tried.
pub const MAX_ADDRESSES: usize = 16;

/// Time for which working addresses of a name are trusted.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest time between two look-ups of a name, however many connections
/// fail. Spares the name servers.
pub const RESOLVE_SPACING: Duration = Duration::from_secs(1);

/// The largest value that a socket option of type `int` takes after the
/// kernel has doubled it (`SO_RCVBUF`, socket(7)).
pub const LARGEST_SOCKET_OPTION_BYTES: usize = 1 << 30;
