//! From a request to its answer: which file, which part of it, which status.
//!
//! Owns the order of these decisions. Refuses to send: an answer is a value.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use mime_guess::MimeGuess;

use super::folder::{Facts, Found, Missing, list};
use super::readers::{ColdFile, Readers};
use super::{FilesConfig, listing};
use crate::protocol::http1::target::encode;
use crate::protocol::http1::{
    ByteRange, Method, Precondition, Ranges, Refusal, Request, ResponseHead, Status, Target, TargetRefusal,
    Validators,
};
use crate::{ClientId, FilePart};

/// Files up to this size go out in one write together with the head.
const SMALL_FILE_BYTES: u64 = 32 * 1024;

const ALLOW: &str = "GET, HEAD, OPTIONS";

/// An answer, ready to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) head: Vec<u8>,
    pub(super) body: Body,
    /// The connection is closed behind it.
    pub(super) closes: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Memory(Vec<u8>),
    Parts(Vec<FilePart>),
}

impl Body {
    const NONE: Self = Self::Memory(Vec::new());

    pub(super) fn length_bytes(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.iter().map(|part| part.length_bytes).sum(),
        }
    }
}

/// What an answer is made with.
pub(super) struct Answering<'a> {
    pub(super) config: &'a FilesConfig,
    pub(super) readers: &'a Readers,
    pub(super) client: ClientId,
    pub(super) now: SystemTime,
}

impl Answering<'_> {
    /// The answer to a head that is not answered as it asks.
    pub(super) fn refusal(&self, refusal: Refusal) -> Answer {
        self.error(refusal.status, refusal.why, true, true)
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
            .field("Content-Type", "text/plain; charset=utf-8")
            .field("Content-Length", body.len());
        self.finish(Status::MovedPermanently, head, Body::Memory(body), request)
    }

    fn page(&self, request: &Request<'_>, page: Vec<u8>) -> Answer {
        let head = self
            .head(Status::Ok, !request.keeps_alive)
            .field("Content-Type", "text/html; charset=utf-8")
            .field("Cache-Control", "no-cache")
            .field("Content-Length", page.len());
        self.finish(Status::Ok, head, Body::Memory(page), request)
    }

    fn file(&self, request: &Request<'_>, path: &[u8], file: File, facts: Facts) -> Answer {
        let (file, facts, coding) = self.smallest(request, path, file, facts);
        let kind = content_type(path);
        let validators = Validators {
            etag: facts.etag(),
            modified: facts.modified,
        };
        let describe = |head: ResponseHead| {
            let mut head = head
                .field(
                    "Last-Modified",
                    httpdate::fmt_http_date(facts.modified.min(self.now)),
                )
                .field("ETag", &validators.etag)
                .field("Accept-Ranges", "bytes");
            if self.config.precompressed {
                head = head.field("Vary", "Accept-Encoding");
            }
            match coding {
                Some(coding) => head.field("Content-Encoding", coding),
                None => head,
            }
        };
        let close = !request.keeps_alive;
        let ranges = match validators.judge(request) {
            Precondition::Failed => {
                return self.failure(
                    request,
                    Status::PreconditionFailed,
                    "the file is another one by now",
                );
            }
            Precondition::NotModified => {
                let head = describe(self.head(Status::NotModified, close));
                return self.finish(Status::NotModified, head, Body::NONE, request);
            }
            Precondition::Proceed if request.method == Method::Get => request.range.as_deref(),
            Precondition::Proceed | Precondition::ProceedWhole => None,
        };
        let size = facts.size_bytes;
        match ranges.map_or(Ranges::Whole, |field| Ranges::parse(field, size)) {
            Ranges::Unsatisfiable => {
                let why = format!("the file has {size} bytes\n").into_bytes();
                let head = describe(self.head(Status::RangeNotSatisfiable, close))
                    .field("Content-Range", format!("bytes */{size}"))
                    .field("Content-Type", "text/plain; charset=utf-8")
                    .field("Content-Length", why.len());
                self.finish(Status::RangeNotSatisfiable, head, Body::Memory(why), request)
            }
            Ranges::Whole => {
                let head = describe(self.head(Status::Ok, close))
                    .field("Content-Type", &kind)
                    .field("Content-Length", size);
                let range = ByteRange { first: 0, end: size };
                self.finish(Status::Ok, head, self.range(request, file, range), request)
            }
            Ranges::Parts(parts) if parts.len() == 1 => {
                let range = parts[0];
                let head = describe(self.head(Status::PartialContent, close))
                    .field("Content-Range", content_range(range, size))
                    .field("Content-Type", &kind)
                    .field("Content-Length", range.len());
                self.finish(
                    Status::PartialContent,
                    head,
                    self.range(request, file, range),
                    request,
                )
            }
            Ranges::Parts(parts) => {
                let boundary = boundary();
                let body = self.multipart(file, &parts, size, &kind, &boundary);
                let head = describe(self.head(Status::PartialContent, close))
                    .field(
                        "Content-Type",
                        format!("multipart/byteranges; boundary={boundary}"),
                    )
                    .field("Content-Length", body.length_bytes());
                self.finish(Status::PartialContent, head, body, request)
            }
        }
    }

    /// The file itself, or one beside it that is compressed in a way that the
    /// client accepts.
    fn smallest(
        &self,
        request: &Request<'_>,
        path: &[u8],
        file: File,
        facts: Facts,
    ) -> (File, Facts, Option<&'static str>) {
        let accepted = request.accept_encoding.as_deref().unwrap_or_default();
        if self.config.precompressed {
            for (coding, ending) in [("br", ".br"), ("zstd", ".zst"), ("gzip", ".gz")] {
                if accepts(accepted, coding)
                    && let Ok(Found::File(file, facts)) =
                        self.config.folder.find(&[path, ending.as_bytes()].concat())
                {
                    return (file, facts, Some(coding));
                }
            }
        }
        (file, facts, None)
    }

    fn range(&self, request: &Request<'_>, file: File, range: ByteRange) -> Body {
        let source = self.readers.source(file, range.end, self.client);
        if request.method == Method::Get && range.len() <= SMALL_FILE_BYTES {
            let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or(0)];
            if range.is_empty() || source.read_now(&mut bytes, range.first) {
                return Body::Memory(bytes);
            }
        }
        Body::Parts(vec![part(&Arc::new(source), range)])
    }

    fn multipart(&self, file: File, ranges: &[ByteRange], size: u64, kind: &str, boundary: &str) -> Body {
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let source = Arc::new(self.readers.source(file, end, self.client));
        let mut parts = Vec::with_capacity(2 * ranges.len() + 1);
        for (index, &range) in ranges.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\r\n" };
            let head = format!(
                "{line_end}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {}\r\n\r\n",
                content_range(range, size)
            );
            parts.push(FilePart::memory(head.into_bytes()));
            parts.push(part(&source, range));
        }
        parts.push(FilePart::memory(format!("\r\n--{boundary}--\r\n").into_bytes()));
        Body::Parts(parts)
    }

    fn failure(&self, request: &Request<'_>, status: Status, why: &str) -> Answer {
        self.error(status, why, !request.keeps_alive, request.method != Method::Head)
    }

    fn error(&self, status: Status, why: &str, closes: bool, has_body: bool) -> Answer {
        let body = format!("{} {}: {why}\n", status.code(), status.phrase()).into_bytes();
        let mut head = self
            .head(status, closes)
            .field("Content-Type", "text/plain; charset=utf-8")
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
        let mut head = ResponseHead::new(status)
            .field("Date", httpdate::fmt_http_date(self.now))
            .field("Server", SERVER);
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

fn part(source: &Arc<ColdFile>, range: ByteRange) -> FilePart {
    FilePart {
        source: source.clone(),
        offset: range.first,
        length_bytes: range.len(),
    }
}

fn content_range(range: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.first, range.end - 1)
}

/// A boundary that no file can hold by more than chance.
fn boundary() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("highwater-{:016x}{:016x}", random(), random())
}

/// The content type by the end of a name; text is taken to be UTF-8.
fn content_type(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let kind = MimeGuess::from_path(path.as_ref())
        .first_raw()
        .unwrap_or("application/octet-stream");
    let is_text = kind.starts_with("text/") || kind == "application/javascript";
    if is_text {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_owned()
    }
}

/// Whether an `Accept-Encoding` field takes this coding (RFC 9110, 12.5.3).
fn accepts(field: &str, coding: &str) -> bool {
    let quality = |name: &str| {
        field.split(',').find_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            if !parts.next()?.eq_ignore_ascii_case(name) {
                return None;
            }
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some(quality.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0)))
        })
    };
    quality(coding).or_else(|| quality("*")).unwrap_or(0.0) > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_sent_only_to_a_client_that_takes_it() {
        assert!(accepts("gzip, deflate, br", "br"));
        assert!(accepts("GZIP;q=0.5", "gzip"));
        assert!(accepts("*", "zstd"));
        assert!(!accepts("gzip;q=0, *", "gzip"));
        assert!(!accepts("*;q=0", "br"));
        assert!(!accepts("", "gzip"));
        assert!(!accepts("gzipped", "gzip"));
    }

    #[test]
    fn a_type_is_told_by_the_end_of_a_name() {
        assert_eq!(content_type(b"a/b.html"), "text/html; charset=utf-8");
        assert_eq!(content_type(b"a.PNG"), "image/png");
        assert_eq!(content_type(b"a.tar.unknown"), "application/octet-stream");
        assert_eq!(content_type(b"Makefile"), "application/octet-stream");
    }
}
