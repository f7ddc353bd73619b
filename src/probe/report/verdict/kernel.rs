//! Is nothing left in the server's kernel of slow clients that it disconnected?

use super::finding::{Finding, Outcome, Question};
use super::slow::is_gone;
use crate::probe::report::measurement::Measurement;

pub(super) fn nothing_left(seen: &Measurement) -> Finding {
    let question =
        Question::new("nothing-left-in-kernel", "nothing is left in the kernel", "bytes").held_against(0.0);
    if seen.slow.is_empty() {
        return question.not_tested("no slow clients took part");
    }
    let Some(server) = &seen.server else {
        return question.unknown("the server's kernel is not to be seen from here");
    };
    if server.orphans > 0 {
        let reason = format!(
            "{} closed connections still hold {} bytes: they were closed without a reset",
            server.orphans, server.orphan_bytes
        );
        return question.answer(Outcome::Fail, Some(server.orphan_bytes as f64), reason);
    }
    let gone = seen.slow.iter().filter(|client| is_gone(client)).count();
    if gone == 0 {
        return question.unknown("no slow client was disconnected, so there was nothing to leave behind");
    }
    question.answer(
        Outcome::Pass,
        Some(0.0),
        format!("{gone} disconnected clients left nothing behind"),
    )
}
