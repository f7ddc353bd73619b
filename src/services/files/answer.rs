//! From a request to its answer: which file, which part of it, which status.
//!
//! Owns the order of these decisions. Refuses to send: an answer is a value.

use std::fs::File;
use std::time::SystemTime;

use super::body::{Body, Source, content_range};
use super::config::FilesConfig;
use super::folder::{Facts, Found, Missing, list};
use super::readers::Readers;
use super::{listing, variant};
use crate::ClientId;
use crate::protocol::http1::target::encode;
use crate::protocol::http1::{
    ByteRange, Method, Precondition, Ranges, Refusal, Request, ResponseHead, Status, Target, TargetRefusal,
    Validators,
};

const ALLOW: &str = "GET, HEAD, OPTIONS";

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// An answer, ready to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) head: Vec<u8>,
    pub(super) body: Body,
    /// The connection is closed behind it.
    pub(super) closes: bool,
}

/// What is said of a file in the head of an answer.
struct Described<'a> {
    validators: &'a Validators,
    coding: Option<&'static str>,
    kind: &'a str,
}

/// What an answer is made with.
pub(super) struct Answering<'a> {
    pub(super) config: &'a FilesConfig,
    pub(super) readers: &'a Readers,
    pub(super) client: ClientId,
    pub(super) now: SystemTime,
}

impl Answering<'_> {
    /// The answer to a head that is not answered as its first line asks.
    pub(super) fn refusal(&self, refusal: Refusal, line: &[u8]) -> Answer {
        let has_body = !line.starts_with(b"HEAD ");
        self.error(refusal.status, refusal.why, true, has_body)
    }

    /// The answer to a request.
    pub(super) fn answer(&self, request: &Request<'_>) -> Answer {
        match request.method {
            Method::Get | Method::Head => {}
            Method::Options => {
                let head = self
                    .head(Status::NoContent, !request.keeps_alive)
                    .field("Allow", ALLOW);
                return self.finish(Status::NoContent, head, Body::NONE, request);
            }
            Method::Other => {
                return self.failure(
                    request,
                    Status::MethodNotAllowed,
                    "this server has GET, HEAD and OPTIONS",
                );
            }
        }
        match Target::parse(request.target) {
            Ok(target) if target.is_hidden && !self.config.shows_hidden => self.not_found(request),
            Ok(target) => self.found(request, &target),
            Err(TargetRefusal::Forbidden) => self.not_found(request),
            Err(TargetRefusal::Malformed) => self.failure(
                request,
                Status::BadRequest,
                "the target is no path, or is encoded wrongly",
            ),
        }
    }

    fn not_found(&self, request: &Request<'_>) -> Answer {
        self.failure(request, Status::NotFound, "there is nothing here")
    }

    fn missing(&self, request: &Request<'_>, missing: Missing) -> Answer {
        match missing {
            Missing::NotFound => self.not_found(request),
            Missing::Forbidden => self.failure(request, Status::Forbidden, "this may not be read"),
            Missing::Exhausted => {
                self.failure(request, Status::Unavailable, "too many files are open; try again")
            }
        }
    }

    fn found(&self, request: &Request<'_>, target: &Target) -> Answer {
        match self.config.folder.find(&target.path) {
            Ok(Found::File(..)) if target.is_folder => self.not_found(request),
            Ok(Found::File(file, facts)) => self.file(request, &target.path, file, facts),
            Ok(Found::Folder(_)) if !target.is_folder => self.moved(request, target),
            Ok(Found::Folder(folder)) => {
                let mut index = target.path.clone();
                if !index.is_empty() {
                    index.push(b'/');
                }
                index.extend_from_slice(b"index.html");
                match self.config.folder.find(&index) {
                    Ok(Found::File(file, facts)) => self.file(request, &index, file, facts),
                    Err(missing) if missing != Missing::NotFound => self.missing(request, missing),
                    _ if self.config.lists => match list(folder, self.config.shows_hidden) {
                        Ok((entries, is_all)) => {
                            self.page(request, listing::page(&target.path, &entries, is_all))
                        }
                        Err(missing) => self.missing(request, missing),
                    },
                    _ => self.not_found(request),
                }
            }
            Err(missing) => self.missing(request, missing),
        }
    }

    /// A folder whose name was written without a slash behind it: relative
    /// links in its page need the slash.
    fn moved(&self, request: &Request<'_>, target: &Target) -> Answer {
        let query = request.target.find('?').map_or("", |at| &request.target[at..]);
        let location = format!("/{}/{query}", encode(&target.path));
        let body = format!("{location}\n").into_bytes();
        let head = self
            .head(Status::MovedPermanently, !request.keeps_alive)
            .field("Location", &location)
            .field("Content-Type", PLAIN_TEXT)
            .field("Content-Length", body.len());
        self.finish(Status::MovedPermanently, head, Body::Memory(body), request)
    }

    fn page(&self, request: &Request<'_>, page: Vec<u8>) -> Answer {
        let head = self
            .head(Status::Ok, !request.keeps_alive)
            .field("Content-Type", "text/html; charset=utf-8")
            .field("Content-Length", page.len());
        let head = if self.config.sets("Cache-Control") {
            head
        } else {
            head.field("Cache-Control", "no-cache")
        };
        self.finish(Status::Ok, head, Body::Memory(page), request)
    }

    fn file(&self, request: &Request<'_>, path: &[u8], file: File, facts: Facts) -> Answer {
        let kind = variant::content_type(path);
        let accepted = request.accept_encoding.as_deref().unwrap_or_default();
        let compressed = if self.config.precompressed {
            variant::compressed(&self.config.folder, path, accepted)
        } else {
            None
        };
        let (file, facts, coding) = match compressed {
            Some((file, facts, coding)) => (file, facts, Some(coding)),
            None => (file, facts, None),
        };
        let validators = Validators {
            etag: facts.etag(),
            modified: facts.modified,
        };
        let outcome = validators.judge(request);
        if outcome == Precondition::Failed {
            let why = "the file is another one by now";
            return self.failure(request, Status::PreconditionFailed, why);
        }
        let described = Described {
            validators: &validators,
            coding,
            kind: &kind,
        };
        if outcome == Precondition::NotModified {
            let head = self.describe(Status::NotModified, &described, request);
            return self.finish(Status::NotModified, head, Body::NONE, request);
        }
        let field = match outcome {
            Precondition::Proceed if request.method == Method::Get => request.range.as_deref(),
            _ => None,
        };
        let ranges = field.map_or(Ranges::Whole, |field| Ranges::parse(field, facts.size_bytes));
        let source = Source {
            readers: self.readers,
            client: self.client,
            file,
            size_bytes: facts.size_bytes,
        };
        self.ranges(request, &described, ranges, source)
    }

    /// The whole of a file, or the ranges of it that were asked for.
    fn ranges(
        &self,
        request: &Request<'_>,
        described: &Described<'_>,
        ranges: Ranges,
        source: Source<'_>,
    ) -> Answer {
        let size = source.size_bytes;
        let head = |status| self.describe(status, described, request);
        match ranges {
            Ranges::Unsatisfiable => {
                let why = format!("the file has {size} bytes\n").into_bytes();
                let head = head(Status::RangeNotSatisfiable)
                    .field("Content-Range", format!("bytes */{size}"))
                    .field("Content-Type", PLAIN_TEXT)
                    .field("Content-Length", why.len());
                self.finish(Status::RangeNotSatisfiable, head, Body::Memory(why), request)
            }
            Ranges::Whole => {
                let head = head(Status::Ok)
                    .field("Content-Type", described.kind)
                    .field("Content-Length", size);
                let body = match request.method {
                    Method::Get => source.range(ByteRange { first: 0, end: size }),
                    _ => Body::NONE,
                };
                self.finish(Status::Ok, head, body, request)
            }
            Ranges::Parts(parts) if parts.len() == 1 => {
                let range = parts[0];
                let head = head(Status::PartialContent)
                    .field("Content-Range", content_range(range, size))
                    .field("Content-Type", described.kind)
                    .field("Content-Length", range.len());
                self.finish(Status::PartialContent, head, source.range(range), request)
            }
            Ranges::Parts(parts) => {
                let (body, kind) = source.multipart(&parts, described.kind);
                let head = head(Status::PartialContent)
                    .field("Content-Type", kind)
                    .field("Content-Length", body.length_bytes());
                self.finish(Status::PartialContent, head, body, request)
            }
        }
    }

    /// The head of an answer about a file.
    fn describe(&self, status: Status, described: &Described<'_>, request: &Request<'_>) -> ResponseHead {
        let modified = described.validators.modified.min(self.now);
        let mut head = self
            .head(status, !request.keeps_alive)
            .field("Last-Modified", httpdate::fmt_http_date(modified))
            .field("ETag", &described.validators.etag)
            .field("Accept-Ranges", "bytes");
        if self.config.precompressed {
            head = head.field("Vary", "Accept-Encoding");
        }
        match described.coding {
            Some(coding) => head.field("Content-Encoding", coding),
            None => head,
        }
    }

    fn failure(&self, request: &Request<'_>, status: Status, why: &str) -> Answer {
        self.error(status, why, !request.keeps_alive, request.method != Method::Head)
    }

    fn error(&self, status: Status, why: &str, closes: bool, has_body: bool) -> Answer {
        let body = format!("{} {}: {why}\n", status.code(), status.phrase()).into_bytes();
        let mut head = self
            .head(status, closes)
            .field("Content-Type", PLAIN_TEXT)
            .field("Content-Length", body.len());
        if status == Status::MethodNotAllowed {
            head = head.field("Allow", ALLOW);
        }
        Answer {
            status,
            head: head.finish(),
            body: if has_body { Body::Memory(body) } else { Body::NONE },
            closes,
        }
    }

    fn head(&self, status: Status, closes: bool) -> ResponseHead {
        let mut head = ResponseHead::new(status).field("Date", httpdate::fmt_http_date(self.now));
        if !self.config.sets("Server") {
            head = head.field("Server", SERVER);
        }
        if closes {
            head = head.field("Connection", "close");
        }
        for (name, value) in &self.config.fields {
            head = head.field(name, value);
        }
        head
    }

    fn finish(&self, status: Status, head: ResponseHead, body: Body, request: &Request<'_>) -> Answer {
        let head = if request.is_http_10 && request.keeps_alive {
            head.field("Connection", "keep-alive")
        } else {
            head
        };
        Answer {
            status,
            head: head.finish(),
            body: if request.method == Method::Head {
                Body::NONE
            } else {
                body
            },
            closes: !request.keeps_alive,
        }
    }
}

const SERVER: &str = concat!("highwater/", env!("CARGO_PKG_VERSION"));
