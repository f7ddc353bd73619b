//! What the server knows of one client.
//!
//! Owns what the client has said and not finished, what it subscribes to, and
//! what waits for it. Refuses to know other clients.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::channels::TopicId;
use crate::ClientId;
use crate::backpressure::{Action, ChannelName, Lost};
use crate::protocol::resp::{CommandParser, Version};

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ClientId,
    /// Its number in CLIENT ID.
    pub(super) number: i64,
    pub(super) peer: String,
    pub(super) local: String,
    pub(super) descriptor: String,
    pub(super) name: Vec<u8>,
    pub(super) library_name: Vec<u8>,
    pub(super) library_version: Vec<u8>,
    pub(super) version: Version,
    /// The version of what is sent now; differs from `version` while replies
    /// to HELLO wait.
    pub(super) sent_version: Version,
    pub(super) is_authenticated: bool,
    pub(super) replies: Replies,
    pub(super) is_evictable: bool,
    pub(super) transaction: Option<Transaction>,
    /// Its place among the members of each topic, by kind.
    pub(super) topics: [HashMap<TopicId, usize>; 3],
    /// It subscribes to the channel that tells of gaps.
    pub(super) hears_gaps: bool,
    pub(super) input: Input,
    pub(super) turn: TurnReplies,
    pub(super) outgoing: Outgoing,
    /// Everything that waits is its last.
    pub(super) is_closing: bool,
    /// It publishes to full subscribers, and is not read since then.
    pub(super) held_since: Option<Instant>,
    /// It is not read until it has taken the replies that wait.
    pub(super) awaits_drain: bool,
    pub(super) connected_at: Instant,
    pub(super) last_command_at: Instant,
    pub(super) last_command: String,
}

/// Whether a client wants replies (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// The present command said SKIP: the next has no reply.
    SkipNext,
    /// The present command has no reply.
    Skip,
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) commands: Vec<QueuedCommand>,
    pub(super) bytes: usize,
    pub(super) is_aborted: bool,
}

#[derive(Debug)]
pub(super) struct QueuedCommand {
    pub(super) bytes: Box<[u8]>,
    pub(super) ranges: Box<[Range<usize>]>,
}

/// Bytes of a command that is not complete.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    pub(super) parser: CommandParser,
}

impl Input {
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.parser.memory_bytes()
    }
}

/// Replies of the present turn, with their places among all messages.
#[derive(Debug, Default)]
pub(super) struct TurnReplies {
    pub(super) bytes: Vec<u8>,
    /// The place of a reply, and where it ends.
    pub(super) marks: Vec<(u64, usize)>,
    /// Topics with messages for this client, where it needs them in order.
    pub(super) topics: Vec<TopicId>,
}

/// What waits for a client.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// What is partly sent.
    pub(super) begun: Option<Begun>,
    /// What comes next, in order of its place among all messages.
    pub(super) pending: BTreeMap<u64, Pending>,
    /// Where in `pending` the newest message of a channel has its place.
    pub(super) latest: HashMap<(TopicId, ChannelName), u64>,
    /// Bytes of replies in `pending`.
    pub(super) reply_bytes: usize,
    pub(super) clocks: Clocks,
    /// Messages lost so far, without those that still have to be told.
    pub(super) lost: u64,
    pub(super) episode: Option<Episode>,
    pub(super) peak_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Begun {
    pub(super) bytes: Bytes,
    /// `None` for a reply.
    pub(super) action: Option<Action>,
}

/// Something that waits.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    /// The messages of a log from a position on.
    Log(Cursor),
    /// The newest message of a channel; `since` messages came before it was
    /// behind.
    Latest {
        topic: TopicId,
        channel: ChannelName,
        since: u64,
    },
    Reply(Bytes),
    /// A message of a channel that the client has left meanwhile, and what it
    /// lost in front of it.
    Message(Bytes, Lost, Action),
    Gap(Lost, Action),
    Version(Version),
}

/// A position in a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) topic: TopicId,
    pub(super) action: Action,
    pub(super) position: u64,
    /// The client left the topic here.
    pub(super) until: u64,
}

/// Since when a client is slow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clocks {
    /// Something waits.
    pub(super) behind_since: Option<Instant>,
    /// What counts to the limit has reached it.
    pub(super) over_limit_since: Option<Instant>,
    /// Something that counts to the limit waits.
    pub(super) counted_since: Option<Instant>,
    /// Something waits, and the client has taken nothing.
    pub(super) silent_since: Option<Instant>,
    /// The socket was tried once more.
    pub(super) tried_again: bool,
}

/// A time in which a client loses messages: from the first until it has taken
/// all that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    pub(super) since: Instant,
    pub(super) lost: u64,
    pub(super) action: Action,
}

impl Outgoing {
    /// Whether messages of this turn must wait behind others.
    pub(super) fn is_behind(&self) -> bool {
        self.begun.is_some() || !self.pending.is_empty()
    }
}

impl Session {
    /// Channels and patterns that it subscribes to.
    pub(super) fn subscriptions(&self) -> usize {
        self.topics[0].len() + self.topics[1].len()
    }

    pub(super) fn all_subscriptions(&self) -> usize {
        self.topics.iter().map(HashMap::len).sum()
    }

    /// Memory that the server holds for its commands, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.input.memory_bytes()
            + self
                .transaction
                .as_ref()
                .map_or(0, |transaction| transaction.bytes)
    }
}
