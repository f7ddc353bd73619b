//! Serving: from bytes received to answers under way, one after the other.
//!
//! Owns when a request is answered, how an answer reaches the socket, and the
//! time-out of a head. Refuses to say what is answered: `answer` does.

use std::time::SystemTime;

use super::Files;
use super::access_log::Record;
use super::answer::{Answer, Answering};
use super::body::Body;
use super::conversation::Conversation;
use crate::protocol::http1::request::{check_unfinished, first_line};
use crate::protocol::http1::{Refusal, Request, Status, head_end};
use crate::{Actions, ClientId, FilePart};

impl Files {
    /// Takes in what a client has sent. Nearly always whole heads come, and
    /// nothing waits in front of them: these need no copy.
    pub(super) fn take_in(&mut self, client: ClientId, bytes: &[u8], actions: &mut Actions<'_>) {
        let mut rest = bytes;
        while let Some(conversation) = self.clients.get_mut(client) {
            if conversation.closes {
                break;
            }
            let end = match conversation.is_answering || conversation.received_bytes() > 0 {
                true => None,
                false => head_end(rest, 0),
            };
            let Some(end) = end else {
                conversation.keep(rest);
                break;
            };
            self.heads.forget(client, conversation);
            let (head, behind) = rest.split_at(end);
            self.answer(client, head, actions);
            rest = behind;
        }
        self.serve(client, actions);
    }

    /// Answers what was kept of a client, one request after the other, and
    /// waits for the head that is not whole.
    fn serve(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        while let Some(conversation) = self.clients.get_mut(client) {
            if conversation.is_answering || conversation.closes {
                break;
            }
            let Some(head) = &mut conversation.head else { break };
            if let Some(end) = head_end(&head.received, head.searched_bytes) {
                let behind = head.received.split_off(end);
                let whole = std::mem::replace(&mut head.received, behind);
                head.searched_bytes = 0;
                self.heads.forget(client, conversation);
                self.answer(client, &whole, actions);
                continue;
            }
            head.searched_bytes = head.received.len();
            if let Err(refusal) = check_unfinished(&head.received) {
                self.refuse(client, refusal, actions);
            } else {
                self.heads.expect(client, conversation, actions.now());
            }
            break;
        }
        let conversation = self.clients.get(client);
        actions.hold(client, conversation.map_or(0, Conversation::received_bytes));
    }

    /// Answers one whole head.
    fn answer(&mut self, client: ClientId, head: &[u8], actions: &mut Actions<'_>) {
        let answering = self.answering(client);
        let parsed = Request::parse(head);
        let answer = match &parsed {
            Ok(request) => answering.answer(request),
            Err(refusal) => answering.refusal(*refusal, first_line(head)),
        };
        let record = self.unlogged.is_on().then(|| {
            let request = parsed.as_ref().ok();
            let field = |field: Option<&[u8]>| field.unwrap_or_default().to_vec();
            Record {
                referer: field(request.and_then(|request| request.referer)),
                user_agent: field(request.and_then(|request| request.user_agent)),
                ..record(client, first_line(head), &answer, answering.now, actions)
            }
        });
        self.send(client, answer, record, actions);
    }

    /// Answers a head that is not whole.
    fn refuse(&mut self, client: ClientId, refusal: Refusal, actions: &mut Actions<'_>) {
        let Some(conversation) = self.clients.get_mut(client) else {
            return;
        };
        let head = conversation.head.as_mut();
        let head = head.map_or_else(Vec::new, |head| std::mem::take(&mut head.received));
        self.heads.forget(client, conversation);
        let answering = self.answering(client);
        let answer = answering.refusal(refusal, first_line(&head));
        let is_logged = self.unlogged.is_on();
        let record = is_logged.then(|| record(client, first_line(&head), &answer, answering.now, actions));
        self.send(client, answer, record, actions);
    }

    fn answering(&self, client: ClientId) -> Answering<'_> {
        Answering {
            config: &self.config,
            readers: &self.readers,
            client,
            now: today(),
        }
    }

    fn send(&mut self, client: ClientId, answer: Answer, record: Option<Record>, actions: &mut Actions<'_>) {
        *self.answers.entry(answer.status.code()).or_default() += 1;
        let Some(conversation) = self.clients.get_mut(client) else {
            return;
        };
        if let Some(record) = record {
            self.unlogged.begin(client, record, actions.acknowledged(client));
        }
        conversation.has_asked = true;
        conversation.closes = answer.closes || self.is_stopping;
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
                } else {
                    self.unlogged.settle(client);
                    if conversation.closes {
                        actions.close(client);
                    }
                }
            }
            body => {
                conversation.is_answering = true;
                actions.pause(client);
                let body = match body {
                    Body::Memory(bytes) => vec![FilePart::memory(bytes)],
                    Body::Parts(parts) => parts,
                };
                // No longer than it has to be: it stays as long as its client.
                let mut parts = Vec::with_capacity(1 + body.len());
                parts.push(FilePart::memory(answer.head));
                parts.extend(body);
                actions.send_file(client, parts);
            }
        }
    }

    /// An answer has gone to the socket: the next request is answered.
    pub(super) fn after_answer(&mut self, client: ClientId, actions: &mut Actions<'_>) {
        let Some(conversation) = self.clients.get_mut(client) else {
            return;
        };
        conversation.is_answering = false;
        self.unlogged.settle(client);
        conversation.closes |= self.is_stopping;
        if conversation.closes {
            actions.close(client);
        } else {
            actions.resume(client);
            self.serve(client, actions);
        }
    }

    /// Ends clients whose head did not come in time: those that began one are
    /// told so.
    pub(super) fn time_out_heads(&mut self, actions: &mut Actions<'_>) {
        let (timeout, now) = (self.config.request_timeout, actions.now());
        while let Some(client) = self.heads.first_due(timeout, now) {
            let Some(conversation) = self.clients.get_mut(client) else {
                return;
            };
            if conversation.received_bytes() > 0 {
                let refusal = Refusal {
                    status: Status::RequestTimeout,
                    why: "the head of the request did not come in time",
                };
                self.refuse(client, refusal, actions);
            } else {
                self.heads.forget(client, conversation);
                conversation.closes = true;
                actions.close(client);
            }
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

/// HTTP has dates, and the loop's clock has none.
#[expect(
    clippy::disallowed_methods,
    reason = "the date of an answer is that of the wall clock"
)]
fn today() -> SystemTime {
    SystemTime::now()
}
