//! What a server does with its clients: the trait to write a service against,
//! and everything that a service may ask for.
//!
//! Owns both sides of that contract. Refuses to give a service the loop, a
//! socket or a clock: a service can neither block other clients nor write past
//! a client's limits.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::client::ClientName;
use super::client_table::ClientId;
use super::file::FilePart;
use crate::backpressure::{Answer, SlowReason};
use crate::error::{CloseReason, ConnectError};

/// What to do when something happens to a client.
///
/// The event loop calls every method on its own thread; none may block. A
/// slow client needs no code here. What it does not read waits in its bounded
/// queue, and a rule disconnects it if it is too slow for too long;
/// [`closed`](Self::closed) then gives the reason. Only a service that reads
/// faster than it writes should pause its source, which [`Actions::pipe`] does
/// by itself.
pub trait Service {
    /// A client has connected, or a connection of [`Actions::connect`] is made.
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let _ = (client, actions);
    }

    /// A client has sent `data`: the next piece of its stream, of 1 to
    /// [`READ_BUFFER_BYTES`](crate::limits::READ_BUFFER_BYTES) bytes. Not
    /// called for a client that is paused or has a pipe. By default the client
    /// is rejected, so that no byte is lost without a sign.
    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        let _ = data;
        actions.reject(client, "sent data that this service does not read");
    }

    /// Lends memory for the next bytes of a client, which
    /// [`filled`](Self::filled) then reports. Asked before each read. `None`,
    /// or an empty slice, means the loop's own buffer, and
    /// [`received`](Self::received).
    ///
    /// It saves a copy where a service assembles long messages in memory that
    /// it has declared by [`Actions::hold`]. A read into lent memory is bounded
    /// by the budget of the turn
    /// ([`TURN_BUDGET_BYTES`](crate::limits::TURN_BUDGET_BYTES)), not by the
    /// room in the client's queue.
    fn read_buffer(&mut self, client: ClientId) -> Option<&mut [u8]> {
        let _ = client;
        None
    }

    /// The client has sent `count_bytes`, at least one. They are at the
    /// beginning of the memory that [`read_buffer`](Self::read_buffer) lent
    /// last.
    fn filled(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        let _ = (client, count_bytes, actions);
    }

    /// The client's queue is empty, after a write had answered
    /// [`Answer::Pause`].
    fn drained(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let _ = (client, actions);
    }

    /// The client's socket may have room again, after [`Actions::offer`] left
    /// something or [`Actions::call_when_writable`] asked for this call.
    fn writable(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let _ = (client, actions);
    }

    /// Every client with work was served in this turn. A service that gathers
    /// what a turn has for each client sends it here, in one write each.
    fn served(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }

    /// What a client hears that is refused because the server is full; nothing
    /// by default. Sent once, as far as its socket takes it.
    fn refusal(&self) -> &[u8] {
        &[]
    }

    /// The end of the log line about `peer`, a client that was refused because
    /// the server is full; empty by default.
    fn refusal_hint(&self, peer: SocketAddr, actions: &mut Actions<'_>) -> String {
        let _ = (peer, actions);
        String::new()
    }

    /// Whether new connections come from proxies, and the service gives each its
    /// real address by [`Actions::set_peer`]. A limit for each address then counts
    /// a client from that call on. `false` by default.
    fn introduces_clients(&self) -> bool {
        false
    }

    /// Everything of [`Actions::send_file`] has gone to the client's socket.
    fn file_sent(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let _ = (client, actions);
    }

    /// The client has sent its FIN and will send nothing more. By default it
    /// gets ours once its queue is empty. Not called for a client with a pipe,
    /// whose end ends its destinations.
    fn ended(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        actions.end(client);
    }

    /// Whether an idle client ([`Limits::idle_timeout`](crate::Limits)) is closed
    /// in order. By default it is reset, because its stream may be unfinished.
    /// A service whose client stands between two whole messages answers yes.
    fn ends_idle_in_order(&self, client: ClientId) -> bool {
        let _ = client;
        false
    }

    /// The client is gone, and its id is stale. Called exactly once for each
    /// client. Clients that the service ends here are closed in the same turn.
    /// Connections that it begins here are closed in the next turn at the
    /// earliest, so that every turn ends.
    fn closed(&mut self, client: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        let _ = (client, reason, actions);
    }

    /// Sockets for each client, its own included; 1 by default. Where limits
    /// leave the number of clients open, the descriptors of the process are
    /// divided by this.
    fn sockets_per_client(&self) -> usize {
        1
    }

    /// The end of the log line of an upstream that was disconnected as too
    /// slow, such as the setting that gives it longer. Asked once, at the
    /// start.
    fn slow_upstream_advice(&self) -> Option<String> {
        None
    }

    /// What stands in front of the name of a client in the log, such as
    /// `admin `. A service that has a role beside another one says nothing of
    /// its own start and stop.
    fn role(&self) -> &'static str {
        ""
    }

    /// What the service counts, for the metrics of the server. Names and labels
    /// must not depend on clients.
    fn measures(&self) -> Vec<Measure> {
        Vec::new()
    }

    /// The time between two calls of [`ticked`](Self::ticked); `None`, the
    /// default, for no calls. Asked in every turn, so a service may want ticks
    /// for a while only. Less than
    /// [`SHORTEST_TICK`](crate::limits::SHORTEST_TICK) counts as that.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }

    /// The tick interval has passed. Missed ticks are not made up for.
    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }

    /// Another thread called [`Remote::wake`](crate::Remote::wake),
    /// once or more often.
    fn woken(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }

    /// The server is stopping and drains its clients. Called once.
    fn stopping(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }
}

/// Everything that a service may ask for. Asking something for a stale id does
/// nothing.
pub struct Actions<'a> {
    commands: &'a mut dyn Commands,
}

/// One number that a service counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Its name, without prefix and without `_total`, such as `deliveries`.
    pub name: &'static str,
    /// One sentence about it, without a full stop.
    pub help: &'static str,
    /// Whether it can fall.
    pub kind: MeasureKind,
    /// What tells numbers of one name apart, such as `("status", "404")`.
    /// Measures of one name stand behind each other.
    pub label: Option<(&'static str, String)>,
    /// The number.
    pub value: u64,
}

/// Whether a measure can fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasureKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// How slow a client was when a rule disconnected it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    /// How long the clock of the rule has run.
    pub slow_for: Duration,
    /// Bytes that wait for the client.
    pub waiting_bytes: usize,
    /// The most that ever waited, in bytes.
    pub peak_bytes: usize,
}

/// The engine as [`Actions`] sees it.
pub(crate) trait Commands {
    fn write(&mut self, client: ClientId, data: &[u8]) -> Answer;
    fn write_shared(&mut self, client: ClientId, data: &Bytes) -> Answer;
    fn offer(&mut self, client: ClientId, data: &[u8]) -> usize;
    fn call_when_writable(&mut self, client: ClientId);
    fn try_again(&mut self, client: ClientId);
    fn disconnect(&mut self, client: ClientId, reason: SlowReason, slow: Slowness, detail: &str);
    fn memory_left(&self) -> usize;
    fn send_file(&mut self, client: ClientId, parts: Vec<FilePart>);
    fn resume_file(&mut self, client: ClientId);
    fn expect_progress(&mut self, client: ClientId);
    fn acknowledged(&self, client: ClientId) -> u64;
    fn sent(&self, client: ClientId) -> u64;
    fn pause(&mut self, client: ClientId);
    fn resume(&mut self, client: ClientId);
    fn pipe(&mut self, from: ClientId, to: ClientId);
    fn end(&mut self, client: ClientId);
    fn close(&mut self, client: ClientId);
    fn reject(&mut self, client: ClientId, why: Cow<'static, str>);
    fn reset(&mut self, client: ClientId);
    fn connect(&mut self, address: SocketAddr, for_client: ClientId) -> Result<ClientId, ConnectError>;
    fn hold(&mut self, client: ClientId, held_bytes: usize);
    fn room(&self, client: ClientId) -> usize;
    fn queued(&self, client: ClientId) -> usize;
    fn peer(&self, client: ClientId) -> Option<SocketAddr>;
    fn local(&self, client: ClientId) -> Option<SocketAddr>;
    fn name(&self, client: ClientId) -> Option<ClientName>;
    fn set_peer(&mut self, client: ClientId, peer: SocketAddr) -> bool;
    fn now(&self) -> Instant;
    fn stop(&mut self);
}

impl<'a> Actions<'a> {
    pub(crate) fn new(commands: &'a mut dyn Commands) -> Self {
        Self { commands }
    }

    /// Sends all of `data`: what the socket does not take at once waits in the
    /// client's queue. On [`Answer::Pause`] stop producing for this client
    /// until [`Service::drained`]. Nothing is sent to a client that is gone or
    /// was ended; the answer is then [`Answer::Continue`].
    pub fn send(&mut self, client: ClientId, data: &[u8]) -> Answer {
        self.commands.write(client, data)
    }

    /// Sends `data` as [`send`](Self::send) does, for bytes that go to many
    /// clients: what must wait is held by reference, once for all.
    pub fn send_shared(&mut self, client: ClientId, data: &Bytes) -> Answer {
        self.commands.write_shared(client, data)
    }

    /// Offers `data` to the client's socket, and answers how much of it is
    /// dealt with. The rest stays with the caller: nothing is queued, and no
    /// rule about slow clients watches it. [`Service::writable`] says when to
    /// offer it again. All of `data` is dealt with if the client is gone.
    pub fn offer(&mut self, client: ClientId, data: &[u8]) -> usize {
        self.commands.offer(client, data)
    }

    /// Asks for one call of [`Service::writable`], in the next turn if the
    /// socket has room now.
    pub fn call_when_writable(&mut self, client: ClientId) {
        self.commands.call_when_writable(client);
    }

    /// Takes the client's socket for writable until it refuses. The kernel
    /// announces room only once a third of its buffer is free, but takes a
    /// write long before: worth a try before a client is disconnected.
    pub fn try_again(&mut self, client: ClientId) {
        self.commands.try_again(client);
    }

    /// Disconnects the client at once, with a reset, by a rule that this
    /// service judges itself because it keeps what waits. Logged and counted
    /// as the engine's own rules are; `detail` has the number of the rule.
    pub fn disconnect(&mut self, client: ClientId, reason: SlowReason, slow: Slowness, detail: &str) {
        self.commands.disconnect(client, reason, slow, detail);
    }

    /// Bytes that may still be queued or held before the memory budget is
    /// exceeded.
    #[must_use]
    pub fn memory_left(&self) -> usize {
        self.commands.memory_left()
    }

    /// Sends `parts` behind what is queued, without taking them into memory:
    /// the client's socket takes what it has room for, and the rest stays where
    /// it is. A peer that acknowledges nothing for the grace is disconnected
    /// ([`SlowReason::WriteTimeout`](crate::SlowReason::WriteTimeout)). A file
    /// that turns out shorter resets the client. [`Service::file_sent`] follows.
    pub fn send_file(&mut self, client: ClientId, parts: Vec<FilePart>) {
        self.commands.send_file(client, parts);
    }

    /// Goes on with a file whose [`prepare`](super::FileSource::prepare) had
    /// answered [`Waiting`](super::Prepared::Waiting).
    pub fn resume_file(&mut self, client: ClientId) {
        self.commands.resume_file(client);
    }

    /// Disconnects the client if its peer acknowledges nothing of what it is
    /// owed for the grace. The watch ends when nothing is owed.
    pub fn expect_progress(&mut self, client: ClientId) {
        self.commands.expect_progress(client);
    }

    /// Bytes that the peer has acknowledged since it connected. Also answered
    /// for the client of [`Service::closed`].
    #[must_use]
    pub fn acknowledged(&self, client: ClientId) -> u64 {
        self.commands.acknowledged(client)
    }

    /// Bytes that the client's socket has taken since it connected.
    #[must_use]
    pub fn sent(&self, client: ClientId) -> u64 {
        self.commands.sent(client)
    }

    /// Reads no more from this client until [`resume`](Self::resume). The
    /// kernel's buffers fill, and then the peer has to wait.
    pub fn pause(&mut self, client: ClientId) {
        self.commands.pause(client);
    }

    /// Reads from this client again, starting with what came in meanwhile.
    pub fn resume(&mut self, client: ClientId) {
        self.commands.resume(client);
    }

    /// Sends everything that `from` sends to `to`, in order. `from` is read
    /// only while no destination has answered *pause* and not drained since.
    /// The end of `from` ends `to`. Echo is `pipe(client, client)`; a tunnel is
    /// two pipes. Of several destinations the slowest sets the pace.
    pub fn pipe(&mut self, from: ClientId, to: ClientId) {
        self.commands.pipe(from, to);
    }

    /// Sends our FIN to the client once its queue is empty; it may go on
    /// sending. The client is closed when both sides have ended.
    pub fn end(&mut self, client: ClientId) {
        self.commands.end(client);
    }

    /// Ends the client and drops what it still sends: for a service that has
    /// said its last word. The rules about slow clients hold as long as bytes
    /// are queued. From then on, the peer has the grace to acknowledge them.
    pub fn close(&mut self, client: ClientId) {
        self.commands.close(client);
    }

    /// Disconnects the client at once, with a reset. The log gives `why` after
    /// the client's name; it should say what was wrong, with the number and the
    /// limit.
    pub fn reject(&mut self, client: ClientId, why: impl Into<Cow<'static, str>>) {
        self.commands.reject(client, why.into());
    }

    /// Disconnects the client at once, with a reset and without a line in the
    /// log: for one end of a pair whose other end is gone.
    pub fn reset(&mut self, client: ClientId) {
        self.commands.reset(client);
    }

    /// Begins a connection to another server for a client, and does not wait
    /// for it. [`Service::connected`] or [`Service::closed`] gives the outcome.
    ///
    /// # Errors
    ///
    /// The connection was not begun: descriptors ran out, the kernel refuses
    /// the address, the client is gone, or the server is
    /// [`stopping`](Service::stopping).
    pub fn connect(&mut self, address: SocketAddr, for_client: ClientId) -> Result<ClientId, ConnectError> {
        self.commands.connect(address, for_client)
    }

    /// Declares how many bytes the service holds for this client now, such as
    /// an unfinished frame. They count in the memory budget.
    pub fn hold(&mut self, client: ClientId, held_bytes: usize) {
        self.commands.hold(client, held_bytes);
    }

    /// Bytes that may still be sent before a send answers *pause*.
    #[must_use]
    pub fn room(&self, client: ClientId) -> usize {
        self.commands.room(client)
    }

    /// Bytes that wait in the client's queue.
    #[must_use]
    pub fn queued(&self, client: ClientId) -> usize {
        self.commands.queued(client)
    }

    /// The peer's address, or `None` if the client is gone.
    #[must_use]
    pub fn peer(&self, client: ClientId) -> Option<SocketAddr> {
        self.commands.peer(client)
    }

    /// Our own address of the connection, or `None` if the client is gone or
    /// the network does not tell.
    #[must_use]
    pub fn local(&self, client: ClientId) -> Option<SocketAddr> {
        self.commands.local(client)
    }

    /// The client's name in the log, or `None` if it is gone.
    #[must_use]
    pub fn name(&self, client: ClientId) -> Option<ClientName> {
        self.commands.name(client)
    }

    /// Gives the client another address, for [`peer`](Self::peer) and the log:
    /// the real one of a client that came through a proxy. `false` if the client
    /// is closed: it was gone, or that address has as many clients as it may
    /// have ([`Limits::max_clients_per_address`](crate::Limits)).
    pub fn set_peer(&mut self, client: ClientId, peer: SocketAddr) -> bool {
        self.commands.set_peer(client, peer)
    }

    /// The instant of this turn. Time in which the process was stopped is
    /// left out.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.commands.now()
    }

    /// Stops the server in order: what is queued is sent, for at most the
    /// grace.
    pub fn stop(&mut self) {
        self.commands.stop();
    }
}
