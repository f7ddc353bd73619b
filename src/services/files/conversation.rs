//! The conversation with one client, and which clients are waited for.
//!
//! Owns what a client has sent and not been answered, and the order in which
//! time runs out for heads. Refuses to read, to answer and to look at a clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ClientId;

/// One client. There may be thousands, each in the middle of a long answer.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// What it has sent and was not answered, if there is any.
    pub(super) head: Option<Box<Head>>,
    /// Its answer is not yet handed to the socket.
    pub(super) is_answering: bool,
    /// The connection is closed behind the answer under way.
    pub(super) closes: bool,
    /// It has had an answer.
    pub(super) has_asked: bool,
}

/// The head of a request that is not whole, or not answered yet.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) received: Vec<u8>,
    /// So many of these bytes hold no end of a head.
    pub(super) searched_bytes: usize,
    /// Since when its end is waited for.
    since: Option<Instant>,
}

impl Conversation {
    /// Bytes received and not yet answered.
    pub(super) fn received_bytes(&self) -> usize {
        self.head.as_ref().map_or(0, |head| head.received.len())
    }

    /// Adds bytes that cannot be answered yet.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let head = self.head.get_or_insert_default();
            head.received.extend_from_slice(bytes);
        }
    }
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
        let head = conversation.head.get_or_insert_default();
        if head.since.is_none() {
            head.since = Some(now);
            self.waiting.insert((now, client));
        }
    }

    /// The head is there, or the client is gone.
    pub(super) fn forget(&mut self, client: ClientId, conversation: &mut Conversation) {
        if let Some(head) = &mut conversation.head {
            if let Some(since) = head.since.take() {
                self.waiting.remove(&(since, client));
            }
            if head.received.is_empty() {
                conversation.head = None;
            }
        }
    }

    /// A client whose head has been waited for so long, if there is one.
    pub(super) fn first_due(&self, timeout: Duration, now: Instant) -> Option<ClientId> {
        let (since, client) = self.waiting.first()?;
        (now.saturating_duration_since(*since) >= timeout).then_some(*client)
    }
}
