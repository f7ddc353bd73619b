//! What a probe has seen, before anybody judges it. Plain values, in seconds since the probe began.

use serde::Serialize;

use crate::probe::kind::Disconnect;
use crate::probe::kind::SlowKind;

/// All that one probe measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measurement {
    /// Length of the probe, in seconds.
    pub seconds: f64,
    /// Whether it was ended early.
    pub interrupted: bool,
    /// The clients that read at once.
    pub healthy: Healthy,
    /// Every slow client, in the order in which they joined.
    pub slow: Vec<SlowClientSeen>,
    /// The server's process and its sockets, where they can be seen.
    pub server: Option<ServerSeen>,
    /// The publishing connection, where there was one.
    pub publisher: Option<PublisherSeen>,
    /// The probe in slices of a tenth of a second.
    pub timeline: Vec<Slice>,
}

/// What the publishing connection did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublisherSeen {
    /// Lines published.
    pub messages: u64,
    /// Whether the server ended it.
    pub ended: bool,
    /// The first words that it was answered.
    pub first_words: Option<String>,
}

/// What the healthy clients felt.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Healthy {
    /// How many there were.
    pub clients: usize,
    /// How many could not connect.
    pub not_connected: usize,
    /// How many of them the server ended.
    pub ended: usize,
    /// How many got a wrong byte or answer; these are among the ended.
    pub corrupt: usize,
    /// What was wrong with the first of those.
    pub first_corruption: Option<String>,
    /// How many never got a single answer.
    pub never_answered: usize,
    /// How often a server closed one of them in order, so that it came back.
    pub closed_in_order: usize,
    /// How long connections lasted that the server ended, in seconds; the first thousand.
    #[serde(skip)]
    pub lifetimes: Vec<f64>,
    /// What came first, in words, where nobody can verify it.
    pub first_words: Option<String>,
    /// Alone, before the slow clients joined.
    pub before: Option<PhaseFigures>,
    /// While the slow clients were there.
    pub during: Option<PhaseFigures>,
    /// When those to go had gone, or had had time to.
    pub after: Option<PhaseFigures>,
}

/// One phase of the healthy clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PhaseFigures {
    /// When it began, in seconds since the probe began.
    pub from: f64,
    /// Its length, in seconds.
    pub seconds: f64,
    /// Answers completed.
    pub messages: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Answers per second.
    pub messages_per_second: f64,
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Waits, in microseconds. A message that never got its answer counts with its age.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub p999_us: f64,
    /// See `p50_us`.
    pub max_us: f64,
    /// The part of the phase in which the prober itself had no time for healthy clients, as it
    /// connected slow ones, filled them up and looked at them; in percent.
    pub prober_on_slow_percent: f64,
    /// The part of the phase in which the prober was ready to run and had no processor, in percent.
    pub prober_waited_percent: f64,
}

/// The fate of one slow client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlowClientSeen {
    /// In which way it is slow.
    pub kind: SlowKind,
    /// Its port, to find it in the server's log.
    pub local_port: u16,
    /// Whether it ever connected.
    pub connected: bool,
    /// When it began to connect.
    pub joined_at: f64,
    /// When its last connection stood.
    pub connected_at: Option<f64>,
    /// When its writes were first refused.
    pub first_refused_at: Option<f64>,
    /// When it last made progress before it stood still (for those that read: when it was first refused).
    pub full_at: Option<f64>,
    /// When a paused client began to read again.
    pub resumed_at: Option<f64>,
    /// When its end was seen.
    pub ended_at: Option<f64>,
    /// How it ended.
    pub end: Option<Disconnect>,
    /// From `full_at` to `ended_at`.
    pub seconds_to_end: Option<f64>,
    /// Since when nothing moved towards it.
    pub standstill: Option<StandstillSeen>,
    /// When it was last looked at.
    pub last_look_at: f64,
    /// When the server's process was last seen to have its connection open, where `/proc` shows that.
    pub last_held_at: Option<f64>,
    /// When bytes last moved in either direction.
    pub last_progress_at: f64,
    /// What the server's own queue owed it at the last look, where that can be told.
    pub owed_bytes: Option<u64>,
    /// The most that it owed while nothing moved, or at the last look.
    pub most_owed_bytes: Option<u64>,
    /// What it owed a paused client that was about to read again.
    pub owed_when_resumed_bytes: Option<u64>,
    /// Whether `/proc` showed the server's side of its connection.
    pub in_sight: bool,
    /// Bytes that the server sent it: those that it received, and those that kernels held for it.
    pub output_bytes: u64,
    /// How often the server closed it in order, owing it nothing, so that it came back.
    pub closed_in_order: u32,
    /// Bytes that the server's kernel held for it when it belonged to no process any more.
    pub left_bytes: u64,
    /// Bytes that the server's side took, its kernel included.
    pub absorbed_bytes: u64,
    /// Whether the server's side took everything that was on offer.
    pub offer_exhausted: bool,
    /// Bytes received and verified.
    pub received_bytes: u64,
    /// Whether what it received is an intact prefix; `None` where that cannot be told.
    pub intact: Option<bool>,
    /// What was wrong.
    pub corruption: Option<String>,
    /// Whether everything it sent was answered in the end; for those to be kept.
    pub complete: bool,
}

/// Since when nothing moved towards a slow client, in seconds since the probe began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StandstillSeen {
    /// It began after this.
    pub not_before: f64,
    /// It was seen here.
    pub seen_at: f64,
    /// Bytes that moved until then.
    pub bytes: u64,
    /// When the first of them moved.
    pub began_at: f64,
    /// Whether they include what the server's kernel holds.
    pub in_sight: bool,
    /// When the server's side last took something.
    pub input_at: f64,
    /// When the server's own queue first owed more than 1 MiB.
    pub owed_much_at: Option<f64>,
}

impl SlowClientSeen {
    /// A client that connected at once and of which nothing more has been seen.
    pub(crate) fn new(kind: SlowKind, local_port: u16) -> Self {
        Self {
            kind,
            local_port,
            connected: true,
            joined_at: 0.0,
            connected_at: None,
            first_refused_at: None,
            full_at: None,
            resumed_at: None,
            ended_at: None,
            end: None,
            seconds_to_end: None,
            standstill: None,
            last_look_at: 0.0,
            last_held_at: None,
            last_progress_at: 0.0,
            owed_bytes: None,
            most_owed_bytes: None,
            owed_when_resumed_bytes: None,
            in_sight: false,
            output_bytes: 0,
            closed_in_order: 0,
            left_bytes: 0,
            absorbed_bytes: 0,
            offer_exhausted: false,
            received_bytes: 0,
            intact: None,
            corruption: None,
            complete: false,
        }
    }
}

/// The server's process as `/proc` shows it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServerSeen {
    /// Its processes.
    pub pids: Vec<i32>,
    /// The name of the first.
    pub name: String,
    /// Resident memory of all of them when the slow clients joined, in bytes.
    pub rss_before_bytes: u64,
    /// The most seen while they were there.
    pub rss_peak_bytes: u64,
    /// At the end of the probe.
    pub rss_after_bytes: u64,
    /// Processor time, in percent of one processor, while the healthy clients were alone.
    pub cpu_before_percent: f64,
    /// The same while slow clients were there.
    pub cpu_during_percent: f64,
    /// The same afterwards.
    pub cpu_after_percent: f64,
    /// What all programs but the server and the prober took of the whole machine's processor
    /// time, in percent, while the healthy clients were alone.
    pub others_before_percent: f64,
    /// The same while slow clients were there.
    pub others_during_percent: f64,
    /// The same afterwards.
    pub others_after_percent: f64,
    /// The most that the server's send queues held for slow clients, in bytes.
    pub kernel_send_queue_peak_bytes: u64,
    /// The most that the server's receive queues held from slow clients, in bytes.
    pub kernel_receive_queue_peak_bytes: u64,
    /// Whether the host was short of memory for TCP (`tcp_mem`) while slow clients were there.
    pub tcp_memory_pressure: bool,
    /// Connections of slow clients that the server let go of without a reset.
    pub orphans: usize,
    /// What the kernel still held for those, in bytes.
    pub orphan_bytes: u64,
}

/// A tenth of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Slice {
    /// When it ended.
    pub at: f64,
    /// Answers that healthy clients got in it.
    pub messages: u64,
    /// Bytes that they received.
    pub bytes: u64,
    /// The longest wait that ended in it, or that still lasts at its end, in microseconds.
    pub longest_wait_us: f64,
    /// Slow clients that are connected.
    pub slow_connected: usize,
    /// Slow clients that had filled up by then.
    pub slow_full: usize,
    /// Slow clients that had ended by then.
    pub slow_ended: usize,
    /// Resident memory of the server, in bytes, where it is known.
    pub rss_bytes: Option<u64>,
}
