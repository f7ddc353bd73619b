//! Metrics, clients and a page about a running server, over HTTP.
//!
//! Owns the conversations with operators: one request of each is answered at a
//! time. Refuses to change anything, and to wait for the server: it is asked,
//! and the answer comes as a wake.

mod access;
mod answer;
mod clients;
mod metrics;
mod page;
mod process;

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use access::Access;
use answer::{Answer, Asked, Route};
use clients::Writing;

use crate::protocol::http1::request::{check_unfinished, first_line};
use crate::protocol::http1::{Refusal, Request, Status, head_end};
use crate::{Actions, ClientId, CloseReason, FilePart, Question, Remote, Report, Service};

/// Connections that operators may have at once.
pub const SEATS: usize = 64;

/// Time in which the head of a request must be there.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for an answer of the server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two looks at the visitors that wait.
const LOOK: Duration = Duration::from_millis(100);

/// What an [`Admin`] is made of.
pub struct AdminConfig {
    /// The server that is looked at; it must be
    /// [watched](crate::EventLoop::watch).
    pub server: Remote,
    /// What a request must bring as `Authorization: Bearer TOKEN`, if anything.
    pub token: Option<Vec<u8>>,
    /// How many lines the log has lost so far.
    pub dropped_lines: Box<dyn Fn() -> u64 + Send>,
}

/// Tells operators about another server.
pub struct Admin {
    access: Access,
    config: AdminConfig,
    /// The loop that this service runs on.
    own: Remote,
    reports: (Sender<Told>, Receiver<Told>),
    visitors: BTreeMap<ClientId, Visitor>,
    /// Lists of clients that are being written, a few lines in each turn.
    writing: VecDeque<(ClientId, Asked, Writing)>,
}

/// An answer of the server, and the number of the question.
type Told = (ClientId, u64, Report);

/// One connection.
struct Visitor {
    received: Vec<u8>,
    since: Instant,
    state: State,
    /// Questions so far: a late answer to an older one is dropped.
    questions: u64,
    closes: bool,
}

enum State {
    /// A head is waited for.
    Listening,
    /// The server was asked.
    Waiting(Asked),
    /// The answer is being written, or on its way.
    Answering,
}

impl Admin {
    /// Tells of the server in `config`; `own` is the loop that this runs on.
    #[must_use]
    pub fn new(config: AdminConfig, own: Remote) -> Self {
        Self {
            access: Access::new(config.token.clone()),
            config,
            own,
            reports: channel(),
            visitors: BTreeMap::new(),
            writing: VecDeque::new(),
        }
    }

    /// Answers the next request of a visitor, if its head is whole.
    fn serve(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        let Some(visitor) = self.visitors.get_mut(&id) else {
            return;
        };
        if !matches!(visitor.state, State::Listening) || visitor.closes {
            return;
        }
        let Some(end) = head_end(&visitor.received, 0) else {
            if let Err(refusal) = check_unfinished(&visitor.received) {
                self.send(id, answer::refused(refusal, b""), actions);
            }
            return;
        };
        let rest = visitor.received.split_off(end);
        let head = std::mem::replace(&mut visitor.received, rest);
        let request = match Request::parse(&head) {
            Ok(request) => request,
            Err(refusal) => return self.send(id, answer::refused(refusal, first_line(&head)), actions),
        };
        let route = self.access.check(&request).and_then(|()| Route::of(&request));
        match route {
            Err(refusal) => self.send(id, answer::failed(&request, &refusal), actions),
            Ok(Route::Page(page)) => self.send(id, answer::page(&request, page), actions),
            Ok(Route::Alive) => self.send(id, answer::text(&request, Status::Ok, "alive\n"), actions),
            Ok(Route::Ready) => {
                let (status, word) = match self.config.server.is_stopping() {
                    true => (Status::Unavailable, "stopping\n"),
                    false => (Status::Ok, "ready\n"),
                };
                self.send(id, answer::text(&request, status, word), actions);
            }
            Ok(Route::Metrics(format)) => {
                self.ask(id, Asked::metrics(&request, format), Question::Snapshot, actions);
            }
            Ok(Route::Clients(order)) => {
                let most_gone = order.limit;
                let asked = Asked::clients(&request, order);
                self.ask(id, asked, Question::Clients { most_gone }, actions);
            }
        }
    }

    fn ask(&mut self, id: ClientId, asked: Asked, question: Question, actions: &mut Actions<'_>) {
        let Some(visitor) = self.visitors.get_mut(&id) else {
            return;
        };
        visitor.questions += 1;
        visitor.state = State::Waiting(asked);
        visitor.since = actions.now();
        actions.pause(id);
        let (number, told, own) = (visitor.questions, self.reports.0.clone(), self.own.clone());
        self.config.server.ask(question, move |report| {
            // Nobody receives any more once this service is gone.
            let _ = told.send((id, number, report));
            own.wake();
        });
    }

    /// Takes an answer of the server.
    fn told(&mut self, (id, number, report): Told, actions: &mut Actions<'_>) {
        let Some(visitor) = self.visitors.get_mut(&id) else {
            return;
        };
        if visitor.questions != number {
            return;
        }
        let State::Waiting(asked) = std::mem::replace(&mut visitor.state, State::Answering) else {
            return;
        };
        match report {
            Report::Snapshot(snapshot) => {
                let dropped_lines = (self.config.dropped_lines)();
                let answer = asked.with_metrics(&snapshot, dropped_lines);
                self.send(id, answer, actions);
            }
            Report::Clients(list) => {
                if let Some(order) = asked.order() {
                    self.writing.push_back((id, asked, Writing::new(*list, order)));
                    self.own.wake();
                }
            }
        }
    }

    /// Writes a few more lines of the list that was asked for first.
    fn write_on(&mut self, actions: &mut Actions<'_>) {
        let Some((id, asked, mut writing)) = self.writing.pop_front() else {
            return;
        };
        if !self.visitors.contains_key(&id) {
            // It has left meanwhile.
        } else if writing.write_on() {
            self.send(id, asked.with_json(writing.finish()), actions);
        } else {
            self.writing.push_front((id, asked, writing));
        }
        if !self.writing.is_empty() {
            self.own.wake();
        }
    }

    fn send(&mut self, id: ClientId, answer: Answer, actions: &mut Actions<'_>) {
        let Some(visitor) = self.visitors.get_mut(&id) else {
            return;
        };
        visitor.state = State::Answering;
        visitor.closes |= answer.closes || self.config.server.is_stopping();
        let mut bytes = answer.head;
        bytes.extend_from_slice(&answer.body);
        actions.pause(id);
        actions.hold(id, bytes.len());
        actions.send_file(id, vec![FilePart::memory(bytes)]);
    }

    /// Ends visitors whose head, or whose answer, did not come in time.
    fn look(&mut self, actions: &mut Actions<'_>) {
        let now = actions.now();
        let mut late = Vec::new();
        for (&id, visitor) in &self.visitors {
            let waited = now.saturating_duration_since(visitor.since);
            match &visitor.state {
                State::Waiting(asked) if waited >= ANSWER_TIMEOUT => late.push((id, asked.unanswered())),
                State::Listening if waited >= REQUEST_TIMEOUT && !visitor.received.is_empty() => {
                    let refusal = Refusal {
                        status: Status::RequestTimeout,
                        why: "the head of the request did not come in time",
                    };
                    late.push((id, answer::refused(refusal, b"")));
                }
                _ => {}
            }
        }
        for (id, answer) in late {
            self.send(id, answer, actions);
        }
    }
}

impl Service for Admin {
    fn connected(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        self.visitors.insert(
            id,
            Visitor {
                received: Vec::new(),
                since: actions.now(),
                state: State::Listening,
                questions: 0,
                closes: false,
            },
        );
    }

    fn received(&mut self, id: ClientId, data: &[u8], actions: &mut Actions<'_>) {
        if let Some(visitor) = self.visitors.get_mut(&id) {
            if visitor.received.is_empty() {
                visitor.since = actions.now();
            }
            visitor.received.extend_from_slice(data);
            actions.hold(id, visitor.received.len());
            self.serve(id, actions);
        }
    }

    fn file_sent(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        let Some(visitor) = self.visitors.get_mut(&id) else {
            return;
        };
        visitor.state = State::Listening;
        visitor.since = actions.now();
        actions.hold(id, visitor.received.len());
        if visitor.closes {
            actions.close(id);
        } else {
            actions.resume(id);
            self.serve(id, actions);
        }
    }

    fn ended(&mut self, id: ClientId, actions: &mut Actions<'_>) {
        // A visitor that has sent its FIN may still wait for the answer.
        match self.visitors.get_mut(&id) {
            Some(visitor) if !matches!(visitor.state, State::Listening) => visitor.closes = true,
            _ => actions.end(id),
        }
    }

    fn ends_idle_in_order(&self, _: ClientId) -> bool {
        true
    }

    fn closed(&mut self, id: ClientId, _: &CloseReason, _: &mut Actions<'_>) {
        self.visitors.remove(&id);
    }

    fn woken(&mut self, actions: &mut Actions<'_>) {
        while let Ok(told) = self.reports.1.try_recv() {
            self.told(told, actions);
        }
        self.write_on(actions);
    }

    fn tick_interval(&self) -> Option<Duration> {
        (!self.visitors.is_empty()).then_some(LOOK)
    }

    fn ticked(&mut self, actions: &mut Actions<'_>) {
        self.look(actions);
    }

    fn role(&self) -> &'static str {
        "admin "
    }
}
