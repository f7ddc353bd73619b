//! Which bytes stand for a file: the file itself, or one beside it that is
//! compressed; and of which type they are.
//!
//! Owns content types and the reading of `Accept-Encoding`. Refuses to
//! compress.

use std::fs::File;

use mime_guess::MimeGuess;

use super::folder::{Facts, Folder, Found};

/// Codings, the best first, and the ends of the names of files that have them.
const CODINGS: [(&str, &str); 3] = [("br", ".br"), ("zstd", ".zst"), ("gzip", ".gz")];

/// A file beside the one at `path` that is compressed in a way that an
/// `Accept-Encoding` field takes; with the name of its coding.
pub(super) fn compressed(
    folder: &Folder,
    path: &[u8],
    accepted: &str,
) -> Option<(File, Facts, &'static str)> {
    let taken = CODINGS.iter().filter(|(coding, _)| accepts(accepted, coding));
    for (coding, ending) in taken {
        if let Ok(Found::File(file, facts)) = folder.find(&[path, ending.as_bytes()].concat()) {
            return Some((file, facts, coding));
        }
    }
    None
}

/// The content type by the end of a name; text is taken to be UTF-8.
pub(super) fn content_type(path: &[u8]) -> String {
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
