//! What a subscriber has lost, and how it hears of it.
//!
//! Owns the count of lost messages, the gaps that wait to be told, and the line
//! of the log for each episode. Refuses to drop messages.

use std::collections::btree_map::Entry;
use std::time::Instant;

use log::info;

use super::session::{Episode, Pending};
use super::{Broadcast, LOST_CHANNEL};
use crate::Actions;
use crate::backpressure::{Action, ChannelName, Lost};
use crate::protocol::resp::Version;
use crate::protocol::resp::reply::{MessageKind, PUSH, encode_message};

impl Broadcast {
    /// Counts messages that a client did not get.
    pub(super) fn count_lost(&mut self, slot: usize, lost: &Lost, action: Action, now: Instant) {
        let count = lost.count();
        self.statistics.lost_messages += count;
        self.statistics.lost_by_action[action as usize] += count;
        let outgoing = &mut self.sessions[slot].outgoing;
        outgoing.lost += count;
        let since = lost.since.unwrap_or(now);
        let episode = outgoing.episode.get_or_insert(Episode {
            since,
            lost: 0,
            action,
        });
        episode.lost += count;
    }

    /// Leaves a gap in what waits for a client, next to one that is there.
    pub(super) fn leave_gap(&mut self, slot: usize, sequence: u64, lost: Lost, action: Action) {
        let pending = &mut self.sessions[slot].outgoing.pending;
        if let Some((_, Pending::Gap(before, _))) = pending.range_mut(..sequence).next_back() {
            before.merge(&lost);
            return;
        }
        match pending.entry(sequence) {
            Entry::Vacant(place) => {
                place.insert(Pending::Gap(lost, action));
            }
            Entry::Occupied(mut place) => {
                if let Pending::Gap(there, _) = place.get_mut() {
                    there.merge(&lost);
                }
            }
        }
    }

    /// Logs what a client has lost since it began to lose.
    pub(super) fn tell_episode(&mut self, slot: usize, actions: &Actions<'_>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if let Some(episode) = session.outgoing.episode.take() {
            let seconds = actions
                .now()
                .saturating_duration_since(episode.since)
                .as_secs_f64();
            let (name, lost, action) = (&session.descriptor, episode.lost, episode.action);
            info!(
                event = "messages_lost",
                address:% = session.peer,
                lost_messages = lost,
                lost_seconds = seconds;
                "client {name} lost {lost} messages in {seconds:.3} s ({action}) ({})",
                session.peer
            );
        }
    }

    /// Messages that a client has lost, also those that it has yet to pass.
    pub(super) fn lost_of(&self, slot: usize) -> u64 {
        let outgoing = &self.sessions[slot].outgoing;
        let waiting = outgoing.pending.values().map(|pending| match pending {
            Pending::Log(cursor) => {
                let log = self
                    .channels
                    .get(cursor.topic)
                    .and_then(|topic| topic.log_if_any(cursor.action));
                log.map_or(0, |log| log.lost(cursor.position).count())
            }
            Pending::Latest {
                topic,
                channel,
                since,
            } => {
                let latest = self.channels.latest(*topic, channel);
                latest.map_or(0, |latest| latest.count.saturating_sub(since + 1))
            }
            Pending::Gap(lost, _) | Pending::Message(_, lost, _) => lost.count(),
            _ => 0,
        });
        outgoing.lost + waiting.sum::<u64>()
    }
}

pub(super) fn missed(channel: &ChannelName, count: u64, since: Option<Instant>) -> Option<(Lost, Action)> {
    let mut lost = Lost {
        since,
        ..Lost::default()
    };
    if count > 0 {
        lost.by_channel.insert(channel.clone(), count);
    }
    (count > 0).then_some((lost, Action::Latest))
}

/// One message for each channel with a gap: its name, and how many.
pub(super) fn encode_gap(bytes: &mut Vec<u8>, lost: &Lost, version: Version) {
    for (channel, count) in &lost.by_channel {
        let begin = bytes.len();
        let payload = [channel, &b" "[..], count.to_string().as_bytes()].concat();
        encode_message(bytes, MessageKind::Channel, LOST_CHANNEL, &payload);
        if version == Version::Resp3 {
            bytes[begin] = PUSH;
        }
    }
}
