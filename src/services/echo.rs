//! Echo: every byte goes back to the client that sent it.
//!
//! Owns nothing: the pipe from a client to itself does all of it.

use crate::{Actions, ClientId, Service};

/// Returns every byte, in order, to the client that sent it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        actions.pipe(client, client);
    }

    fn received(&mut self, client: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        // The pipe takes all data before it comes here.
        actions.send(client, data);
    }
}
