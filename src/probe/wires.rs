//! Which wire each client of a plan gets.

use super::echo::EchoWire;
use super::framed::FramedWire;
use super::pattern::Pattern;
use super::plan::{Plan, Protocol};
use super::slow::Kind;
use super::wire::Wire;

/// Payload of the frames that slow clients send: large, so that filling up
/// does not cost the server a million small frames.
const SLOW_FRAME_BYTES: usize = 16 << 10;

/// The wires of one plan, after the server was looked at.
#[derive(Debug)]
pub(crate) struct Wires {
    protocol: Protocol,
    size: usize,
    slow_kinds: Vec<Kind>,
}

impl Wires {
    pub(crate) fn new(plan: &Plan) -> Self {
        let groups = [
            (Kind::Stalled, plan.stalled),
            (Kind::Talker, plan.talkers),
            (Kind::Trickle, plan.trickle),
            (Kind::Paused, plan.paused),
            (Kind::Steady, plan.steady),
        ];
        let slow_kinds = groups
            .into_iter()
            .flat_map(|(kind, count)| std::iter::repeat_n(kind, count))
            .collect();
        Self {
            protocol: plan.protocol.clone(),
            size: plan.size,
            slow_kinds,
        }
    }

    /// Every slow client, in the order in which they join.
    pub(crate) fn slow_kinds(&self) -> Vec<Kind> {
        self.slow_kinds.clone()
    }

    /// How many slow clients there are.
    pub(crate) fn slow(&self) -> usize {
        self.slow_kinds.len()
    }

    /// The wire of a healthy client.
    pub(crate) fn healthy(&self, pattern: Pattern) -> Wire {
        self.wire(pattern, self.size)
    }

    /// The wire of a slow client.
    pub(crate) fn slow_wire(&self, pattern: Pattern) -> Wire {
        self.wire(pattern, self.size.max(SLOW_FRAME_BYTES))
    }

    fn wire(&self, pattern: Pattern, size: usize) -> Wire {
        match &self.protocol {
            Protocol::Framed => {
                Wire::Framed(FramedWire::new(pattern, u32::try_from(size).unwrap_or(u32::MAX)))
            }
            _ => Wire::Echo(EchoWire::new(pattern, size as u64)),
        }
    }
}
