//! The target of a request as the path of a file.
//!
//! Owns the decoding, which happens once, and the shapes that are refused.
//! Refuses to look at files.

/// Why a target names no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRefusal {
    /// It is no path, or is encoded wrongly.
    Malformed,
    /// It leads upwards, or has a slash or NUL inside a name.
    Forbidden,
}

/// The path that a target names, beneath the folder that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Names joined by `/`, without one in front; empty for the folder itself.
    pub path: Vec<u8>,
    /// The target ends with a slash: a folder is meant.
    pub is_folder: bool,
    /// Some name begins with a dot.
    pub is_hidden: bool,
}

impl Target {
    /// The path of a target in origin form (`/a/b?query`) or absolute form
    /// (`http://host/a/b`).
    ///
    /// # Errors
    ///
    /// The target is malformed or forbidden.
    pub fn parse(target: &str) -> Result<Self, TargetRefusal> {
        let path = origin_path(target).ok_or(TargetRefusal::Malformed)?;
        let mut found = Self {
            path: Vec::with_capacity(path.len()),
            is_folder: true,
            is_hidden: false,
        };
        for name in path.split('/') {
            found.is_folder = false;
            match decode(name).ok_or(TargetRefusal::Malformed)?.as_slice() {
                b"" | b"." => found.is_folder = true,
                b".." => return Err(TargetRefusal::Forbidden),
                name if name.iter().any(|byte| matches!(byte, b'/' | 0)) => {
                    return Err(TargetRefusal::Forbidden);
                }
                name => found.push(name),
            }
        }
        Ok(found)
    }

    fn push(&mut self, name: &[u8]) {
        self.is_hidden |= name.first() == Some(&b'.');
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }
}

/// The path in a target, without its query.
fn origin_path(target: &str) -> Option<&str> {
    let path = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        rest.find(['/', '?']).map_or("/", |at| &rest[at..])
    };
    path.split(['?', '#']).next()
}

/// Decodes `%41` to `A`, once; `None` where a percent sign has no two digits.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// Encodes a path for a link, so that [`Target::parse`] gives it back.
#[must_use]
pub fn encode(path: &[u8]) -> String {
    let mut encoded = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Result<String, TargetRefusal> {
        let target = Target::parse(target)?;
        let slash = if target.is_folder { "/" } else { "" };
        Ok(format!("{}{slash}", String::from_utf8_lossy(&target.path)))
    }

    #[test]
    fn a_path_is_decoded_once_and_loses_empty_names_and_its_query() {
        assert_eq!(path("/"), Ok("/".into()));
        assert_eq!(path("/a/b.txt"), Ok("a/b.txt".into()));
        assert_eq!(path("//a///b/./c/"), Ok("a/b/c/".into()));
        assert_eq!(path("/a%20b%25?x=/../"), Ok("a b%".into()));
        assert_eq!(path("/%252e%252e"), Ok("%2e%2e".into()), "once, not twice");
        assert_eq!(path("http://host:80/a?b"), Ok("a".into()));
        assert_eq!(path("HTTP://host"), Ok("/".into()));
        assert_eq!(
            path("/a\\..\\b"),
            Ok("a\\..\\b".into()),
            "a backslash is part of a name"
        );
    }

    #[test]
    fn nothing_leads_upwards_however_it_is_written() {
        for target in [
            "/..",
            "/../a",
            "/a/../b",
            "/%2e%2e/a",
            "/%2E./a",
            "/a/.%2e",
            "/..?x",
        ] {
            assert_eq!(path(target), Err(TargetRefusal::Forbidden), "{target}");
        }
        assert_eq!(
            path("/a%2fb"),
            Err(TargetRefusal::Forbidden),
            "a slash inside a name"
        );
        assert_eq!(path("/a%00"), Err(TargetRefusal::Forbidden));
        assert_eq!(path("/..."), Ok("...".into()), "a name of three dots is a name");
    }

    #[test]
    fn what_is_no_path_is_malformed() {
        for target in ["*", "a", "/%", "/%4", "/%zz", "/%+1", "ftp://host/a", "host:80"] {
            assert_eq!(path(target), Err(TargetRefusal::Malformed), "{target}");
        }
    }

    #[test]
    fn names_that_begin_with_a_dot_are_hidden() {
        let is_hidden = |target| Target::parse(target).unwrap().is_hidden;
        assert!(is_hidden("/.git/config") && is_hidden("/a/%2ehidden"));
        assert!(!is_hidden("/a.b/c") && !is_hidden("/./a"));
    }

    #[test]
    fn every_name_comes_back_from_its_link() {
        let name: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
        let target = Target::parse(&format!("/{}", encode(&name))).unwrap();
        assert_eq!(target.path, name);
    }
}
