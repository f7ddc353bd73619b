//! What the head of a response says about its body and its connection.
//!
//! Pure. Refuses to judge whether that is what was asked for.

/// What of a response head matters here.
pub(super) struct Meaning {
    pub(super) status: u16,
    pub(super) reason: String,
    /// Or what is wrong with it.
    pub(super) length: Result<Option<u64>, String>,
    pub(super) is_chunked: bool,
    pub(super) closes: bool,
    pub(super) validator: Option<String>,
    pub(super) location: Option<String>,
}

impl Meaning {
    pub(super) fn of(response: &httparse::Response<'_, '_>) -> Self {
        let raw = |name: &str| {
            let found = response
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name));
            found.map(|field| String::from_utf8_lossy(field.value).trim().to_owned())
        };
        let field = |name: &str| raw(name).map(|value| value.to_ascii_lowercase());
        let connection = field("connection").unwrap_or_default();
        // A weak tag allows other bytes (RFC 9110, section 8.8.1).
        let tag = raw("etag").filter(|tag| !tag.starts_with("W/"));
        let digests = ["repr-digest", "content-digest", "digest", "content-md5"];
        Self {
            status: response.code.unwrap_or(0),
            reason: response.reason.unwrap_or("").to_owned(),
            length: content_length(response),
            is_chunked: field("transfer-encoding").is_some_and(|value| value.ends_with("chunked")),
            closes: connection.contains("close")
                || (response.version == Some(0) && !connection.contains("keep-alive")),
            location: raw("location"),
            validator: tag.or_else(|| digests.into_iter().find_map(raw)),
        }
    }
}

/// The length of a body; repeated fields must agree (RFC 9112, section 6.3).
fn content_length(response: &httparse::Response<'_, '_>) -> Result<Option<u64>, String> {
    let fields = response
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("content-length"));
    let mut length = None;
    for field in fields {
        for value in String::from_utf8_lossy(field.value).split(',').map(str::trim) {
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = value.parse().ok().filter(|_| is_number);
            let Some(number) = number else {
                return Err(format!("a Content-Length that is no length: \"{value}\""));
            };
            if length.is_some_and(|length| length != number) {
                return Err("two values of Content-Length that differ".to_owned());
            }
            length = Some(number);
        }
    }
    Ok(length)
}
