//! A chat: each message goes to all other members.
//!
//! No line deals with slow clients, and still none can hurt the others: what a
//! member does not read waits in that member's bounded queue, and a member that
//! stays over the limit for the grace is disconnected.
//!
//! Run `cargo run --example chat`, then `nc 127.0.0.1 9001` in some terminals.

use std::collections::BTreeSet;

use bytes::Bytes;
use highwater::{Actions, ClientId, CloseReason, EventLoop, Limits, ServerError, Service};

#[derive(Default)]
struct Chat(BTreeSet<ClientId>);

impl Service for Chat {
    fn connected(&mut self, client: ClientId, _: &mut Actions<'_>) {
        self.0.insert(client);
    }

    fn received(&mut self, speaker: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        let said = Bytes::copy_from_slice(data);
        for &listener in self.0.iter().filter(|&&member| member != speaker) {
            actions.send_shared(listener, &said);
        }
    }

    fn closed(&mut self, client: ClientId, _: &CloseReason, _: &mut Actions<'_>) {
        self.0.remove(&client);
    }
}

fn main() -> Result<(), ServerError> {
    // A port as the only argument, 9001 without one.
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let address = ([127, 0, 0, 1], port.unwrap_or(9001)).into();
    let mut server = EventLoop::listen(address, Limits::default(), Chat::default())?;
    println!("listening on {}", server.local_addr());
    server
        .run()
        .map(|counters| println!("{}", counters.summary("sent")))
}
