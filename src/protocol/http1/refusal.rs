//! Heads that are not answered as they ask.

use super::response::Status;

/// Why a head is not answered as it asks. The connection is closed behind the
/// answer, because where the next request begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: Status,
    /// One line for its body.
    pub why: &'static str,
}

pub(super) fn refuse<T>(status: Status, why: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, why })
}
