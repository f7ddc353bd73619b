//! A slow client: fills up, and then reads never, slowly, or after a pause.
//!
//! Owns what such a client does and what was seen of its fate; `fullness` owns when it
//! is full. Takes the time and the kernel's counts as arguments; knows no clock and no poll.

mod ending;
mod reading;

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::probe::clients::fullness::{
    Fullness, Look, MOST_UNNOTICED_BYTES, PAUSED_SETTLE_TIME, SETTLE_TIME, Standstill, UNSEEN_SETTLE_TIME,
};
use crate::probe::clients::healthy::Turn;
use crate::probe::clients::pace::Pace;
use crate::probe::kind::{Disconnect, Reading, SlowKind};
use crate::probe::protocol::{Corruption, Traits, Wire};

/// What a talker goes on offering once it has offered everything, in bytes per second.
const TALK_RATE_BYTES: u64 = 1 << 20;
/// How long a client whose server closed in order stays away, so that one whose answers
/// are short does not take the server's time with connecting.
const RETURN_DELAY: Duration = Duration::from_millis(500);
/// How long the server's kernel must hold what belongs to no process before the client reads it, to
/// see whether it is the end of something whole.
const LEFT_FOR: Duration = Duration::from_millis(500);

/// The longest that a server's own queue is given to fill before its time begins.
pub(crate) const MOST_TIME_TO_NOTICE: Duration = Duration::from_secs(4);

/// What a client is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Filling,
    /// Reads nothing until its pause is over.
    Holding,
    Draining,
    Complete,
    /// The server closed it in order; it comes back.
    Away {
        until: Instant,
    },
}

/// What a slow client is and does; see [`SlowKind`].
#[derive(Debug)]
pub(crate) struct SlowClient<S> {
    stream: S,
    kind: SlowKind,
    wire: Wire,
    traits: Traits,
    joined: Instant,
    /// When the present connection stood.
    connected: Option<Instant>,
    was_connected: bool,
    /// The most that it offers without reading an answer.
    offer: u64,
    pause: Duration,
    pace: Option<Pace>,
    stage: Stage,
    sent: u64,
    /// The last write was not taken whole.
    refused: bool,
    fullness: Fullness,
    resumed: Option<Instant>,
    /// What the server's own queue owed it then.
    owed_when_resumed: Option<u64>,
    is_finishing: bool,
    corruption: Option<Corruption>,
    /// Seen in the server's kernel without a process, and how many bytes.
    left: Option<(Instant, u64)>,
    /// Whether the server's process had its connection open at the last look there, and when last.
    is_held: bool,
    held_at: Option<Instant>,
    closed_in_order: u32,
    end: Option<(Instant, Disconnect)>,
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
            connected: None,
            was_connected: false,
            offer,
            pause: Duration::ZERO,
            pace: None,
            stage: Stage::Filling,
            sent: 0,
            refused: false,
            fullness: Fullness::starting(traits.echoes, now),
            resumed: None,
            owed_when_resumed: None,
            is_finishing: false,
            corruption: None,
            left: None,
            is_held: false,
            held_at: None,
            closed_in_order: 0,
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

    /// The same client on a new connection, as its server closed the last one in order.
    pub(crate) fn come_back(&mut self, stream: S, wire: Wire, now: Instant) {
        self.stream = stream;
        self.wire = wire;
        self.connected = None;
        self.stage = Stage::Filling;
        self.sent = 0;
        self.refused = false;
        self.fullness = Fullness::starting(self.traits.echoes, now);
        self.left = None;
        self.is_held = false;
        self.held_at = None;
    }

    /// Whether it is time to connect anew.
    pub(crate) fn is_due_back(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Away { until } if now >= until)
            && self.end.is_none()
            && !self.is_finishing
    }

    /// It came back, and the server does not take it yet.
    pub(crate) fn stay_away(&mut self, now: Instant) {
        self.connected = None;
        self.stage = Stage::Away {
            until: now + RETURN_DELAY,
        };
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

    /// Whether its present connection stands.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.is_some() && !matches!(self.stage, Stage::Away { .. })
    }

    /// Whether it ever was connected.
    pub(crate) fn was_connected(&self) -> bool {
        self.was_connected
    }

    /// When its last connection stood.
    pub(crate) fn connected_at(&self) -> Option<Instant> {
        self.connected
    }

    /// The connection stands; it may send.
    /// `rest` came behind the last step before the protocol.
    pub(crate) fn set_connected(&mut self, now: Instant, rest: &[u8]) {
        self.connected = Some(now);
        self.was_connected = true;
        self.fullness = Fullness::starting(self.traits.echoes, now);
        if !rest.is_empty() {
            self.take(rest);
        }
    }

    /// When it made its last progress before it was seen to be full. What moves
    /// once it reads again does not change that.
    pub(crate) fn full_at(&self) -> Option<Instant> {
        if self.pace.is_some() {
            return self.fullness.first_refused();
        }
        self.fullness.full_at()
    }

    /// Since when nothing moves towards it.
    pub(crate) fn standstill(&self) -> Option<Standstill> {
        self.fullness.standstill()
    }

    pub(crate) fn fullness(&self) -> &Fullness {
        &self.fullness
    }

    /// How much longer its server may fill a queue of its own before it can notice anything.
    pub(crate) fn time_to_notice(&self) -> Duration {
        let rate = self.standstill().map(|stands| {
            let took = stands
                .seen_at
                .saturating_duration_since(stands.began)
                .as_secs_f64();
            stands.bytes as f64 / took.max(1e-2)
        });
        match rate.filter(|rate| *rate > 0.0 && !self.traits.echoes) {
            Some(rate) => {
                Duration::from_secs_f64(MOST_UNNOTICED_BYTES as f64 / rate).min(MOST_TIME_TO_NOTICE)
            }
            None => Duration::ZERO,
        }
    }

    /// When a paused client began to read again.
    pub(crate) fn resumed_at(&self) -> Option<Instant> {
        self.resumed
    }

    /// What the server's own queue owed a paused client when its pause was over.
    pub(crate) fn owed_when_resumed(&self) -> Option<u64> {
        self.owed_when_resumed
    }

    /// When and how it ended.
    pub(crate) fn end(&self) -> Option<(Instant, Disconnect)> {
        self.end
    }

    /// How often its server closed it in order.
    pub(crate) fn closed_in_order(&self) -> u32 {
        self.closed_in_order
    }

    /// What the server's kernel held for it when it belonged to no process any more.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.left.map_or(0, |(_, bytes)| bytes)
    }

    /// Whether its bytes can be told right from wrong at all.
    pub(crate) fn is_verifiable(&self) -> bool {
        self.traits.verifies || self.kind.is_kept() && self.wire.is_verified()
    }

    pub(crate) fn corruption(&self) -> Option<&Corruption> {
        self.corruption.as_ref()
    }

    pub(crate) fn received(&self) -> u64 {
        self.wire.received()
    }

    /// Bytes that the server's side took, its kernel included.
    pub(crate) fn taken(&self) -> u64 {
        self.fullness.taken
    }

    /// When bytes last moved in either direction.
    pub(crate) fn last_progress(&self) -> Instant {
        self.fullness.last_progress()
    }

    /// Whether the server's side took all that this client may offer without reading.
    pub(crate) fn offer_exhausted(&self) -> bool {
        self.fullness.taken >= self.offer
    }

    /// Whether it is at its end in good order: everything came back.
    pub(crate) fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// Whether nothing more is expected of it once everybody reads.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some() || matches!(self.stage, Stage::Complete | Stage::Away { .. })
    }

    /// Whether it waits for the end of its pause, or for the moment at which it begins.
    pub(crate) fn minds_the_clock(&self) -> bool {
        self.kind.row().reading == Reading::AfterPause
            && matches!(self.stage, Stage::Filling | Stage::Holding)
            && self.end.is_none()
    }

    /// Sends one buffer at most; the socket's next edge, or the next tick, says when to call again.
    pub(crate) fn send(&mut self, now: Instant, buffer: &mut [u8]) -> Turn {
        if self.end.is_some() || self.connected.is_none() || self.stage != Stage::Filling {
            return Turn::Done;
        }
        let room = self.send_limit(now).saturating_sub(self.sent);
        let len = room.min(buffer.len() as u64) as usize;
        if len == 0 {
            let _ = self.stream.flush();
            return Turn::Done;
        }
        self.wire.fill(self.sent, &mut buffer[..len]);
        match self.stream.write(&buffer[..len]) {
            Ok(written) => {
                self.sent += written as u64;
                self.refused = written < len;
                if !self.refused {
                    self.fullness.was_taken();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.refused = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return self.ended(now, Disconnect::Reset),
        }
        if self.refused {
            self.fullness.was_refused(now);
            return Turn::Done;
        }
        Turn::More
    }

    /// Takes note of what kernels hold for this client, and goes on with what it does by the clock.
    pub(crate) fn note(&mut self, look: Look, now: Instant) {
        // Of one that should go, nothing that moves once it reads says when it was full.
        let is_read_out = self.stage == Stage::Draining && !self.kind.is_kept();
        if self.end.is_some() || !self.is_connected() || is_read_out {
            return;
        }
        let moves = self.stage == Stage::Filling || self.kind.is_kept();
        let moved = self.fullness.note(look, self.sent, &self.wire, moves, now);
        if moved && self.stage == Stage::Filling && self.fullness.full_at().is_some() {
            // It was not full after all.
            self.fullness.set_full_at(Some(now));
        }
        if self.stage == Stage::Filling && self.pace.is_none() && self.has_filled_up(look, now) {
            self.fullness.set_full();
            if self.kind.row().reading == Reading::AfterPause {
                self.stage = Stage::Holding;
            }
        }
        if self.stage != Stage::Holding {
            return;
        }
        let may_send = self.sent < self.wire.send_limit(self.offer);
        if self.traits.echoes && look.unacknowledged == 0 && may_send {
            // The server was only slow: it went on to take everything.
            self.stage = Stage::Filling;
            self.fullness.set_full_at(None);
        } else if now >= self.fullness.stopped_at() + self.pause {
            self.resumed = Some(now);
            self.owed_when_resumed = self.fullness.owed();
            self.stage = Stage::Draining;
            self.wire.any_mut().catch_up();
        }
    }

    fn has_filled_up(&self, look: Look, now: Instant) -> bool {
        let settle = match self.kind.row().reading {
            _ if !self.traits.echoes => UNSEEN_SETTLE_TIME,
            Reading::AfterPause => PAUSED_SETTLE_TIME,
            _ => SETTLE_TIME,
        };
        let is_answered = self.traits.echoes || look.unread > 0;
        let has_sent_all = self.refused || self.sent >= self.wire.send_limit(self.offer);
        is_answered && has_sent_all && self.fullness.is_still(settle, now)
    }

    /// Whether to try to send without an edge. Where the last write was refused and nothing was
    /// acknowledged since the look before there is no room, and what would be offered need not
    /// even be made.
    pub(crate) fn may_send(&self) -> bool {
        self.stage == Stage::Filling && !(self.refused && self.fullness.is_stuck)
    }

    fn send_limit(&self, now: Instant) -> u64 {
        let limit = self.wire.send_limit(self.offer);
        if self.kind.row().reading != Reading::NeverButTalks || self.sent < limit {
            return limit;
        }
        // All offered: go on at the talking rate for as long as the connection stands.
        let since = self.connected.unwrap_or(self.joined);
        let talking = now.saturating_duration_since(since).as_millis();
        limit + TALK_RATE_BYTES * u64::try_from(talking).unwrap_or(0) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::clients::fullness::ServerQueues;
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
        client.set_connected(start, &[]);
        let mut buffer = vec![0; 64 << 10];
        while client.send(start, &mut buffer) == Turn::More {}
        client.note(look(50_000, 0), start);
        client
    }

    fn look(unacknowledged: u64, unread: u64) -> Look {
        Look {
            unacknowledged,
            unread,
            server: None,
        }
    }

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_pause_begins_when_the_server_refused_and_not_when_kernels_became_still() {
        let start = clock::now();
        let mut client = paused(start);
        // Kernels move a little more, and then nothing for long enough.
        client.note(look(40_000, 0), at(start, 60));
        client.note(look(30_000, 0), at(start, 120));
        client.note(look(30_000, 0), at(start, 220));
        assert_eq!(client.full_at(), Some(at(start, 120)));
        client.note(look(30_000, 0), at(start, 3_999));
        assert!(!client.is_reading());
        client.note(look(30_000, 0), at(start, 4_000));
        assert!(client.is_reading());
        assert_eq!(client.resumed_at(), Some(at(start, 4_000)));
    }

    #[test]
    fn a_pause_begins_when_nothing_comes_any_more_though_hops_behind_still_take_something() {
        let start = clock::now();
        let mut client = paused(start);
        client.note(look(40_000, 5_000), at(start, 100));
        client.note(look(30_000, 5_000), at(start, 900));
        client.note(look(20_000, 5_000), at(start, 1_300));
        client.note(look(20_000, 5_000), at(start, 1_400));
        assert_eq!(client.full_at(), Some(at(start, 1_300)));
        client.note(look(20_000, 5_000), at(start, 4_099));
        assert!(!client.is_reading());
        client.note(look(20_000, 5_000), at(start, 4_100));
        assert_eq!(client.resumed_at(), Some(at(start, 4_100)));
    }

    #[test]
    fn a_pause_begins_no_earlier_than_what_a_late_look_still_shows_to_have_come() {
        let start = clock::now();
        let mut client = paused(start);
        let seen = |unacknowledged: u64, send: u64| Look {
            server: Some(ServerQueues { send, receive: 0 }),
            ..look(unacknowledged, 5_000)
        };
        client.note(seen(40_000, 1_000), at(start, 100));
        // Input moved until 950 ms; what the server wrote until then is seen only at 1,200 ms.
        client.note(seen(20_000, 1_000), at(start, 900));
        client.note(seen(10_000, 1_000), at(start, 950));
        client.note(seen(10_000, 1_000), at(start, 1_100));
        client.note(seen(10_000, 9_000), at(start, 1_200));
        assert_eq!(client.full_at(), Some(at(start, 950)));
        client.note(seen(10_000, 9_000), at(start, 4_699));
        assert!(!client.is_reading());
        client.note(seen(10_000, 9_000), at(start, 4_700));
        assert!(client.is_reading());
    }

    #[test]
    fn a_client_that_was_refused_offers_again_only_when_something_was_acknowledged() {
        let start = clock::now();
        let mut client = paused(start);
        assert!(client.may_send(), "nobody looked since it was refused");
        client.note(look(50_000, 0), at(start, 20));
        assert!(!client.may_send());
        client.note(look(40_000, 0), at(start, 40));
        assert!(client.may_send());
        client.note(look(40_000, 0), at(start, 60));
        assert!(!client.may_send());
    }

    #[test]
    fn the_time_of_first_fullness_stands_whatever_moves_later() {
        let start = clock::now();
        let mut client = paused(start);
        client.note(look(50_000, 0), at(start, 100));
        for later in [500, 4_000, 5_000] {
            client.note(look(1, later), at(start, later));
        }
        assert_eq!(client.full_at(), Some(start));
        assert!(client.last_progress() > start);
    }

    #[test]
    fn a_server_that_was_only_slow_is_filled_up_further() {
        let start = clock::now();
        let mut client = paused(start);
        client.note(look(50_000, 0), at(start, 100));
        assert!(client.full_at().is_some());
        client.note(look(0, 0), at(start, 300));
        assert_eq!(client.full_at(), None);
        client.stream_mut().0 = 64 << 10;
        assert_eq!(client.send(at(start, 300), &mut vec![0; 64 << 10]), Turn::More);
    }
}
