//! The probe in slices of a tenth of a second, and what a [`ProgressSink`] is told of each.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{Driver, SLICE};
use crate::probe::driver::slow_group::MARGIN;
use crate::probe::driver::socket::ClientStream;
use crate::probe::report::measurement::Slice;
use crate::probe::server::ServerMonitor;
use crate::probe::watcher::{Live, ProgressSink};

impl<S: ClientStream> Driver<'_, S> {
    pub(super) fn end_slice(&mut self, now: Instant, sink: &mut dyn ProgressSink) {
        self.next_slice += SLICE;
        if self.next_slice <= now {
            self.next_slice = now + SLICE;
        }
        let moment = self.moment(now);
        let tally = self.tally.take_slice();
        let oldest = self.healthy.oldest_waiting();
        let longest_wait = tally
            .longest_wait
            .max(oldest.map_or(Duration::ZERO, |sent| moment.since(sent)));
        let slow = self.slow.counts();
        let slice = Slice {
            at: self.seconds(now),
            messages: tally.counts.messages,
            bytes: tally.counts.bytes,
            longest_wait_us: longest_wait.as_secs_f64() * 1e6,
            slow_connected: slow.connected,
            slow_full: slow.full,
            slow_ended: slow.ended,
            rss_bytes: self.monitor.as_ref().and_then(ServerMonitor::rss_bytes),
        };
        let since_last = self.timeline.last().map_or(slice.at, |last| slice.at - last.at);
        self.timeline.push(slice);
        let live = Live {
            phase: self.phase,
            elapsed: now.saturating_duration_since(self.epoch),
            expected: self.expected(),
            messages_per_second: tally.counts.messages as f64 / since_last.max(1e-3),
            longest_wait,
            slow_connected: slice.slow_connected,
            slow_full: slice.slow_full,
            slow_ended: slice.slow_ended,
        };
        if let ControlFlow::Break(()) = sink.observe(&live) {
            self.interrupted = true;
        }
    }

    fn expected(&self) -> Duration {
        let during = self.plan.within.max(self.plan.pause) + MARGIN;
        if self.has_slow() {
            2 * self.plan.baseline + during
        } else {
            self.plan.baseline
        }
    }
}
