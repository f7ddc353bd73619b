//! All clients of one event loop, and everything that can be done to them.
//!
//! Owns the table of clients, their deadlines, the ready list, the sum of all
//! queues, and the list of those to be closed. Refuses to read (the turn does
//! that), to wait, and to know the service. Closing is only marked here and
//! swept at the end of the turn, as somebody further up still holds the
//! client's id.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use bytes::Bytes;
use log::{debug, info, warn};

use super::client::readiness::{Event, Readiness};
use super::client::receive_buffer::Resize;
use super::client::{Client, Name, Phase, Sake};
use super::client_table::{ClientId, ClientTable};
use super::journal::Counters;
use super::network::{Network, Stream};
use super::ready_list::ReadyList;
use super::service::Commands;
use super::timers::{Delay, DelayQueue, Entry};
use crate::backpressure::{Answer, Flow, Policy, Reason, SendQueue, Sent};
use crate::error::{CloseReason, Operation, Stopping};
use crate::limits::{LOG_REPEAT_INTERVAL, Limits, SMALLEST_READ_BYTES, TURN_BUDGET_BYTES};

pub(crate) struct Engine<N: Network> {
    pub(crate) network: N,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    /// The charged instant of this turn.
    pub(crate) now: Instant,
    pub(crate) clients: ClientTable<Client<N::Stream>>,
    /// Clients with work that no further edge will announce; each at most
    /// once.
    pub(crate) ready: ReadyList,
    pub(crate) doomed: VecDeque<(ClientId, CloseReason)>,
    /// Connections in the table that we made ourselves.
    pub(crate) upstreams: usize,
    /// Set once the server is asked to stop.
    pub(crate) stop_requested: bool,
    /// Bytes that were read, and that were written from queues, so far.
    pub(crate) moved_bytes: u64,
    /// Set once the server stops: nobody is connected to any more.
    pub(crate) stopping: bool,
    policy: Policy,
    /// One queue for each kind of delay, in their order.
    deadlines: [DelayQueue; Delay::ALL.len()],
    started: Instant,
    /// The sum of all queues and of all that services hold.
    queued_bytes: usize,
    memory_budget_bytes: usize,
}

impl<N: Network> Engine<N> {
    pub(crate) fn new(network: N, limits: Limits, memory_budget_bytes: usize, now: Instant) -> Self {
        Self {
            network,
            counters: Counters::default(),
            now,
            clients: ClientTable::new(),
            ready: ReadyList::default(),
            doomed: VecDeque::new(),
            upstreams: 0,
            stop_requested: false,
            moved_bytes: 0,
            stopping: false,
            policy: Policy::new(&limits),
            deadlines: Delay::ALL.map(|delay| {
                DelayQueue::new(match delay {
                    Delay::Unheard => limits.unheard_delay(),
                    Delay::OverLimit | Delay::Lingering => limits.grace,
                    Delay::NotDrained => limits.drain_timeout(),
                    Delay::Connecting => limits.connect_timeout,
                })
            }),
            started: now,
            queued_bytes: 0,
            memory_budget_bytes,
            limits,
        }
    }

    /// The sum of all queues and of all that services hold, in bytes.
    pub(crate) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Clients that were accepted and are still there.
    pub(crate) fn client_count(&self) -> usize {
        self.clients.len() - self.upstreams
    }

    pub(crate) const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes a connection in and registers it. `None` if that failed, which
    /// ends this connection and no other.
    pub(crate) fn admit(
        &mut self,
        stream: N::Stream,
        peer: SocketAddr,
        readiness: Readiness,
    ) -> io::Result<ClientId> {
        let mut client = Client::new(stream, peer, self.limits.high_water_mark_bytes);
        client.readiness = readiness;
        let id = self
            .clients
            .insert(client)
            .ok_or_else(|| io::Error::other("the table of clients is full"))?;
        if let Some(client) = self.clients.get_mut(id)
            && let Err(error) = self.network.register(&mut client.stream, id)
        {
            if let Some(mut client) = self.clients.remove(id) {
                client.stream.reset_on_close();
            }
            return Err(error);
        }
        self.counters.most_clients = self.counters.most_clients.max(self.clients.len());
        Ok(id)
    }

    /// Puts a client with work at the end of the ready list, once.
    pub(crate) fn list_if_work(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && !client.listed
            && client.has_work()
        {
            client.listed = true;
            self.ready.push(id, client.line);
        }
    }

    /// After a client was served, which moved so many bytes: what was read may
    /// have been all that its end waited for, and what is left to do goes on
    /// the ready list.
    pub(crate) fn settle(&mut self, id: ClientId, moved_bytes: u64) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        client.line = client.line.after_turn(moved_bytes);
        if client.queue.is_ended() {
            self.advance_end(id);
            self.list_if_work(id);
        } else if client.has_work() {
            self.list_if_work(id);
        }
    }

    /// How much a client may be read at once: what its destinations, or its
    /// own queue, still take below the mark, and never less than one small
    /// read.
    pub(crate) fn read_allowance(&self, client: &Client<N::Stream>) -> usize {
        let room = match client.pipe.len() {
            0 => client.queue.room(),
            _ => client
                .pipe
                .names()
                .filter_map(|to| self.clients.get(to))
                .map(|to| to.queue.room())
                .min()
                .unwrap_or(0),
        };
        room.max(SMALLEST_READ_BYTES)
    }

    /// Hands what a piped client has sent to its destinations.
    pub(crate) fn write_to_destinations(&mut self, from: ClientId, data: &[u8]) {
        if let Some(only) = self.clients.get(from).and_then(|client| client.pipe.only()) {
            return self.write_to_destination(from, only, data);
        }
        let mut index = 0;
        while let Some(to) = self.clients.get(from).and_then(|client| client.pipe.at(index)) {
            self.write_to_destination(from, to, data);
            index += 1;
        }
    }

    fn write_to_destination(&mut self, from: ClientId, to: ClientId, data: &[u8]) {
        if self.write(to, data) == Answer::Pause
            && let Some(client) = self.clients.get_mut(from)
        {
            client.pipe.answered(to, Answer::Pause);
            self.follow_window(from, 0);
        }
    }

    /// The client to which what `from` sends can be moved without copying: its
    /// only destination, with nothing waiting for it.
    pub(crate) fn splice_destination(&self, from: ClientId) -> Option<ClientId> {
        let source = self.clients.get(from)?;
        if source.phase != Phase::Open {
            return None;
        }
        let only = source.pipe.only().filter(|&to| to != from)?;
        let to = self.clients.get(only)?;
        let takes_more = to.phase == Phase::Open && to.accepts_writes() && to.readiness.is_writable();
        (takes_more && to.queue.is_empty()).then_some(only)
    }

    /// Moves what `from` has sent to `to`, at most as much as `rest` has room
    /// for. What `to` refuses is queued for it, by way of `rest`. Answers as
    /// [`Client::read`] does, and `None` where nothing can be moved in this way.
    pub(crate) fn splice(
        &mut self,
        from: ClientId,
        to: ClientId,
        rest: &mut [u8],
    ) -> Option<io::Result<Option<usize>>> {
        let (source, destination) = self.clients.get_two_mut(from, to)?;
        let outcome = self
            .network
            .splice(&mut source.stream, &mut destination.stream, rest)?;
        let (taken, sent) = match outcome {
            Ok(spliced) => (Ok(spliced.taken_bytes), spliced.sent),
            Err(error) => (Err(error), Ok(0)),
        };
        // Few bytes say nothing: the pipe may have been full.
        let taken = source.note_read(taken, 0);
        if let Ok(Some(taken_bytes)) = taken {
            match destination.note_write(sent, taken_bytes) {
                Ok(sent_bytes) if sent_bytes < taken_bytes => {
                    self.write_to_destination(from, to, &rest[..taken_bytes - sent_bytes]);
                }
                Ok(_) => {}
                Err(error) => self.doom(to, CloseReason::Failed(Operation::Write, error)),
            }
        }
        Some(taken)
    }

    /// The end of a piped client ends its destinations.
    pub(crate) fn end_destinations(&mut self, from: ClientId) {
        let mut index = 0;
        while let Some(to) = self.clients.get(from).and_then(|client| client.pipe.at(index)) {
            self.end(to);
            index += 1;
        }
    }

    /// A client has drained: those who feed it may be read again.
    pub(crate) fn resume_sources(&mut self, to: ClientId) {
        let mut index = 0;
        loop {
            let source = self
                .clients
                .get(to)
                .and_then(|client| client.sources.as_slice().get(index).copied());
            let Some(from) = source else { return };
            if let Some(client) = self.clients.get_mut(from)
                && client.pipe.drained(to) == Flow::Read
            {
                self.list_if_work(from);
            }
            index += 1;
        }
    }

    /// Writes from a client's queue what its socket takes, within the budget
    /// of a turn.
    pub(crate) fn flush(&mut self, id: ClientId) -> Sent {
        let Some(client) = self.clients.get_mut(id) else {
            return Sent::Empty;
        };
        let before = client.queue.len();
        let mut outcome = Sent::Waiting;
        let mut error = None;
        while client.readiness.is_writable() && !client.queue.is_empty() {
            let left = client.queue.len();
            match client.write_queue() {
                // An interrupted call; the edge stands for the next turn.
                Ok(_) if client.queue.len() == left => break,
                Ok(sent) => outcome = sent,
                Err(failure) => {
                    error = Some(failure);
                    break;
                }
            }
            if before - client.queue.len() >= TURN_BUDGET_BYTES {
                break;
            }
        }
        let sent_bytes = before - client.queue.len();
        self.queued_bytes -= sent_bytes;
        self.moved_bytes += sent_bytes as u64;
        client.slow.queue_changed(&self.policy, &client.queue, self.now);
        if let Some(error) = error {
            self.doom(id, CloseReason::Failed(Operation::Write, error));
            return Sent::Waiting;
        }
        outcome
    }

    /// Goes one step further in the orderly end of a client, if one is due.
    /// Call it whenever its queue has become empty, an end was read or
    /// asked for, or an event came in for one that lingers.
    pub(crate) fn advance_end(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        let is_open = matches!(client.phase, Phase::Open | Phase::Closing);
        if !is_open || !client.queue.is_ended() || !client.queue.is_empty() {
            // An end sent before the connection is made would break it off.
            return;
        }
        let both_ended = client.read_ended || client.phase == Phase::Closing;
        // Closing with unread input would reset, so what is there is read
        // first; the end itself is announced by the close.
        if both_ended && !client.may_have_unread() && client.stream.is_settled() {
            let reason = if client.cut {
                CloseReason::Stopped
            } else {
                CloseReason::Finished
            };
            self.doom(id, reason);
            return;
        }
        if client.stopped && client.may_have_unread() {
            // Only a read can tell whether its stream is cut; a clean end
            // could not be taken back.
            return;
        }
        if !client.write_ended && !client.cut {
            client.write_ended = true;
            if let Err(error) = client.stream.shut_down_write() {
                self.doom(id, CloseReason::Failed(Operation::ShutDown, error));
                return;
            }
        }
        if both_ended && client.peer_awaited_since.is_none() {
            client.peer_awaited_since = Some(self.now);
            self.arm(Delay::Lingering, id);
        }
    }

    /// Arms a deadline for a delay that has begun to run in this turn.
    fn arm(&mut self, delay: Delay, id: ClientId) {
        let clients = &self.clients;
        self.deadlines[delay as usize].push(self.now, id, |entry| is_live(clients, delay, entry));
    }

    /// Whether some client may have been slow for too long by now.
    pub(crate) fn has_slow_due(&self) -> bool {
        [Delay::OverLimit, Delay::NotDrained]
            .into_iter()
            .any(|delay| self.deadlines[delay as usize].has_due(self.now))
    }

    /// The next client for which this delay is over.
    pub(crate) fn pop_due(&mut self, delay: Delay) -> Option<ClientId> {
        while let Some(entry) = self.deadlines[delay as usize].pop_due(self.now) {
            if is_live(&self.clients, delay, &entry) {
                return Some(entry.client);
            }
        }
        None
    }

    /// The next instant at which a delay is over for anybody.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let clients = &self.clients;
        let queues = Delay::ALL.into_iter().zip(&mut self.deadlines);
        queues
            .filter_map(|(delay, queue)| queue.next(|entry| is_live(clients, delay, entry)))
            .min()
    }

    /// Marks a client to be closed for this reason. Its queue is given up at
    /// once, so that the sum of all queues is right from here on.
    pub(crate) fn doom(&mut self, id: ClientId, reason: CloseReason) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if client.phase == Phase::Doomed {
            return;
        }
        client.phase = Phase::Doomed;
        let given_up = client.queue.discard() + std::mem::take(&mut client.held_bytes);
        self.queued_bytes -= given_up;
        self.doomed.push_back((id, reason));
    }

    /// Disconnects a slow client, and says so.
    pub(crate) fn disconnect(&mut self, id: ClientId, reason: Reason, detail: &str) {
        let Some(client) = self.clients.get(id) else {
            return;
        };
        if client.phase == Phase::Doomed {
            return;
        }
        let since = match reason {
            Reason::OverLimit => client.slow.over_limit_since(),
            _ => client.slow.waiting_since(),
        };
        let slow_for = since.map_or(0.0, |since| {
            self.now.saturating_duration_since(since).as_secs_f64()
        });
        warn!(
            "{} {reason}, disconnecting: slow for {slow_for:.3} s, {} bytes queued (peak {}), {detail}, {} sent, {} ({})",
            client.name(),
            client.queue.len(),
            client.peak_bytes,
            client.sent_bytes,
            client.stream.peer_state(),
            client.peer,
        );
        self.doom(id, CloseReason::Slow(reason));
    }

    /// Offers `data` to the socket first; `put` then queues what is left
    /// behind the bytes that the socket took.
    #[inline]
    fn write_then_queue(
        &mut self,
        id: ClientId,
        data: &[u8],
        put: impl FnOnce(&mut SendQueue, usize) -> Answer,
    ) -> Answer {
        let Some(client) = self.clients.get_mut(id) else {
            return Answer::Continue;
        };
        if !client.accepts_writes() {
            return Answer::Continue;
        }
        match client.write_directly(data) {
            Ok(taken) if taken == data.len() && client.queue.is_empty() => Answer::Continue,
            Ok(taken) => self.enqueue(id, data.len() - taken, |queue| put(queue, taken)),
            Err(error) => {
                self.doom(id, CloseReason::Failed(Operation::Write, error));
                Answer::Continue
            }
        }
    }

    /// Puts what a socket refused into its queue. `put` does so; the hard
    /// limit is checked before, the clocks and the budget after.
    fn enqueue(
        &mut self,
        id: ClientId,
        rest_bytes: usize,
        put: impl FnOnce(&mut SendQueue) -> Answer,
    ) -> Answer {
        let Some(client) = self.clients.get_mut(id) else {
            return Answer::Continue;
        };
        let queue_bytes = client.queue.len();
        if self.policy.exceeds_hard_limit(queue_bytes, rest_bytes) {
            let detail = format!(
                "hard limit {}, a write of {rest_bytes} more",
                self.policy.hard_limit_bytes
            );
            self.disconnect(id, Reason::HardLimit, &detail);
            return Answer::Continue;
        }
        let answer = put(&mut client.queue);
        let length_bytes = u32::try_from(client.queue.len()).unwrap_or(u32::MAX);
        client.peak_bytes = client.peak_bytes.max(length_bytes);
        self.queued_bytes += rest_bytes;
        let started = client.slow.queue_changed(&self.policy, &client.queue, self.now);
        if started.waiting {
            self.arm(Delay::NotDrained, id);
        }
        if started.over_limit {
            self.arm(Delay::Unheard, id);
            self.arm(Delay::OverLimit, id);
            self.log_blocked(id);
        }
        self.list_if_work(id);
        self.keep_budget();
        answer
    }

    /// Says that a client is over the limit; at most once in a while for each,
    /// as a fast one that moves much data comes there all the time.
    fn log_blocked(&mut self, id: ClientId) {
        let limit_bytes = self.policy.limit_bytes;
        let elapsed = self.now.saturating_duration_since(self.started).as_secs();
        let now_s = NonZeroU32::MIN.saturating_add(u32::try_from(elapsed).unwrap_or(u32::MAX));
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if let Some(last_s) = client.blocked.last_s
            && now_s.get() - last_s.get() < LOG_REPEAT_INTERVAL.as_secs() as u32
        {
            client.blocked.since += 1;
            return;
        }
        client.blocked.last_s = Some(now_s);
        let repeated = match std::mem::take(&mut client.blocked.since) {
            0 => String::new(),
            times => format!(", and {times} times before"),
        };
        info!(
            "{} write blocked: {} bytes queued, over the limit of {limit_bytes}{repeated} ({})",
            client.name(),
            client.queue.len(),
            client.peer,
        );
    }

    /// While all queues together are over the budget, the longest goes.
    fn keep_budget(&mut self) {
        while self.queued_bytes > self.memory_budget_bytes {
            let longest = self
                .clients
                .iter()
                .filter(|(_, client)| client.phase != Phase::Doomed)
                .max_by_key(|(_, client)| client.queue.len() + client.held_bytes)
                .map(|(id, _)| id);
            // One goes with every round, so there is an end to them.
            let Some(id) = longest else { return };
            let detail = format!(
                "the longest of {} clients with {} together, budget {}",
                self.clients.len(),
                self.queued_bytes,
                self.memory_budget_bytes,
            );
            self.disconnect(id, Reason::MemoryBudget, &detail);
        }
    }

    /// Lets the receive buffer of a source follow the window of those its
    /// bytes go to. Call it when it is paused, now and then while it sends
    /// much, and before each read while the buffer is shrinking; `read_bytes`
    /// is the length of that read.
    pub(crate) fn follow_window(&mut self, from: ClientId, read_bytes: usize) {
        let base_bytes = self.limits.receive_buffer_bytes;
        if base_bytes == 0 {
            return;
        }
        let Some(source) = self.clients.get(from) else {
            return;
        };
        let peer = if source.pipe.is_empty() {
            source.stream.peer_window()
        } else {
            let destinations = source.pipe.names().filter_map(|to| self.clients.get(to));
            destinations
                .filter_map(|to| to.stream.peer_window())
                .min_by_key(|peer| peer.window_bytes)
        };
        let only = source.pipe.only().and_then(|to| self.clients.get(to));
        let is_only_source = only.is_some_and(|to| to.sources.as_slice().len() == 1);
        let clients = self.clients.len();
        if let Some(peer) = peer
            && let Some(source) = self.clients.get_mut(from)
        {
            match source.receive_buffer.follow(peer, base_bytes, clients) {
                Resize::Keep => {}
                Resize::Grow(bytes) => source.stream.set_receive_buffer(bytes),
                Resize::Shrink(bytes) => {
                    let is_shrunk = source
                        .stream
                        .shrink_receive_buffer(bytes, u32::try_from(read_bytes).unwrap_or(u32::MAX));
                    source.receive_buffer.shrunk(is_shrunk);
                }
            }
            if is_only_source {
                source.receive_buffer.rest(peer, base_bytes);
            }
        }
    }

    /// Makes sure that a client over the limit is not kept there by our own
    /// kernel.
    pub(crate) fn admit_acknowledgements(&mut self, id: ClientId) {
        let silence = self.limits.unheard_delay() / 2;
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if !client.stream.admit_acknowledgements(silence) {
            return;
        }
        debug!(
            "{} acknowledges nothing: its receive buffer is larger now, in case it was too full to hear it ({})",
            client.name(),
            client.peer,
        );
        if self.limits.receive_buffer_bytes == 0 {
            client.stream.set_receive_buffer(None);
        } else {
            // It shrinks again as soon as it is read.
            client.receive_buffer.shrunk(false);
        }
    }

    /// Takes a client that is to be closed out of all pipes.
    pub(crate) fn unlink(&mut self, id: ClientId, client: &Client<N::Stream>) {
        for &from in client.sources.as_slice() {
            if let Some(source) = self.clients.get_mut(from) {
                source.pipe.remove(id);
                self.list_if_work(from);
            }
        }
        for to in client.pipe.names() {
            if let Some(destination) = self.clients.get_mut(to) {
                destination.sources.retain(|&source| source != id);
            }
        }
    }

    /// Says that a client is gone.
    pub(crate) fn log_closed(client: &Client<N::Stream>, reason: &CloseReason) {
        let (name, peer) = (client.name(), client.peer);
        let (received, sent) = (client.received_bytes, client.sent_bytes);
        match reason {
            CloseReason::Slow(_) => {}
            CloseReason::Rejected(why) => warn!("{name} disconnecting: {why} ({peer})"),
            CloseReason::NotAcknowledged => warn!(
                "{name} {reason}, disconnecting: {sent} bytes sent, the last not taken in time, {} ({peer})",
                client.stream.peer_state(),
            ),
            CloseReason::Stopped => {
                info!("{name} {reason}, disconnecting: {received} bytes received, {sent} sent ({peer})");
            }
            _ => debug!("{name} closed: {reason}, {received} bytes received, {sent} sent ({peer})"),
        }
    }
}

/// Whether a delay that once began still runs for the client.
fn is_live<S: Stream>(clients: &ClientTable<Client<S>>, delay: Delay, entry: &Entry) -> bool {
    let client = clients.get(entry.client);
    client.is_some_and(|client| client.since(delay) == Some(entry.start))
}

impl<N: Network> Commands for Engine<N> {
    fn write(&mut self, id: ClientId, data: &[u8]) -> Answer {
        self.write_then_queue(id, data, |queue, taken| queue.write(&data[taken..]))
    }

    fn write_shared(&mut self, id: ClientId, data: &Bytes) -> Answer {
        self.write_then_queue(id, data, |queue, taken| queue.write_shared(data.slice(taken..)))
    }

    fn pause(&mut self, id: ClientId, paused: bool) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        if client.paused == paused {
            return;
        }
        client.paused = paused;
        if paused {
            self.follow_window(id, 0);
        } else {
            self.list_if_work(id);
        }
    }

    fn pipe(&mut self, from: ClientId, to: ClientId) {
        if self.clients.get(to).is_none() {
            return;
        }
        let Some(source) = self.clients.get_mut(from) else {
            return;
        };
        if source.pipe.contains(to) {
            return;
        }
        source.pipe.add(to);
        source.receive_buffer.end_rest();
        let source_ended = source.read_ended;
        if let Some(destination) = self.clients.get_mut(to) {
            let alone_so_far = destination.sources.as_slice().first().copied();
            destination.sources.push(from);
            if destination.queue.needs_drain()
                && let Some(source) = self.clients.get_mut(from)
            {
                source.pipe.answered(to, Answer::Pause);
            }
            if let Some(other) = alone_so_far.and_then(|other| self.clients.get_mut(other)) {
                other.receive_buffer.end_rest();
            }
        }
        if source_ended {
            self.end(to);
        }
    }

    fn end(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.queue.end();
            self.advance_end(id);
        }
    }

    fn close(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        match client.phase {
            Phase::Open => {
                client.phase = Phase::Closing;
                client.queue.end();
                // It may have sent something that no event has announced yet.
                client.readiness.announce(Event {
                    readable: true,
                    ..Event::default()
                });
                self.list_if_work(id);
                self.advance_end(id);
            }
            Phase::Connecting => self.doom(id, CloseReason::Finished),
            Phase::Closing | Phase::Doomed => {}
        }
    }

    fn reject(&mut self, id: ClientId, why: Cow<'static, str>) {
        self.doom(id, CloseReason::Rejected(why));
    }

    fn reset(&mut self, id: ClientId) {
        self.doom(id, CloseReason::Reset);
    }

    fn connect(&mut self, address: SocketAddr, sake: ClientId) -> io::Result<ClientId> {
        let Some(client) = self.clients.get(sake) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let upstream_of = client.stream.descriptor();
        let stream = match self.stopping {
            true => Err(io::Error::other(Stopping)),
            false => self.network.connect(address),
        };
        let admitted = stream.and_then(|stream| self.admit(stream, address, Readiness::CONNECTING));
        let id = admitted.inspect_err(|_| self.counters.failed_connects += 1)?;
        self.upstreams += 1;
        if let Some(client) = self.clients.get_mut(id) {
            client.phase = Phase::Connecting;
            client.upstream_of = Sake::of(upstream_of);
            client.peer_awaited_since = Some(self.now);
        }
        self.arm(Delay::Connecting, id);
        Ok(id)
    }

    fn hold(&mut self, id: ClientId, held_bytes: usize) {
        if let Some(client) = self.clients.get_mut(id)
            && client.phase != Phase::Doomed
        {
            let before = std::mem::replace(&mut client.held_bytes, held_bytes);
            self.queued_bytes = self.queued_bytes - before + held_bytes;
            self.keep_budget();
        }
    }

    fn room(&self, id: ClientId) -> usize {
        self.clients.get(id).map_or(0, |client| client.queue.room())
    }

    fn queued(&self, id: ClientId) -> usize {
        self.clients.get(id).map_or(0, |client| client.queue.len())
    }

    fn peer(&self, id: ClientId) -> Option<SocketAddr> {
        self.clients.get(id).map(|client| client.peer)
    }

    fn local(&self, id: ClientId) -> Option<SocketAddr> {
        self.clients.get(id).and_then(|client| client.stream.local_addr())
    }

    fn name(&self, id: ClientId) -> Option<Name> {
        self.clients.get(id).map(Client::name)
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn stop(&mut self) {
        self.stop_requested = true;
    }
}
