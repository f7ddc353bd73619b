//! Answers under way: what is left of each, and when its client last took some.
//!
//! Owns the parts that are not sent yet. Refuses to send them: that is
//! `sending_files.rs`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client_map::ClientMap;
use super::client_table::ClientId;
use super::file::FilePart;

/// What is left of the answers under way.
#[derive(Debug, Default)]
pub(super) struct FileSends {
    sends: ClientMap<FileSend>,
}

/// The answer under way of one client that is watched. There may be thousands,
/// each stalled for a minute.
#[derive(Debug)]
pub(super) struct FileSend {
    /// What is sent now. Nearly always it is the last part.
    pub(super) part: Option<FilePart>,
    #[expect(
        clippy::box_collection,
        reason = "it is rare, and eight bytes are less than 32"
    )]
    later: Option<Box<VecDeque<FilePart>>>,
    /// When the client last acknowledged something; nothing if it owed nothing
    /// at the last look.
    pub(super) owed_since: Option<Instant>,
    pub(super) acknowledged_bytes: u64,
}

impl FileSends {
    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut FileSend> {
        self.sends.get_mut(id)
    }

    /// Begins to watch a client that has acknowledged so many bytes.
    pub(super) fn watch(&mut self, id: ClientId, acknowledged_bytes: u64, now: Instant) {
        let send = FileSend {
            part: None,
            later: None,
            owed_since: Some(now),
            acknowledged_bytes,
        };
        self.sends.insert(id, send);
    }

    /// The client is closed, or owes nothing.
    pub(super) fn forget(&mut self, id: ClientId) {
        self.sends.remove(id);
    }
}

impl FileSend {
    /// How long the client has acknowledged nothing of what it owes.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let since = self.owed_since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Adds parts behind those that are left.
    pub(super) fn extend(&mut self, parts: Vec<FilePart>) {
        for part in parts {
            if self.part.is_none() {
                self.part = Some(part);
            } else {
                self.later.get_or_insert_default().push_back(part);
            }
        }
    }

    /// The part that is sent now is sent: what comes next?
    pub(super) fn next(&mut self) {
        self.part = self.later.as_mut().and_then(|later| later.pop_front());
        if self.later.as_ref().is_some_and(|later| later.is_empty()) {
            self.later = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_out_in_order_and_a_stalled_answer_takes_little_memory() {
        let mut sends = FileSends::default();
        let client = ClientId::from_token(3);
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        sends.watch(client, 0, Instant::now());
        let send = sends.get_mut(client).unwrap();
        send.extend(vec![FilePart::memory(*b"a"), FilePart::memory(*b"bb")]);
        send.extend(vec![FilePart::memory(*b"ccc")]);
        for length in 1..=3 {
            assert_eq!(send.part.as_ref().unwrap().length_bytes, length);
            send.next();
        }
        assert!(send.part.is_none() && send.later.is_none());
        assert!(size_of::<FileSend>() <= 64, "{}", size_of::<FileSend>());
        sends.forget(client);
        assert!(sends.get_mut(client).is_none());
    }
}
