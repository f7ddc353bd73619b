//! Channels, patterns and shard channels, and who subscribes to them.
//!
//! Owns the table of names, the messages of the present turn, and those that
//! wait. Refuses to know clients beyond their slots.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;

use super::kept::Kept;
use super::members::Members;
use super::memory::Accounted;
use crate::backpressure::{Action, Backlog, ChannelName, Message};
use crate::limits::broadcast::TOPIC_BYTES;
use crate::protocol::resp::reply::{MessageKind, PUSH, encode_message};

/// Number of a channel, pattern or shard channel.
pub(super) type TopicId = usize;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// A channel, pattern or shard channel with subscribers.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: ChannelName,
    pub(super) kind: Kind,
    pub(super) members: Members,
    pub(super) turn: TurnBatch,
    /// What waits, by action. `latest` has none.
    pub(super) logs: Option<Box<[Backlog; 4]>>,
    /// The newest message of each channel, while somebody waits for it.
    pub(super) latest: HashMap<ChannelName, Latest>,
}

/// The newest message of one channel.
#[derive(Debug, Default)]
pub(super) struct Latest {
    pub(super) bytes: Bytes,
    /// Messages so far.
    pub(super) count: u64,
    pub(super) readers: usize,
    /// The turn of its last message.
    pub(super) turn: u32,
}

/// What was published to a topic in this turn.
#[derive(Debug, Default)]
pub(super) struct TurnBatch {
    encoded: Vec<u8>,
    pub(super) entries: Vec<TurnEntry>,
    /// All entries one behind the other, once the turn ends.
    pub(super) bytes: Bytes,
    usual_bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) struct TurnEntry {
    pub(super) sequence: u64,
    pub(super) end: usize,
    pub(super) channel: ChannelName,
    pub(super) action: Action,
}

impl TurnBatch {
    pub(super) fn push(&mut self, entry: (u64, ChannelName, Action), kind: MessageKind<'_>, payload: &[u8]) {
        if self.encoded.capacity() == 0 {
            self.encoded.reserve(self.usual_bytes);
        }
        let (sequence, channel, action) = entry;
        encode_message(&mut self.encoded, kind, &channel, payload);
        self.entries.push(TurnEntry {
            sequence,
            end: self.encoded.len(),
            channel,
            action,
        });
    }

    /// Makes the bytes of the turn shareable.
    pub(super) fn freeze(&mut self, accounted: &Accounted) {
        self.usual_bytes = self.encoded.len();
        self.bytes = accounted.share(std::mem::take(&mut self.encoded));
    }

    pub(super) fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.entries[before].end)
    }

    pub(super) fn slice(&self, index: usize) -> Bytes {
        self.bytes.slice(self.start(index)..self.entries[index].end)
    }

    /// All messages as pushes of version 3.
    pub(super) fn pushes(&self) -> Bytes {
        let mut pushes = self.bytes.to_vec();
        for index in 0..self.entries.len() {
            pushes[self.start(index)] = PUSH;
        }
        pushes.into()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = Bytes::new();
    }
}

impl Topic {
    fn new(name: &[u8], kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            members: Members::default(),
            turn: TurnBatch::default(),
            logs: None,
            latest: HashMap::new(),
        }
    }

    pub(super) fn log(&mut self, action: Action) -> &mut Backlog {
        &mut self.logs.get_or_insert_default()[action as usize]
    }

    pub(super) fn log_if_any(&self, action: Action) -> Option<&Backlog> {
        self.logs.as_ref().map(|logs| &logs[action as usize])
    }

    /// Whether nobody subscribes to it and nobody waits for its messages.
    fn is_unused(&self) -> bool {
        let waits = self
            .logs
            .iter()
            .flat_map(|logs| logs.iter())
            .any(Backlog::has_readers);
        self.members.is_empty() && self.turn.entries.is_empty() && !waits && self.latest.is_empty()
    }

    /// A member has the newest value of a channel.
    pub(super) fn has_value(&mut self, place: usize) {
        match self.kind {
            Kind::Pattern => self.members.has_value(place),
            _ => self.members.has_all(place, Action::Latest),
        }
    }

    /// Puts the messages of a turn into the logs that somebody reads, and adds
    /// their bytes to `kept`.
    pub(super) fn keep_in_logs(&mut self, mark_bytes: usize, now: Instant, kept: &mut Kept) {
        let Some(logs) = &mut self.logs else { return };
        for (index, entry) in self.turn.entries.iter().enumerate() {
            let log = &mut logs[entry.action as usize];
            if log.has_readers() {
                let bytes = self.turn.slice(index);
                kept.add(entry.action, bytes.len());
                log.push(Message {
                    sequence: entry.sequence,
                    channel: entry.channel.clone(),
                    bytes,
                });
            }
        }
        logs.iter_mut().for_each(Backlog::trim);
        logs[Action::DropOldest as usize].cut(mark_bytes, now);
    }

    /// Memory that its logs take beside the messages, in bytes.
    pub(super) fn overhead_bytes(&self) -> usize {
        let logs = self.logs.iter().flat_map(|logs| logs.iter());
        logs.map(Backlog::overhead_bytes).sum()
    }
}

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Channels {
    topics: Slab<Topic>,
    by_name: [HashMap<ChannelName, TopicId>; 3],
    /// What the topics take in memory, names included.
    bytes: usize,
}

/// Places of an empty table that are kept.
const KEPT_TOPICS: usize = 1024;

impl Channels {
    pub(super) fn find(&self, kind: Kind, name: &[u8]) -> Option<TopicId> {
        self.by_name[kind as usize].get(name).copied()
    }

    pub(super) fn find_or_add(&mut self, kind: Kind, name: &[u8]) -> TopicId {
        if let Some(id) = self.find(kind, name) {
            return id;
        }
        let topic = Topic::new(name, kind);
        self.bytes += TOPIC_BYTES + name.len();
        let name = topic.name.clone();
        let id = self.topics.insert(topic);
        self.by_name[kind as usize].insert(name, id);
        id
    }

    pub(super) fn get(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(id)
    }

    /// The last message of a channel, where it waits under `latest`.
    pub(super) fn latest(&self, id: TopicId, channel: &ChannelName) -> Option<&Latest> {
        self.get(id)?.latest.get(channel)
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.topics.get_mut(id)
    }

    /// Forgets a topic that nobody uses any more.
    pub(super) fn remove_if_unused(&mut self, id: TopicId) {
        if self.topics.get(id).is_some_and(Topic::is_unused) {
            let topic = self.topics.remove(id);
            self.by_name[topic.kind as usize].remove(&topic.name);
            self.bytes -= TOPIC_BYTES + topic.name.len();
            // A crowd that was here once leaves no large table behind.
            if self.topics.is_empty() && self.topics.capacity() > KEPT_TOPICS {
                *self = Self::default();
            }
        }
    }

    /// What the topics take in memory, beside their messages and members.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (TopicId, &Topic)> {
        let ids = self.by_name[kind as usize].values();
        ids.filter_map(|&id| Some((id, self.topics.get(id)?)))
            .filter(|(_, topic)| !topic.members.is_empty())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().map(|(_, topic)| topic)
    }
}
