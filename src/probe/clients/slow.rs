//! A slow client: fills up, and then reads never, slowly, or after a pause.
//!
//! Owns what such a client does and what was seen of its fate. Takes the time
//! and the kernel's counts as arguments; knows no clock and no poll.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::probe::clients::healthy::Turn;
use crate::probe::clients::pace::Pace;
use crate::probe::kind::{Disconnect, SlowKind};
use crate::probe::protocol::{Corruption, Traits, Wire};

/// A client that makes no progress for this long has filled up.
pub(crate) const SETTLE_TIME: Duration = Duration::from_millis(300);
/// A paused client settles faster, as its pause must not begin later than a server's clock.
const PAUSED_SETTLE_TIME: Duration = Duration::from_millis(100);
/// A server's clock starts when its write is refused, but kernels go on moving
/// a little after that: probes of a closed window, and input that the server no
/// longer reads. On loopback that goes on for up to 0.24 s (measured), in which
/// the pause has already begun.
const KERNEL_TAIL: Duration = Duration::from_millis(250);
/// Where the server sends more than it is sent, its own kernel fills up behind
/// ours, and that is looked at only four times a second.
const UNSEEN_SETTLE_TIME: Duration = Duration::from_millis(600);
/// What a talker goes on offering once it has offered everything, in bytes per second.
const TALK_RATE_BYTES: u64 = 1 << 20;
/// Progress seen this shortly before the end is the end itself: a reset empties the kernel's queue.
const LAST_GASP: Duration = Duration::from_millis(60);
/// Reads of one client in one turn.
const MOST_READS_PER_TURN: usize = 16;

/// What a client is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Filling,
    Holding { until: Instant },
    Draining,
    Complete,
}

/// What a slow client is and does; see [`Kind`].
#[derive(Debug)]
pub(crate) struct SlowClient<S> {
    stream: S,
    kind: SlowKind,
    wire: Wire,
    traits: Traits,
    joined: Instant,
    connected: bool,
    /// The most that it offers without reading an answer.
    offer: u64,
    pause: Duration,
    pace: Option<Pace>,
    stage: Stage,
    sent: u64,
    /// The last write was not taken whole.
    refused: bool,
    /// Bytes that the server's kernel had acknowledged when that was last looked at.
    acknowledged: u64,
    /// None of it since the look before.
    is_stuck: bool,
    first_refused: Option<Instant>,
    /// Since then no write was taken whole.
    refused_since: Option<Instant>,
    progress: Progress,
    /// Its last progress, once it was seen to be full.
    full: Option<Instant>,
    resumed: Option<Instant>,
    corruption: Option<Corruption>,
    end: Option<(Instant, Disconnect)>,
}

/// Bytes that moved, and when they last did.
#[derive(Debug)]
struct Progress {
    bytes: u64,
    /// Bytes that the server's kernel has acknowledged.
    taken: u64,
    at: Instant,
    before: Instant,
}

impl<S: Read + Write> SlowClient<S> {
    /// A client that has just begun to connect.
    pub(crate) fn new(
        stream: S,
        kind: SlowKind,
        wire: Wire,
        traits: Traits,
        offer: u64,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            kind,
            wire,
            traits,
            joined: now,
            connected: false,
            offer,
            pause: Duration::ZERO,
            pace: None,
            stage: Stage::Filling,
            sent: 0,
            refused: false,
            acknowledged: 0,
            is_stuck: false,
            first_refused: None,
            refused_since: None,
            progress: Progress {
                bytes: 0,
                taken: 0,
                at: now,
                before: now,
            },
            full: None,
            resumed: None,
            corruption: None,
            end: None,
        }
    }

    /// How long a paused client pauses.
    pub(crate) fn pausing(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Bytes per second that a trickling or steady client reads.
    pub(crate) fn reading_at(mut self, rate: u64, now: Instant) -> Self {
        self.pace = Some(Pace::new(rate, now));
        self
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(crate) fn kind(&self) -> SlowKind {
        self.kind
    }

    pub(crate) fn joined(&self) -> Instant {
        self.joined
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The connection stands; it may send.
    pub(crate) fn set_connected(&mut self, now: Instant) {
        self.connected = true;
        self.progress.at = now;
        self.progress.before = now;
    }

    /// When it made its last progress before it was seen to be full. What moves
    /// once it reads again does not change that.
    pub(crate) fn full_at(&self) -> Option<Instant> {
        if self.pace.is_some() {
            return self.first_refused;
        }
        self.full
    }

    /// When a paused client began to read again.
    pub(crate) fn resumed_at(&self) -> Option<Instant> {
        self.resumed
    }

    /// When it was first refused.
    pub(crate) fn first_refused(&self) -> Option<Instant> {
        self.first_refused
    }

    /// When and how it ended.
    pub(crate) fn end(&self) -> Option<(Instant, Disconnect)> {
        self.end
    }

    /// Whether the server sends no more than it was sent.
    pub(crate) fn is_echo(&self) -> bool {
        self.traits.echoes
    }

    /// Whether its bytes can be told right from wrong at all.
    pub(crate) fn is_verifiable(&self) -> bool {
        self.traits.verifies
    }

    pub(crate) fn corruption(&self) -> Option<&Corruption> {
        self.corruption.as_ref()
    }

    pub(crate) fn received(&self) -> u64 {
        self.wire.received()
    }

    /// Bytes that the server's side took, its kernel included.
    pub(crate) fn taken(&self) -> u64 {
        self.progress.taken
    }

    /// When bytes last moved in either direction.
    pub(crate) fn last_progress(&self) -> Instant {
        self.progress.at
    }

    /// Whether the server's side took all that this client may offer without reading.
    pub(crate) fn offer_exhausted(&self) -> bool {
        self.progress.taken >= self.offer
    }

    /// Whether it is at its end in good order: everything came back.
    pub(crate) fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// Sends one buffer at most; the socket's next edge, or the next tick, says when to call again.
    pub(crate) fn send(&mut self, now: Instant, buffer: &mut [u8]) -> Turn {
        if self.end.is_some() || !self.connected || self.stage != Stage::Filling {
            return Turn::Done;
        }
        let room = self.send_limit(now).saturating_sub(self.sent);
        let len = room.min(buffer.len() as u64) as usize;
        if len == 0 {
            return Turn::Done;
        }
        self.wire.fill(self.sent, &mut buffer[..len]);
        match self.stream.write(&buffer[..len]) {
            Ok(written) => {
                self.sent += written as u64;
                self.refused = written < len;
                if !self.refused {
                    self.refused_since = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.refused = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return self.ended(now, Disconnect::Reset),
        }
        if self.refused {
            self.first_refused.get_or_insert(now);
            self.refused_since.get_or_insert(now);
            return Turn::Done;
        }
        Turn::More
    }

    /// Takes note of what kernels hold for this client: bytes that the server's
    /// kernel has not acknowledged, bytes that wait unread here, and bytes that
    /// wait in the server's send queue (0 where that is not to be seen).
    pub(crate) fn note(&mut self, unacknowledged: u64, unread: u64, server_queue: u64, now: Instant) {
        if self.end.is_some() || !self.connected {
            return;
        }
        let taken = self.sent.saturating_sub(unacknowledged);
        self.is_stuck = taken == std::mem::replace(&mut self.acknowledged, taken);
        let bytes = taken + unread + self.wire.received() + server_queue;
        if bytes > self.progress.bytes && (self.stage == Stage::Filling || self.kind.is_kept()) {
            self.progress.bytes = bytes;
            self.progress.taken = taken;
            self.progress.before = self.progress.at;
            self.progress.at = now;
            // It was not full after all.
            if self.stage == Stage::Filling && self.full.is_some() {
                self.full = Some(now);
            }
        }
        let settle = if self.kind == SlowKind::Paused {
            PAUSED_SETTLE_TIME
        } else {
            SETTLE_TIME
        };
        let settle = if self.traits.echoes {
            settle
        } else {
            UNSEEN_SETTLE_TIME
        };
        let still = now.saturating_duration_since(self.progress.at) >= settle;
        let answered = self.traits.echoes || unread > 0;
        let stuck = answered && (self.refused || self.sent >= self.wire.send_limit(self.offer));
        if still && stuck && self.stage == Stage::Filling && self.pace.is_none() {
            self.full = Some(self.progress.at);
            if self.kind == SlowKind::Paused {
                self.stage = Stage::Holding {
                    until: self.stopped_at() + self.pause,
                };
            }
        }
        if let Stage::Holding { .. } = self.stage
            && unacknowledged == 0
            && self.traits.echoes
            && self.sent < self.wire.send_limit(self.offer)
        {
            // The server was only slow: it went on to take everything.
            self.stage = Stage::Filling;
            self.full = None;
        }
        if let Stage::Holding { until } = self.stage
            && now >= until
        {
            self.resumed = Some(now);
            self.stage = Stage::Draining;
        }
    }

    /// Whether to try to send without an edge. Where the last write was refused and nothing was
    /// acknowledged since the look before there is no room, and what would be offered need not
    /// even be made.
    pub(crate) fn may_send(&self) -> bool {
        self.stage == Stage::Filling && !(self.refused && self.is_stuck)
    }

    /// When the server may have stopped, at the earliest: not before it began to
    /// refuse, and not longer before the last progress than kernels go on without it.
    fn stopped_at(&self) -> Instant {
        let last = self.progress.at;
        let earliest = last.checked_sub(KERNEL_TAIL).unwrap_or(last);
        self.refused_since.unwrap_or(last).clamp(earliest, last)
    }

    /// Sends no more and reads all that is still to come, at full speed.
    pub(crate) fn finish(&mut self) {
        if matches!(self.stage, Stage::Filling | Stage::Holding { .. }) {
            let all = self.wire.all_answered(self.sent) == Some(true);
            self.stage = if all { Stage::Complete } else { Stage::Draining };
        }
    }

    /// Whether it reads at all at this moment.
    pub(crate) fn is_reading(&self) -> bool {
        self.pace.is_some() || matches!(self.stage, Stage::Draining | Stage::Complete)
    }

    /// Reads what this client reads by `now`.
    pub(crate) fn read(&mut self, now: Instant, buffer: &mut [u8]) -> Turn {
        if self.end.is_some() || !self.connected || !self.is_reading() {
            return Turn::Done;
        }
        for _ in 0..MOST_READS_PER_TURN {
            let most = match &mut self.pace {
                Some(pace) if self.stage == Stage::Filling => pace.allowed(now).min(buffer.len()),
                _ => buffer.len(),
            };
            if most == 0 {
                return Turn::Done;
            }
            match self.stream.read(&mut buffer[..most]) {
                Ok(0) => return self.ended(now, Disconnect::EndOfFile),
                Ok(len) => {
                    if !self.take(&buffer[..len]) {
                        return Turn::Done;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.caught_up();
                    return Turn::Done;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.ended(now, Disconnect::Reset),
            }
        }
        Turn::More
    }

    /// Where nobody knows what is still to come, having read all there is must do.
    fn caught_up(&mut self) {
        if self.stage == Stage::Draining && self.wire.all_answered(self.sent).is_none() {
            self.stage = Stage::Complete;
        }
    }

    /// Reads what is left in the receive buffer of a client that ended, so that all it was given is verified.
    pub(crate) fn verify_rest(&mut self, buffer: &mut [u8]) {
        // The receive buffer is bounded by the kernel; this only bounds the loop.
        for _ in 0..4096 {
            match self.stream.read(buffer) {
                Ok(0) => return,
                Ok(len) => {
                    if !self.take(&buffer[..len]) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The connection is over, as seen by other means than a read or a write.
    pub(crate) fn ended(&mut self, now: Instant, end: Disconnect) -> Turn {
        if self.end.is_none() {
            let gasp = now.saturating_duration_since(self.progress.at) < LAST_GASP;
            if gasp && self.full == Some(self.progress.at) {
                self.full = Some(self.progress.before);
            }
            self.end = Some((now, end));
        }
        Turn::Ended(end)
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        if self.corruption.is_some() {
            return false;
        }
        if let Err(corruption) = self.wire.receive(bytes) {
            self.corruption = Some(corruption);
            return false;
        }
        if let Some(pace) = &mut self.pace {
            pace.take(bytes.len());
        }
        if self.stage == Stage::Draining && self.wire.all_answered(self.sent) == Some(true) {
            self.stage = Stage::Complete;
        }
        true
    }

    fn send_limit(&self, now: Instant) -> u64 {
        let limit = self.wire.send_limit(self.offer);
        if self.kind != SlowKind::Talker || self.sent < limit {
            return limit;
        }
        // All offered: go on at the talking rate for as long as the connection stands.
        let talking = now.saturating_duration_since(self.joined).as_millis();
        limit + TALK_RATE_BYTES * u64::try_from(talking).unwrap_or(0) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::driver::clock;
    use crate::probe::protocol::echo::Echo;
    use crate::probe::protocol::{Conversations, Protocol};

    /// Takes this much, and has nothing to read.
    struct Tank(usize);

    impl Read for Tank {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    impl Write for Tank {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const PAUSE: Duration = Duration::from_secs(4);

    /// A paused client that filled a tank at `start`.
    fn paused(start: Instant) -> SlowClient<Tank> {
        let wire = Echo.healthy(1, 64);
        let mut client = SlowClient::new(
            Tank(150_000),
            SlowKind::Paused,
            wire,
            *Echo.traits(),
            1 << 20,
            start,
        )
        .pausing(PAUSE);
        client.set_connected(start);
        let mut buffer = vec![0; 64 << 10];
        while client.send(start, &mut buffer) == Turn::More {}
        client.note(50_000, 0, 0, start);
        client
    }

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_pause_begins_when_the_server_refused_and_not_when_kernels_became_still() {
        let start = clock::now();
        let mut client = paused(start);
        // Kernels move a little more, and then nothing for long enough.
        client.note(40_000, 0, 0, at(start, 60));
        client.note(30_000, 0, 0, at(start, 120));
        client.note(30_000, 0, 0, at(start, 220));
        assert_eq!(client.full_at(), Some(at(start, 120)));
        client.note(30_000, 0, 0, at(start, 3_999));
        assert!(!client.is_reading());
        client.note(30_000, 0, 0, at(start, 4_000));
        assert!(client.is_reading());
        assert_eq!(client.resumed_at(), Some(at(start, 4_000)));
    }

    #[test]
    fn a_client_that_was_refused_offers_again_only_when_something_was_acknowledged() {
        let start = clock::now();
        let mut client = paused(start);
        assert!(client.may_send(), "nobody looked since it was refused");
        client.note(50_000, 0, 0, at(start, 20));
        assert!(!client.may_send());
        client.note(40_000, 0, 0, at(start, 40));
        assert!(client.may_send());
        client.note(40_000, 0, 0, at(start, 60));
        assert!(!client.may_send());
    }

    #[test]
    fn the_time_of_first_fullness_stands_whatever_moves_later() {
        let start = clock::now();
        let mut client = paused(start);
        client.note(50_000, 0, 0, at(start, 100));
        for later in [500, 4_000, 5_000] {
            client.note(1, later, 0, at(start, later));
        }
        assert_eq!(client.full_at(), Some(start));
        assert!(client.last_progress() > start);
    }

    #[test]
    fn a_server_that_was_only_slow_is_filled_up_further() {
        let start = clock::now();
        let mut client = paused(start);
        client.note(50_000, 0, 0, at(start, 100));
        assert!(client.full_at().is_some());
        client.note(0, 0, 0, at(start, 300));
        assert_eq!(client.full_at(), None);
        client.stream_mut().0 = 64 << 10;
        assert_eq!(client.send(at(start, 300), &mut vec![0; 64 << 10]), Turn::More);
    }
}
