//! Drives all clients of one probe from one thread, and writes down what it sees.
//!
//! Owns the poll and the phases, and asks for the time. Judges nothing, and
//! leaves the clients to `healthy_clients` and `slow_clients`.

pub(crate) mod addresses;
mod beside;
pub(crate) mod clock;
mod closing;
mod contention;
pub(crate) mod healthy_group;
pub(crate) mod preflight;
pub(crate) mod proxy;
pub(crate) mod ready_list;
pub(crate) mod seen;
pub(crate) mod slow_group;
pub(crate) mod socket;
mod timeline;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::kernel::timer::Ticker;
use crate::probe::clients::healthy::BUFFER_BYTES;
use crate::probe::clients::moment::Moment;
use crate::probe::clients::publisher::Publisher;
use crate::probe::clients::quiet::QuietClients;
use crate::probe::clients::tally::Tally;
use crate::probe::driver::clock::MessageClock;
use crate::probe::driver::contention::Contention;
use crate::probe::driver::healthy_group::HealthyClients;
use crate::probe::driver::slow_group::{FILL_PATIENCE, MARGIN, SlowClients};
use crate::probe::driver::socket::ClientStream;
use crate::probe::error::ProbeError;
use crate::probe::kind::Disconnect;
use crate::probe::plan::Plan;
use crate::probe::protocol::Conversations;
use crate::probe::report::measurement::{Measurement, PublisherSeen, ServerSeen, Slice};
use crate::probe::server::ServerMonitor;
use crate::probe::watcher::{Phase, ProgressSink};

/// How often slow clients are looked at: fine enough for a pace of 64 KiB/s in steps of 1.3 KB.
const TICK: Duration = Duration::from_millis(20);
/// The token of the ticks; those of clients count from 0.
const TICKER: Token = Token(usize::MAX - 1);

/// One slice of the timeline.
pub(crate) const SLICE: Duration = Duration::from_millis(100);
/// Events fetched at once.
const EVENTS_PER_POLL: usize = 1024;
/// How long connecting may take before the rest counts as not connected.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the monitor may take for its first look in a phase.
const MONITOR_PATIENCE: Duration = Duration::from_secs(1);
/// How long the last words of those that stayed are waited for.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How long, while they still come.
const LONGEST_DRAIN_TIME: Duration = Duration::from_secs(6);
/// What came so recently goes on coming.
const STILL_COMING: Duration = Duration::from_millis(300);

/// All clients, and what has been seen of them.
pub(crate) struct Driver<'a, S> {
    plan: &'a Plan,
    conversations: &'a dyn Conversations,
    poll: Poll,
    ticker: Ticker,
    epoch: Instant,
    /// The end of the last turn.
    now: Instant,
    buffer: Vec<u8>,
    healthy: HealthyClients<'a, S>,
    slow: SlowClients<'a, S>,
    tally: Tally,
    contention: Contention,
    phase: Phase,
    is_tick_due: bool,
    next_slice: Instant,
    timeline: Vec<Slice>,
    monitor: Option<ServerMonitor>,
    publisher: Option<Publisher<S>>,
    quiet: Option<QuietClients>,
    interrupted: bool,
}

impl<'a, S: ClientStream> Driver<'a, S> {
    /// A driver without clients. The monitor, if any, looks at the server's process.
    pub(crate) fn new(
        plan: &'a Plan,
        conversations: &'a dyn Conversations,
        monitor: Option<ServerMonitor>,
    ) -> Result<Self, ProbeError> {
        let now = clock::now();
        let poll = Poll::new().map_err(ProbeError::system("make an epoll"))?;
        let ticker =
            Ticker::start(poll.registry(), TICKER, TICK).map_err(ProbeError::system("start a timer"))?;
        let registry = || {
            let shared = poll.registry().try_clone();
            shared.map_err(ProbeError::system("share an epoll"))
        };
        let (healthy, slow) = (
            HealthyClients::new(plan, conversations, registry()?),
            SlowClients::new(plan, conversations, registry()?),
        );
        Ok(Self {
            plan,
            conversations,
            poll,
            ticker,
            epoch: now,
            now,
            buffer: vec![0; BUFFER_BYTES],
            healthy,
            slow,
            tally: Tally::default(),
            contention: Contention::default(),
            phase: Phase::Connecting,
            is_tick_due: false,
            next_slice: now + SLICE,
            timeline: Vec::new(),
            monitor,
            publisher: None,
            quiet: None,
            interrupted: false,
        })
    }

    /// The whole probe: before, during, after.
    pub(crate) fn run(mut self, sink: &mut dyn ProgressSink) -> Result<Measurement, ProbeError> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        self.connect_healthy(&mut events, sink)?;
        if !self.begin(Phase::Before, &mut events, sink)? {
            return Err(ProbeError::Interrupted);
        }
        self.healthy.start(self.moment(clock::now()), &mut self.buffer);
        self.start_publisher()?;
        self.run_for(self.plan.baseline, &mut events, sink)?;
        if self.has_slow() {
            if self.begin(Phase::During, &mut events, sink)? {
                self.run_slow(&mut events, sink)?;
            }
            if self.begin(Phase::After, &mut events, sink)? {
                self.slow.let_kept_finish();
                self.run_for(self.plan.baseline, &mut events, sink)?;
            }
        }
        self.tally.end_phase(self.moment(clock::now()));
        self.contention.mark();
        self.look_last(sink);
        if !self.interrupted {
            self.note_orphans(clock::now());
            self.drain(&mut events, sink)?;
        }
        Ok(self.into_measurement())
    }

    fn has_slow(&self) -> bool {
        self.plan.slow.clients() > 0
    }

    /// Begins a phase, unless the probe was ended. First the monitor looks for
    /// the last time in the old one, so that its memory is not that of the new
    /// one; meanwhile everything goes on as it did.
    fn begin(
        &mut self,
        phase: Phase,
        events: &mut Events,
        sink: &mut dyn ProgressSink,
    ) -> Result<bool, ProbeError> {
        // Who interrupts a probe does not wait for another look.
        if let Some(monitor) = self.monitor.as_ref().filter(|_| !self.interrupted) {
            monitor.begin_phase(phase);
        }
        let until = clock::now() + MONITOR_PATIENCE;
        while !self.interrupted && !self.is_observing(phase) && clock::now() < until {
            self.turn(events, sink)?;
        }
        if !self.interrupted {
            self.phase = phase;
            self.contention.mark();
            self.tally.begin_phase(self.moment(clock::now()));
        }
        Ok(!self.interrupted)
    }

    fn look_last(&mut self, sink: &dyn ProgressSink) {
        if let Some(monitor) = self.monitor.as_mut().filter(|_| !self.interrupted) {
            monitor.look_last(|| sink.is_interrupted());
            self.interrupted |= sink.is_interrupted();
        }
    }

    fn is_observing(&self, phase: Phase) -> bool {
        let monitor = self.monitor.as_ref();
        monitor.is_none_or(|monitor| monitor.has_begun(phase))
    }

    fn connect_healthy(
        &mut self,
        events: &mut Events,
        sink: &mut dyn ProgressSink,
    ) -> Result<(), ProbeError> {
        let deadline = clock::now() + CONNECT_PATIENCE;
        while !self.interrupted {
            self.healthy.connect_some()?;
            if self.healthy.are_connected() || clock::now() >= deadline {
                break;
            }
            self.turn(events, sink)?;
        }
        Ok(())
    }

    fn run_for(
        &mut self,
        time: Duration,
        events: &mut Events,
        sink: &mut dyn ProgressSink,
    ) -> Result<(), ProbeError> {
        let until = clock::now() + time;
        while !self.interrupted && self.now < until {
            self.turn(events, sink)?;
        }
        Ok(())
    }

    fn run_slow(&mut self, events: &mut Events, sink: &mut dyn ProgressSink) -> Result<(), ProbeError> {
        let begun = clock::now();
        let at_least = begun + self.plan.baseline;
        let at_most = begun + self.longest_during();
        self.quiet = self.start_quiet();
        while !self.interrupted {
            if self.slow.are_missing() {
                self.spend_on_slow(|driver| driver.slow.connect_some())?;
            }
            let now = clock::now();
            let settled =
                self.quiet.as_ref().is_none_or(QuietClients::is_settled) && self.slow.are_settled(now);
            if now >= at_most || (now >= at_least && settled) {
                break;
            }
            self.turn(events, sink)?;
        }
        Ok(())
    }

    /// The longest that the middle phase can last.
    fn longest_during(&self) -> Duration {
        CONNECT_PATIENCE
            + FILL_PATIENCE
            + self.plan.within.max(self.plan.pause + 4 * FILL_PATIENCE)
            + 2 * MARGIN
    }

    /// Waits for events, of which the next tick is one, and serves everything once.
    fn turn(&mut self, events: &mut Events, sink: &mut dyn ProgressSink) -> Result<(), ProbeError> {
        let has_more = self.healthy.have_more() || self.slow.have_more();
        let wait = has_more.then_some(Duration::ZERO);
        match self.poll.poll(events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ProbeError::system("wait for events")(error)),
        }
        self.serve(events);
        self.healthy.go_on(self.epoch, &mut self.buffer, &mut self.tally);
        if self.slow.have_more() {
            self.spend_on_slow(|driver| driver.slow.go_on(&mut driver.buffer));
        }
        self.now = clock::now();
        if std::mem::take(&mut self.is_tick_due) {
            self.spend_on_slow(|driver| driver.tick(driver.now, sink));
        }
        Ok(())
    }

    /// Does something that healthy clients have to wait for, and counts the time.
    fn spend_on_slow<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let begun = clock::now();
        let outcome = work(self);
        self.tally.spent_on_slow(clock::now() - begun);
        outcome
    }

    fn serve(&mut self, events: &Events) {
        let mut clock = MessageClock::new(self.epoch);
        for event in events {
            let token = event.token().0;
            if token < self.plan.fast {
                let now = clock.tick();
                self.healthy
                    .serve(token, event, now, &mut self.buffer, &mut self.tally);
            } else if event.token() == TICKER {
                self.ticker.take();
                self.is_tick_due = true;
            } else {
                let took = self.slow.serve(token - self.plan.fast, event, &mut self.buffer);
                if let Some(took) = took {
                    clock.forget();
                    self.tally.spent_on_slow(took);
                }
            }
        }
    }

    fn tick(&mut self, now: Instant, sink: &mut dyn ProgressSink) {
        self.interrupted |= sink.is_interrupted();
        if let Some(publisher) = &mut self.publisher {
            publisher.turn(now, &mut self.buffer);
        }
        self.slow
            .look_at_some(now, self.monitor.as_ref(), &mut self.buffer);
        if now >= self.next_slice {
            self.note_orphans(now);
            self.end_slice(now, sink);
        }
    }

    fn note_orphans(&mut self, now: Instant) {
        let Some(monitor) = &mut self.monitor else {
            return;
        };
        let mut ports = self.slow.ports().to_vec();
        ports.extend(self.quiet.iter().flat_map(QuietClients::ports));
        monitor.collect(&ports);
        self.slow.note_orphans(monitor, now);
    }

    /// Reads from everybody what there still is, so that an end of file behind
    /// unread data is seen, and every byte verified.
    fn drain(&mut self, events: &mut Events, sink: &mut dyn ProgressSink) -> Result<(), ProbeError> {
        self.healthy.stop();
        self.slow.let_all_finish();
        let begun = clock::now();
        loop {
            if self.interrupted || (self.healthy.are_idle() && self.slow.are_over()) {
                break;
            }
            let now = clock::now();
            let lasted = now.saturating_duration_since(begun);
            let goes_on = lasted < LONGEST_DRAIN_TIME && self.slow.are_receiving(now, STILL_COMING);
            if lasted >= DRAIN_TIME && !goes_on {
                break;
            }
            self.turn(events, sink)?;
        }
        Ok(())
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment::of(at, self.epoch)
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.epoch).as_secs_f64()
    }

    fn into_measurement(mut self) -> Measurement {
        let now = clock::now();
        let (moment, seconds) = (self.moment(now), self.seconds(now));
        let (mut healthy, healthy_clients) = self.healthy.finish(moment, &mut self.tally);
        self.contention.tell(&mut healthy);
        let (mut slow, slow_clients) = self.slow.finish(self.epoch);
        if self.interrupted {
            closing::close_beside((healthy_clients, slow_clients));
        }
        // Nobody who interrupts waits for the quiet clients, which may be connecting.
        let quiet = self.quiet.take().filter(|_| !self.interrupted);
        slow.extend(quiet.map(QuietClients::finish).unwrap_or_default());
        let left: Vec<u64> = (slow.iter())
            .filter(|client| client.end == Some(Disconnect::LeftInKernel))
            .map(|client| client.left_bytes)
            .collect();
        let server = self.monitor.take().map(|monitor| ServerSeen {
            orphans: left.len(),
            orphan_bytes: left.iter().sum(),
            ..monitor.finish(!self.interrupted)
        });
        Measurement {
            seconds,
            interrupted: self.interrupted,
            healthy,
            slow,
            server,
            timeline: self.timeline,
            publisher: self.publisher.map(|publisher| PublisherSeen {
                messages: publisher.published(),
                ended: publisher.is_gone(),
                first_words: seen::words(publisher.first_words()),
            }),
        }
    }
}
