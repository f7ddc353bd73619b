//! The conversation with one client, and which clients are waited for.
//!
//! Owns what a client has sent and not been answered, and the order in which
//! time runs out for heads. Refuses to read, to answer and to look at a clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ClientId;

/// One client.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Bytes received and not yet answered.
    pub(super) received: Vec<u8>,
    /// So many of them hold no end of a head.
    pub(super) searched_bytes: usize,
    /// Its answer is not yet handed to the socket.
    pub(super) is_answering: bool,
    /// The connection is closed behind the answer under way.
    pub(super) closes: bool,
    /// It has had an answer.
    pub(super) has_asked: bool,
    /// Since when the end of a head is waited for.
    pub(super) head_since: Option<Instant>,
}

/// Clients whose head is not whole, the one that waits longest first: each at
/// most once.
#[derive(Debug, Default)]
pub(super) struct Heads {
    waiting: BTreeSet<(Instant, ClientId)>,
}

impl Heads {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The head of a client is waited for from now on, unless it is already.
    pub(super) fn expect(&mut self, client: ClientId, conversation: &mut Conversation, now: Instant) {
        if conversation.head_since.is_none() {
            conversation.head_since = Some(now);
            self.waiting.insert((now, client));
        }
    }

    /// The head is there, or the client is gone.
    pub(super) fn forget(&mut self, client: ClientId, conversation: &mut Conversation) {
        if let Some(since) = conversation.head_since.take() {
            self.waiting.remove(&(since, client));
        }
    }

    /// A client whose head has been waited for so long, if there is one.
    pub(super) fn first_due(&self, timeout: Duration, now: Instant) -> Option<ClientId> {
        let (since, client) = self.waiting.first()?;
        (now.saturating_duration_since(*since) >= timeout).then_some(*client)
    }
}
