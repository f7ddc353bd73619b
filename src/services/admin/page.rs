//! The page that people look at, with its script and its style.
//!
//! Owns the three files. Refuses anything from elsewhere.

/// A file of the page.
pub(super) struct Page {
    path: &'static str,
    pub(super) kind: &'static str,
    pub(super) content: &'static str,
}

const PAGES: [Page; 3] = [
    Page {
        path: "/",
        kind: "text/html; charset=utf-8",
        content: include_str!("page.html"),
    },
    Page {
        path: "/page.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("page.js"),
    },
    Page {
        path: "/page.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("page.css"),
    },
];

pub(super) fn find(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}
