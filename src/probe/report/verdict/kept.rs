//! Are clients kept that pause or read slowly, and do they lose nothing?

use super::finding::{Finding, Outcome, Question, all};
use super::slow::{KERNEL_HOLDS_BYTES, PUSHED_MEANWHILE_BYTES, flow, is_gone, of_kind, other_reason};
use crate::probe::kind::{KindRow, Reading, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::protocol::push::numbers::{NUMBER_PLACEHOLDER, count_places};
use crate::probe::report::measurement::{Measurement, SlowClientSeen};

/// A pause may last this much longer than asked, in seconds; beyond that the prober is to blame.
const LATE_SECONDS: f64 = 0.3;
const SHORT: &str = "the host was short of memory for TCP meanwhile (tcp_mem), and drops what it must keep";
/// Bytes that moved so shortly before the end, in seconds, might have gone on.
const STILL_MOVING: f64 = 0.5;

pub(super) fn kept(plan: &Plan, seen: &Measurement, kind: SlowKind) -> Finding {
    let KindRow { who, finding, .. } = *kind.row();
    let title = format!("{who} are kept and lose nothing");
    let question = Question::new(finding.unwrap_or_default(), title, "clients").held_against(0.0);
    let clients = of_kind(seen, kind);
    if clients.is_empty() {
        return question.not_tested(&why_none(plan, kind, who));
    }
    let total = clients.len();
    let harm = Harm::of(plan, seen, &clients);
    let Some((number, reason)) = harm.worst(total) else {
        return match harm.excuse {
            Some(why) => question.unknown(why),
            None if is_short_of_memory(seen) => question.unknown(format!("{} kept, but {SHORT}", all(total))),
            None if !clients.iter().any(|client| is_felt(plan, seen, client)) => {
                question.unknown(format!("{} kept, but {}", all(total), why_unfelt(&clients)))
            }
            None => intact(plan, question, &clients),
        };
    };
    match harm.doubt(seen) {
        Some(why) => question.unknown(format!("{reason}, but {why}")),
        None => question.answer(Outcome::Fail, Some(number as f64), reason),
    }
}

fn why_none(plan: &Plan, kind: SlowKind, who: &str) -> String {
    let asked = plan.slow[kind];
    match plan
        .published_rate_bytes()
        .filter(|_| plan.outpaces(kind) && asked.clients > 0)
    {
        Some(rate) => format!(
            "{} KiB are published in a second, and one that reads {} KiB never has them all",
            rate as f64 / 1024.0,
            asked.rate_bytes as f64 / 1024.0
        ),
        None => format!("no {who} took part"),
    }
}

/// A kernel that is short of memory drops bytes and closes windows by itself.
fn is_short_of_memory(seen: &Measurement) -> bool {
    let server = seen.server.as_ref();
    server.is_some_and(|server| server.tcp_memory_pressure)
}

/// Whether a server may have felt that this client did not read: something waited in its own queue.
/// A steady client shows that by its rate alone.
fn is_felt(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> bool {
    if client.kind.row().reading != Reading::AfterPause || client.intact.is_none() {
        return true;
    }
    let (Some(resumed), Some(full)) = (client.resumed_at, client.full_at) else {
        return false;
    };
    if !plan.protocol.traits().verifies {
        let unfelt = if client.in_sight {
            PUSHED_MEANWHILE_BYTES
        } else {
            KERNEL_HOLDS_BYTES
        };
        return flow(seen) * (resumed - full) > unfelt;
    }
    let unfelt = if client.in_sight {
        0
    } else {
        KERNEL_HOLDS_BYTES as u64
    };
    // An echo that takes no more waits for its own writes.
    let stopped = plan.protocol.traits().echoes && !client.offer_exhausted;
    stopped || client.owed_when_resumed_bytes.is_some_and(|owed| owed > unfelt)
}

fn why_unfelt(clients: &[&SlowClientSeen]) -> &'static str {
    if clients.iter().any(|client| client.resumed_at.is_some()) {
        "all answers fit into what kernels hold, so that the server never felt the pause"
    } else {
        "none was full, so that none paused"
    }
}

const WRONG: &str = "received wrong bytes, or not all";

/// How many came to which harm.
#[derive(Default)]
struct Harm {
    lost: usize,
    corrupt: usize,
    unconnected: usize,
    incomplete: usize,
    /// Why the first stream that was wrong was.
    wrong: Option<String>,
    /// Why those that were lost need not be the server's fault.
    excuse: Option<String>,
}

impl Harm {
    fn of(plan: &Plan, seen: &Measurement, clients: &[&SlowClientSeen]) -> Self {
        let mut harm = Self::default();
        for client in clients {
            if client.intact == Some(false) {
                // What is pushed in a longer pause than was asked for may be more than a server keeps.
                match late_pause(plan, client).filter(|_| !plan.protocol.traits().verifies) {
                    Some(why) => harm.excuse = Some(why),
                    None => {
                        harm.corrupt += 1;
                        harm.wrong = harm.wrong.or_else(|| client.corruption.clone());
                    }
                }
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
            (self.corrupt, WRONG),
            (self.unconnected, "could not connect"),
            (self.incomplete, "did not get all that they were owed"),
        ];
        let worst = harms.into_iter().find(|(number, _)| *number > 0);
        let (number, what) = worst?;
        let why = self.wrong.as_ref().filter(|_| what == WRONG);
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        Some((number, format!("{number} of {total} {what}{why}")))
    }

    /// Whether something else than the server may have done that.
    fn doubt(&self, seen: &Measurement) -> Option<&'static str> {
        if self.corrupt == 0 && is_short_of_memory(seen) {
            return Some(SHORT);
        }
        (seen.interrupted && self.corrupt == 0 && self.lost == 0).then_some("the probe was ended early")
    }
}

/// Why a client that was disconnected need not have been thrown out for being slow.
fn excuse(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> Option<String> {
    let other = other_reason(seen, client).filter(|_| client.standstill.is_some());
    other.or_else(|| late_pause(plan, client))
}

/// Whether the prober let a client pause for longer than asked, in words.
fn late_pause(plan: &Plan, client: &SlowClientSeen) -> Option<String> {
    let paused = client.kind.row().reading == Reading::AfterPause;
    let full = client.full_at?;
    let pause = client.resumed_at.or(client.ended_at)? - full;
    let asked = plan.pause.as_secs_f64();
    (paused && pause > asked + LATE_SECONDS)
        .then(|| format!("the prober was busy and let one pause for {pause:.1} s instead of {asked} s"))
}

fn intact(plan: &Plan, question: Question, clients: &[&SlowClientSeen]) -> Finding {
    let total = clients.len();
    let bytes: u64 = clients.iter().map(|client| client.received_bytes).sum();
    if clients.iter().any(|client| client.intact.is_none()) {
        let reason = format!(
            "{} kept, unverified: {} ({bytes} bytes)",
            all(total),
            why_unverified(plan)
        );
        return question.answer(Outcome::Unknown, Some(0.0), reason);
    }
    let what = match plan.protocol.traits().verifies {
        true => format!("{bytes} bytes came back intact"),
        false => format!("every numbered message came, in order ({bytes} bytes)"),
    };
    question.answer(
        Outcome::Pass,
        Some(0.0),
        format!("{} kept, and {what}", all(total)),
    )
}

fn why_unverified(plan: &Plan) -> String {
    match plan.protocol.publishing() {
        None => "only the server knows what it pushed".to_owned(),
        Some(publishing) if count_places(&publishing.line) == 0 => {
            format!("number the messages with {NUMBER_PLACEHOLDER} in `publish`")
        }
        Some(_) => {
            format!("the number at {NUMBER_PLACEHOLDER} in `publish` did not come back as it was sent")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::kind::Disconnect;
    use crate::probe::protocol::echo::Echo;
    use crate::probe::report::measurement::{Healthy, ServerSeen, StandstillSeen};

    fn plan() -> Plan {
        Plan::new(([127, 0, 0, 1], 9).into()).speaking(Echo)
    }

    /// A paused client that was full after a second, and got everything after its pause.
    fn complete() -> SlowClientSeen {
        SlowClientSeen {
            connected_at: Some(0.0),
            full_at: Some(1.0),
            resumed_at: Some(1.0 + plan().pause.as_secs_f64()),
            received_bytes: 1000,
            intact: Some(true),
            complete: true,
            in_sight: true,
            owed_when_resumed_bytes: Some(80_000),
            ..SlowClientSeen::new(SlowKind::Paused, 1)
        }
    }

    /// The same, reset so many seconds after it was full, before it read again.
    fn reset_after(seconds: f64) -> SlowClientSeen {
        SlowClientSeen {
            resumed_at: None,
            ended_at: Some(1.0 + seconds),
            end: Some(Disconnect::Reset),
            complete: false,
            standstill: Some(StandstillSeen {
                not_before: 1.0,
                seen_at: 1.0,
                bytes: 1000,
                began_at: 0.0,
                in_sight: true,
                input_at: 1.0,
                owed_much_at: None,
            }),
            ..complete()
        }
    }

    fn judged(client: SlowClientSeen, is_short: bool, lifetimes: &[f64]) -> Finding {
        let seen = Measurement {
            seconds: 20.0,
            slow: vec![client],
            healthy: Healthy {
                lifetimes: lifetimes.to_vec(),
                ..Healthy::default()
            },
            server: Some(ServerSeen {
                tcp_memory_pressure: is_short,
                ..ServerSeen::default()
            }),
            ..Measurement::default()
        };
        kept(&plan(), &seen, SlowKind::Paused)
    }

    #[track_caller]
    fn assert_judged(finding: &Finding, outcome: Outcome, word: &str) {
        assert_eq!(finding.outcome, outcome, "{finding:?}");
        assert!(finding.reason.contains(word), "{finding:?}");
    }

    #[test]
    fn a_host_short_of_memory_for_tcp_leaves_kept_clients_unknown_and_says_so() {
        assert_judged(&judged(complete(), false, &[]), Outcome::Pass, "kept");
        assert_judged(&judged(complete(), true, &[]), Outcome::Unknown, "tcp_mem");
        assert_judged(
            &judged(reset_after(1.0), false, &[]),
            Outcome::Fail,
            "disconnected",
        );
        assert_judged(&judged(reset_after(1.0), true, &[]), Outcome::Unknown, "tcp_mem");
    }

    #[test]
    fn a_pause_that_the_server_never_felt_proves_nothing() {
        let owed_nothing = SlowClientSeen {
            offer_exhausted: true,
            owed_when_resumed_bytes: Some(0),
            ..complete()
        };
        assert_judged(&judged(owed_nothing, false, &[]), Outcome::Unknown, "never felt");
        let never_paused = SlowClientSeen {
            full_at: None,
            resumed_at: None,
            owed_when_resumed_bytes: None,
            ..complete()
        };
        assert_judged(&judged(never_paused, false, &[]), Outcome::Unknown, "none paused");
    }

    #[test]
    fn no_shortage_of_memory_excuses_a_wrong_byte() {
        let corrupt = SlowClientSeen {
            intact: Some(false),
            ..complete()
        };
        assert_judged(&judged(corrupt, true, &[]), Outcome::Fail, "wrong bytes");
    }

    #[test]
    fn a_client_cut_at_the_age_of_healthy_ones_was_not_cut_for_its_pause() {
        let cut = |lifetimes: &[f64]| judged(reset_after(1.0), false, lifetimes);
        assert_judged(&cut(&[2.1]), Outcome::Unknown, "cut alike, 2.1 s");
        assert_judged(&cut(&[9.0]), Outcome::Fail, "disconnected");
    }

    #[test]
    fn a_client_that_a_busy_prober_let_pause_for_longer_blames_nobody() {
        let asked = plan().pause.as_secs_f64();
        let late = judged(reset_after(asked + 2.0 * LATE_SECONDS), false, &[]);
        assert_judged(&late, Outcome::Unknown, "the prober was busy");
        let in_time = judged(reset_after(asked + LATE_SECONDS / 2.0), false, &[]);
        assert_judged(&in_time, Outcome::Fail, "disconnected");
    }
}
