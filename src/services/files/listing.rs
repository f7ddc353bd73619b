//! The listing of a folder as a page that is readable on a phone.
//!
//! Owns the markup. Every name is escaped: a file name can add no element.

use std::fmt::Write;

use super::folder::Entry;
use crate::protocol::http1::target::encode;

const STYLE: &str = "body{font:16px/1.6 system-ui,sans-serif;margin:1rem auto;max-width:56rem;padding:0 1rem}\
table{width:100%;border-collapse:collapse}td{padding:.3rem .5rem;border-bottom:1px solid #8884}\
td:first-child{word-break:break-all}td+td{white-space:nowrap;text-align:right;opacity:.7}\
@media(max-width:34rem){td:last-child{display:none}}:root{color-scheme:light dark}";

/// The page of a folder at `path`, which is empty for the folder that is served.
pub(super) fn page(path: &[u8], entries: &[Entry], is_all: bool) -> Vec<u8> {
    let title = escape(&format!("/{}", String::from_utf8_lossy(path)));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<table>\n"
    );
    if !path.is_empty() {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in entries {
        let slash = if entry.is_folder { "/" } else { "" };
        let size = if entry.is_folder {
            String::new()
        } else {
            size(entry.size_bytes)
        };
        // In front of a name with a colon, `./` keeps it from being a scheme.
        let _ = writeln!(
            page,
            "<tr><td><a href=\"./{}{slash}\">{}{slash}</a></td><td>{size}</td><td>{}</td></tr>",
            encode(&entry.name),
            escape(&String::from_utf8_lossy(&entry.name)),
            httpdate::fmt_http_date(entry.modified),
        );
    }
    page.push_str("</table>\n");
    if !is_all {
        let _ = writeln!(page, "<p>Only the first {} entries are shown.</p>", entries.len());
    }
    page.push_str("</body></html>\n");
    page.into_bytes()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A size with one digit behind the point.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_name_can_add_no_element_and_no_scheme() {
        let entry = Entry {
            name: b"javascript:<b onclick='x'>\"&".to_vec(),
            is_folder: false,
            size_bytes: 1536,
            modified: SystemTime::UNIX_EPOCH,
        };
        let page = String::from_utf8(page(b"a<b", &[entry], true)).unwrap();
        assert!(!page.contains("<b") || !page.contains("<b onclick"), "{page}");
        assert!(
            page.contains("href=\"./javascript%3A%3Cb%20onclick%3D%27x%27%3E%22%26\""),
            "{page}"
        );
        assert!(
            page.contains("&lt;b onclick=&#39;x&#39;&gt;&quot;&amp;"),
            "{page}"
        );
        assert!(
            page.contains("1.5 KiB") && page.contains("<title>/a&lt;b</title>"),
            "{page}"
        );
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1 << 20, (1 << 30) + (1 << 29), u64::MAX / 16].map(size);
        assert_eq!(sizes[..5], ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB"]);
        assert!(sizes[5].ends_with(" TiB"));
    }
}
