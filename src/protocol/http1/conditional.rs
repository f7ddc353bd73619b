//! Conditional requests (RFC 9110, section 13).
//!
//! Owns the order in which conditions are judged. Refuses weak comparison
//! where a strong one is asked for; our own tags are always strong.

use std::time::{Duration, SystemTime};

use super::request::{Method, Request};

/// What a file is compared by.
#[derive(Clone, Debug)]
pub struct Validators {
    /// The entity tag, in its quotes.
    pub etag: String,
    /// When the file was last changed.
    pub modified: SystemTime,
}

/// What the conditions of a request lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Send the file, and only parts of it if a range asks for parts.
    Proceed,
    /// Send the whole file, whatever the range asks for.
    ProceedWhole,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client thinks it is.
    Failed,
}

impl Validators {
    /// Judges a request, in the order of RFC 9110, section 13.2.2.
    #[must_use]
    pub fn judge(&self, request: &Request<'_>) -> Precondition {
        if let Some(tags) = &request.if_match {
            if !self.matches(tags, false) {
                return Precondition::Failed;
            }
        } else if let Some(date) = request.if_unmodified_since.as_deref().and_then(date)
            && self.modified_second() > date
        {
            return Precondition::Failed;
        }
        if let Some(tags) = &request.if_none_match {
            if self.matches(tags, true) {
                return match request.method {
                    Method::Get | Method::Head => Precondition::NotModified,
                    Method::Options | Method::Other => Precondition::Failed,
                };
            }
        } else if matches!(request.method, Method::Get | Method::Head)
            && let Some(date) = request.if_modified_since.as_deref().and_then(date)
            && self.modified_second() <= date
        {
            return Precondition::NotModified;
        }
        match &request.if_range {
            Some(validator) if !self.is_validator(validator.trim()) => Precondition::ProceedWhole,
            _ => Precondition::Proceed,
        }
    }

    /// Whether a list of entity tags has ours, or is `*`.
    fn matches(&self, tags: &str, weak: bool) -> bool {
        tags.trim() == "*" || tags_of(tags).any(|(is_weak, tag)| (weak || !is_weak) && tag == self.etag)
    }

    /// Whether the validator of an `If-Range` is ours, compared strongly.
    fn is_validator(&self, validator: &str) -> bool {
        if validator.starts_with('"') || validator.starts_with("W/") {
            return validator == self.etag;
        }
        date(validator) == Some(self.modified_second())
    }

    /// HTTP knows whole seconds only.
    fn modified_second(&self) -> SystemTime {
        let since_epoch = self.modified.duration_since(SystemTime::UNIX_EPOCH);
        SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.map_or(0, |time| time.as_secs()))
    }
}

/// The tags of a list, each with its quotes, and whether it is weak. A comma
/// inside quotes belongs to the tag.
fn tags_of(list: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let open = rest.find('"')?;
        let is_weak = rest[..open].ends_with("W/");
        let close = open + 1 + rest[open + 1..].find('"')?;
        let tag = &rest[open..=close];
        rest = &rest[close + 1..];
        Some((is_weak, tag))
    })
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Precondition::{Failed, NotModified, Proceed, ProceedWhole};

    const SAME: &str = "Sat, 28 Nov 2026 09:00:00 GMT";
    const EARLIER: &str = "Sat, 28 Nov 2026 08:59:59 GMT";
    const LATER: &str = "Saturday, 28-Nov-26 09:00:01 GMT";

    fn judge(fields: &str) -> Precondition {
        let modified = date(SAME).unwrap() + Duration::from_millis(500);
        let validators = Validators {
            etag: "\"a,b\"".into(),
            modified,
        };
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        validators.judge(&Request::parse(head.as_bytes()).unwrap())
    }

    #[test]
    fn each_condition_alone_holds_or_does_not() {
        assert_eq!(judge("X: y"), Proceed);
        assert_eq!(judge("If-None-Match: \"x\", \"a,b\""), NotModified);
        assert_eq!(
            judge("If-None-Match: W/\"a,b\""),
            NotModified,
            "weakly the same is the same here"
        );
        assert_eq!(judge("If-None-Match: *"), NotModified);
        assert_eq!(judge("If-None-Match: \"a\", \"b\""), Proceed);
        assert_eq!(judge(&format!("If-Modified-Since: {SAME}")), NotModified);
        assert_eq!(judge(&format!("If-Modified-Since: {LATER}")), NotModified);
        assert_eq!(judge(&format!("If-Modified-Since: {EARLIER}")), Proceed);
        assert_eq!(judge("If-Modified-Since: yesterday"), Proceed);
        assert_eq!(judge("If-Match: \"a,b\""), Proceed);
        assert_eq!(judge("If-Match: *"), Proceed);
        assert_eq!(
            judge("If-Match: W/\"a,b\""),
            Failed,
            "weakly the same is not enough"
        );
        assert_eq!(judge("If-Match: \"x\""), Failed);
        assert_eq!(judge(&format!("If-Unmodified-Since: {EARLIER}")), Failed);
        assert_eq!(judge(&format!("If-Unmodified-Since: {SAME}")), Proceed);
    }

    #[test]
    fn tags_go_before_dates_and_failing_before_having() {
        assert_eq!(
            judge(&format!("If-Match: \"a,b\"\r\nIf-Unmodified-Since: {EARLIER}")),
            Proceed,
            "the date is not looked at"
        );
        assert_eq!(
            judge(&format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {SAME}")),
            Proceed,
            "the date is not looked at"
        );
        assert_eq!(judge("If-Match: \"x\"\r\nIf-None-Match: \"a,b\""), Failed);
        assert_eq!(judge("If-Match: \"a,b\"\r\nIf-None-Match: \"a,b\""), NotModified);
    }

    #[test]
    fn a_range_is_kept_only_for_the_very_same_file() {
        assert_eq!(judge("If-Range: \"a,b\""), Proceed);
        assert_eq!(judge("If-Range: W/\"a,b\""), ProceedWhole);
        assert_eq!(judge("If-Range: \"x\""), ProceedWhole);
        assert_eq!(judge(&format!("If-Range: {SAME}")), Proceed);
        assert_eq!(judge(&format!("If-Range: {LATER}")), ProceedWhole);
        assert_eq!(judge(&format!("If-Range: {EARLIER}")), ProceedWhole);
        assert_eq!(judge("If-Range: nonsense"), ProceedWhole);
    }
}
