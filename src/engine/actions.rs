//! What a service may ask for.
//!
//! Owns the calls and their promises. Refuses to carry them out: that is
//! `commands.rs`.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::client::ClientName;
use super::client_table::ClientId;
use super::file::FilePart;
use crate::backpressure::{Answer, SlowReason};
use crate::error::{ConnectError, LateFrame};

/// Everything that a service may ask for. Asking something for a stale id does
/// nothing.
pub struct Actions<'a> {
    commands: &'a mut dyn Commands,
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
    fn disconnect(&mut self, client: ClientId, reason: SlowReason, slow: Slowness, detail: &str) -> bool;
    fn recovered(&mut self, client: ClientId, reason: SlowReason, slow: Slowness);
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
    fn hold_anew(&mut self, client: ClientId, held_bytes: usize);
    fn time_out_frame(&mut self, client: ClientId, frame: LateFrame);
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
    /// until [`Service::drained`](crate::Service::drained). Nothing is sent to a client that is gone or
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
    /// rule about slow clients watches it. [`Service::writable`](crate::Service::writable) says when to
    /// offer it again. All of `data` is dealt with if the client is gone.
    pub fn offer(&mut self, client: ClientId, data: &[u8]) -> usize {
        self.commands.offer(client, data)
    }

    /// Asks for one call of [`Service::writable`](crate::Service::writable), in the next turn if the
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
    /// `false` if [shadow mode](crate::Limits) keeps the client, which is logged
    /// and counted once until it has [`recovered`](Self::recovered).
    pub fn disconnect(&mut self, client: ClientId, reason: SlowReason, slow: Slowness, detail: &str) -> bool {
        self.commands.disconnect(client, reason, slow, detail)
    }

    /// Says that a client is no longer slow by a rule that this service judges
    /// itself. Shadow mode learns from it which limits would have kept the client.
    pub fn recovered(&mut self, client: ClientId, reason: SlowReason, slow: Slowness) {
        self.commands.recovered(client, reason, slow);
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
    /// that turns out shorter resets the client. [`Service::file_sent`](crate::Service::file_sent) follows.
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
    /// for the client of [`Service::closed`](crate::Service::closed).
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
    /// for it. [`Service::connected`](crate::Service::connected) or [`Service::closed`](crate::Service::closed) gives the outcome.
    ///
    /// # Errors
    ///
    /// The connection was not begun: descriptors ran out, the kernel refuses
    /// the address, the client is gone, or the server is
    /// [`stopping`](crate::Service::stopping).
    pub fn connect(&mut self, address: SocketAddr, for_client: ClientId) -> Result<ClientId, ConnectError> {
        self.commands.connect(address, for_client)
    }

    /// Declares how many bytes the service holds for this client now, such as
    /// an unfinished frame. They count in the memory budget.
    pub fn hold(&mut self, client: ClientId, held_bytes: usize) {
        self.commands.hold(client, held_bytes);
    }

    /// Declares how many bytes the service holds for this client now, of another
    /// message than at the call before. Over the memory budget, the client with
    /// the most bytes x seconds goes first, and these seconds begin anew.
    pub fn hold_anew(&mut self, client: ClientId, held_bytes: usize) {
        self.commands.hold_anew(client, held_bytes);
    }

    /// Disconnects the client at once, with a reset, because its frame comes too
    /// slowly. Nothing happens to a client that is ending.
    pub fn time_out_frame(&mut self, client: ClientId, frame: LateFrame) {
        self.commands.time_out_frame(client, frame);
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
