//! From what was measured to named findings and a verdict.
//!
//! Pure. Owns the thresholds. What was not tested is never a pass.

use serde::Serialize;

use crate::probe::kind::Disconnect;
use crate::probe::kind::{KindRow, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::{Measurement, PhaseFigures, SlowClientSeen};

/// What a finding or the whole probe comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
    /// Tested, but what was seen decides nothing.
    Unknown,
    /// The plan did not ask for it.
    NotTested,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Its stable name.
    pub name: &'static str,
    /// What is asked, in words.
    pub title: String,
    /// The answer; `verdict` in the JSON.
    #[serde(rename = "verdict")]
    pub outcome: Outcome,
    /// One sentence with the number that decides.
    pub reason: String,
    /// That number, where there is one.
    pub value: Option<f64>,
    /// What it was held against.
    pub threshold: Option<f64>,
    /// The unit of both.
    pub unit: &'static str,
}

/// Healthy clients keep at least this part of the rate that they had alone, or
/// of what was left of it where other programs took more of the machine than
/// before, or the slow clients the time of the prober.
pub const LEAST_RATE_KEPT: f64 = 0.5;
/// No more than this factor is put down to other programs and to the prober.
pub const MOST_PUT_DOWN_TO_OTHERS: f64 = 4.0;
/// Rates fail nobody on a machine of which other programs left less than this part in any phase.
pub const LEAST_LEFT: f64 = 0.1;
/// Their p99 grows at most by this factor, or stays below [`HARMLESS_WAIT_US`].
pub const MOST_P99_GROWTH: f64 = 10.0;
/// A p99 below this many microseconds harms nobody, whatever it was before.
pub const HARMLESS_WAIT_US: f64 = 20_000.0;
/// No healthy client waits longer than this for any answer, in microseconds,
/// unless it did so before the slow clients came: a fifth of the shortest
/// grace in common use (5 s).
pub const LONGEST_WAIT_US: f64 = 1_000_000.0;
/// The server's memory may grow by this much per slow client, in bytes: some
/// 16 queues of 64 KiB.
pub const RSS_PER_SLOW_CLIENT_BYTES: u64 = 1 << 20;
/// And by this much whatever their number, for allocators and caches.
pub const RSS_ALLOWANCE_BYTES: u64 = 8 << 20;

/// All findings, always all of them and in the same order.
#[must_use]
pub(crate) fn findings(plan: &Plan, seen: &Measurement) -> Vec<Finding> {
    vec![
        disconnected(seen, SlowKind::Stalled),
        in_time(plan, seen),
        disconnected(seen, SlowKind::Talker),
        disconnected(seen, SlowKind::Trickle),
        kept(seen, SlowKind::Paused),
        kept(seen, SlowKind::Steady),
        served(seen),
        unaffected(seen),
        memory(plan, seen),
        kernel(seen),
    ]
}

/// Fail when one finding failed; pass when none did and one passed; else unknown.
/// A probe that was ended early does not pass.
#[must_use]
pub(crate) fn verdict(findings: &[Finding], interrupted: bool) -> Outcome {
    let any = |outcome| findings.iter().any(|finding| finding.outcome == outcome);
    if any(Outcome::Fail) {
        Outcome::Fail
    } else if any(Outcome::Pass) && !interrupted {
        Outcome::Pass
    } else {
        Outcome::Unknown
    }
}

struct Question {
    name: &'static str,
    title: String,
    unit: &'static str,
    threshold: Option<f64>,
}

impl Question {
    fn new(name: &'static str, title: impl Into<String>, unit: &'static str) -> Self {
        Self {
            name,
            title: title.into(),
            unit,
            threshold: None,
        }
    }

    fn held_against(mut self, threshold: f64) -> Self {
        self.threshold = Some(threshold);
        self
    }

    fn answer(self, outcome: Outcome, value: Option<f64>, reason: impl Into<String>) -> Finding {
        Finding {
            name: self.name,
            title: self.title,
            outcome,
            reason: reason.into(),
            value,
            threshold: self.threshold,
            unit: self.unit,
        }
    }

    fn not_tested(self, why: &str) -> Finding {
        self.answer(Outcome::NotTested, None, why)
    }
}

fn of_kind(seen: &Measurement, kind: SlowKind) -> Vec<&SlowClientSeen> {
    seen.slow.iter().filter(|client| client.kind == kind).collect()
}

fn is_gone(client: &SlowClientSeen) -> bool {
    matches!(
        client.end,
        Some(Disconnect::Reset | Disconnect::EndOfFile | Disconnect::LeftInKernel)
    )
}

fn disconnected(seen: &Measurement, kind: SlowKind) -> Finding {
    let KindRow { who, finding, .. } = *kind.row();
    let name = finding.unwrap_or_default();
    let question = Question::new(name, format!("{who} are disconnected"), "clients").held_against(0.0);
    let clients = of_kind(seen, kind);
    if clients.is_empty() {
        return question.not_tested(&format!("no {who} took part"));
    }
    let stayed = clients
        .iter()
        .filter(|client| client.connected && !is_gone(client))
        .count();
    let connected = clients.iter().filter(|client| client.connected).count();
    if stayed > 0 {
        let reason = format!("{stayed} of {connected} were still connected at the end");
        return question.answer(Outcome::Fail, Some(stayed as f64), reason);
    }
    if connected == 0 {
        let reason = format!("none of {} could connect", clients.len());
        return question.answer(Outcome::Unknown, None, reason);
    }
    question.answer(
        Outcome::Pass,
        Some(0.0),
        format!("{} disconnected", all(connected)),
    )
}

fn in_time(plan: &Plan, seen: &Measurement) -> Finding {
    let within = plan.within.as_secs_f64();
    let question = Question::new("stalled-in-time", format!("within {within} s of filling up"), "s")
        .held_against(within);
    let clients = of_kind(seen, SlowKind::Stalled);
    if clients.is_empty() {
        return question.not_tested("no stalled clients took part");
    }
    let connected: Vec<_> = clients.iter().filter(|client| client.connected).collect();
    if let Some(stayed) = connected.iter().find(|client| !is_gone(client)) {
        return match stayed.full_at {
            Some(full) => {
                let open = seen.seconds - full;
                question.answer(
                    Outcome::Fail,
                    Some(open),
                    format!("one was still connected {open:.1} s after it had filled up"),
                )
            }
            None => question.answer(
                Outcome::Fail,
                None,
                "one never filled up: the server took all that it sent",
            ),
        };
    }
    let times: Vec<f64> = connected
        .iter()
        .filter_map(|client| client.seconds_to_end)
        .collect();
    let longest = times.iter().copied().fold(f64::NAN, f64::max);
    if times.is_empty() {
        let reason = "they were gone before they could be seen to fill up";
        return question.answer(Outcome::Unknown, None, reason);
    }
    let outcome = if longest <= within {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    question.answer(
        outcome,
        Some(longest),
        format!("the last went {longest:.2} s after it had filled up"),
    )
}

fn kept(seen: &Measurement, kind: SlowKind) -> Finding {
    let KindRow { who, finding, .. } = *kind.row();
    let name = finding.unwrap_or_default();
    let question =
        Question::new(name, format!("{who} are kept and lose nothing"), "clients").held_against(0.0);
    let clients = of_kind(seen, kind);
    if clients.is_empty() {
        return question.not_tested(&format!("no {who} took part"));
    }
    let count = |test: &dyn Fn(&&&SlowClientSeen) -> bool| clients.iter().filter(test).count();
    let total = clients.len();
    let lost = count(&|client| is_gone(client));
    let corrupt = count(&|client| client.intact == Some(false));
    let unconnected = count(&|client| !client.connected);
    let incomplete = count(&|client| {
        client.connected && !is_gone(client) && client.intact == Some(true) && !client.complete
    });
    let unverified = count(&|client| client.intact.is_none());
    let harmed = |number: usize, reason: String| (number > 0).then_some((number, reason));
    let failure = harmed(lost, format!("{lost} of {total} were disconnected"))
        .or_else(|| harmed(corrupt, format!("{corrupt} of {total} received wrong bytes")))
        .or_else(|| harmed(unconnected, format!("{unconnected} of {total} could not connect")));
    if let Some((number, reason)) = failure {
        return question.answer(Outcome::Fail, Some(number as f64), reason);
    }
    if incomplete > 0 && seen.interrupted {
        return question.answer(
            Outcome::Unknown,
            None,
            "the probe was ended before they had everything",
        );
    }
    if incomplete > 0 {
        let reason = format!("{incomplete} of {total} did not get back all that they had sent");
        return question.answer(Outcome::Fail, Some(incomplete as f64), reason);
    }
    if unverified > 0 {
        let reason = format!(
            "{} kept, but what the server sends by itself cannot be verified",
            all(total)
        );
        return question.answer(Outcome::Unknown, Some(0.0), reason);
    }
    let bytes: u64 = clients.iter().map(|client| client.received_bytes).sum();
    let reason = format!("{} kept, and {bytes} bytes came back intact", all(total));
    question.answer(Outcome::Pass, Some(0.0), reason)
}

fn served(seen: &Measurement) -> Finding {
    let question = Question::new(
        "healthy-served",
        "healthy clients are served, byte by byte",
        "clients",
    )
    .held_against(0.0);
    let healthy = &seen.healthy;
    let total = healthy.clients;
    if total == 0 {
        return question.not_tested("no healthy clients took part");
    }
    let fail = |number: usize, reason: String| Some((number, reason)).filter(|_| number > 0);
    let why = healthy.first_corruption.as_deref().unwrap_or("");
    let failure = fail(
        healthy.corrupt,
        format!("{} of {total} were answered wrongly: {why}", healthy.corrupt),
    )
    .or_else(|| {
        fail(
            healthy.ended,
            format!("{} of {total} were disconnected", healthy.ended),
        )
    })
    .or_else(|| {
        fail(
            healthy.not_connected,
            format!("{} of {total} could not connect", healthy.not_connected),
        )
    })
    .or_else(|| {
        fail(
            healthy.never_answered,
            format!("{} of {total} never got an answer", healthy.never_answered),
        )
    });
    if seen.interrupted && healthy.corrupt == 0 && healthy.ended == 0 && failure.is_some() {
        let reason = "the probe was ended before all of them were answered";
        return question.answer(Outcome::Unknown, None, reason);
    }
    if let Some((number, reason)) = failure {
        return question.answer(Outcome::Fail, Some(number as f64), reason);
    }
    let phases = [healthy.before, healthy.during, healthy.after];
    let messages: u64 = phases.iter().flatten().map(|phase| phase.messages).sum();
    question.answer(
        Outcome::Pass,
        Some(0.0),
        format!("{}, with {messages} answers", all(total)),
    )
}

fn unaffected(seen: &Measurement) -> Finding {
    let question = Question::new(
        "healthy-unaffected",
        "healthy clients are unaffected by slow ones",
        "of the rate before",
    )
    .held_against(LEAST_RATE_KEPT);
    if seen.healthy.clients == 0 {
        return question.not_tested("no healthy clients took part");
    }
    if seen.slow.is_empty() {
        return question.not_tested("no slow clients took part");
    }
    let (Some(before), Some(during)) = (seen.healthy.before, seen.healthy.during) else {
        return question.answer(
            Outcome::Unknown,
            None,
            "the probe was ended before slow clients joined",
        );
    };
    if before.messages == 0 {
        return question.answer(
            Outcome::Unknown,
            None,
            "nobody was answered even before the slow clients joined",
        );
    }
    let after = seen.healthy.after.unwrap_or(before);
    let left = Left::of(seen);
    let recovered = rate(&after, &before) * factor(left.before, left.after);
    // A machine that was busier afterwards was busier meanwhile; a server that never recovered was harmed.
    let has_recovered = recovered >= LEAST_RATE_KEPT;
    let (alone, left_alone) = if has_recovered && rate(&after, &before) < 1.0 {
        (after, left.after)
    } else {
        (before, left.before)
    };
    let others = factor(left_alone, left.during);
    let prober = factor(time_for_healthy(&alone), time_for_healthy(&during));
    let kept = rate(&during, &alone) * (others * prober).min(MOST_PUT_DOWN_TO_OTHERS);
    let of_what = match (others > 1.2, prober > 1.2) {
        (false, false) => "their rate",
        (true, false) => "the rate that other programs left them",
        (false, true) => "the rate that filling up slow clients left the prober time for",
        (true, true) => "the rate that other programs, and filling up slow clients, left the prober time for",
    };
    let before = PhaseFigures {
        p99_us: before.p99_us.max(if has_recovered { after.p99_us } else { 0.0 }),
        max_us: before.max_us.max(if has_recovered { after.max_us } else { 0.0 }),
        ..before
    };
    let most_p99 = (before.p99_us * MOST_P99_GROWTH).max(HARMLESS_WAIT_US);
    let longest = LONGEST_WAIT_US.max(2.0 * before.max_us);
    // First the waits: a server that stands still shows however busy the machine is.
    let reason = if during.p99_us > most_p99 {
        format!(
            "their p99 went from {} to {}",
            micros(before.p99_us),
            micros(during.p99_us)
        )
    } else if during.max_us > longest {
        format!("one of them waited {} for an answer", micros(during.max_us))
    } else if left.least() < LEAST_LEFT && (kept < LEAST_RATE_KEPT || !has_recovered) {
        let reason = format!(
            "other programs took {:.0} % of the machine, so that rates tell nothing",
            (1.0 - left.least()) * 100.0
        );
        return question.answer(Outcome::Unknown, Some(kept), reason);
    } else if kept < LEAST_RATE_KEPT {
        format!(
            "they kept {:.0} % of {of_what} while slow ones were there",
            kept * 100.0
        )
    } else if !has_recovered {
        format!(
            "they had {:.0} % of their rate after the slow ones",
            recovered * 100.0
        )
    } else {
        let reason = format!(
            "they kept {:.0} % of {of_what}, and p99 went from {} to {}",
            kept * 100.0,
            micros(before.p99_us),
            micros(during.p99_us)
        );
        return question.answer(Outcome::Pass, Some(kept), reason);
    };
    question.answer(Outcome::Fail, Some(kept), reason)
}

/// The part of the machine that other programs left, by phase; all of it where that is not to be seen.
struct Left {
    before: f64,
    during: f64,
    after: f64,
}

impl Left {
    fn of(seen: &Measurement) -> Self {
        let left = |percent: f64| (1.0 - percent / 100.0).clamp(0.01, 1.0);
        let server = seen.server.as_ref();
        Self {
            before: server.map_or(1.0, |server| left(server.others_before_percent)),
            during: server.map_or(1.0, |server| left(server.others_during_percent)),
            after: server.map_or(1.0, |server| left(server.others_after_percent)),
        }
    }

    fn least(&self) -> f64 {
        self.before.min(self.during).min(self.after)
    }
}

/// How much more of the machine there was at first; never below 1, as a machine that became less
/// busy is no harm done.
fn factor(left_at_first: f64, left_now: f64) -> f64 {
    (left_at_first / left_now).clamp(1.0, MOST_PUT_DOWN_TO_OTHERS)
}

/// The part of a phase that the prober had for healthy clients: a load must not blame the server
/// for what it did not ask for.
fn time_for_healthy(phase: &PhaseFigures) -> f64 {
    (1.0 - phase.prober_on_slow_percent / 100.0).clamp(0.01, 1.0)
}

fn rate(now: &PhaseFigures, before: &PhaseFigures) -> f64 {
    now.messages_per_second / before.messages_per_second.max(1e-9)
}

fn all(clients: usize) -> String {
    if clients == 1 {
        "the only one was".to_owned()
    } else {
        format!("all {clients} were")
    }
}

fn micros(us: f64) -> String {
    if us >= 1e6 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{us:.0} us")
    }
}

fn memory(plan: &Plan, seen: &Measurement) -> Finding {
    let question = Question::new("memory-bounded", "memory is bounded", "bytes");
    let to_fill: Vec<_> = seen
        .slow
        .iter()
        .filter(|client| client.kind != SlowKind::Steady && client.connected)
        .collect();
    if seen.slow.is_empty() {
        return question.not_tested("no slow clients took part");
    }
    let echoes = plan.protocol.traits().echoes;
    let took_all = to_fill
        .iter()
        .filter(|client| client.offer_exhausted && client.kind != SlowKind::Trickle)
        .count();
    if echoes && took_all > 0 {
        let reason = format!(
            "the server took all {} bytes from {took_all} clients that read none of its answers",
            plan.fill
        );
        return question
            .held_against(plan.fill as f64)
            .answer(Outcome::Fail, Some(plan.fill as f64), reason);
    }
    let Some(server) = &seen.server else {
        let most = to_fill.iter().map(|client| client.absorbed_bytes).max();
        return match most {
            Some(most) if echoes => {
                let reason = format!(
                    "no client got rid of more than {most} bytes unread; the server's own memory is not to be seen from here"
                );
                question
                    .held_against(plan.fill as f64)
                    .answer(Outcome::Pass, Some(most as f64), reason)
            }
            _ => question.answer(
                Outcome::Unknown,
                None,
                "the server's process is not to be seen from here",
            ),
        };
    };
    let allowed = RSS_ALLOWANCE_BYTES + RSS_PER_SLOW_CLIENT_BYTES * seen.slow.len() as u64;
    let grown = server.rss_peak_bytes.saturating_sub(server.rss_before_bytes);
    let outcome = if grown <= allowed {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    let reason = format!(
        "its memory grew by {:.1} MiB for {} slow clients; {} MiB are allowed",
        grown as f64 / f64::from(1 << 20),
        seen.slow.len(),
        allowed >> 20
    );
    question
        .held_against(allowed as f64)
        .answer(outcome, Some(grown as f64), reason)
}

fn kernel(seen: &Measurement) -> Finding {
    let question =
        Question::new("nothing-left-in-kernel", "nothing is left in the kernel", "bytes").held_against(0.0);
    if seen.slow.is_empty() {
        return question.not_tested("no slow clients took part");
    }
    let Some(server) = &seen.server else {
        return question.answer(
            Outcome::Unknown,
            None,
            "the server's kernel is not to be seen from here",
        );
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
        return question.answer(
            Outcome::Unknown,
            None,
            "no slow client was disconnected, so there was nothing to leave behind",
        );
    }
    question.answer(
        Outcome::Pass,
        Some(0.0),
        format!("{gone} disconnected clients left nothing behind"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::report::measurement::{Healthy, ServerSeen};

    fn unaffected_by(rates: [f64; 3], others: [f64; 3]) -> Outcome {
        judged(rates, others, 1000.0)
    }

    /// Healthy clients with these rates before, during and after, while other programs took
    /// these parts of the machine, in percent, and one waited so long meanwhile.
    fn judged(rates: [f64; 3], others: [f64; 3], longest_us: f64) -> Outcome {
        unaffected(&measured(rates, others, longest_us)).outcome
    }

    fn measured(rates: [f64; 3], others: [f64; 3], longest_us: f64) -> Measurement {
        let phase = |messages_per_second: f64, max_us: f64| {
            Some(PhaseFigures {
                messages: messages_per_second as u64,
                messages_per_second,
                p99_us: 100.0,
                max_us,
                ..PhaseFigures::default()
            })
        };
        Measurement {
            healthy: Healthy {
                clients: 1,
                before: phase(rates[0], 1000.0),
                during: phase(rates[1], longest_us),
                after: phase(rates[2], 1000.0),
                ..Healthy::default()
            },
            slow: vec![SlowClientSeen::new(SlowKind::Stalled, 1)],
            server: Some(ServerSeen {
                others_before_percent: others[0],
                others_during_percent: others[1],
                others_after_percent: others[2],
                ..ServerSeen::default()
            }),
            ..Measurement::default()
        }
    }

    #[test]
    fn what_the_prober_had_no_time_for_is_not_put_down_to_the_server() {
        let outcome = |rate: f64, on_slow_percent: f64| {
            let mut seen = measured([1e4, rate, 1e4], [0.0; 3], 1000.0);
            if let Some(during) = &mut seen.healthy.during {
                during.prober_on_slow_percent = on_slow_percent;
            }
            unaffected(&seen).outcome
        };
        assert_eq!(outcome(4e3, 0.0), Outcome::Fail);
        assert_eq!(outcome(4e3, 40.0), Outcome::Pass);
        assert_eq!(
            outcome(2e3, 40.0),
            Outcome::Fail,
            "it is not all the prober's work"
        );
        assert_eq!(
            outcome(1e2, 99.0),
            Outcome::Fail,
            "nor is a server that stands still"
        );
    }

    #[test]
    fn healthy_clients_that_keep_less_than_half_of_their_rate_are_affected() {
        assert_eq!(unaffected_by([1e4, 5.1e3, 1e4], [0.0; 3]), Outcome::Pass);
        assert_eq!(unaffected_by([1e4, 4.9e3, 1e4], [0.0; 3]), Outcome::Fail);
        assert_eq!(
            unaffected_by([1e4, 1e4, 4.9e3], [0.0; 3]),
            Outcome::Fail,
            "never recovered"
        );
    }

    #[test]
    fn what_other_programs_took_is_not_put_down_to_the_slow_clients() {
        assert_eq!(unaffected_by([1e4, 3e3, 1e4], [10.0, 60.0, 10.0]), Outcome::Pass);
        assert_eq!(unaffected_by([1e4, 3e3, 3e3], [10.0, 60.0, 60.0]), Outcome::Pass);
        // As busy as before, and a server that stands still on a machine that got busier.
        assert_eq!(unaffected_by([1e4, 3e3, 1e4], [60.0; 3]), Outcome::Fail);
        assert_eq!(unaffected_by([1e4, 1e2, 1e4], [10.0, 85.0, 10.0]), Outcome::Fail);
    }

    #[test]
    fn rates_tell_nothing_on_a_machine_that_others_took_but_long_waits_do() {
        assert_eq!(
            unaffected_by([1e4, 1e2, 1e4], [10.0, 95.0, 10.0]),
            Outcome::Unknown
        );
        assert_eq!(unaffected_by([1e4, 1e4, 1e4], [95.0; 3]), Outcome::Pass);
        assert_eq!(judged([1e4, 1e2, 1e4], [10.0, 95.0, 10.0], 3e6), Outcome::Fail);
    }
}
