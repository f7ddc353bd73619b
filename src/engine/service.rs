//! What a server does with its clients: the trait to write a service against,
//! and all that a service may ask for.
//!
//! Owns the two sides of that contract. Refuses to give a service the loop,
//! the poll, a socket or a clock: a service can neither block the others nor
//! write past a client's limits.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::client::ClientName;
use super::client_table::ClientId;
use crate::backpressure::Answer;
use crate::error::CloseReason;

/// A service: what to do when something happens to a client.
///
/// Every method is called on the thread of the event loop and must not block.
/// A slow client needs no code here: what it does not read waits in its
/// bounded queue, and when it is too slow for too long it is disconnected and
/// [`closed`](Self::closed) says so. Only a service that reads faster than it
/// can write should pause its source; [`Actions::pipe`] does that by itself.
pub trait Service {
    /// A client has connected, or a connection made by [`Actions::connect`]
    /// has come about.
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let _ = (client, actions);
    }

    /// A client has sent `data`: any piece of its stream, in order, at most
    /// [`READ_BUFFER_BYTES`](crate::limits::READ_BUFFER_BYTES) long. Not
    /// called while the client is paused or has a pipe.
    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>);

    /// Where the client's next bytes are to be put. `None`, or nothing at all,
    /// stands for the loop's own buffer, and then [`received`](Self::received)
    /// tells of them. A service that puts long messages together in memory of
    /// its own, which it has declared with [`Actions::hold`], saves a copy by
    /// lending that; then [`filled`](Self::filled) tells. Asked before each
    /// read.
    fn read_buffer(&mut self, client: ClientId) -> Option<&mut [u8]> {
        let _ = client;
        None
    }

    /// The client has sent `count_bytes` more, at least one, and they are at
    /// the beginning of what [`read_buffer`](Self::read_buffer) lent last.
    fn filled(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        let _ = (client, count_bytes, actions);
    }

    /// The client's queue is empty, and a write had answered
    /// [`Answer::Pause`] before.
    fn drained(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let _ = (client, actions);
    }

    /// The client has sent its end and will send nothing more. By default it
    /// is answered with ours, once its queue is empty. Not called for a
    /// client with a pipe, whose end ends its destinations.
    fn ended(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        actions.end(client);
    }

    /// The client is gone, and its id names nobody any more. Called exactly
    /// once for every client. Others that a service ends from here go in the
    /// same turn; but connections that it begins here are closed in the next
    /// turn at the earliest, so that no turn goes on for ever.
    fn closed(&mut self, client: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        let _ = (client, reason, actions);
    }

    /// Sockets that one client takes, its own included: where the number of
    /// clients is left to the machine, its descriptors are divided by this.
    fn sockets_per_client(&self) -> usize {
        1
    }

    /// How often [`ticked`](Self::ticked) is to be called; `None` for not at
    /// all. Asked in every turn, so a service may want ticks for a while only.
    /// Less than [`SHORTEST_TICK`](crate::limits::SHORTEST_TICK) counts as that.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }

    /// The tick interval has passed. Ticks that were missed are not made up
    /// for.
    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }

    /// Somebody called [`Remote::wake`](crate::event_loop::Remote::wake).
    fn woken(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }

    /// The server is to stop: clients are being drained. Called once.
    fn stopping(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }
}

/// All that a service may ask for. An id that has grown stale names nobody:
/// asking something for it does nothing.
pub struct Actions<'a> {
    commands: &'a mut dyn Commands,
}

/// The engine as [`Actions`] sees it.
pub(crate) trait Commands {
    fn write(&mut self, client: ClientId, data: &[u8]) -> Answer;
    fn write_shared(&mut self, client: ClientId, data: &Bytes) -> Answer;
    fn pause(&mut self, client: ClientId);
    fn resume(&mut self, client: ClientId);
    fn pipe(&mut self, from: ClientId, to: ClientId);
    fn end(&mut self, client: ClientId);
    fn close(&mut self, client: ClientId);
    fn reject(&mut self, client: ClientId, why: Cow<'static, str>);
    fn reset(&mut self, client: ClientId);
    fn connect(&mut self, address: SocketAddr, for_client: ClientId) -> io::Result<ClientId>;
    fn hold(&mut self, client: ClientId, held_bytes: usize);
    fn room(&self, client: ClientId) -> usize;
    fn queued(&self, client: ClientId) -> usize;
    fn peer(&self, client: ClientId) -> Option<SocketAddr>;
    fn local(&self, client: ClientId) -> Option<SocketAddr>;
    fn name(&self, client: ClientId) -> Option<ClientName>;
    fn now(&self) -> Instant;
    fn stop(&mut self);
}

impl<'a> Actions<'a> {
    pub(crate) fn new(commands: &'a mut dyn Commands) -> Self {
        Self { commands }
    }

    /// Sends `data`, all of it: what the socket does not take at once waits
    /// in the client's queue. On [`Answer::Pause`] stop producing for this
    /// client until [`Service::drained`]. To a client that is gone or has
    /// been ended nothing is sent, and the answer is to continue.
    pub fn send(&mut self, client: ClientId, data: &[u8]) -> Answer {
        self.commands.write(client, data)
    }

    /// As [`send`](Self::send), for bytes that go to many clients: what must
    /// wait is held by reference, once for all.
    pub fn send_shared(&mut self, client: ClientId, data: &Bytes) -> Answer {
        self.commands.write_shared(client, data)
    }

    /// Reads no more from this client until [`resume`](Self::resume). The
    /// kernel's buffers fill, and then the peer must wait.
    pub fn pause(&mut self, client: ClientId) {
        self.commands.pause(client);
    }

    /// Reads from this client again, starting with what came in meanwhile.
    pub fn resume(&mut self, client: ClientId) {
        self.commands.resume(client);
    }

    /// Sends everything that `from` sends to `to`, in order, and reads `from`
    /// only while no destination has a pause standing. The end of `from` ends
    /// `to`. Echo is `pipe(client, client)`; a tunnel is two pipes; with
    /// several destinations the slowest sets the pace.
    pub fn pipe(&mut self, from: ClientId, to: ClientId) {
        self.commands.pipe(from, to);
    }

    /// Announces our end to the client once its queue is empty; it may go on
    /// sending. The client is closed when both sides have ended.
    pub fn end(&mut self, client: ClientId) {
        self.commands.end(client);
    }

    /// Ends the client and throws away what it still sends: for a service
    /// that has said its last word. What waits in its queue is under the
    /// slow-client policy as ever; once that is empty, the client has the
    /// grace to take what is still on its way.
    pub fn close(&mut self, client: ClientId) {
        self.commands.close(client);
    }

    /// Disconnects the client at once, with a reset. `why` is logged behind
    /// the client's name and should say what was wrong, with its number and
    /// the limit.
    pub fn reject(&mut self, client: ClientId, why: impl Into<Cow<'static, str>>) {
        self.commands.reject(client, why.into());
    }

    /// Disconnects the client at once, with a reset and without a line in the
    /// log: for the one side of a conversation whose other side is gone.
    pub fn reset(&mut self, client: ClientId) {
        self.commands.reset(client);
    }

    /// Connects to another server for the sake of a client; never waits.
    /// [`Service::connected`] or [`Service::closed`] tells the outcome.
    ///
    /// # Errors
    ///
    /// The connection could not even be begun: descriptors have run out, the
    /// address is refused at once, or the client is gone. Once the server is
    /// [`stopping`](Service::stopping) none is begun, for it would have to be
    /// waited for; [`is_stopping`](crate::error::is_stopping) tells.
    pub fn connect(&mut self, address: SocketAddr, for_client: ClientId) -> io::Result<ClientId> {
        self.commands.connect(address, for_client)
    }

    /// Declares how many bytes the service itself holds for this client, such
    /// as an unfinished frame. They count in the memory budget.
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

    /// Where the client is, or `None` if it is gone.
    #[must_use]
    pub fn peer(&self, client: ClientId) -> Option<SocketAddr> {
        self.commands.peer(client)
    }

    /// The address of ours that the client is connected to, or `None` if it is
    /// gone or the network does not tell.
    #[must_use]
    pub fn local(&self, client: ClientId) -> Option<SocketAddr> {
        self.commands.local(client)
    }

    /// How the log calls the client, or `None` if it is gone.
    #[must_use]
    pub fn name(&self, client: ClientId) -> Option<ClientName> {
        self.commands.name(client)
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
