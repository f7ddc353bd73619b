//! Files over HTTP/1.1.
//!
//! Owns the conversation with each client: one request is answered at a time,
//! and later ones wait unread. Refuses to leave the folder, to take a body, and
//! to wait for a disk.

mod access_log;
mod answer;
mod folder;
mod listing;
mod readers;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use access_log::{AccessLog, Record};
use answer::{Answer, Answering, Body};
pub use folder::Folder;
use readers::Readers;

use crate::protocol::http1::limits::MAX_HEAD_BYTES;
use crate::protocol::http1::request::{check_unfinished, first_line};
use crate::protocol::http1::{Refusal, Request, Status, head_end};
use crate::{Actions, ClientId, CloseReason, FilePart, Operation, Remote, Service};

/// Time for the head of a request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two requests of one client.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often in its shortest time-out all clients are looked at.
const LOOKS_PER_TIMEOUT: u32 = 40;

/// Longest time between two looks at all clients.
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// What is served, and how.
#[derive(Debug)]
pub struct FilesConfig {
    /// The folder.
    pub folder: Folder,
    /// A folder without `index.html` is listed.
    pub lists: bool,
    /// Names that begin with a dot are served.
    pub shows_hidden: bool,
    /// `.br`, `.zst` and `.gz` beside a file are sent to clients that accept
    /// them.
    pub precompressed: bool,
    /// Fields that each answer gets.
    pub fields: Vec<(String, String)>,
    /// Where a line for each answer goes.
    pub access_log: Option<File>,
    /// Time for the head of a request.
    pub request_timeout: Duration,
    /// Time between two requests of one client.
    pub idle_timeout: Duration,
}

impl FilesConfig {
    /// The files in `folder`, without listings, hidden files and access log.
    #[must_use]
    pub const fn new(folder: Folder) -> Self {
        Self {
            folder,
            lists: false,
            shows_hidden: false,
            precompressed: false,
            fields: Vec::new(),
            access_log: None,
            request_timeout: REQUEST_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
        }
    }
}

/// Sends files to clients that ask for them by HTTP.
#[derive(Debug)]
pub struct Files {
    config: FilesConfig,
    readers: Readers,
    log: Option<AccessLog>,
    clients: HashMap<ClientId, Conversation>,
    /// Lent to each client in turn.
    read_buffer: Vec<u8>,
    is_stopping: bool,
}

#[derive(Debug)]
struct Conversation {
    /// Bytes received and not yet answered.
    received: Vec<u8>,
    /// So many of them hold no end of a head.
    searched_bytes: usize,
    is_answering: bool,
    /// The connection is closed behind the answer under way.
    closes: bool,
    has_asked: bool,
    /// When it connected, began a request, or had its last answer.
    since: Instant,
    /// The last answer, until its line is in the access log.
    record: Option<Box<Record>>,
}

impl Files {
    /// Serves what `config` says.
    ///
    /// # Errors
    ///
    /// A thread could not be started.
    pub fn new(mut config: FilesConfig, remote: Remote) -> io::Result<Self> {
        let log = config.access_log.take().map(AccessLog::start).transpose()?;
        Ok(Self {
            config,
            readers: Readers::start(remote)?,
            log,
            clients: HashMap::new(),
            read_buffer: vec![0; MAX_HEAD_BYTES],
            is_stopping: false,
        })
    }

    /// Answers what a client has asked, one request after the other.
    fn serve(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        loop {
            let Some(conversation) = self.clients.get_mut(&client) else {
                return;
            };
            if conversation.is_answering || conversation.closes {
                return;
            }
            let Some(end) = head_end(&conversation.received, conversation.searched_bytes) else {
                conversation.searched_bytes = conversation.received.len();
                if let Err(refusal) = check_unfinished(&conversation.received) {
                    self.refuse(client, refusal, actions);
                } else if conversation.received.is_empty() {
                    conversation.received = Vec::new();
                }
                return;
            };
            self.answer(client, end, actions);
        }
    }

    /// Answers the head that ends at `end` of what was received.
    fn answer(&mut self, client: ClientId, end: usize, actions: &mut Actions<'_>) {
        let Some(conversation) = self.clients.get_mut(&client) else {
            return;
        };
        let mut head = std::mem::take(&mut conversation.received);
        let rest = head.split_off(end);
        conversation.received = rest;
        conversation.searched_bytes = 0;
        let answering = Answering {
            config: &self.config,
            readers: &self.readers,
            client,
            now: today(),
        };
        let (answer, record) = match Request::parse(&head) {
            Ok(request) => {
                let answer = answering.answer(&request);
                let record = self.log.is_some().then(|| Record {
                    referer: request.referer.unwrap_or_default().to_vec(),
                    user_agent: request.user_agent.unwrap_or_default().to_vec(),
                    ..record(client, request.line, &answer, answering.now, actions)
                });
                (answer, record)
            }
            Err(refusal) => {
                let answer = answering.refusal(refusal);
                let line = first_line(&head);
                let is_logged = self.log.is_some();
                let record = is_logged.then(|| record(client, line, &answer, answering.now, actions));
                (answer, record)
            }
        };
        self.send(client, answer, record, actions);
    }

    /// Answers a head that is not whole.
    fn refuse(&mut self, client: ClientId, refusal: Refusal, actions: &mut Actions<'_>) {
        let answering = Answering {
            config: &self.config,
            readers: &self.readers,
            client,
            now: today(),
        };
        let answer = answering.refusal(refusal);
        let received = self
            .clients
            .get(&client)
            .map(|conversation| &conversation.received[..]);
        let line = first_line(received.unwrap_or_default());
        let is_logged = self.log.is_some();
        let record = is_logged.then(|| record(client, line, &answer, answering.now, actions));
        self.send(client, answer, record, actions);
    }

    fn send(&mut self, client: ClientId, answer: Answer, record: Option<Record>, actions: &mut Actions<'_>) {
        self.log_last(client, None, actions);
        let Some(conversation) = self.clients.get_mut(&client) else {
            return;
        };
        conversation.has_asked = true;
        conversation.closes = answer.closes || self.is_stopping;
        conversation.since = actions.now();
        conversation.record = record.map(Box::new);
        match answer.body {
            Body::Memory(body) if answer.head.len() + body.len() <= actions.room(client) => {
                let mut bytes = answer.head;
                bytes.extend_from_slice(&body);
                actions.send(client, &bytes);
                actions.expect_progress(client);
                if actions.queued(client) > 0 {
                    conversation.is_answering = true;
                    actions.pause(client);
                    actions.send_file(client, Vec::new());
                } else if conversation.closes {
                    actions.close(client);
                }
            }
            body => {
                conversation.is_answering = true;
                actions.pause(client);
                let mut parts = vec![FilePart::memory(answer.head)];
                match body {
                    Body::Memory(bytes) => parts.push(FilePart::memory(bytes)),
                    Body::Parts(more) => parts.extend(more),
                }
                actions.send_file(client, parts);
            }
        }
    }

    /// Writes the line of a client's last answer. Without a reason, the client
    /// has its answer, or has asked for more.
    fn log_last(&mut self, client: ClientId, end: Option<&str>, actions: &Actions<'_>) {
        let conversation = self.clients.get_mut(&client);
        if let Some(record) = conversation.and_then(|conversation| conversation.record.take())
            && let Some(log) = &self.log
        {
            log.add(&record, actions.acknowledged(client), end.unwrap_or("done"));
        }
    }

    /// Looks at one client: is its answer there, and has its time run out?
    fn look_at(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let now = actions.now();
        let Some(conversation) = self.clients.get_mut(&client) else {
            return;
        };
        if conversation.is_answering {
            return;
        }
        let is_acknowledged = || actions.acknowledged(client) == actions.sent(client);
        if conversation.record.is_some() && is_acknowledged() {
            self.log_last(client, None, actions);
            return;
        }
        let waited = now.saturating_duration_since(conversation.since);
        let is_in_head = !conversation.received.is_empty();
        if conversation.closes {
            return;
        }
        if is_in_head && waited >= self.config.request_timeout {
            let refusal = Refusal {
                status: Status::RequestTimeout,
                why: "the head of the request did not come in time",
            };
            self.refuse(client, refusal, actions);
        } else if !is_in_head
            && waited
                >= if conversation.has_asked {
                    self.config.idle_timeout
                } else {
                    self.config.request_timeout
                }
            && is_acknowledged()
        {
            conversation.closes = true;
            actions.close(client);
        }
    }
}

fn record(client: ClientId, line: &[u8], answer: &Answer, now: SystemTime, actions: &Actions<'_>) -> Record {
    Record {
        peer: actions.peer(client).map(|peer| peer.ip()),
        began: now,
        line: line.to_vec(),
        status: answer.status.code(),
        body_bytes: answer.body.length_bytes(),
        referer: Vec::new(),
        user_agent: Vec::new(),
        body_from: actions.sent(client) + answer.head.len() as u64,
    }
}

/// Why an answer ended, for the access log.
fn end_of(reason: &CloseReason, is_whole: bool) -> String {
    match reason {
        CloseReason::Finished if is_whole => "done".into(),
        CloseReason::Finished => "client closed".into(),
        CloseReason::Failed(Operation::Read | Operation::Write, error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
        {
            "client reset".into()
        }
        other => other.to_string(),
    }
}

/// HTTP has dates, and the loop's clock has none.
#[expect(
    clippy::disallowed_methods,
    reason = "the date of an answer is that of the wall clock"
)]
fn today() -> SystemTime {
    SystemTime::now()
}

impl Service for Files {
    fn connected(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let conversation = Conversation {
            received: Vec::new(),
            searched_bytes: 0,
            is_answering: false,
            closes: false,
            has_asked: false,
            since: actions.now(),
            record: None,
        };
        self.clients.insert(client, conversation);
    }

    fn read_buffer(&mut self, client: ClientId) -> Option<&mut [u8]> {
        let received_bytes = self.clients.get(&client)?.received.len();
        let room = MAX_HEAD_BYTES.saturating_sub(received_bytes).max(1);
        Some(&mut self.read_buffer[..room])
    }

    fn filled(&mut self, client: ClientId, count_bytes: usize, actions: &mut Actions<'_>) {
        let Some(conversation) = self.clients.get_mut(&client) else {
            return;
        };
        if conversation.closes {
            return;
        }
        if conversation.received.is_empty() {
            conversation.since = actions.now();
        }
        conversation
            .received
            .extend_from_slice(&self.read_buffer[..count_bytes]);
        self.serve(client, actions);
        let held_bytes = self
            .clients
            .get(&client)
            .map_or(0, |conversation| conversation.received.len());
        actions.hold(client, held_bytes);
    }

    fn file_sent(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let Some(conversation) = self.clients.get_mut(&client) else {
            return;
        };
        conversation.is_answering = false;
        conversation.since = actions.now();
        conversation.closes |= self.is_stopping;
        if conversation.closes {
            actions.close(client);
            return;
        }
        actions.resume(client);
        self.serve(client, actions);
        let held_bytes = self
            .clients
            .get(&client)
            .map_or(0, |conversation| conversation.received.len());
        actions.hold(client, held_bytes);
    }

    fn closed(&mut self, client: ClientId, reason: &CloseReason, actions: &mut Actions<'_>) {
        let is_whole = self
            .clients
            .get(&client)
            .is_some_and(|conversation| !conversation.is_answering);
        let end = end_of(reason, is_whole);
        self.log_last(client, Some(&end), actions);
        self.clients.remove(&client);
    }

    fn tick_interval(&self) -> Option<Duration> {
        let shortest = self.config.request_timeout.min(self.config.idle_timeout);
        (!self.clients.is_empty()).then(|| (shortest / LOOKS_PER_TIMEOUT).min(LONGEST_LOOK))
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for client in clients {
            self.look_at(client, actions);
        }
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        for client in self.readers.take_done() {
            actions.resume_file(client);
        }
    }

    /// Closes those who wait for nothing; the others get their answer first.
    fn stopping(&mut self, actions: &mut Actions<'_>) {
        self.is_stopping = true;
        for (&client, conversation) in &mut self.clients {
            let is_idle = !conversation.is_answering && conversation.received.is_empty();
            if is_idle && conversation.has_asked && !conversation.closes {
                conversation.closes = true;
                actions.close(client);
            }
        }
    }
}
