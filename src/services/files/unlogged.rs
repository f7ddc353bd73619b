//! Answers whose line is not in the access log yet: a line says how much the
//! client acknowledged, so it waits for that.
//!
//! Owns the records of each client, the oldest first. Refuses to keep more than
//! a few for one client, and to ask about clients whose answer is under way.

use std::collections::{HashMap, VecDeque};
use std::io;

use super::access_log::{AccessLog, AccessLogWriter, Record};
use crate::{ClientId, CloseReason, Operation};

/// Most answers of one client whose lines wait. A client that pipelines more
/// has its oldest line written with what is acknowledged by then.
const MAX_WAITING: usize = 32;

/// Why an answer ended that the client has.
const DONE: &str = "done";

/// The access log, if there is one, and what it waits for.
#[derive(Debug)]
pub(super) struct Unlogged {
    log: Option<AccessLog>,
    waiting: HashMap<ClientId, Waiting>,
    /// Clients whose answers are all handed to their sockets.
    settling: Vec<ClientId>,
}

/// What one client has not acknowledged.
#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Record>,
    /// It is in the list.
    is_settling: bool,
}

impl Unlogged {
    pub(super) fn new(writer: Option<Box<dyn AccessLogWriter>>) -> io::Result<Self> {
        Ok(Self {
            log: writer.map(AccessLog::start).transpose()?,
            waiting: HashMap::new(),
            settling: Vec::new(),
        })
    }

    /// Whether there is a log.
    pub(super) const fn is_on(&self) -> bool {
        self.log.is_some()
    }

    /// Whether [`look`](Self::look) is worth a call.
    pub(super) fn has_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// An answer begins.
    pub(super) fn begin(&mut self, client: ClientId, record: Record, acknowledged: u64) {
        let Some(log) = &self.log else { return };
        let records = &mut self.waiting.entry(client).or_default().records;
        log_whole(log, records, acknowledged);
        if records.len() >= MAX_WAITING
            && let Some(oldest) = records.pop_front()
        {
            log.add(&oldest, acknowledged, DONE);
        }
        records.push_back(record);
    }

    /// Everything of the client's answers was handed to its socket.
    pub(super) fn settle(&mut self, client: ClientId) {
        if let Some(waiting) = self.waiting.get_mut(&client)
            && !std::mem::replace(&mut waiting.is_settling, true)
        {
            self.settling.push(client);
        }
    }

    /// Writes the lines of answers that are acknowledged by now.
    pub(super) fn look(&mut self, acknowledged: impl Fn(ClientId) -> u64) {
        let Some(log) = &self.log else { return };
        let all = &mut self.waiting;
        self.settling.retain(|client| {
            let Some(waiting) = all.get_mut(client) else {
                return false;
            };
            log_whole(log, &mut waiting.records, acknowledged(*client));
            if waiting.records.is_empty() {
                all.remove(client);
                return false;
            }
            true
        });
    }

    /// Writes all lines of a client that is gone.
    pub(super) fn close(&mut self, client: ClientId, acknowledged: u64, reason: &CloseReason) {
        let (Some(log), Some(mut waiting)) = (&self.log, self.waiting.remove(&client)) else {
            return;
        };
        log_whole(log, &mut waiting.records, acknowledged);
        let end = end_of(reason);
        for record in waiting.records {
            log.add(&record, acknowledged, &end);
        }
    }
}

fn log_whole(log: &AccessLog, records: &mut VecDeque<Record>, acknowledged: u64) {
    while let Some(record) = records.front()
        && record.is_whole(acknowledged)
    {
        log.add(record, acknowledged, DONE);
        records.pop_front();
    }
}

/// Why an answer ended that the client does not have whole.
fn end_of(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Finished => "client closed".into(),
        CloseReason::Failed(Operation::Read | Operation::Write | Operation::ShutDown, error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected
            ) =>
        {
            "client reset".into()
        }
        other => other.to_string(),
    }
}
