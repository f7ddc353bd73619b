//! HTTP/1: one request again and again on a kept connection, every answer checked.
//!
//! Pure. Owns the request and what the first answer teaches; `answers` takes the
//! answers apart.

mod answers;
mod meaning;

use std::sync::Arc;

use crate::probe::error::ProbeError;
use crate::probe::protocol::http::answers::{Answers, Asked, Reference};
use crate::probe::protocol::{
    Conversation, Conversations, Corruption, FirstExchange, Protocol, Traits, Wire,
};

/// Requests that a slow client has on the way at once, whatever the length of
/// an answer: nginx closes a kept connection after 1,000.
const MOST_SLOW_REQUESTS: u64 = 900;

const TRAITS: Traits = Traits {
    name: "http",
    echoes: false,
    verifies: true,
    talks: true,
    fills: true,
    head_bytes: 0,
};

/// The same for requests whose answers have no body, which fill nobody up.
const HEAD_TRAITS: Traits = Traits {
    fills: false,
    ..TRAITS
};

/// Redirects that are followed before the probe begins.
const MOST_REDIRECTS: usize = 5;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// Head and body.
    #[default]
    Get,
    /// The head alone: too little to fill a slow client.
    Head,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// A request is sent again and again on a kept connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http {
    /// The target of the request, such as `/large.bin`.
    pub path: String,
    /// The value of the `Host` field, unless `fields` has one.
    pub host: String,
    /// GET or HEAD.
    pub method: Method,
    /// More fields, as name and value; those named `Host`, `User-Agent` or `Accept` replace ours.
    pub fields: Vec<(String, String)>,
    /// The statuses that are right; none: 2xx, 3xx and 401, all answers like the first.
    pub statuses: Vec<u16>,
    /// Follow redirects to the same server, five at most, before the probe begins.
    pub follow: bool,
}

impl Http {
    /// GET of `path`.
    #[must_use]
    pub fn get(path: impl Into<String>, host: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            host: host.into(),
            ..Self::default()
        }
    }

    fn line(&self, path: &str) -> String {
        format!("{} {path}", self.method.name())
    }

    fn request(&self, path: &str) -> Vec<u8> {
        let agent = concat!("highwater-probe/", env!("CARGO_PKG_VERSION"));
        let ours = [
            ("Host", self.host.as_str()),
            ("User-Agent", agent),
            ("Accept", "*/*"),
        ];
        let is_theirs = |name: &str| {
            self.fields
                .iter()
                .any(|(theirs, _)| theirs.eq_ignore_ascii_case(name))
        };
        let mut request = format!("{} HTTP/1.1\r\n", self.line(path));
        let theirs = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in ours
            .into_iter()
            .filter(|(name, _)| !is_theirs(name))
            .chain(theirs)
        {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// Asks once for `path`; what came, and how many bytes that were.
    fn ask(&self, path: &str, server: &mut dyn FirstExchange) -> Result<Requests, ProbeError> {
        let asked = Asked {
            is_head: self.method == Method::Head,
            statuses: self.statuses.clone(),
        };
        let mut first = HttpConversation {
            request: self.request(path).into(),
            answer_bytes: 0,
            asks_once: false,
            answers: Answers::learning(asked),
        };
        let line = self.line(path);
        server
            .exchange(&mut first, &line)
            .map_err(|error| error.about(&line))?;
        let answer_bytes = first.answers.received();
        let reference = first.answers.learned();
        Ok(Requests {
            request: first.request,
            answer_bytes,
            asks_once: reference.closes,
            reference: Arc::new(reference),
        })
    }

    /// The path on this server to which `location` leads.
    fn same_server(&self, location: &str) -> Option<String> {
        let path = match location
            .strip_prefix("http://")
            .or_else(|| location.strip_prefix("https://"))
        {
            None if location.starts_with("//") => return None,
            None => location,
            Some(rest) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (host, path) = rest.split_at(end);
                if !self.is_host(host) {
                    return None;
                }
                path
            }
        };
        let path = path.split('#').next().unwrap_or_default();
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
        match path.chars().next() {
            Some('/') if printable => Some(path.to_owned()),
            None => Some("/".to_owned()),
            _ => None,
        }
    }

    /// Whether this is the host asked, with or without its port.
    fn is_host(&self, host: &str) -> bool {
        let without_port = self
            .host
            .rsplit_once(':')
            .map_or(self.host.as_str(), |(host, _)| host);
        host.eq_ignore_ascii_case(&self.host) || host.eq_ignore_ascii_case(without_port)
    }
}

impl Protocol for Http {
    fn traits(&self) -> &Traits {
        match self.method {
            Method::Get => &TRAITS,
            Method::Head => &HEAD_TRAITS,
        }
    }

    fn first_exchange(&self, server: &mut dyn FirstExchange) -> Result<Box<dyn Conversations>, ProbeError> {
        let mut path = self.path.clone();
        for _ in 0..=MOST_REDIRECTS {
            let first = self.ask(&path, server)?;
            let redirects = (300..400).contains(&first.reference.status);
            let Some(location) = first
                .reference
                .location
                .as_ref()
                .filter(|_| self.follow && redirects)
            else {
                return Ok(Box::new(first));
            };
            let elsewhere = || {
                let why = format!("a redirect to {location}, which is another server or no path");
                server.wrong_answer(why).about(&self.line(&path))
            };
            path = self.same_server(location).ok_or_else(elsewhere)?;
        }
        let why = format!("more than {MOST_REDIRECTS} redirects, the last to {path}");
        Err(server.wrong_answer(why).about(&self.line(&self.path)))
    }
}

/// What the clients of one probe share.
#[derive(Debug)]
struct Requests {
    request: Arc<[u8]>,
    /// Length of the first answer, head included.
    answer_bytes: u64,
    /// The server closes after each answer.
    asks_once: bool,
    reference: Arc<Reference>,
}

impl Conversations for Requests {
    fn healthy(&self, _: u64, _: usize) -> Wire {
        Wire::other(HttpConversation {
            request: Arc::clone(&self.request),
            answer_bytes: self.answer_bytes,
            asks_once: self.asks_once,
            answers: Answers::like(Arc::clone(&self.reference)),
        })
    }
}

/// One client's requests and how far their answers are.
#[derive(Debug)]
struct HttpConversation {
    request: Arc<[u8]>,
    answer_bytes: u64,
    asks_once: bool,
    answers: Answers,
}

impl HttpConversation {
    fn request_bytes(&self) -> u64 {
        self.request.len() as u64
    }
}

impl Conversation for HttpConversation {
    fn due_after(&self, position: u64) -> u64 {
        position + self.request_bytes()
    }

    fn fill(&self, position: u64, buffer: &mut [u8]) {
        repeat(&self.request, position, buffer);
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<u64, Corruption> {
        self.answers.receive(bytes)
    }

    fn received(&self) -> u64 {
        self.answers.received()
    }

    /// Requests enough for `offer` bytes of answers.
    fn send_limit(&self, offer: u64) -> u64 {
        let most = if self.asks_once { 1 } else { MOST_SLOW_REQUESTS };
        let requests = offer.div_ceil(self.answer_bytes.max(1)).clamp(1, most);
        (self.answers.whole() + requests) * self.request_bytes()
    }

    fn answer_bytes(&self, sent: u64) -> Option<u64> {
        let requests = sent / self.request_bytes();
        let missing = requests.saturating_sub(self.answers.whole());
        Some(self.answers.whole_bytes() + missing * self.answer_bytes)
    }

    fn all_answered(&self, sent: u64) -> Option<bool> {
        Some(self.answers.whole() == sent / self.request_bytes() && self.answers.is_between())
    }

    fn end_of_stream(&mut self) -> u64 {
        self.answers.end_of_stream()
    }

    fn reset(&mut self) {
        self.answers.reset();
    }

    fn is_closed_in_order(&self) -> bool {
        self.answers.is_closed_in_order()
    }
}

/// Fills `buffer` with an endless repetition of `message`, which is not empty, from `position` on.
pub(crate) fn repeat(message: &[u8], position: u64, buffer: &mut [u8]) {
    let mut offset = (position % message.len() as u64) as usize;
    let mut rest = buffer;
    while !rest.is_empty() {
        let len = rest.len().min(message.len() - offset);
        let (part, later) = rest.split_at_mut(len);
        part.copy_from_slice(&message[offset..offset + len]);
        rest = later;
        offset = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(answer_bytes: u64) -> HttpConversation {
        HttpConversation {
            request: Http::get("/", "example.org").request("/").into(),
            answer_bytes,
            asks_once: false,
            answers: Answers::learning(Asked::default()),
        }
    }

    #[test]
    fn the_request_repeats_without_a_seam() {
        let http = conversation(1);
        let len = http.request_bytes() as usize;
        let mut two = vec![0; 2 * len];
        http.fill(0, &mut two);
        assert_eq!(two[..len], two[len..]);
        let mut part = vec![0; len];
        http.fill(7, &mut part);
        assert_eq!(part, two[7..len + 7]);
    }

    #[test]
    fn fields_of_the_user_replace_ours() {
        let http = Http {
            fields: vec![("host".into(), "a.example".into()), ("X-Key".into(), "1".into())],
            method: Method::Head,
            ..Http::get("/x", "example.org")
        };
        let request = String::from_utf8(http.request("/x")).unwrap();
        assert!(
            request.starts_with("HEAD /x HTTP/1.1\r\nUser-Agent: highwater-probe/"),
            "{request}"
        );
        assert!(
            request.ends_with("host: a.example\r\nX-Key: 1\r\n\r\n"),
            "{request}"
        );
        assert!(!request.contains("example.org"));
    }

    #[test]
    fn a_redirect_is_followed_on_the_same_server_only() {
        let http = Http::get("/", "example.org:8080");
        let leads = |location: &str| http.same_server(location);
        assert_eq!(leads("/en/?a=b#top").as_deref(), Some("/en/?a=b"));
        assert_eq!(leads("http://example.org:8080/x").as_deref(), Some("/x"));
        assert_eq!(leads("http://Example.org").as_deref(), Some("/"));
        for elsewhere in [
            "http://other.org/",
            "//other.org/x",
            "/a b",
            "x",
            "http://example.org:8080.evil/",
        ] {
            assert_eq!(leads(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn slow_clients_ask_for_what_fills_the_kernel() {
        let http = conversation(1 << 20);
        assert_eq!(http.send_limit(16 << 20), 16 * http.request_bytes());
        let http = conversation(1 << 30);
        assert_eq!(http.send_limit(16 << 20), http.request_bytes());
        let once = HttpConversation {
            asks_once: true,
            ..conversation(1 << 10)
        };
        assert_eq!(once.send_limit(16 << 20), once.request_bytes());
    }
}
