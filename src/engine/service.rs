//! What a server does with its clients: the trait to write a service against.
//!
//! Owns what a service is told, and asked. Refuses to give a service the loop,
//! a socket or a clock: a service can neither block other clients nor write
//! past a client's limits.

use std::net::SocketAddr;
use std::time::Duration;

use super::actions::Actions;
use super::client_table::ClientId;
use crate::error::CloseReason;
use crate::limits::Limits;

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
    /// [`Answer::Pause`](crate::Answer::Pause).
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

    /// The limits by which this service judges clients itself; `None` if it leaves
    /// that to the engine. Shadow mode recommends limits in their place.
    fn own_limits(&self) -> Option<Limits> {
        None
    }

    /// What stands in front of the name of a client in the log, such as
    /// `admin `. A service that has a role beside another one says nothing of
    /// its own start and stop.
    fn role(&self) -> &'static str {
        ""
    }

    /// Bytes that the service keeps for all clients together, beside those of
    /// [`Actions::hold`]. When they become fewer, freed memory goes back to the
    /// system.
    fn kept_bytes(&self) -> usize {
        0
    }

    /// What the service counts, for the metrics of the server. Names and labels
    /// must not depend on clients.
    fn measures(&self) -> Vec<Measure> {
        Vec::new()
    }

    /// What the bytes of [`Actions::hold`] are, for the log line of a client that
    /// is disconnected by the memory budget. Asked once, at the start.
    fn held_words(&self) -> &'static str {
        "an unfinished message"
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

    /// Other limits are in force from here on, also for clients that are
    /// connected.
    fn reloaded(&mut self, limits: &Limits, actions: &mut Actions<'_>) {
        let _ = (limits, actions);
    }

    /// The server is stopping and drains its clients. Called once.
    fn stopping(&mut self, actions: &mut Actions<'_>) {
        let _ = actions;
    }
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
