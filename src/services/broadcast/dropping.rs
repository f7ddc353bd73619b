//! What is dropped for a client that is too slow for it.
//!
//! Owns the choice of the oldest messages under `drop-oldest`, and of the
//! oldest values under `latest`. Refuses to touch messages of other actions,
//! and those that are partly sent.

use std::time::Instant;

use super::Broadcast;
use super::channels::TopicId;
use super::session::{Cursor, Pending};
use crate::backpressure::{Action, ChannelName, Lost};

impl Broadcast {
    /// Drops the oldest messages of a client that may be dropped: above the
    /// mark of `drop-oldest` over all its topics, and above the hard limit of
    /// all values under `latest`. A log alone keeps its mark itself.
    pub(super) fn keep_mark(&mut self, slot: usize, now: Instant) {
        let mark = self.settings.high_water_mark_bytes;
        while let Some((sequence, cursor)) = self.oldest_above(slot, mark) {
            self.drop_one(slot, sequence, cursor, now);
        }
        let most = self.settings.hard_limit_bytes;
        if most > 0 {
            self.keep_values_below(slot, most, now);
        }
    }

    /// The oldest place of a client under `drop-oldest`, if it has several
    /// with more than the mark in all.
    fn oldest_above(&self, slot: usize, mark: usize) -> Option<(u64, Cursor)> {
        let pending = &self.sessions.get(slot)?.outgoing.pending;
        let mut oldest = None;
        let (mut bytes, mut places) = (0, 0);
        for (&sequence, pending) in pending {
            if let Pending::Log(cursor) = pending
                && cursor.action == Action::DropOldest
            {
                oldest.get_or_insert((sequence, *cursor));
                bytes += self.owed_in_log(cursor).0;
                places += 1;
            }
        }
        oldest.filter(|_| places > 1 && bytes > mark)
    }

    fn drop_one(&mut self, slot: usize, sequence: u64, mut cursor: Cursor, now: Instant) {
        let Some(topic) = self.channels.get_mut(cursor.topic) else {
            return;
        };
        let log = topic.log(cursor.action);
        let mut lost = log.lost(cursor.position);
        let next = match log
            .at(cursor.position)
            .filter(|(position, _)| *position < cursor.until)
        {
            Some((position, message)) => {
                lost.add(&message.channel, 1, now);
                position + 1
            }
            None => cursor.until,
        };
        let following = log.at(next).filter(|(position, _)| *position < cursor.until);
        let following = following.map(|(position, message)| (position, message.sequence));
        self.sessions[slot].outgoing.pending.remove(&sequence);
        match following {
            Some((position, following)) => {
                log.advance(cursor.position, position);
                cursor.position = position;
                let pending = &mut self.sessions[slot].outgoing.pending;
                pending.insert(following, Pending::Log(cursor));
            }
            None => self.leave_log(slot, cursor),
        }
        self.leave_gap(slot, sequence, lost, Action::DropOldest);
    }

    fn keep_values_below(&mut self, slot: usize, most_bytes: usize, now: Instant) {
        let value_bytes = |topic: &TopicId, channel: &ChannelName| {
            let latest = self.channels.latest(*topic, channel);
            latest.map_or((0, 0), |latest| (latest.bytes.len(), latest.count))
        };
        let outgoing = &self.sessions[slot].outgoing;
        if outgoing.latest.len() < 2 {
            return;
        }
        let all: usize = outgoing
            .latest
            .keys()
            .map(|(topic, channel)| value_bytes(topic, channel).0)
            .sum();
        let mut above = all.saturating_sub(most_bytes);
        let mut dropped = Vec::new();
        for (&sequence, pending) in &outgoing.pending {
            if above == 0 {
                break;
            }
            if let Pending::Latest {
                topic,
                channel,
                since,
            } = pending
            {
                let (bytes, count) = value_bytes(topic, channel);
                above = above.saturating_sub(bytes);
                dropped.push((sequence, *topic, channel.clone(), count - since));
            }
        }
        for (sequence, topic, channel, count) in dropped {
            let mut lost = Lost::default();
            lost.add(&channel, count, now);
            let outgoing = &mut self.sessions[slot].outgoing;
            outgoing.pending.remove(&sequence);
            outgoing.latest.remove(&(topic, channel.clone()));
            if let Some(member) = self.member_of(slot, topic)
                && let Some(topic) = self.channels.get_mut(topic)
            {
                topic.has_value(member);
            }
            self.leave_latest(topic, &channel);
            self.leave_gap(slot, sequence, lost, Action::Latest);
        }
    }
}
