//! Is the server's memory bounded, and is nothing left in its kernel?

use super::finding::{Finding, Outcome, Question};
use super::slow::is_gone;
use super::{RSS_ALLOWANCE_BYTES, RSS_PER_SLOW_CLIENT_BYTES};
use crate::probe::kind::{Fate, Reading};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::{Measurement, ServerSeen, SlowClientSeen};

/// What the kernels of one hop may hold for one connection where the server is not to be seen:
/// common limits of a receive buffer (tcp_rmem) and of a send buffer (tcp_wmem).
const HOP_HOLDS_BYTES: u64 = (32 + 4) << 20;
/// The client's connection, and one to an upstream with its own two directions.
const HOPS: u64 = 2;

pub(super) fn bounded(plan: &Plan, seen: &Measurement) -> Finding {
    let question = Question::new("memory-bounded", "memory is bounded", "bytes");
    if seen.slow.is_empty() {
        return question.not_tested("no slow clients took part");
    }
    let filled: Vec<_> = seen.slow.iter().filter(|client| fills(client)).collect();
    match &seen.server {
        Some(server) => by_growth(question, plan, seen, server, &filled),
        None => by_absorption(question, plan, &filled),
    }
}

/// Whether this client makes a server hold something: a steady one never, a quiet one when it was full.
fn fills(client: &SlowClientSeen) -> bool {
    let is_quiet = client.kind.row().reading == Reading::NeverInSteps;
    client.connected && client.kind.row().fate != Fate::Kept && (!is_quiet || client.full_at.is_some())
}

/// What is seen to grow decides, whatever went in: kernels hold megabytes at each hop.
fn by_growth(
    question: Question,
    plan: &Plan,
    seen: &Measurement,
    server: &ServerSeen,
    filled: &[&SlowClientSeen],
) -> Finding {
    let allowed = RSS_ALLOWANCE_BYTES + RSS_PER_SLOW_CLIENT_BYTES * seen.slow.len() as u64;
    let grown = server.rss_peak_bytes.saturating_sub(server.rss_before_bytes);
    let question = question.held_against(allowed as f64);
    let reason = format!(
        "its memory grew by {:.1} MiB for {} slow clients; {} MiB are allowed",
        grown as f64 / f64::from(1 << 20),
        seen.slow.len(),
        allowed >> 20
    );
    // Where little went in or came out, nothing of the growth is theirs.
    let stood = |client: &SlowClientSeen| client.standstill.is_some() || client.full_at.is_some();
    let took = |client: &SlowClientSeen| client.absorbed_bytes >= RSS_ALLOWANCE_BYTES;
    if !seen.slow.iter().any(|client| stood(client) || took(client)) {
        return question.unknown(format!("{reason}, but no slow client was full"));
    }
    if grown > allowed {
        return question.answer(Outcome::Fail, Some(grown as f64), reason);
    }
    // A server that takes everything is bounded only if that was more than is allowed.
    let never_stopped: Vec<_> = filled.iter().filter(|client| client.offer_exhausted).collect();
    let went_in: u64 = never_stopped
        .iter()
        .map(|client| client.owed_bytes.unwrap_or(client.absorbed_bytes))
        .sum();
    if plan.protocol.traits().echoes && !never_stopped.is_empty() && went_in <= allowed {
        return question.unknown(format!(
            "the server's side took all {} bytes of {}, which is no more than may be held; offer more with `fill`",
            plan.fill,
            never_stopped.len()
        ));
    }
    question.answer(Outcome::Pass, Some(grown as f64), reason)
}

/// Where nothing can be seen, more than all kernels on the way hold must have gone in.
fn by_absorption(question: Question, plan: &Plan, filled: &[&SlowClientSeen]) -> Finding {
    let held = HOPS * HOP_HOLDS_BYTES;
    let question = question.held_against(held as f64);
    let Some(most) = filled.iter().map(|client| client.absorbed_bytes).max() else {
        return question.unknown("the server's process is not to be seen from here, and no client was full");
    };
    if !plan.protocol.traits().echoes {
        return question.unknown("the server's process is not to be seen from here");
    }
    let exhausted = filled.iter().filter(|client| client.offer_exhausted).count();
    if exhausted == 0 {
        let reason = format!(
            "no client got rid of more than {most} bytes unread; the server's own memory is not to be seen from here"
        );
        return question.answer(Outcome::Pass, Some(most as f64), reason);
    }
    if most > held {
        let reason =
            format!("the server took {most} bytes from {exhausted} clients that read none of its answers");
        return question.answer(Outcome::Fail, Some(most as f64), reason);
    }
    question.unknown(format!(
        "the server's side took all {most} bytes of {exhausted}, but kernels on the way may hold {} MiB; offer more with `fill`",
        held >> 20
    ))
}

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
