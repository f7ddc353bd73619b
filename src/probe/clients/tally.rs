//! What healthy clients felt, by phase: messages, bytes, waits.
//!
//! Pure. A wait belongs to the phase in which its message was sent, so that a
//! message which the slow clients held up is charged to their phase.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::probe::clients::moment::Moment;

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
    pub(crate) started: Moment,
    /// When it ended, once it has.
    pub(crate) ended: Option<Moment>,
    /// What came in this phase; nothing until it has ended.
    pub(crate) counts: Counts,
    /// Waits of the messages sent in this phase, in nanoseconds.
    pub(crate) waits: Histogram<u64>,
    /// Time that the thread which drives all clients spent on slow ones.
    pub(crate) spent_on_slow: Duration,
}

/// What came in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Answers completed.
    pub(crate) messages: u64,
    /// Bytes received.
    pub(crate) bytes: u64,
}

impl Counts {
    fn since(self, earlier: Self) -> Self {
        Self {
            messages: self.messages - earlier.messages,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// All phases so far, and the slice of the timeline that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    phases: Vec<PhaseTally>,
    /// All that came, in phases and between them.
    counts: Counts,
    /// Those counts when the phase began that runs, if one does.
    at_phase: Option<Counts>,
    /// Those counts when the slice began.
    at_slice: Counts,
    longest_wait_nanoseconds: u64,
}

/// One slice of the timeline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SliceTally {
    /// What came in it.
    pub(crate) counts: Counts,
    /// Longest wait that ended in the slice.
    pub(crate) longest_wait: Duration,
}

impl Tally {
    /// Ends the phase that runs, if any, and begins the next.
    pub(crate) fn begin_phase(&mut self, now: Moment) {
        self.end_phase(now);
        self.phases.push(PhaseTally {
            started: now,
            ended: None,
            counts: Counts::default(),
            waits: empty_histogram(),
            spent_on_slow: Duration::ZERO,
        });
        self.at_phase = Some(self.counts);
    }

    /// Ends the phase that runs; what completes later is still charged to the
    /// phase in which it was sent, but no longer counted in its rate.
    pub(crate) fn end_phase(&mut self, now: Moment) {
        if let (Some(begun), Some(phase)) = (self.at_phase.take(), self.phases.last_mut()) {
            phase.ended = Some(now);
            phase.counts = self.counts.since(begun);
        }
    }

    /// An answer came: `sent` is when its message was due to be sent.
    #[inline]
    pub(crate) fn answered(&mut self, sent: Moment, now: Moment) {
        let wait = now.nanoseconds_since(sent);
        self.counts.messages += 1;
        self.longest_wait_nanoseconds = self.longest_wait_nanoseconds.max(wait);
        self.charge(sent, wait);
    }

    /// A message that was sent then has no answer by `now`.
    pub(crate) fn unanswered(&mut self, sent: Moment, now: Moment) {
        self.charge(sent, now.nanoseconds_since(sent));
    }

    /// So long nobody looked at healthy clients, as slow ones had something to do.
    pub(crate) fn spent_on_slow(&mut self, time: Duration) {
        if let Some(phase) = self.phases.last_mut()
            && phase.ended.is_none()
        {
            phase.spent_on_slow += time;
        }
    }

    /// Bytes came in.
    #[inline]
    pub(crate) fn received(&mut self, bytes: usize) {
        self.counts.bytes += bytes as u64;
    }

    /// The slice since the last call.
    pub(crate) fn take_slice(&mut self) -> SliceTally {
        let begun = std::mem::replace(&mut self.at_slice, self.counts);
        let longest_wait = std::mem::take(&mut self.longest_wait_nanoseconds);
        SliceTally {
            counts: self.counts.since(begun),
            longest_wait: Duration::from_nanos(longest_wait),
        }
    }

    /// The phases begun so far, in order.
    pub(crate) fn phases(&self) -> &[PhaseTally] {
        &self.phases
    }

    #[inline]
    fn charge(&mut self, sent: Moment, wait_nanoseconds: u64) {
        let phase = self.phases.iter_mut().rev().find(|phase| phase.started <= sent);
        if let Some(phase) = phase {
            phase.waits.saturating_record(wait_nanoseconds.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_charged_to_the_phase_in_which_its_message_was_sent() {
        let at = |ms| Moment::at(Duration::from_millis(ms));
        let mut tally = Tally::default();
        tally.begin_phase(at(0));
        tally.answered(at(1), at(2));
        tally.begin_phase(at(10));
        tally.answered(at(9), at(500));
        tally.spent_on_slow(Duration::from_millis(20));
        tally.end_phase(at(600));
        tally.spent_on_slow(Duration::from_millis(30));
        tally.answered(at(11), at(700));
        tally.unanswered(at(12), at(1012));
        let [before, during] = tally.phases() else {
            panic!()
        };
        assert_eq!((before.counts.messages, before.waits.len()), (1, 2));
        assert_eq!((during.counts.messages, during.waits.len()), (1, 2));
        assert_eq!(before.spent_on_slow, Duration::ZERO);
        assert_eq!(during.spent_on_slow, Duration::from_millis(20));
        assert!(before.waits.max() >= 490_000_000);
        assert!(during.waits.max() >= 990_000_000);
        assert_eq!(tally.take_slice().counts.messages, 3);
        assert_eq!(tally.take_slice().counts.messages, 0);
    }
}
