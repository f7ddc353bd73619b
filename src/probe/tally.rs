//! What healthy clients felt, by phase: messages, bytes, waits.
//!
//! Pure. A wait belongs to the phase in which its message was sent, so that a
//! message which the slow clients held up is charged to their phase.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The longest wait that is told from longer ones.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Percentiles are right to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty histogram of waits in nanoseconds.
pub(crate) fn empty_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LONGEST_WAIT.as_nanos() as u64, SIGNIFICANT_DIGITS) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("the bounds above are within what the histogram takes: {error}"),
    }
}

/// Counts of one phase.
#[derive(Debug, Clone)]
pub(crate) struct PhaseTally {
    /// When it began.
    pub(crate) started: Instant,
    /// When it ended, once it has.
    pub(crate) ended: Option<Instant>,
    /// Answers completed in this phase.
    pub(crate) messages: u64,
    /// Bytes received in this phase.
    pub(crate) bytes: u64,
    /// Waits of the messages sent in this phase, in nanoseconds.
    pub(crate) waits: Histogram<u64>,
}

/// All phases so far, and the slice of the timeline that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    phases: Vec<PhaseTally>,
    /// Messages and longest wait since the slice was last taken.
    slice: SliceTally,
    measuring: bool,
}

/// Counts of one slice of the timeline.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SliceTally {
    /// Answers completed.
    pub(crate) messages: u64,
    /// Bytes received.
    pub(crate) bytes: u64,
    /// Longest wait that ended in the slice.
    pub(crate) longest_wait: Duration,
}

impl Tally {
    /// Ends the phase that runs, if any, and begins the next.
    pub(crate) fn begin_phase(&mut self, now: Instant) {
        self.end_phase(now);
        self.phases.push(PhaseTally {
            started: now,
            ended: None,
            messages: 0,
            bytes: 0,
            waits: empty_histogram(),
        });
        self.measuring = true;
    }

    /// Ends the phase that runs; what completes later is still charged to the
    /// phase in which it was sent, but no longer counted in its rate.
    pub(crate) fn end_phase(&mut self, now: Instant) {
        if let Some(phase) = self.phases.last_mut()
            && phase.ended.is_none()
        {
            phase.ended = Some(now);
        }
        self.measuring = false;
    }

    /// An answer came: `sent` is when its message was due to be sent.
    #[inline]
    pub(crate) fn answered(&mut self, sent: Instant, now: Instant) {
        let wait = now.saturating_duration_since(sent);
        self.slice.messages += 1;
        self.slice.longest_wait = self.slice.longest_wait.max(wait);
        if self.measuring
            && let Some(phase) = self.phases.last_mut()
        {
            phase.messages += 1;
        }
        self.charge(sent, wait);
    }

    /// A message that was sent then has no answer by `now`.
    pub(crate) fn unanswered(&mut self, sent: Instant, now: Instant) {
        self.charge(sent, now.saturating_duration_since(sent));
    }

    /// Bytes came in.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.slice.bytes += bytes as u64;
        if self.measuring
            && let Some(phase) = self.phases.last_mut()
        {
            phase.bytes += bytes as u64;
        }
    }

    /// The slice since the last call.
    pub(crate) fn take_slice(&mut self) -> SliceTally {
        std::mem::take(&mut self.slice)
    }

    /// The phases begun so far, in order.
    pub(crate) fn phases(&self) -> &[PhaseTally] {
        &self.phases
    }

    fn charge(&mut self, sent: Instant, wait: Duration) {
        let phase = self.phases.iter_mut().rev().find(|phase| phase.started <= sent);
        if let Some(phase) = phase {
            let whole_seconds = wait.as_secs().saturating_mul(1_000_000_000);
            let nanos = whole_seconds.saturating_add(u64::from(wait.subsec_nanos()));
            phase.waits.saturating_record(nanos.max(1));
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_charged_to_the_phase_in_which_its_message_was_sent() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tally = Tally::default();
        tally.begin_phase(at(0));
        tally.answered(at(1), at(2));
        tally.begin_phase(at(10));
        tally.answered(at(9), at(500));
        tally.end_phase(at(600));
        tally.answered(at(11), at(700));
        tally.unanswered(at(12), at(1012));
        let [before, during] = tally.phases() else {
            panic!()
        };
        assert_eq!((before.messages, before.waits.len()), (1, 2));
        assert_eq!((during.messages, during.waits.len()), (1, 2));
        assert!(before.waits.max() >= 490_000_000);
        assert!(during.waits.max() >= 990_000_000);
        assert_eq!(tally.take_slice().messages, 3);
        assert_eq!(tally.take_slice().messages, 0);
    }
}
