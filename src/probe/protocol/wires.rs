//! Which wire each client of a plan gets.

use std::sync::Arc;

use crate::probe::clients::quiet::SHORT_STEP_BYTES;
use crate::probe::clients::slow::Kind;
use crate::probe::plan::{Plan, Protocol};
use crate::probe::protocol::echo::EchoWire;
use crate::probe::protocol::framed::{FramedWire, HEAD_BYTES as FRAME_HEAD_BYTES};
use crate::probe::protocol::http::{HttpShared, HttpWire};
use crate::probe::protocol::pattern::Pattern;
use crate::probe::protocol::push::PushWire;
use crate::probe::protocol::wire::Wire;

/// Payload of the frames that slow clients send: large, so that filling up
/// does not cost the server a million small frames.
const SLOW_FRAME_BYTES: usize = 16 << 10;

/// The wires of one plan.
#[derive(Debug)]
pub(crate) struct Wires {
    way: Way,
    size: usize,
    slow_kinds: Vec<Kind>,
}

#[derive(Debug)]
enum Way {
    Echo,
    Framed,
    Http(HttpShared),
    Push(Arc<[u8]>),
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
            // Where the server sends by itself, nobody talks.
            .filter(|kind| *kind != Kind::Talker || !matches!(plan.protocol, Protocol::Push { .. }))
            .collect();
        let way = match &plan.protocol {
            Protocol::Echo => Way::Echo,
            Protocol::Framed => Way::Framed,
            Protocol::Http { path, host } => Way::Http(HttpShared::new(host, path)),
            Protocol::Push { send, .. } => Way::Push(send.as_slice().into()),
        };
        Self {
            way,
            size: plan.size,
            slow_kinds,
        }
    }

    /// What HTTP clients share; to be completed by a first look at the server.
    pub(crate) fn http_mut(&mut self) -> Option<&mut HttpShared> {
        match &mut self.way {
            Way::Http(shared) => Some(shared),
            _ => None,
        }
    }

    /// Every slow client, in the order in which they join.
    pub(crate) fn slow_kinds(&self) -> &[Kind] {
        &self.slow_kinds
    }

    /// How many slow clients there are.
    pub(crate) fn slow(&self) -> usize {
        self.slow_kinds.len()
    }

    /// The wires of quiet clients, from a number that tells them apart; none
    /// where the server sends more than it is sent.
    pub(crate) fn quiet_wires(&self, first_pattern: u64) -> Option<Box<dyn Fn(usize) -> Wire + Send>> {
        let pattern = move |index: usize| Pattern::new(first_pattern + index as u64);
        // A frame is one short step, so that no step ends inside a frame.
        let payload = (SHORT_STEP_BYTES - FRAME_HEAD_BYTES) as u32;
        match &self.way {
            Way::Echo => Some(Box::new(move |index| {
                Wire::Echo(EchoWire::new(pattern(index), SHORT_STEP_BYTES))
            })),
            Way::Framed => Some(Box::new(move |index| {
                Wire::Framed(FramedWire::new(pattern(index), payload))
            })),
            Way::Http(_) | Way::Push(_) => None,
        }
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
        match &self.way {
            Way::Echo => Wire::Echo(EchoWire::new(pattern, size as u64)),
            Way::Framed => Wire::Framed(FramedWire::new(pattern, u32::try_from(size).unwrap_or(u32::MAX))),
            Way::Http(shared) => Wire::Http(Box::new(HttpWire::new(shared.clone()))),
            Way::Push(greeting) => Wire::Push(PushWire::new(Arc::clone(greeting))),
        }
    }
}
