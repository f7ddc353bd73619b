//! What was published, when, and how long it is.

use std::collections::BTreeMap;
use std::time::Duration;

/// The longest that a message is beside its payload, as it goes to a socket.
const FRAME_BYTES: usize = 64;

/// The books of all channels.
pub(crate) struct Books {
    /// The limits in force.
    pub(crate) grace: Duration,
    pub(crate) limit_bytes: usize,
    /// The present turn.
    pub(crate) turn: u64,
    channels: BTreeMap<&'static str, Channel>,
}

#[derive(Default)]
struct Channel {
    /// Bytes of all messages up to this one, at most.
    end_bytes: Vec<usize>,
    /// The turn in which each message was processed, at the latest.
    processed: Vec<u64>,
}

impl Books {
    pub(crate) const fn new(grace: Duration, limit_bytes: usize) -> Self {
        Self {
            grace,
            limit_bytes,
            turn: 0,
            channels: BTreeMap::new(),
        }
    }

    pub(crate) fn sent(&mut self, channel: &'static str, payload_bytes: usize) {
        let ends = &mut self.channels.entry(channel).or_default().end_bytes;
        let before = ends.last().copied().unwrap_or(0);
        ends.push(before + payload_bytes + FRAME_BYTES);
    }

    pub(crate) fn processed(&mut self, channel: &'static str, count: u64) {
        let turn = self.turn;
        let channel = self.channels.entry(channel).or_default();
        channel.processed.resize(count as usize, turn);
    }

    /// The turn in which a message was processed, at the latest.
    pub(crate) fn processed_in(&self, channel: &str, number: u64) -> u64 {
        let turns = &self.channels[channel].processed;
        turns.get(number as usize).copied().unwrap_or(self.turn)
    }

    /// Bytes of the messages from one number up to another, at most.
    pub(crate) fn bytes_between(&self, channel: &str, from: u64, to: u64) -> usize {
        let Some(channel) = self.channels.get(channel) else {
            return 0;
        };
        let until = |number: u64| {
            let last = channel
                .end_bytes
                .len()
                .min(usize::try_from(number).unwrap_or(usize::MAX));
            last.checked_sub(1).map_or(0, |last| channel.end_bytes[last])
        };
        until(to).saturating_sub(until(from))
    }
}
