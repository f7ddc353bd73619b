//! Sending files: an answer under way is the source of its client.
//!
//! Owns how much is sent when, and the rule for peers that acknowledge nothing.
//! Nothing of a file waits in our memory: the socket takes as much as it has
//! room for, and the rest stays in the file. Refuses to open files and to wait
//! for a disk.

use std::time::Duration;

use super::actions::{Actions, Slowness};
use super::client::{FileState, Phase};
use super::client_table::ClientId;
use super::core::{Core, Engine};
use super::file::{FilePart, Prepared};
use super::network::{Network, Stream};
use super::service::Service;
use super::timers::Timer;
use crate::backpressure::SlowReason;
use crate::error::{CloseReason, Operation};
use crate::limits::{LONE_TURN_FILE_BYTES, TURN_FILE_BYTES};
use crate::units::format_time;

impl<N: Network> Core<N> {
    /// Sends `parts` behind what is queued.
    pub(super) fn send_file(&mut self, id: ClientId, parts: Vec<FilePart>) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if !client.accepts_writes() {
            return;
        }
        if client.file == FileState::None {
            client.file = FileState::Sending;
        }
        self.expect_progress(id);
        if let Some(send) = self.files.get_mut(id) {
            send.extend(parts);
        }
        self.list_if_work(id);
    }

    /// The pages that an answer waited for are there.
    pub(super) fn resume_file(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && client.file == FileState::Waiting
        {
            client.file = FileState::Sending;
            self.list_if_work(id);
        }
    }

    /// Sends from the answer under way what the socket takes, within a share
    /// of the turn. Answers whether the answer is complete.
    fn send_parts(&mut self, id: ClientId) -> bool {
        let mut budget_bytes = match self.ready.is_empty() {
            true => LONE_TURN_FILE_BYTES,
            false => TURN_FILE_BYTES,
        };
        let Some(client) = self.clients.get_mut(id) else {
            return false;
        };
        if client.file != FileState::Sending {
            return false;
        }
        let Some(send) = self.files.get_mut(id) else {
            return false;
        };
        while let Some(part) = &mut send.part {
            if part.length_bytes == 0 {
                send.next();
                continue;
            }
            if budget_bytes == 0 || !client.readiness.is_writable() {
                return false;
            }
            let most_bytes = budget_bytes.min(part.length_bytes);
            let allowed_bytes = match part.source.prepare(part.offset, most_bytes) {
                Prepared::Ready(bytes) => usize::try_from(bytes.min(most_bytes)).unwrap_or(usize::MAX),
                Prepared::Waiting => {
                    client.file = FileState::Waiting;
                    return false;
                }
                Prepared::Changed => {
                    self.reject(id, FILE_CHANGED.into());
                    return false;
                }
            };
            let outcome = client
                .stream
                .send_file(part.source.as_ref(), part.offset, allowed_bytes);
            if matches!(outcome, Ok(0)) {
                self.reject(id, FILE_CHANGED.into());
                return false;
            }
            // A short call may have met the end of the file; the next one tells.
            match client.after_write(outcome, 0) {
                Ok(count) => {
                    part.offset += count as u64;
                    part.length_bytes -= count as u64;
                    budget_bytes = budget_bytes.saturating_sub(count as u64);
                    self.moved_bytes += count as u64;
                    if self.limits.slowest_reader_bytes_per_s.is_some() {
                        let _ = client.look_at_window();
                    }
                    if count == 0 && client.readiness.is_writable() {
                        // It was interrupted; the edge stands for the next turn.
                        return false;
                    }
                }
                Err(error) => {
                    self.mark_closed(id, CloseReason::Failed(Operation::Write, error));
                    return false;
                }
            }
        }
        client.file = FileState::None;
        true
    }

    /// Begins to watch whether a client acknowledges what it is sent.
    pub(super) fn expect_progress(&mut self, id: ClientId) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if client.is_watched || client.phase == Phase::Closed {
            return;
        }
        client.is_watched = true;
        self.files.watch(id, client.acknowledged_bytes(), now);
        self.timers.arm(Timer::Progress, id, now);
    }

    /// Looks whether a client has acknowledged anything since the last look,
    /// and disconnects one that owed it for the grace.
    pub(super) fn check_progress(&mut self, id: ClientId) {
        let now = self.now;
        let (Some(client), Some(send)) = (self.clients.get_mut(id), self.files.get_mut(id)) else {
            return;
        };
        let owed_bytes = client.stream.unacknowledged_bytes();
        let acknowledged_bytes = client.sent_bytes.saturating_sub(owed_bytes);
        let has_acknowledged = acknowledged_bytes > send.acknowledged_bytes;
        // One system call a look is enough for a client that stands still:
        // there may be thousands of them beside those that are served.
        if has_acknowledged || self.limits.slowest_reader_bytes_per_s.is_some() {
            let _ = client.look_at_window();
        }
        let grace = self.limits.grace_for(client.reopening_window_bytes());
        if owed_bytes == 0 && client.queue.is_empty() && client.file == FileState::None {
            client.is_watched = false;
            self.files.forget(id);
            return;
        }
        // A peer that owed nothing at the last look may owe since just now only.
        let silence = send.silence(now);
        if has_acknowledged || owed_bytes == 0 || send.owed_since.is_none() {
            send.acknowledged_bytes = acknowledged_bytes;
            send.owed_since = (owed_bytes > 0).then_some(now);
            if self.shadow.is_some() {
                self.shadow_progress(id, silence);
            }
        }
        let (Some(client), Some(send)) = (self.clients.get(id), self.files.get_mut(id)) else {
            return;
        };
        let slow_for = send.silence(now);
        let slow = Slowness {
            slow_for,
            waiting_bytes: client.queue.len(),
            peak_bytes: client.peak_bytes as usize,
        };
        // In shadow mode it is watched on.
        if slow_for < grace || self.shadow.is_some() {
            let rest = grace.saturating_sub(slow_for);
            self.look_again(id, rest);
        }
        if slow_for < grace {
            return;
        }
        let detail = format!(
            "nothing acknowledged for {}, {owed_bytes} bytes in the kernel",
            format_time(grace)
        );
        self.disconnect_slow(id, SlowReason::WriteTimeout, slow, &detail);
    }

    /// Arms the next look at a client whose grace is over after `rest`, if it
    /// is not over by now. The last look comes just then.
    fn look_again(&mut self, id: ClientId, rest: Duration) {
        if rest > Duration::ZERO && rest < self.limits.progress_interval() {
            self.late_timers
                .arm(Timer::Progress, id, self.now, self.now + rest);
        } else {
            self.timers.arm(Timer::Progress, id, self.now);
        }
    }

    /// Bytes that the peer of a client has acknowledged so far; also of the
    /// client that the service hears to be closed.
    pub(super) fn acknowledged(&self, id: ClientId) -> u64 {
        match self.clients.get(id) {
            Some(client) => client.acknowledged_bytes(),
            None => self
                .departed
                .filter(|&(departed, _)| departed == id)
                .map_or(0, |(_, bytes)| bytes),
        }
    }
}

/// Why a client is disconnected whose answer could not be kept.
const FILE_CHANGED: &str = "the file became shorter while it was sent";

impl<N: Network, S: Service> Engine<N, S> {
    /// Goes on with the answer under way, once the queue is empty.
    pub(super) fn go_on_with_file(&mut self, id: ClientId) {
        if self.core.send_parts(id) {
            self.service.file_sent(id, &mut Actions::new(&mut self.core));
        }
    }
}
