//! What a server of files serves, and how.
//!
//! Owns the settings and their defaults. Refuses to serve.

use std::time::Duration;

use super::access_log::AccessLogWriter;
use super::folder::Folder;

/// Time for the head of a request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle timeout between two requests of one client, for
/// [`Limits::idle_timeout`](crate::Limits::idle_timeout).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is served, and how.
#[derive(Debug)]
pub struct FilesConfig {
    /// The folder.
    pub folder: Folder,
    /// A folder without `index.html` is listed.
    pub lists: bool,
    /// Names that begin with a dot are served.
    pub shows_hidden: bool,
    /// `.br`, `.zst` and `.gz` beside a file are sent to clients that accept
    /// them.
    pub precompressed: bool,
    /// Fields that each answer gets.
    pub fields: Vec<(String, String)>,
    /// Where a line for each answer goes.
    pub access_log: Option<Box<dyn AccessLogWriter>>,
    /// Time for the head of a request, and for the first one to begin.
    pub request_timeout: Duration,
}

impl FilesConfig {
    /// The files in `folder`, without listings, hidden files and access log.
    #[must_use]
    pub const fn new(folder: Folder) -> Self {
        Self {
            folder,
            lists: false,
            shows_hidden: false,
            precompressed: false,
            fields: Vec::new(),
            access_log: None,
            request_timeout: REQUEST_TIMEOUT,
        }
    }

    /// Whether the settings have a field of this name.
    pub(super) fn sets(&self, name: &str) -> bool {
        let is_named = |(field, _): &(String, String)| field.eq_ignore_ascii_case(name);
        self.fields.iter().any(is_named)
    }
}
