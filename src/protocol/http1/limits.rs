//! How long a request may be, and how much it may ask for.

/// Longest head of a request: more than browsers and their cookies need.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most fields in the head of a request.
pub const MAX_HEAD_FIELDS: usize = 100;

/// Longest target of a request (RFC 9110, section 4.1, asks for 8,000).
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Most byte ranges that one request gets; more are answered with the whole
/// file. Players and download programs ask for one.
pub const MAX_RANGES: usize = 16;
