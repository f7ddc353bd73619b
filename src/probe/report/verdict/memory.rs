//! Is the server's memory bounded?
//!
//! What is seen to grow decides, whatever went in: kernels hold megabytes at each hop. A runtime's
//! heap grows for reasons of its own, too, so that growth fails a server only where slow clients
//! explain it. What a publisher sends within the deadline of a slow client must wait, once: a server
//! that neither blocks the publisher nor loses a message cannot do with less.

use super::finding::{Finding, Outcome, Question};
use super::slow::{flow, is_gone};
use super::{RSS_ALLOWANCE_BYTES, RSS_PER_SLOW_CLIENT_BYTES};
use crate::probe::kind::{Fate, Reading};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::{Measurement, ServerSeen, Slice, SlowClientSeen};

/// What the kernels of one hop may hold for one connection where the server is not to be seen:
/// common limits of a receive buffer (tcp_rmem) and of a send buffer (tcp_wmem).
const HOP_HOLDS_BYTES: u64 = (32 + 4) << 20;
/// The client's connection, and one to an upstream with its own two directions.
const HOPS: u64 = 2;
/// Memory counts as held once it was in use for so long, in seconds: garbage goes sooner.
const HELD_SECONDS: f64 = 1.0;
/// A server that keeps what it owes slow clients grows by at least this part of it.
const PART_KEPT: f64 = 0.5;

pub(super) fn bounded(plan: &Plan, seen: &Measurement) -> Finding {
    let question = Question::new("memory-bounded", "memory is bounded", "bytes");
    if seen.slow.is_empty() {
        return question.not_tested("no slow clients took part");
    }
    match &seen.server {
        Some(server) => by_growth(question, plan, seen, server),
        None => by_absorption(question, plan, &filled(seen)),
    }
}

/// Slow clients that make a server hold something: steady ones never, quiet ones when they were full.
fn filled(seen: &Measurement) -> Vec<&SlowClientSeen> {
    let fills = |client: &&SlowClientSeen| {
        let is_quiet = client.kind.row().reading == Reading::NeverInSteps;
        client.connected && client.kind.row().fate != Fate::Kept && (!is_quiet || client.full_at.is_some())
    };
    seen.slow.iter().filter(fills).collect()
}

fn by_growth(question: Question, plan: &Plan, seen: &Measurement, server: &ServerSeen) -> Finding {
    let waits_once = published_within(plan, seen);
    let allowed =
        RSS_ALLOWANCE_BYTES + RSS_PER_SLOW_CLIENT_BYTES * seen.slow.len() as u64 + waits_once.unwrap_or(0);
    let growth = Growth::of(seen, server);
    let question = question.held_against(allowed as f64);
    let once = waits_once.map_or(String::new(), |bytes| {
        let within = plan.within.as_secs_f64();
        format!(
            ", {} of them once for what is published in {within} s",
            bytes >> 20
        )
    });
    let reason = format!(
        "its memory grew by {} for {} slow clients; {} MiB are allowed{once}",
        mebibytes(growth.held),
        seen.slow.len(),
        allowed >> 20
    );
    // Where little went in or came out, nothing of the growth is theirs.
    let stood = |client: &SlowClientSeen| client.standstill.is_some() || client.full_at.is_some();
    let took = |client: &SlowClientSeen| client.absorbed_bytes >= RSS_ALLOWANCE_BYTES;
    if !seen.slow.iter().any(|client| stood(client) || took(client)) {
        return question.unknown(format!("{reason}, but no slow client was full"));
    }
    if growth.held > allowed {
        return match most_owed(plan, seen) {
            Some(owed) if owed <= allowed => question.unknown(format!(
                "{reason}, but it owed them no more than {}, so that it grew for another reason",
                mebibytes(owed)
            )),
            Some(owed) if !pushes(plan) && (growth.held as f64) < owed as f64 * PART_KEPT => question
                .unknown(format!(
                    "{reason}, but a server that keeps what it owes them would grow by {}",
                    mebibytes(owed)
                )),
            _ => question.answer(Outcome::Fail, Some(growth.held as f64), reason),
        };
    }
    // Garbage of a moment is no queue; what goes when clients go may have been theirs.
    if growth.peak > allowed && !growth.went_while_clients_waited {
        return question.unknown(format!(
            "{reason}, but it had grown by {} for a moment",
            mebibytes(growth.peak)
        ));
    }
    if let Some(owed) = most_owed(plan, seen).filter(|owed| *owed > allowed)
        && plan.protocol.traits().echoes
        && growth.in_use >= owed
    {
        return question.unknown(format!(
            "{reason}, but the {} that it owed them may stand in memory that it had before; start it anew",
            mebibytes(owed)
        ));
    }
    if let Some(log) = grown_by_a_log(plan, seen)
        && (log < RSS_ALLOWANCE_BYTES as f64 || growth.held as f64 > log * PART_KEPT)
    {
        return question.unknown(format!(
            "{reason}, but slow clients stayed, and one that keeps all it pushes, once, would have grown by {}",
            mebibytes(log as u64)
        ));
    }
    by_offer(question, plan, seen, allowed, growth.held, reason)
}

/// Whether the server sends by itself.
fn pushes(plan: &Plan) -> bool {
    let traits = plan.protocol.traits();
    !traits.verifies && !traits.echoes
}

/// What is pushed to one client in a second, in bytes: as published, or as healthy ones got it.
fn pushed_rate(plan: &Plan, seen: &Measurement) -> f64 {
    let published = plan.published_rate_bytes().unwrap_or(0) as f64;
    published.max(flow(seen))
}

/// What the prober publishes within the time after which a slow client must be gone.
fn published_within(plan: &Plan, seen: &Measurement) -> Option<u64> {
    plan.published_rate_bytes()?;
    Some((pushed_rate(plan, seen) * plan.within.as_secs_f64()) as u64)
}

/// By how much a server would have grown, in bytes, that keeps each message until all have it; `None`
/// where it pushes nothing, or nobody stayed that never reads.
fn grown_by_a_log(plan: &Plan, seen: &Measurement) -> Option<f64> {
    let never_reads = |client: &&SlowClientSeen| client.kind.row().reading == Reading::Never;
    let stayed = seen.slow.iter().filter(never_reads);
    let stayed = stayed.filter(|client| client.connected && !is_gone(client));
    let stood = stayed.map(|client| {
        let since = client
            .standstill
            .map_or(client.last_look_at, |stands| stands.seen_at);
        client.last_look_at - since
    });
    let longest = stood.reduce(f64::max).filter(|_| pushes(plan))?;
    Some(flow(seen) * longest)
}

/// A server that grew by no more than is allowed. One that takes everything is bounded only if that
/// was more than is allowed.
fn by_offer(
    question: Question,
    plan: &Plan,
    seen: &Measurement,
    allowed: u64,
    grown: u64,
    reason: String,
) -> Finding {
    let filled = filled(seen);
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

/// The most that the server can have kept for all slow clients; `None` where nobody can tell.
fn most_owed(plan: &Plan, seen: &Measurement) -> Option<u64> {
    let echoes = plan.protocol.traits().echoes;
    let connected = seen.slow.iter().filter(|client| client.connected);
    connected
        .map(|client| match client.most_owed_bytes {
            Some(owed) if echoes => Some(owed),
            // Of answers, more than `fill` is only asked for by talkers, and read by no server.
            Some(owed) => Some(owed.min(plan.fill)),
            None if echoes => Some(client.absorbed_bytes),
            None if pushes(plan) => Some(most_pushed(plan, seen, client)),
            None => None,
        })
        .sum()
}

/// The most that was pushed to a client, or would have been if it had read, in bytes.
fn most_pushed(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> u64 {
    let from = client.connected_at.unwrap_or(client.joined_at);
    let until = client.ended_at.unwrap_or(seen.seconds);
    (pushed_rate(plan, seen) * (until - from)) as u64
}

/// By how much the server's memory grew while slow clients were there, in bytes.
struct Growth {
    /// What it held for a second.
    held: u64,
    /// The most that was seen.
    peak: u64,
    /// All that it held for a second, not only what it grew by.
    in_use: u64,
    /// Its memory went back from the peak while every client that never reads was still owed.
    went_while_clients_waited: bool,
}

impl Growth {
    fn of(seen: &Measurement, server: &ServerSeen) -> Self {
        let from = seen.healthy.during.map_or(0.0, |during| during.from);
        let until = seen.healthy.after.map_or(seen.seconds, |after| after.from);
        let slices = seen.timeline.iter().filter(|slice| slice.at < until);
        let (before, during): (Vec<Slice>, Vec<Slice>) = slices.partition(|slice| slice.at < from);
        let base = held_bytes(&before).unwrap_or(0).max(server.rss_before_bytes);
        let held = held_bytes(&during).unwrap_or(server.rss_peak_bytes);
        let peak = during.iter().max_by_key(|slice| slice.rss_bytes);
        let back = peak.and_then(|peak| {
            let later = during.iter().filter(|slice| slice.at > peak.at);
            later
                .into_iter()
                .find(|slice| slice.rss_bytes.is_some_and(|bytes| bytes <= held))
        });
        Self {
            held: held.saturating_sub(base),
            peak: server.rss_peak_bytes.saturating_sub(base),
            in_use: held,
            went_while_clients_waited: back.is_some_and(|back| all_wait(seen, back.at)),
        }
    }
}

/// The most that was in use for [`HELD_SECONDS`] without a break; `None` where nobody looked for so long.
fn held_bytes(slices: &[Slice]) -> Option<u64> {
    let looks: Vec<(f64, u64)> = slices
        .iter()
        .filter_map(|slice| Some((slice.at, slice.rss_bytes?)))
        .collect();
    let last_at = looks.last()?.0;
    let starts = looks
        .iter()
        .enumerate()
        .filter(|(_, (at, _))| at + HELD_SECONDS <= last_at);
    let least_from = |(start, (at, _)): (usize, &(f64, u64))| {
        let within = looks[start..]
            .iter()
            .take_while(|look| look.0 <= at + HELD_SECONDS);
        within.map(|look| look.1).min()
    };
    starts.filter_map(least_from).max()
}

/// Whether there are clients that never read, and all of them were full and connected at that moment.
fn all_wait(seen: &Measurement, at: f64) -> bool {
    let never_reads = |client: &&SlowClientSeen| {
        matches!(client.kind.row().reading, Reading::Never | Reading::NeverButTalks)
    };
    let waits = |client: &SlowClientSeen| {
        client.full_at.is_some_and(|full| full <= at) && client.ended_at.is_none_or(|ended| ended > at)
    };
    let mut never_reading = seen.slow.iter().filter(never_reads).peekable();
    never_reading.peek().is_some() && never_reading.all(waits)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
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
    let goes_on = |client: &&&SlowClientSeen| !client.offer_exhausted && client.full_at.is_none();
    let filling = filled.iter().filter(goes_on).count();
    if exhausted == 0 && filling > 0 {
        return question.unknown(format!(
            "the server's side still took more of {filling} of {} that read nothing when the probe was over",
            filled.len()
        ));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::kind::{Disconnect, SlowKind};
    use crate::probe::protocol::echo::Echo;
    use crate::probe::protocol::push::Push;
    use crate::probe::protocol::{Protocol, Publishing};
    use crate::probe::report::measurement::{Healthy, PhaseFigures, StandstillSeen};

    const MIB: u64 = 1 << 20;
    /// Without slow clients; the phases last 2, 8 and 2 s.
    const BASE: u64 = 20 * MIB;

    /// Memory in tenths of a second, in bytes above [`BASE`].
    fn measured(memory: impl Fn(f64) -> u64, slow: Vec<SlowClientSeen>) -> Measurement {
        let phase = |from: f64| PhaseFigures {
            from,
            ..PhaseFigures::default()
        };
        let timeline: Vec<Slice> = (1..120)
            .map(|tenths| {
                let at = f64::from(tenths) / 10.0;
                Slice {
                    at,
                    rss_bytes: Some(BASE + memory(at)),
                    ..Slice::default()
                }
            })
            .collect();
        let during = || timeline.iter().filter(|slice| slice.at >= 2.0 && slice.at < 10.0);
        Measurement {
            seconds: 12.0,
            healthy: Healthy {
                before: Some(phase(0.0)),
                during: Some(phase(2.0)),
                after: Some(phase(10.0)),
                ..Healthy::default()
            },
            server: Some(ServerSeen {
                rss_before_bytes: BASE + memory(1.9),
                rss_peak_bytes: during().filter_map(|slice| slice.rss_bytes).max().unwrap_or(0),
                ..ServerSeen::default()
            }),
            slow,
            timeline,
            ..Measurement::default()
        }
    }

    /// Two stalled clients, full at 3 s, which were owed so much each. 10 MiB are allowed for them.
    fn stalled(most_owed: Option<u64>, ended_at: Option<f64>) -> Vec<SlowClientSeen> {
        let client = SlowClientSeen {
            full_at: Some(3.0),
            absorbed_bytes: 16 * MIB,
            most_owed_bytes: most_owed,
            ended_at,
            ..SlowClientSeen::new(SlowKind::Stalled, 1)
        };
        vec![client.clone(), client]
    }

    /// Grows when the slow clients join, and stays.
    fn grown(bytes: u64) -> impl Fn(f64) -> u64 {
        move |at| if at < 2.5 { 0 } else { bytes }
    }

    #[track_caller]
    fn assert_judged(protocol: impl Protocol + 'static, seen: &Measurement, outcome: Outcome, word: &str) {
        let plan = Plan::new(([127, 0, 0, 1], 9).into()).speaking(protocol);
        let finding = bounded(&plan, seen);
        assert_eq!(finding.outcome, outcome, "{finding:?}");
        assert!(finding.reason.contains(word), "{finding:?}");
    }

    #[test]
    fn a_server_that_keeps_what_it_owes_is_failed() {
        for kept in [9, 16] {
            let seen = measured(grown(2 * kept * MIB), stalled(Some(16 * MIB), None));
            assert_judged(Echo, &seen, Outcome::Fail, "10 MiB are allowed");
        }
        let seen = pushing(5 * MIB, measured(grown(32 * MIB), stalled(None, None)));
        assert_judged(Push::default(), &seen, Outcome::Fail, "10 MiB are allowed");
    }

    /// The same, where so much is pushed to each client in a second and slow ones stood still from 3 s on.
    fn pushing(rate: u64, mut seen: Measurement) -> Measurement {
        seen.healthy.clients = 1;
        seen.healthy.before.as_mut().unwrap().bytes_per_second = rate as f64;
        for client in &mut seen.slow {
            client.last_look_at = 10.0;
            client.end = client.ended_at.map(|_| Disconnect::Reset);
            client.standstill = Some(StandstillSeen {
                not_before: 3.0,
                seen_at: 3.0,
                bytes: 1000,
                began_at: 2.0,
                in_sight: true,
                input_at: 2.0,
                owed_much_at: None,
            });
        }
        seen
    }

    /// Of which the prober publishes as much.
    fn published(rate: u64) -> Push {
        Push {
            publishing: Some(Publishing {
                line: b"PUB {seq}".to_vec(),
                bytes_per_second: rate,
                ..Publishing::default()
            }),
            ..Push::default()
        }
    }

    #[test]
    fn what_is_published_within_the_deadline_may_wait_once() {
        let rate = 4 * MIB;
        let gone_at_9 = |grows: u64| pushing(rate, measured(grown(grows), stalled(None, Some(9.0))));
        // 8 + 2 + 6 s at 4 MiB/s.
        assert_judged(
            published(rate),
            &gone_at_9(33 * MIB),
            Outcome::Pass,
            "34 MiB are allowed, 24 of them",
        );
        assert_judged(
            published(rate),
            &gone_at_9(48 * MIB),
            Outcome::Fail,
            "34 MiB are allowed",
        );
        // A server that speaks by itself can fall silent towards a slow client.
        assert_judged(
            Push::default(),
            &gone_at_9(33 * MIB),
            Outcome::Fail,
            "10 MiB are allowed",
        );
    }

    #[test]
    fn where_slow_clients_stay_a_log_without_end_must_have_shown_itself() {
        let rate = 4 * MIB;
        let stayed = |rate: u64, grows: u64| pushing(rate, measured(grown(grows), stalled(None, None)));
        // In 7 s.
        assert_judged(published(rate), &stayed(rate, 6 * MIB), Outcome::Pass, "6.0 MiB");
        let log = "would have grown by 28.0 MiB";
        assert_judged(published(rate), &stayed(rate, 28 * MIB), Outcome::Unknown, log);
        let little = stayed(MIB, 0);
        assert_judged(
            published(MIB),
            &little,
            Outcome::Unknown,
            "would have grown by 7.0 MiB",
        );
    }

    #[test]
    fn growth_beyond_all_that_was_pushed_fails_nobody() {
        let seen = pushing(MIB / 4, measured(grown(30 * MIB), stalled(None, None)));
        assert_judged(Push::default(), &seen, Outcome::Unknown, "for another reason");
    }

    #[test]
    fn growth_beyond_what_slow_clients_explain_fails_nobody() {
        let little = measured(grown(30 * MIB), stalled(Some(90_000), None));
        assert_judged(Echo, &little, Outcome::Unknown, "no more than 0.2 MiB");
        let most = measured(grown(14 * MIB), stalled(Some(16 * MIB), None));
        assert_judged(Echo, &most, Outcome::Unknown, "would grow by 32.0 MiB");
    }

    #[test]
    fn growth_of_a_moment_is_garbage_while_those_that_it_could_be_for_still_wait() {
        let moment = |at: f64| match at {
            ..2.5 => 0,
            4.0..4.6 => 60 * MIB,
            _ => 5 * MIB,
        };
        let owed = Some(16 * MIB);
        assert_judged(
            Echo,
            &measured(moment, stalled(owed, None)),
            Outcome::Pass,
            "5.0 MiB",
        );
        assert_judged(
            Echo,
            &measured(moment, stalled(owed, Some(9.0))),
            Outcome::Pass,
            "5.0 MiB",
        );
        let gone = measured(moment, stalled(owed, Some(4.5)));
        assert_judged(Echo, &gone, Outcome::Unknown, "60.0 MiB for a moment");
    }

    #[test]
    fn a_server_that_had_the_memory_before_is_not_passed_for_not_growing() {
        let seen = |owed: u64, base: u64| measured(move |_| base, stalled(Some(owed), None));
        let reused = seen(16 * MIB, 12 * MIB);
        assert_judged(Echo, &reused, Outcome::Unknown, "start it anew");
        // A tunnel, say: what it owes cannot be in its own memory, or is next to nothing.
        assert_judged(Echo, &seen(16 * MIB, 11 * MIB), Outcome::Pass, "grew by 0.0 MiB");
        assert_judged(Echo, &seen(80_000, 30 * MIB), Outcome::Pass, "grew by 0.0 MiB");
    }

    #[test]
    fn where_memory_is_out_of_sight_a_client_that_still_filled_up_proves_nothing() {
        let out_of_sight = |slow: Vec<SlowClientSeen>| Measurement {
            server: None,
            ..measured(|_| 0, slow)
        };
        let full = || stalled(None, None);
        assert_judged(
            Echo,
            &out_of_sight(full()),
            Outcome::Pass,
            "no client got rid of more",
        );
        let mut filling = full();
        filling[1].full_at = None;
        assert_judged(
            Echo,
            &out_of_sight(filling),
            Outcome::Unknown,
            "still took more of 1 of 2",
        );
        let mut exhausted = full();
        exhausted[0].offer_exhausted = true;
        assert_judged(
            Echo,
            &out_of_sight(exhausted),
            Outcome::Unknown,
            "kernels on the way",
        );
    }

    #[test]
    fn what_healthy_clients_alone_made_it_hold_is_no_growth() {
        let always = |at: f64| {
            if (0.2..1.6).contains(&at) || at > 3.0 {
                11 * MIB
            } else {
                0
            }
        };
        let seen = measured(always, stalled(Some(16 * MIB), None));
        assert_judged(Echo, &seen, Outcome::Pass, "grew by 0.0 MiB");
    }
}
