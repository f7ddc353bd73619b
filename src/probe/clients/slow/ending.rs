//! The end of a slow client: by its server, in its kernel, or as the probe is over.

use std::io::{Read, Write};
use std::time::Instant;

use super::{LEFT_FOR, SlowClient, Stage};
use crate::probe::clients::healthy::Turn;
use crate::probe::kind::Disconnect;

impl<S: Read + Write> SlowClient<S> {
    /// Sends no more and reads all that is still to come, at full speed.
    pub(crate) fn finish(&mut self) {
        self.is_finishing = true;
        if matches!(self.stage, Stage::Filling | Stage::Holding) {
            if self.kind.is_kept() {
                self.wire.any_mut().catch_up();
            }
            let all = self.wire.all_answered(self.sent) == Some(true);
            self.stage = if all { Stage::Complete } else { Stage::Draining };
        }
    }

    /// Whether what came up to the end of its stream shows that the server was done with it.
    pub(crate) fn knows_its_end(&self) -> bool {
        !self.traits.echoes && self.traits.verifies
    }

    /// When the last look at the server was taken, if its process had the connection open then.
    pub(crate) fn set_held(&mut self, held_at: Option<Instant>) {
        self.is_held = held_at.is_some();
        self.held_at = held_at.or(self.held_at);
    }

    /// When the server's process last had the connection open, as looks there show.
    pub(crate) fn held_at(&self) -> Option<Instant> {
        self.held_at
    }

    /// The server let go of its connection, but the kernel there still holds `bytes` for it.
    pub(crate) fn was_left(&mut self, now: Instant, bytes: u64) {
        if self.end.is_some() || !self.is_connected() || self.kind.is_kept() {
            return;
        }
        let (since, _) = *self.left.get_or_insert((now, bytes));
        if !self.knows_its_end() {
            self.ended(now, Disconnect::LeftInKernel);
        } else if now.saturating_duration_since(since) >= LEFT_FOR {
            // Only what comes shows whether the server was done with it.
            self.stage = Stage::Draining;
        }
    }

    /// The connection is over, as seen by other means than a read or a write.
    pub(crate) fn ended(&mut self, now: Instant, end: Disconnect) -> Turn {
        if self.end.is_none() && self.is_finishing && !self.kind.is_kept() && self.is_late(end) {
            self.stage = Stage::Away { until: now };
        } else if self.end.is_none() {
            self.fullness.ended(now);
            self.end = Some(match self.left {
                Some((since, _)) => (since, Disconnect::LeftInKernel),
                None => (now, end),
            });
        }
        Turn::Ended(end)
    }

    /// An end that comes only once it reads is none of the time in which it did not: a reset would
    /// have been seen at once, and a server that has the connection open at the end of that time may
    /// have half-closed it, and kept it.
    fn is_late(&self, end: Disconnect) -> bool {
        let was_kept = self.is_held && !self.knows_its_end();
        self.left.is_none() && (end == Disconnect::Reset || was_kept)
    }
}
