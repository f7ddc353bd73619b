//! Who looks on while a probe runs, and may end it early.

use std::ops::ControlFlow;
use std::time::Duration;

/// A part of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The healthy clients connect.
    Connecting,
    /// They are measured alone.
    Before,
    /// Slow clients join, fill up, and go or stay.
    During,
    /// Healthy ones are measured again.
    After,
}

impl Phase {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// How a probe stands at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// The part that runs.
    pub phase: Phase,
    /// Since the probe began.
    pub elapsed: Duration,
    /// How long it may take at most, as far as is known.
    pub expected: Duration,
    /// Answers per second that the healthy clients get.
    pub messages_per_second: f64,
    /// The longest wait of the last slice.
    pub longest_wait: Duration,
    /// Slow clients that are connected.
    pub slow_connected: usize,
    /// Slow clients that filled up.
    pub slow_full: usize,
    /// Slow clients that ended.
    pub slow_ended: usize,
}

/// Looks on, some ten times a second.
pub trait ProgressSink {
    /// Break ends the probe with what it has measured so far.
    fn observe(&mut self, live: &Live) -> ControlFlow<()>;

    /// Whether to give up before the probe has begun; asked some twenty times a second.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Nobody looks on.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl ProgressSink for NoProgress {
    fn observe(&mut self, _: &Live) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
