//! Files over HTTP/1.1.
//!
//! Owns the conversations: one request of each client is answered at a time,
//! and later ones wait unread. Refuses to leave the folder, to take a body, and
//! to wait for a disk.

mod access_log;
mod answer;
mod body;
mod config;
mod conversation;
mod folder;
mod listing;
mod readers;
mod serving;
mod unlogged;
mod variant;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

pub use access_log::AccessLogWriter;
pub use config::{FilesConfig, IDLE_TIMEOUT, REQUEST_TIMEOUT};
use conversation::{Conversation, Heads};
pub use folder::Folder;
use readers::Readers;
use unlogged::Unlogged;

use crate::protocol::http1::limits::MAX_HEAD_BYTES;
use crate::{Actions, ClientId, ClientMap, CloseReason, Measure, MeasureKind, Remote, Service};

/// How often in the request timeout heads are looked at.
const LOOKS_PER_TIMEOUT: u32 = 40;

/// Longest time between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// What a client hears while there are as many clients as may be.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
Content-Type: text/plain; charset=utf-8\r\nContent-Length: 50\r\n\r\n\
503 Service Unavailable: this server has no place\n";

/// Sends files to clients that ask for them by HTTP.
///
/// Clients that ask for nothing go by
/// [`Limits::idle_timeout`](crate::Limits::idle_timeout), in order.
#[derive(Debug)]
pub struct Files {
    config: FilesConfig,
    readers: Readers,
    unlogged: Unlogged,
    clients: ClientMap<Conversation>,
    heads: Heads,
    /// Lent to each client in turn.
    read_buffer: Vec<u8>,
    is_stopping: bool,
    /// Answers so far, by status.
    answers: BTreeMap<u16, u64>,
}

impl Files {
    /// Serves what `config` says.
    ///
    /// # Errors
    ///
    /// A thread could not be started.
    pub fn new(mut config: FilesConfig, remote: Remote) -> io::Result<Self> {
        Ok(Self {
            readers: Readers::start(remote)?,
            unlogged: Unlogged::new(config.access_log.take())?,
            config,
            clients: ClientMap::default(),
            heads: Heads::default(),
            read_buffer: vec![0; MAX_HEAD_BYTES],
            is_stopping: false,
            answers: BTreeMap::new(),
        })
    }
}

impl Service for Files {
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let mut conversation = Conversation::default();
        self.heads.expect(client, &mut conversation, actions.now());
        self.clients.insert(client, conversation);
    }

    fn read_buffer(&mut self, client: ClientId) -> Option<&mut [u8]> {
        let received_bytes = self.clients.get(client)?.received_bytes();
        let room = MAX_HEAD_BYTES.saturating_sub(received_bytes).max(1);
        Some(&mut self.read_buffer[..room])
    }

    fn filled(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        // Answering reads from it, and fills nothing.
        let buffer = std::mem::take(&mut self.read_buffer);
        self.take_in(client, &buffer[..count_bytes], actions);
        self.read_buffer = buffer;
    }

    fn measures(&self) -> Vec<Measure> {
        let measure = |(status, count): (&u16, &u64)| Measure {
            name: "answers",
            help: "Answers over HTTP, by status",
            kind: MeasureKind::Counter,
            label: Some(("status", status.to_string())),
            value: *count,
        };
        self.answers.iter().map(measure).collect()
    }

    fn file_sent(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        self.after_answer(client, actions);
    }

    fn refusal(&self) -> &[u8] {
        FULL
    }

    /// A file is open beside the socket while it is sent.
    fn sockets_per_client(&self) -> usize {
        2
    }

    fn ends_idle_in_order(&self, client: ClientId) -> bool {
        let conversation = self.clients.get(client);
        conversation.is_some_and(|conversation| conversation.received_bytes() == 0)
    }

    fn closed(&mut self, client: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        let acknowledged = actions.acknowledged(client);
        self.unlogged.close(client, acknowledged, reason);
        if let Some(mut conversation) = self.clients.remove(client) {
            self.heads.forget(client, &mut conversation);
        }
    }

    fn tick_interval(&self) -> Option<Duration> {
        let is_due = !self.heads.is_empty() || self.unlogged.has_settling();
        is_due.then(|| (self.config.request_timeout / LOOKS_PER_TIMEOUT).min(LONGEST_LOOK))
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        self.time_out_heads(actions);
        self.unlogged.look(|client| actions.acknowledged(client));
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        for client in self.readers.take_done() {
            actions.resume_file(client);
        }
    }

    /// Closes the clients that wait for nothing; the others get their answer first.
    fn stopping(&mut self, actions: &mut Actions<'_>) {
        self.is_stopping = true;
        for (client, conversation) in self.clients.iter_mut() {
            let is_idle = !conversation.is_answering && conversation.received_bytes() == 0;
            if is_idle && conversation.has_asked && !conversation.closes {
                conversation.closes = true;
                actions.close(client);
            }
        }
    }
}
