//! Publish and subscribe in Redis's protocol, where a slow subscriber hurts
//! nobody, and every gap is told.
//!
//! Owns who is connected, and the order of all messages and replies. What a
//! turn has for each client goes out at the end of the turn, in one write.
//! What its socket refuses waits here and not in the engine: messages in the
//! log of their topic, once for all who wait, and replies with the client.
//!
//! | file | owns |
//! | --- | --- |
//! | `settings` | what the operator chooses |
//! | `session` | what is known of one client |
//! | `channels` | topics, and what was published to them |
//! | `members` | the subscribers of a topic, and which of them are asleep |
//! | `subscribing` | who subscribes to what |
//! | `delivering` | the end of a turn: one write for each client |
//! | `keeping` | what sockets refused then begins to wait |
//! | `items` | what a client gets next of all that waits for it |
//! | `feeding` | what waits goes out once there is room |
//! | `gaps` | what a subscriber has lost, and how it hears of it |
//! | `owed` | how much waits for one client |
//! | `slowness` | who is too slow, and what happens then |
//! | `dropping` | what is dropped for a slow client |
//! | `shadowing` | what shadow mode hears of subscribers that recovered |
//! | `reloading` | other settings while clients are connected |
//! | `holding` | publishers that wait for full subscribers |
//! | `measures` | what is counted for monitoring |
//! | `memory` | what messages take, however many wait for them |
//! | `commands` | what clients may say |

mod channels;
mod commands;
mod delivering;
mod dropping;
mod feeding;
mod gaps;
mod holding;
mod items;
mod keeping;
mod kept;
mod measures;
mod members;
mod memory;
mod owed;
mod reloading;
mod session;
mod settings;
mod shadowing;
mod slowness;
mod statistics;
mod subscribing;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use slab::Slab;

use self::channels::{Channels, TopicId};
use self::commands::BufferLimits;
use self::holding::Holding;
use self::memory::Accounted;
use self::session::{Session, TurnReplies};
use self::slowness::Patrol;
use crate::limits::broadcast::SUBSCRIPTION_BYTES;
use crate::protocol::resp::{Reply, Version};
use crate::{Actions, ClientId, CloseReason, Limits, Measure, Service};

pub use reloading::SettingsChange;
pub use settings::Settings;
use statistics::Statistics;

/// The channel on which a subscriber hears of its own gaps.
pub const LOST_CHANNEL: &[u8] = b"__highwater__:lost";

/// Nobody may publish to channels with this prefix.
const RESERVED_PREFIX: &[u8] = b"__highwater__:";

/// What a client hears when the server is full.
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

/// Longest time for which the engine may be told to wait; as good as for ever.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The service of `highwater broadcast`.
pub struct Broadcast {
    settings: Settings,
    /// Settings that another thread leaves.
    change: SettingsChange,
    sessions: Slab<Session>,
    slots: HashMap<ClientId, usize>,
    channels: Channels,
    /// The last place that was given to a message or reply.
    sequence: u64,
    /// Topics with messages of this turn.
    touched: Vec<TopicId>,
    /// Clients with replies of this turn.
    talking: Vec<usize>,
    /// What the end of a turn needs to know of each slot, close together.
    states: Vec<SlotState>,
    turn: u32,
    memory: Accounted,
    /// Bytes of replies that wait.
    reply_bytes: usize,
    scratch: Vec<u8>,
    patrol: Patrol,
    holding: Holding,
    statistics: Statistics,
    started: Option<Instant>,
    next_number: i64,
    /// A transaction runs.
    in_exec: bool,
    /// What CONFIG SET said of clients that are no subscribers.
    other_classes: [BufferLimits; 2],
}

/// What the end of a turn needs to know of a client.
#[derive(Clone, Copy, Debug, Default)]
struct SlotState {
    /// The turn for which `sources` was counted.
    turn: u32,
    sources: u8,
    is_behind: bool,
    speaks_version_3: bool,
    is_gathered: bool,
    /// What counts to the limit has reached the mark, and has not drained.
    is_full: bool,
}

impl Broadcast {
    /// A server without clients.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            change: SettingsChange::default(),
            sessions: Slab::new(),
            slots: HashMap::new(),
            channels: Channels::default(),
            sequence: 0,
            touched: Vec::new(),
            talking: Vec::new(),
            states: Vec::new(),
            turn: 1,
            memory: Accounted::default(),
            reply_bytes: 0,
            scratch: Vec::new(),
            patrol: Patrol::default(),
            holding: Holding::default(),
            statistics: Statistics::default(),
            started: None,
            next_number: 1,
            in_exec: false,
            other_classes: BufferLimits::DEFAULTS,
        }
    }

    /// The limits of an engine that runs this service. Its own rules about
    /// slow clients are out of the way, because the service keeps what waits
    /// and judges by that.
    #[must_use]
    pub fn engine_limits(limits: &Limits) -> Limits {
        Limits {
            limit_bytes: Some(usize::MAX / 2),
            hard_limit_bytes: Some(usize::MAX / 2),
            drain_timeout: Some(NEVER),
            ..limits.clone()
        }
    }

    /// Bytes of all messages and replies that wait, each once.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        let overhead: usize = self.channels.all().map(channels::Topic::overhead_bytes).sum();
        self.memory.total() + self.reply_bytes + overhead
    }

    /// What subscriptions take in memory, the names of channels included.
    pub(super) fn subscription_bytes(&self) -> usize {
        self.channels.memory_bytes() + self.statistics.subscriptions * SUBSCRIPTION_BYTES
    }

    /// Messages that were dropped for slow subscribers so far.
    #[must_use]
    pub const fn lost_messages(&self) -> u64 {
        self.statistics.lost_messages
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Answers the present command of a client, if it wants answers.
    fn reply(&mut self, slot: usize, say: impl FnOnce(&mut Reply<'_>)) {
        let is_wanted = self.sessions.get(slot).is_some_and(|session| {
            matches!(session.replies, session::Replies::On | session::Replies::SkipNext)
        });
        if is_wanted {
            self.say(slot, say);
        }
    }

    /// Says something to a client at the end of the turn.
    fn say(&mut self, slot: usize, say: impl FnOnce(&mut Reply<'_>)) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let turn = &mut session.turn;
        if turn.marks.is_empty() {
            self.talking.push(slot);
        }
        say(&mut Reply::new(&mut turn.bytes, session.version));
        let end = turn.bytes.len();
        match turn.marks.last_mut() {
            Some((sequence, last_end)) if *sequence == self.sequence => *last_end = end,
            _ => {
                self.sequence += 1;
                turn.marks.push((self.sequence, end));
            }
        }
    }

    fn error(&mut self, slot: usize, text: &str) {
        self.reply(slot, |reply| reply.error(text.as_bytes()));
    }

    fn ok(&mut self, slot: usize) {
        self.reply(slot, |reply| reply.simple("OK"));
    }

    fn admit(&mut self, id: ClientId, actions: &Actions<'_>) -> usize {
        let now = actions.now();
        let text =
            |address: Option<std::net::SocketAddr>| address.map_or_else(String::new, |a| a.to_string());
        let name = actions.name(id).map_or_else(String::new, |name| name.to_string());
        let session = Session {
            id,
            number: self.next_number,
            peer: text(actions.peer(id)),
            local: text(actions.local(id)),
            descriptor: name.trim_start_matches("client ").to_owned(),
            name: Vec::new(),
            library_name: Vec::new(),
            library_version: Vec::new(),
            version: Version::Resp2,
            sent_version: Version::Resp2,
            is_authenticated: self.settings.password.is_none(),
            replies: session::Replies::On,
            is_evictable: true,
            transaction: None,
            topics: Default::default(),
            hears_gaps: false,
            input: session::Input::default(),
            turn: TurnReplies::default(),
            outgoing: session::Outgoing::default(),
            is_closing: false,
            held_since: None,
            awaits_drain: false,
            connected_at: now,
            last_command_at: now,
            last_command: String::new(),
        };
        self.next_number += 1;
        self.statistics.connections += 1;
        let slot = self.sessions.insert(session);
        self.slots.insert(id, slot);
        if self.states.len() <= slot {
            self.states.resize(slot + 1, SlotState::default());
        }
        self.states[slot] = SlotState::default();
        slot
    }

    /// Whether a client from beyond this machine is refused.
    fn is_stranger(&self, id: ClientId, actions: &Actions<'_>) -> bool {
        let is_local = actions
            .peer(id)
            .is_none_or(|peer| peer.ip().to_canonical().is_loopback());
        self.settings.is_protected && self.settings.password.is_none() && !is_local
    }
}

/// As Redis says it, with the way out that exists here.
const DENIED: &str = "DENIED highwater broadcast is running in protected mode because protected mode is enabled and no \
password is set. In this mode connections are only accepted from the loopback interface. If you want to connect from \
external computers, start it with a password file, or with protected mode switched off if nobody untrusted can reach it.";

impl Service for Broadcast {
    fn connected(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        self.started.get_or_insert(actions.now());
        let slot = self.admit(id, actions);
        if self.is_stranger(id, actions) {
            self.say(slot, |reply| reply.error(DENIED.as_bytes()));
            self.sessions[slot].is_closing = true;
        }
    }

    fn received(&mut self, id: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        if let Some(&slot) = self.slots.get(&id) {
            self.take_input(slot, data, actions);
        }
    }

    fn writable(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        if let Some(&slot) = self.slots.get(&id) {
            self.feed(slot, actions);
        }
    }

    fn served(&mut self, actions: &mut Actions<'_>) {
        self.deliver(actions);
        self.watch_memory(actions);
        // Publishers that are released have more to say, and are perhaps held
        // again by that; each delivery can release others once.
        self.deliver(actions);
    }

    fn ended(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        // As Redis: who has hung up gets nothing more.
        actions.close(id);
    }

    fn closed(&mut self, id: ClientId, _: &CloseReason, actions: &mut Actions<'_>) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        self.deliver(actions);
        self.tell_episode(slot, actions);
        self.release_publisher(slot);
        self.forget_pending(slot);
        self.leave_all_topics(slot);
        self.talking.retain(|&talking| talking != slot);
        let session = self.sessions.remove(slot);
        self.statistics.subscriptions -= session.all_subscriptions();
        self.states[slot] = SlotState::default();
        if self.sessions.is_empty() {
            self.scratch = Vec::new();
        }
    }

    fn tick_interval(&self) -> Option<Duration> {
        (self.patrol.is_needed() || self.holding.is_active()).then_some(slowness::PATROL_INTERVAL)
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        self.patrol(actions);
        self.review_holds(actions);
    }

    fn kept_bytes(&self) -> usize {
        let waiting_bytes = self.memory.total() + self.reply_bytes + self.patrol.overhead_bytes;
        waiting_bytes + self.subscription_bytes()
    }

    fn own_limits(&self) -> Option<Limits> {
        Some(self.settings.as_limits())
    }

    fn measures(&self) -> Vec<Measure> {
        self.all_measures()
    }

    fn refusal(&self) -> &[u8] {
        FULL
    }

    fn reloaded(&mut self, _: &Limits, actions: &mut Actions<'_>) {
        self.take_settings(actions);
    }

    fn stopping(&mut self, actions: &mut Actions<'_>) {
        self.deliver(actions);
        let slots: Vec<usize> = self.sessions.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.hand_over(slot, actions);
        }
    }
}
