//! From a request to its answer: which path, which format, which status.
//!
//! Owns the routes and the heads of answers. Refuses to send.

use std::time::SystemTime;

use super::clients::Order;
use super::metrics::Format;
use super::page::{self, Page};
use super::{metrics, process};
use crate::Snapshot;
use crate::protocol::http1::{Method, Refusal, Request, ResponseHead, Status};

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Nothing from elsewhere is loaded, framed or sent to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// An answer, ready to be sent.
pub(super) struct Answer {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// The connection is closed behind it.
    pub(super) closes: bool,
}

/// Why a request is not answered as it asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    status: Status,
    why: String,
}

impl Failure {
    pub(super) fn new(status: Status, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { status, why }
    }
}

/// What a request asks for.
pub(super) enum Route {
    Page(&'static Page),
    Alive,
    Ready,
    Metrics(Format),
    Clients(Order),
}

impl Route {
    /// # Errors
    ///
    /// There is no such path, or it cannot be asked for in this way.
    pub(super) fn of(request: &Request<'_>) -> Result<Self, Failure> {
        if !matches!(request.method, Method::Get | Method::Head) {
            return Err(Failure::new(
                Status::MethodNotAllowed,
                "here one can look with GET and HEAD, and change nothing",
            ));
        }
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        match path {
            "/healthz" => Ok(Self::Alive),
            "/readyz" => Ok(Self::Ready),
            "/metrics" => Ok(Self::Metrics(Format::accepted(request.accept.as_deref()))),
            "/clients" => Order::parse(query)
                .map(Self::Clients)
                .map_err(|why| Failure::new(Status::BadRequest, why)),
            path => page::find(path).map(Self::Page).ok_or_else(|| {
                Failure::new(
                    Status::NotFound,
                    "there are /, /metrics, /clients, /healthz and /readyz",
                )
            }),
        }
    }
}

/// How a request wants its answer, kept while the server is asked.
#[derive(Clone, Copy)]
struct Manner {
    is_head: bool,
    closes: bool,
    says_keep_alive: bool,
}

impl Manner {
    fn of(request: &Request<'_>) -> Self {
        Self {
            is_head: request.method == Method::Head,
            closes: !request.keeps_alive,
            says_keep_alive: request.is_http_10 && request.keeps_alive,
        }
    }

    fn answer(self, status: Status, kind: &str, body: Vec<u8>) -> Answer {
        let mut head = ResponseHead::new(status)
            .field("Date", httpdate::fmt_http_date(today()))
            .field("Content-Type", kind)
            .field("Content-Length", body.len())
            .field("Cache-Control", "no-store")
            .field("X-Content-Type-Options", "nosniff")
            .field("Content-Security-Policy", POLICY)
            .field("Referrer-Policy", "no-referrer");
        match status {
            Status::MethodNotAllowed => head = head.field("Allow", "GET, HEAD"),
            Status::Unauthorized => head = head.field("WWW-Authenticate", "Bearer"),
            _ => {}
        }
        if self.closes {
            head = head.field("Connection", "close");
        } else if self.says_keep_alive {
            head = head.field("Connection", "keep-alive");
        }
        Answer {
            head: head.finish(),
            body: if self.is_head { Vec::new() } else { body },
            closes: self.closes,
        }
    }
}

/// A question to the server under way, and how its answer is wanted.
pub(super) struct Asked {
    manner: Manner,
    what: What,
}

enum What {
    Metrics(Format),
    Clients(Order),
}

impl Asked {
    pub(super) fn metrics(request: &Request<'_>, format: Format) -> Self {
        Self {
            manner: Manner::of(request),
            what: What::Metrics(format),
        }
    }

    pub(super) fn clients(request: &Request<'_>, order: Order) -> Self {
        Self {
            manner: Manner::of(request),
            what: What::Clients(order),
        }
    }

    pub(super) fn with_metrics(&self, snapshot: &Snapshot, dropped_lines: u64) -> Answer {
        let format = match self.what {
            What::Metrics(format) => format,
            What::Clients(_) => Format::Text,
        };
        let text = metrics::write(snapshot, &process::Process::now(), dropped_lines, format);
        self.manner
            .answer(Status::Ok, format.content_type(), text.into_bytes())
    }

    /// The order of the clients that were asked for.
    pub(super) fn order(&self) -> Option<Order> {
        match self.what {
            What::Clients(order) => Some(order),
            What::Metrics(_) => None,
        }
    }

    pub(super) fn with_json(&self, json: String) -> Answer {
        self.manner
            .answer(Status::Ok, "application/json", json.into_bytes())
    }

    /// The server has not answered in time.
    pub(super) fn unanswered(&self) -> Answer {
        let body = "503 Service Unavailable: the server has not answered for 2 s\n";
        self.manner
            .answer(Status::Unavailable, PLAIN_TEXT, body.as_bytes().to_vec())
    }
}

pub(super) fn page(request: &Request<'_>, page: &Page) -> Answer {
    Manner::of(request).answer(Status::Ok, page.kind, page.content.as_bytes().to_vec())
}

pub(super) fn text(request: &Request<'_>, status: Status, body: &str) -> Answer {
    Manner::of(request).answer(status, PLAIN_TEXT, body.as_bytes().to_vec())
}

/// The answer to a request that cannot be fulfilled. A browser that opens the
/// page without a token gets the page that asks for it.
pub(super) fn failed(request: &Request<'_>, failure: &Failure) -> Answer {
    let manner = Manner::of(request);
    if failure.status == Status::Unauthorized
        && let Some(page) = page::find(request.target)
    {
        return manner.answer(failure.status, page.kind, page.content.as_bytes().to_vec());
    }
    manner.answer(failure.status, PLAIN_TEXT, sentence(failure.status, &failure.why))
}

/// The answer to what is no request. The connection is closed behind it.
pub(super) fn refused(refusal: Refusal, line: &[u8]) -> Answer {
    let manner = Manner {
        is_head: line.starts_with(b"HEAD "),
        closes: true,
        says_keep_alive: false,
    };
    manner.answer(refusal.status, PLAIN_TEXT, sentence(refusal.status, refusal.why))
}

fn sentence(status: Status, why: &str) -> Vec<u8> {
    format!("{} {}: {why}\n", status.code(), status.phrase()).into_bytes()
}

/// HTTP has dates, and the loop's clock has none.
#[expect(
    clippy::disallowed_methods,
    reason = "the date of an answer is that of the wall clock"
)]
fn today() -> SystemTime {
    SystemTime::now()
}
