//! The connections beside the groups of clients: the one that publishes, and the quiet ones on a
//! thread of their own.

use std::net::SocketAddr;

use super::Driver;
use crate::probe::clients::opening::Opening;
use crate::probe::clients::publisher::Publisher;
use crate::probe::clients::quiet::{MOST_ATTEMPTS, QuietClients, QuietPlan, SHORT_STEP_BYTES};
use crate::probe::driver::socket::{self, Buffers, ClientStream};
use crate::probe::driver::{clock, proxy};
use crate::probe::error::ProbeError;
use crate::probe::kind::SlowKind;
use crate::probe::plan::Plan;

impl<S: ClientStream> Driver<'_, S> {
    pub(super) fn start_publisher(&mut self) -> Result<(), ProbeError> {
        if let Some(publishing) = self.plan.protocol.publishing() {
            // Served at every tick; it needs no events of its own.
            let stream = socket::start_connecting(self.plan.address, Buffers::default())
                .map_err(ProbeError::system("open a socket for the publisher"))?;
            let opening = opening_of(self.plan)(stream.local_addr().ok());
            self.publisher = Some(Publisher::new(
                S::over(stream, self.plan),
                opening,
                publishing,
                clock::now(),
            ));
        }
        Ok(())
    }

    /// Quiet clients need to see the server's sockets, and a server that sends what it was sent.
    pub(super) fn start_quiet(&self) -> Option<QuietClients> {
        let monitor = self.monitor.as_ref()?;
        let clients = self.plan.slow[SlowKind::Quiet].clients;
        let traits = self.plan.protocol.traits();
        if clients == 0 || !traits.echoes || self.plan.is_encrypted() {
            return None;
        }
        let first = (self.plan.fast + self.slow.planned()) as u64;
        // A message is one short step, so that no step ends inside a message.
        let message_bytes = SHORT_STEP_BYTES.saturating_sub(traits.head_bytes) as usize;
        let wires = (0..clients * MOST_ATTEMPTS)
            .map(|attempt| self.conversations.healthy(first + attempt as u64, message_bytes))
            .collect();
        QuietClients::start(QuietPlan {
            address: self.plan.address,
            tables: monitor.tables(),
            last_look: monitor.last_look(),
            wires,
            openings: Box::new(opening_of(self.plan)),
            offer: self.plan.fill,
            within: self.plan.within,
            epoch: self.epoch,
        })
    }
}

/// The steps that a client at an address of ours takes before its protocol begins.
fn opening_of(plan: &Plan) -> impl Fn(Option<SocketAddr>) -> Opening + Send + use<> {
    let plan = plan.clone();
    move |ours| Opening::new(proxy::header(&plan, ours), plan.opening.as_slice().into())
}
