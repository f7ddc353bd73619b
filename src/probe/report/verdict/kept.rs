//! Are clients kept that pause or read slowly, and do they lose nothing?

use super::finding::{Finding, Outcome, Question, all};
use super::slow::{is_gone, of_kind, other_reason};
use crate::probe::kind::{KindRow, Reading, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::{Measurement, SlowClientSeen};

/// A pause may last this much longer than asked, in seconds; beyond that the prober is to blame.
const LATE_SECONDS: f64 = 0.3;
/// Bytes that moved so shortly before the end, in seconds, might have gone on.
const STILL_MOVING: f64 = 0.5;

pub(super) fn kept(plan: &Plan, seen: &Measurement, kind: SlowKind) -> Finding {
    let KindRow { who, finding, .. } = *kind.row();
    let title = format!("{who} are kept and lose nothing");
    let question = Question::new(finding.unwrap_or_default(), title, "clients").held_against(0.0);
    let clients = of_kind(seen, kind);
    if clients.is_empty() {
        return question.not_tested(&format!("no {who} took part"));
    }
    let total = clients.len();
    let harm = Harm::of(plan, seen, &clients);
    let Some((number, reason)) = harm.worst(total) else {
        return if let Some(why) = harm.excuse {
            question.unknown(why)
        } else {
            intact(question, &clients)
        };
    };
    match harm.doubt(plan, seen) {
        Some(why) => question.unknown(format!("{reason}, but {why}")),
        None => question.answer(Outcome::Fail, Some(number as f64), reason),
    }
}

/// How many came to which harm.
#[derive(Default)]
struct Harm {
    lost: usize,
    corrupt: usize,
    unconnected: usize,
    incomplete: usize,
    /// Why those that were lost need not be the server's fault.
    excuse: Option<String>,
}

impl Harm {
    fn of(plan: &Plan, seen: &Measurement, clients: &[&SlowClientSeen]) -> Self {
        let mut harm = Self::default();
        for client in clients {
            if client.intact == Some(false) {
                harm.corrupt += 1;
            } else if !client.connected {
                harm.unconnected += 1;
            } else if is_gone(client) {
                match excuse(plan, seen, client) {
                    Some(why) => harm.excuse = Some(why),
                    None => harm.lost += 1,
                }
            } else if client.intact == Some(true) && !client.complete {
                if seen.interrupted {
                    harm.excuse = Some("the probe was ended before they had everything".to_owned());
                } else if seen.seconds - client.last_progress_at < STILL_MOVING {
                    harm.excuse = Some("the probe was over before they had everything".to_owned());
                } else {
                    harm.incomplete += 1;
                }
            }
        }
        harm
    }

    fn worst(&self, total: usize) -> Option<(usize, String)> {
        let harms = [
            (self.lost, "were disconnected"),
            (self.corrupt, "received wrong bytes"),
            (self.unconnected, "could not connect"),
            (self.incomplete, "did not get back all that they had sent"),
        ];
        let worst = harms.into_iter().find(|(number, _)| *number > 0);
        worst.map(|(number, what)| (number, format!("{number} of {total} {what}")))
    }

    /// Whether something else than the server may have done that.
    fn doubt(&self, _: &Plan, seen: &Measurement) -> Option<&'static str> {
        let pressed = seen
            .server
            .as_ref()
            .is_some_and(|server| server.tcp_memory_pressure);
        if self.corrupt == 0 && pressed {
            return Some(
                "the host was short of memory for TCP meanwhile (tcp_mem), and drops what it must keep",
            );
        }
        (seen.interrupted && self.corrupt == 0 && self.lost == 0).then_some("the probe was ended early")
    }
}

/// Why a client that was disconnected need not have been thrown out for being slow.
fn excuse(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> Option<String> {
    let ended = client.ended_at?;
    if let Some(why) = other_reason(seen, client).filter(|_| client.standstill.is_some()) {
        return Some(why);
    }
    let paused = client.kind.row().reading == Reading::AfterPause;
    let full = client.full_at?;
    let pause = client.resumed_at.unwrap_or(ended) - full;
    let asked = plan.pause.as_secs_f64();
    (paused && pause > asked + LATE_SECONDS)
        .then(|| format!("the prober was busy and let one pause for {pause:.1} s instead of {asked} s"))
}

fn intact(question: Question, clients: &[&SlowClientSeen]) -> Finding {
    let total = clients.len();
    let bytes: u64 = clients.iter().map(|client| client.received_bytes).sum();
    if clients.iter().any(|client| client.intact.is_none()) {
        let reason = format!(
            "{} kept, unverified: only the server knows what it pushed ({bytes} bytes)",
            all(total)
        );
        return question.answer(Outcome::Unknown, Some(0.0), reason);
    }
    let reason = format!("{} kept, and {bytes} bytes came back intact", all(total));
    question.answer(Outcome::Pass, Some(0.0), reason)
}
