//! Messages that wait for subscribers who are behind: each message once,
//! however many wait for it.
//!
//! Owns the messages of one channel or pattern from the position of the
//! slowest reader on, and what readers have lost where the log was cut.
//! A reader is only a position, so that adding a message costs the same for
//! one reader and for a thousand. Refuses to know subscribers and sockets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

/// The name of a channel, shared by all that mention it.
pub type ChannelName = Arc<[u8]>;

/// One message that waits.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its place among all messages of the server.
    pub sequence: u64,
    /// The channel that it was published to.
    pub channel: ChannelName,
    /// The message as it goes to a socket.
    pub bytes: Bytes,
}

/// How many messages of each channel a reader has lost, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Messages lost, by channel.
    pub by_channel: BTreeMap<ChannelName, u64>,
    /// When the first of them was lost.
    pub since: Option<Instant>,
}

impl Lost {
    /// Messages lost of all channels.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_channel.values().sum()
    }

    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_channel.is_empty()
    }

    /// Adds `count` messages of one channel, lost at this instant.
    pub fn add(&mut self, channel: &ChannelName, count: u64, now: Instant) {
        *self.by_channel.entry(channel.clone()).or_default() += count;
        self.since = Some(self.since.map_or(now, |since| since.min(now)));
    }

    /// Adds what was lost elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (channel, count) in &other.by_channel {
            *self.by_channel.entry(channel.clone()).or_default() += count;
        }
        self.since = [self.since, other.since].into_iter().flatten().min();
    }
}

/// A log of messages with readers.
///
/// Positions count the messages of this log from 0 on and never repeat.
#[derive(Debug, Default)]
pub struct Backlog {
    messages: VecDeque<Waiting>,
    /// The position of the first message that is kept.
    first: u64,
    /// Bytes of all messages ever added.
    added_bytes: u64,
    /// How many readers stand at each position.
    readers: BTreeMap<u64, usize>,
    /// What was cut off in front of readers. A gap concerns every reader at
    /// or in front of its `from`.
    gaps: VecDeque<Gap>,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    /// Bytes of this message and of all before it.
    end_bytes: u64,
}

#[derive(Debug)]
struct Gap {
    from: u64,
    lost: Lost,
}

impl Backlog {
    /// Adds a message behind all others.
    pub fn push(&mut self, message: Message) {
        self.added_bytes += message.bytes.len() as u64;
        self.messages.push_back(Waiting {
            end_bytes: self.added_bytes,
            message,
        });
    }

    /// The position of the next message that will be added.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// A reader begins at this position, which is at most one turn's messages
    /// behind the [`end`](Self::end).
    pub fn join(&mut self, position: u64) {
        *self.readers.entry(position).or_default() += 1;
    }

    /// A reader at `from` goes on to `to`. What it had lost is forgotten.
    pub fn advance(&mut self, from: u64, to: u64) {
        if from != to {
            self.join(to);
            self.leave(from);
        }
    }

    /// The reader at this position needs nothing more.
    pub fn leave(&mut self, position: u64) {
        let Some(count) = self.readers.get_mut(&position) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.readers.remove(&position);
            self.hand_gaps_down(position);
            self.trim();
        }
    }

    /// Whether anybody waits for messages.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// The message at this position, or the first that is kept behind it, and
    /// its position.
    #[must_use]
    pub fn at(&self, position: u64) -> Option<(u64, &Message)> {
        let position = position.max(self.first);
        let index = usize::try_from(position - self.first).ok()?;
        self.messages
            .get(index)
            .map(|waiting| (position, &waiting.message))
    }

    /// Bytes between this position and `until`.
    #[must_use]
    pub fn bytes_between(&self, position: u64, until: u64) -> usize {
        let bytes = self
            .bytes_in_front(until)
            .saturating_sub(self.bytes_in_front(position));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Messages that are kept between this position and `until`.
    #[must_use]
    pub fn messages_between(&self, position: u64, until: u64) -> u64 {
        until.min(self.end()).saturating_sub(position.max(self.first))
    }

    /// Bytes of all messages that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes_between(self.first, self.end())
    }

    /// Messages that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether no message is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Cuts off the oldest messages while more than `most_bytes` are kept and
    /// more than one message. Readers in front of the cut have lost them.
    pub fn cut(&mut self, most_bytes: usize, now: Instant) {
        while self.is_above(most_bytes) {
            let from = self.readers.range(..=self.first).next_back();
            let from = from.map(|(&from, _)| from);
            let Some((channel, count)) = self.cut_run(most_bytes) else {
                return;
            };
            let Some(from) = from else { continue };
            if self.gaps.back().is_none_or(|gap| gap.from != from) {
                self.gaps.push_back(Gap {
                    from,
                    lost: Lost::default(),
                });
            }
            if let Some(gap) = self.gaps.back_mut() {
                gap.lost.add(&channel, count, now);
            }
        }
    }

    fn is_above(&self, most_bytes: usize) -> bool {
        self.messages.len() > 1 && self.bytes() > most_bytes
    }

    /// Cuts off messages of one channel up to the next reader, as far as there
    /// are too many. Answers the channel, and how many were cut.
    fn cut_run(&mut self, most_bytes: usize) -> Option<(ChannelName, u64)> {
        let behind = self.first + 1;
        let next_reader = self.readers.range(behind..).next();
        let end = next_reader.map_or(u64::MAX, |(&position, _)| position);
        let channel = self.messages.pop_front()?.message.channel;
        self.first += 1;
        let mut count = 1;
        while self.first < end && self.is_above(most_bytes) && self.messages[0].message.channel == channel {
            self.messages.pop_front();
            self.first += 1;
            count += 1;
        }
        Some((channel, count))
    }

    /// What the reader at this position has lost so far.
    #[must_use]
    pub fn lost(&self, position: u64) -> Lost {
        let mut lost = Lost::default();
        for gap in self.gaps.iter().rev().take_while(|gap| gap.from >= position) {
            lost.merge(&gap.lost);
        }
        lost
    }

    /// Memory beside that of the messages, in bytes.
    #[must_use]
    pub fn overhead_bytes(&self) -> usize {
        self.messages.capacity() * size_of::<Waiting>()
    }

    fn bytes_in_front(&self, position: u64) -> u64 {
        let index = position.saturating_sub(self.first);
        match usize::try_from(index)
            .ok()
            .and_then(|index| self.messages.get(index))
        {
            Some(waiting) => waiting.end_bytes - waiting.message.bytes.len() as u64,
            None => self.added_bytes,
        }
    }

    /// The last reader at `position` has gone. Readers in front of it still
    /// need to know what was lost behind it.
    fn hand_gaps_down(&mut self, position: u64) {
        let Ok(index) = self.gaps.binary_search_by_key(&position, |gap| gap.from) else {
            return;
        };
        let Some(mut gap) = self.gaps.remove(index) else {
            return;
        };
        let Some((&from, _)) = self.readers.range(..position).next_back() else {
            return;
        };
        gap.from = from;
        match index.checked_sub(1).and_then(|before| self.gaps.get_mut(before)) {
            Some(before) if before.from == from => before.lost.merge(&gap.lost),
            _ => self.gaps.insert(index, gap),
        }
    }

    /// Forgets messages that nobody waits for any more.
    pub fn trim(&mut self) {
        let slowest = self.readers.first_key_value().map(|(&position, _)| position);
        let keep_from = slowest.unwrap_or(u64::MAX);
        while self.first < keep_from && self.messages.pop_front().is_some() {
            self.first += 1;
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        } else if self.messages.capacity() > 64 && self.messages.len() < self.messages.capacity() / 8 {
            self.messages.shrink_to(self.messages.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_time::start;

    fn message(sequence: u64, channel: &str, bytes: usize) -> Message {
        Message {
            sequence,
            channel: channel.as_bytes().into(),
            bytes: vec![0; bytes].into(),
        }
    }

    /// A reader as it would be with a queue of its own.
    #[derive(Default)]
    struct Model {
        position: u64,
        /// Positions that wait, with channel and length.
        waits: VecDeque<(u64, String, usize)>,
        lost: BTreeMap<ChannelName, u64>,
    }

    #[test]
    fn a_log_with_positions_is_as_good_as_a_queue_for_each_reader() {
        const MARK: usize = 300;
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut log = Backlog::default();
            let mut readers: Vec<Model> = Vec::new();
            let mut added: Vec<(String, usize)> = Vec::new();
            let now = start();
            for step in 0..200u64 {
                match random.u8(..6) {
                    0..=2 if log.has_readers() => {
                        let (channel, bytes) = (format!("c{}", random.u8(..3)), random.usize(1..120));
                        log.push(message(step, &channel, bytes));
                        for reader in &mut readers {
                            reader
                                .waits
                                .push_back((added.len() as u64, channel.clone(), bytes));
                        }
                        added.push((channel, bytes));
                        log.cut(MARK, now);
                        cut(&mut readers, MARK);
                    }
                    3 => {
                        // Positions go on even while nobody reads.
                        let position = log.end();
                        while (added.len() as u64) < position {
                            added.push((String::new(), 0));
                        }
                        log.join(position);
                        readers.push(Model {
                            position,
                            ..Model::default()
                        });
                    }
                    4 if !readers.is_empty() => {
                        let index = random.usize(..readers.len());
                        read_one(&mut log, &mut readers[index]);
                    }
                    5 if !readers.is_empty() && random.bool() => {
                        let gone = readers.swap_remove(random.usize(..readers.len()));
                        log.leave(gone.position);
                    }
                    _ => {}
                }
                for reader in &readers {
                    check(&log, reader, seed);
                }
                let keeps_most = readers.iter().map(|reader| reader.waits.len()).max().unwrap_or(0);
                assert_eq!(log.len(), keeps_most, "seed {seed}: kept for nobody, or lost");
            }
        }
    }

    fn cut(readers: &mut [Model], mark: usize) {
        for reader in readers {
            while reader.waits.len() > 1 && reader.waits.iter().map(|wait| wait.2).sum::<usize>() > mark {
                let (_, channel, _) = reader.waits.pop_front().unwrap();
                *reader.lost.entry(channel.as_bytes().into()).or_default() += 1;
            }
        }
    }

    fn read_one(log: &mut Backlog, reader: &mut Model) {
        let Some((position, _, bytes)) = reader.waits.pop_front() else {
            return;
        };
        let (found, message) = log.at(reader.position).unwrap();
        assert_eq!((found, message.bytes.len()), (position, bytes));
        log.advance(reader.position, position + 1);
        reader.position = position + 1;
        reader.lost.clear();
    }

    fn check(log: &Backlog, reader: &Model, seed: u64) {
        let owed: usize = reader.waits.iter().map(|wait| wait.2).sum();
        assert_eq!(log.bytes_between(reader.position, log.end()), owed, "seed {seed}");
        assert_eq!(
            log.messages_between(reader.position, log.end()),
            reader.waits.len() as u64
        );
        assert_eq!(log.lost(reader.position).by_channel, reader.lost, "seed {seed}");
        assert_eq!(log.at(reader.position).is_some(), !reader.waits.is_empty());
    }

    #[test]
    fn a_thousand_readers_keep_a_message_once() {
        let mut log = Backlog::default();
        for _ in 0..1000 {
            log.join(0);
        }
        log.push(message(0, "c", 100));
        assert_eq!((log.len(), log.bytes()), (1, 100));
        for _ in 0..999 {
            log.advance(0, 1);
        }
        assert_eq!(log.len(), 1, "one still waits for it");
        log.leave(0);
        assert_eq!(log.len(), 0);
    }

    #[test]
    fn one_message_is_kept_even_above_the_mark() {
        let mut log = Backlog::default();
        log.join(0);
        log.push(message(0, "c", 1000));
        log.cut(10, start());
        assert_eq!(log.len(), 1);
        assert!(log.lost(0).is_empty());
    }
}
