//! Are slow clients disconnected, and in time?
//!
//! Owns what counts as thrown out, and since when a server can have noticed: an
//! interval where its own queue is not in sight.

use super::finding::{Finding, Outcome, Question, all};
use crate::probe::kind::{Disconnect, KindRow, Reading, SlowKind};
use crate::probe::plan::Plan;
use crate::probe::report::measurement::{Measurement, PublisherSeen, SlowClientSeen};

/// What the kernel of a server that is not in sight may hold for one client: the usual limit of
/// a send buffer (tcp_wmem), in bytes.
pub(super) const KERNEL_HOLDS_BYTES: f64 = (4 << 20) as f64;
/// What a limit inside the server may hold before it notices: some 16 queues of 64 KiB.
const INNER_LIMIT_BYTES: f64 = (1 << 20) as f64;
/// A server that pushes owes a client that stands still once others got so much meanwhile.
pub(super) const PUSHED_MEANWHILE_BYTES: f64 = (64 << 10) as f64;
/// How old a look into the server's kernel may be, in seconds.
const LOOK_AGE: f64 = 0.3;
/// Ages of connections that differ by no more than this many seconds, or this part, are alike.
const ALIKE_SECONDS: f64 = 0.3;
const ALIKE_PART: f64 = 0.1;
/// A client that stood still for less than this, in seconds, may have been cut for another reason.
const STOOD_STILL: f64 = 0.3;

/// What became of a client that a server should get rid of.
enum End {
    /// It was owed something, and thrown out so many seconds after the server can have noticed.
    Thrown { least: f64, most: f64 },
    /// It is still there, so long after the server must have noticed.
    Stayed { least: f64 },
    /// What was seen decides nothing.
    Open(String),
}

pub(super) fn of_kind(seen: &Measurement, kind: SlowKind) -> Vec<&SlowClientSeen> {
    seen.slow.iter().filter(|client| client.kind == kind).collect()
}

pub(super) fn is_gone(client: &SlowClientSeen) -> bool {
    let ends = [Disconnect::Reset, Disconnect::EndOfFile, Disconnect::LeftInKernel];
    client.end.is_some_and(|end| ends.contains(&end))
}

/// Bytes a second that one healthy client got while nobody was slow.
pub(super) fn flow(seen: &Measurement) -> f64 {
    let alone = seen.healthy.before.map_or(0.0, |before| before.bytes_per_second);
    alone / seen.healthy.clients.max(1) as f64
}

/// The earliest and the latest moment at which the server can have noticed that its own queue owes
/// this client something and nothing moves; `None` where nothing shows that it owes anything.
fn noticed(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> Option<(f64, Option<f64>)> {
    let stands = client.standstill?;
    let echoes = plan.protocol.traits().echoes;
    let owes = match client.owed_bytes {
        Some(owed) if echoes || stands.in_sight => owed > 0,
        Some(owed) => owed as f64 > KERNEL_HOLDS_BYTES,
        None => flow(seen) * (client.last_look_at - stands.seen_at) > PUSHED_MEANWHILE_BYTES,
    };
    if !owes {
        return None;
    }
    let age = if stands.in_sight { LOOK_AGE } else { 0.0 };
    let earliest = stands.not_before - age;
    let latest = if echoes {
        let much = stands.owed_much_at.filter(|_| stands.in_sight);
        let input = (!client.offer_exhausted).then_some(stands.input_at);
        let first = [much, input].into_iter().flatten().reduce(f64::min);
        first.map(|first| first.max(stands.seen_at))
    } else {
        let (bytes, rate) = if stands.in_sight {
            let took = (stands.seen_at - stands.began_at).max(1e-2);
            // What it got before it stood still, or what healthy ones get in the same time.
            (INNER_LIMIT_BYTES, (stands.bytes as f64 / took).max(flow(seen)))
        } else {
            (INNER_LIMIT_BYTES + KERNEL_HOLDS_BYTES, flow(seen))
        };
        (rate > 0.0).then(|| stands.seen_at + bytes / rate)
    };
    Some((earliest, latest))
}

/// At which age healthy clients are cut as this one was. Where all of them were thrown out, one that
/// lived longer proves nothing: what lingers behind a full buffer comes later.
fn cut_alike(seen: &Measurement, client: &SlowClientSeen) -> Option<f64> {
    let healthy = &seen.healthy;
    let age = client.ended_at? - client.connected_at?;
    let all_thrown = healthy.clients > 0 && healthy.ended == healthy.clients && healthy.corrupt == 0;
    let tolerance = ALIKE_SECONDS.max(age * ALIKE_PART);
    let alike = |other: &&f64| (**other - age).abs() <= tolerance || (all_thrown && **other <= age);
    healthy.lifetimes.iter().find(alike).copied()
}

/// Why a client that ended may not have been thrown out for being slow.
pub(super) fn other_reason(seen: &Measurement, client: &SlowClientSeen) -> Option<String> {
    if let Some(age) = cut_alike(seen, client) {
        return Some(format!(
            "healthy clients are cut alike, {age:.1} s after they connect"
        ));
    }
    let ended = client.ended_at?;
    let still = client.standstill.map_or(0.0, |stands| ended - stands.seen_at);
    let closes = seen.healthy.closed_in_order > 0;
    (closes && still < STOOD_STILL && client.kind.row().reading != Reading::Paced)
        .then(|| "the server closes healthy clients too, and this one had not stood still".to_owned())
}

/// When its connection was last known to stand. A client that is full does not see that its server has
/// closed it without a reset: where the server is in sight, only a look there tells, and elsewhere the
/// last byte that moved.
fn last_stood(client: &SlowClientSeen) -> f64 {
    let looked = client.last_look_at;
    match client.end {
        Some(Disconnect::EndOfFile) if !client.in_sight => client.last_progress_at.min(looked),
        Some(Disconnect::Reset | Disconnect::EndOfFile) => looked,
        _ => client.last_held_at.map_or(looked, |held_at| held_at.min(looked)),
    }
}

fn end_of(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> End {
    if client.kind.row().reading == Reading::Paced {
        return end_of_paced(plan, seen, client);
    }
    let noticed = noticed(plan, seen, client);
    let gone = client.ended_at.filter(|_| is_gone(client));
    match (gone, noticed) {
        (Some(_), _) if other_reason(seen, client).is_some() => {
            End::Open(other_reason(seen, client).unwrap_or_default())
        }
        (Some(ended), Some((earliest, latest))) => {
            let alive = ended.min(last_stood(client).max(earliest));
            End::Thrown {
                least: latest.map_or(0.0, |latest| (alive - latest).max(0.0)),
                most: ended - earliest,
            }
        }
        (Some(_), None) => End::Open("gone before anything waited for it in the server".to_owned()),
        (None, Some((_, Some(latest)))) if last_stood(client) - latest > plan.within.as_secs_f64() => {
            End::Stayed {
                least: last_stood(client) - latest,
            }
        }
        (None, Some((earliest, _))) => End::Open(format!(
            "still connected {:.1} s after the server can have noticed, but it need not have noticed yet",
            last_stood(client) - earliest
        )),
        (None, None) => End::Open(why_not_full(plan, seen, client)),
    }
}

/// A client that reads too slowly never stands still: it is owed something from the first second on.
fn end_of_paced(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> End {
    let from = client.connected_at.unwrap_or(client.joined_at);
    if let Some(ended) = client.ended_at.filter(|_| is_gone(client)) {
        return match other_reason(seen, client) {
            Some(reason) => End::Open(reason),
            None => End::Thrown {
                least: 0.0,
                most: ended - from,
            },
        };
    }
    let lived = last_stood(client) - from;
    let owes = match client.owed_bytes {
        Some(owed) if plan.protocol.traits().echoes || client.in_sight => owed > 0,
        Some(owed) => owed as f64 > KERNEL_HOLDS_BYTES,
        None => {
            let missed = flow(seen) * lived - client.output_bytes as f64;
            missed
                > if client.in_sight {
                    PUSHED_MEANWHILE_BYTES
                } else {
                    KERNEL_HOLDS_BYTES
                }
        }
    };
    if owes && lived > plan.within.as_secs_f64() {
        End::Stayed { least: lived }
    } else {
        End::Open(why_not_full(plan, seen, client))
    }
}

/// Why nobody can tell whether a server would get rid of this client.
pub(super) fn why_not_full(plan: &Plan, seen: &Measurement, client: &SlowClientSeen) -> String {
    let traits = plan.protocol.traits();
    if !traits.verifies {
        let quoted = seen.healthy.first_words.as_ref();
        let words = quoted.map_or(String::new(), |words| format!(" (\"{words}\")"));
        let publisher = seen.publisher.as_ref().map_or(String::new(), publisher_told);
        let login = match seen.publisher {
            Some(_) => "`send` or `publish-greeting`",
            None => "`send`",
        };
        return format!(
            "{} bytes for each slow client{words}{publisher}: too little to fill one; log in with {login}, or push more",
            client.output_bytes
        );
    }
    if client.closed_in_order > 0 {
        return format!(
            "the server closed it {} times in order before anything waited for it in the server",
            client.closed_in_order
        );
    }
    if client.offer_exhausted && traits.echoes {
        return format!(
            "the server's side took all {} bytes of one; offer more with `fill`",
            plan.fill
        );
    }
    "all its answers fit into what kernels hold, so that it was never full".to_owned()
}

/// What became of the publisher, as far as that may be why little was pushed.
fn publisher_told(publisher: &PublisherSeen) -> String {
    let told = publisher.first_words.as_ref();
    let told = told.map_or(String::new(), |words| {
        format!("; the publisher was told \"{words}\"")
    });
    let ended = match publisher.ended {
        true if told.is_empty() => "; the publisher was disconnected",
        true => " and disconnected",
        false => "",
    };
    told + ended
}

pub(super) fn disconnected(plan: &Plan, seen: &Measurement, kind: SlowKind) -> Finding {
    let KindRow { who, finding, .. } = *kind.row();
    let question = Question::new(
        finding.unwrap_or_default(),
        format!("{who} are disconnected"),
        "clients",
    )
    .held_against(0.0);
    let clients = of_kind(seen, kind);
    if clients.is_empty() {
        return question.not_tested(&format!("no {who} took part"));
    }
    let connected: Vec<_> = clients.iter().filter(|client| client.connected).collect();
    if connected.is_empty() {
        return question.unknown(format!("none of {} could connect", clients.len()));
    }
    let ends: Vec<End> = connected
        .iter()
        .map(|client| end_of(plan, seen, client))
        .collect();
    let stayed = ends
        .iter()
        .filter(|end| matches!(end, End::Stayed { .. }))
        .count();
    let total = connected.len();
    if stayed > 0 {
        let reason = format!("{stayed} of {total} were still connected at the end");
        return question.answer(Outcome::Fail, Some(stayed as f64), reason);
    }
    if let Some(why) = ends.iter().find_map(open) {
        return question.unknown(early(seen, why));
    }
    question.answer(Outcome::Pass, Some(0.0), format!("{} disconnected", all(total)))
}

fn open(end: &End) -> Option<&str> {
    match end {
        End::Open(why) => Some(why),
        _ => None,
    }
}

/// In a probe that was ended early the rest might have come.
fn early(seen: &Measurement, why: &str) -> String {
    if seen.interrupted {
        "the probe was ended before that was decided".to_owned()
    } else {
        why.to_owned()
    }
}

pub(super) fn in_time(plan: &Plan, seen: &Measurement) -> Finding {
    let within = plan.within.as_secs_f64();
    let question = Question::new("stalled-in-time", format!("within {within} s of filling up"), "s")
        .held_against(within);
    let clients = of_kind(seen, SlowKind::Stalled);
    if clients.is_empty() {
        return question.not_tested("no stalled clients took part");
    }
    let connected: Vec<_> = clients.iter().filter(|client| client.connected).collect();
    let ends: Vec<End> = connected
        .iter()
        .map(|client| end_of(plan, seen, client))
        .collect();
    let stayed = ends.iter().find_map(|end| match end {
        End::Stayed { least } => Some(*least),
        _ => None,
    });
    if let Some(least) = stayed {
        let reason = format!("one was still connected {least:.1} s after it had filled up");
        return question.answer(Outcome::Fail, Some(least), reason);
    }
    if let Some(why) = ends.iter().find_map(open) {
        return question.unknown(early(seen, why));
    }
    let thrown = ends.iter().filter_map(|end| match end {
        End::Thrown { least, most } => Some((*least, *most)),
        _ => None,
    });
    let longest = thrown.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)));
    let Some((least, most)) = longest else {
        return question.unknown(format!("none of {} could connect", clients.len()));
    };
    let outcome = if most <= within {
        Outcome::Pass
    } else if least > within {
        Outcome::Fail
    } else {
        Outcome::Unknown
    };
    let reason = if most - least < 0.1 {
        format!("the last went {most:.2} s after the server can have noticed")
    } else {
        format!("the last went between {least:.2} and {most:.2} s after the server noticed that it was full")
    };
    question.answer(
        outcome,
        Some(if outcome == Outcome::Fail { least } else { most }),
        reason,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::protocol::echo::Echo;
    use crate::probe::report::measurement::{Healthy, StandstillSeen};

    const WITHIN: f64 = 4.0;

    fn plan() -> Plan {
        Plan {
            within: Duration::from_secs_f64(WITHIN),
            ..Plan::new(([127, 0, 0, 1], 9).into()).speaking(Echo)
        }
    }

    /// A client that stands still from the first second on, while the server owes it something, and
    /// that was reset at this moment. Where /proc shows nothing, input went in until `input_at`.
    fn reset_at(ended_at: f64, in_sight: bool, input_at: f64) -> SlowClientSeen {
        SlowClientSeen {
            connected_at: Some(0.0),
            full_at: Some(1.0),
            ended_at: Some(ended_at),
            end: Some(Disconnect::Reset),
            last_look_at: ended_at,
            owed_bytes: Some(100_000),
            in_sight,
            standstill: Some(StandstillSeen {
                not_before: 1.0,
                seen_at: 1.0,
                bytes: 1000,
                began_at: 0.0,
                in_sight,
                input_at,
                owed_much_at: None,
            }),
            ..SlowClientSeen::new(SlowKind::Stalled, 1)
        }
    }

    fn outcomes(client: SlowClientSeen, lifetimes: &[f64]) -> [Finding; 2] {
        let seen = Measurement {
            slow: vec![client],
            healthy: Healthy {
                clients: 1,
                lifetimes: lifetimes.to_vec(),
                ..Healthy::default()
            },
            ..Measurement::default()
        };
        [
            disconnected(&plan(), &seen, SlowKind::Stalled),
            in_time(&plan(), &seen),
        ]
    }

    #[track_caller]
    fn assert_outcomes(findings: &[Finding; 2], outcomes: [Outcome; 2]) {
        assert_eq!(
            findings.each_ref().map(|finding| finding.outcome),
            outcomes,
            "{findings:?}"
        );
    }

    #[test]
    fn where_healthy_clients_are_cut_at_the_same_age_nobody_was_cut_for_being_slow() {
        let cut_at_3_s = || reset_at(3.0, true, 1.0);
        assert_outcomes(&outcomes(cut_at_3_s(), &[]), [Outcome::Pass; 2]);
        assert_outcomes(&outcomes(cut_at_3_s(), &[30.0]), [Outcome::Pass; 2]);
        for age in [2.8, 3.0, 3.2] {
            let findings = outcomes(cut_at_3_s(), &[30.0, age]);
            assert_outcomes(&findings, [Outcome::Unknown; 2]);
            for finding in findings {
                assert!(
                    finding.reason.contains("healthy clients are cut alike"),
                    "{finding:?}"
                );
            }
        }
    }

    #[test]
    fn where_all_healthy_clients_are_thrown_out_one_that_outlived_them_proves_nothing() {
        let outcomes = |healthy_ended: usize, lifetime: f64| {
            let seen = Measurement {
                slow: vec![reset_at(4.0, true, 1.0)],
                healthy: Healthy {
                    clients: 2,
                    ended: healthy_ended,
                    lifetimes: vec![lifetime],
                    ..Healthy::default()
                },
                ..Measurement::default()
            };
            let plan = plan();
            [
                disconnected(&plan, &seen, SlowKind::Stalled),
                in_time(&plan, &seen),
            ]
        };
        assert_outcomes(&outcomes(2, 2.0), [Outcome::Unknown; 2]);
        assert_outcomes(&outcomes(2, 30.0), [Outcome::Pass; 2]);
        assert_outcomes(&outcomes(1, 2.0), [Outcome::Pass; 2]);
    }

    #[test]
    fn an_interval_that_straddles_the_limit_is_unknown() {
        // It stood still at 1 s; the server's side still took something until 3 s.
        let reset_at = |ended_at: f64| outcomes(reset_at(ended_at, false, 3.0), &[]);
        assert_outcomes(&reset_at(1.0 + WITHIN), [Outcome::Pass; 2]);
        assert_outcomes(&reset_at(2.0 + WITHIN), [Outcome::Pass, Outcome::Unknown]);
        assert_outcomes(&reset_at(3.5 + WITHIN), [Outcome::Pass, Outcome::Fail]);
    }

    #[test]
    fn a_full_client_does_not_see_a_plain_close_and_only_a_look_at_the_server_does() {
        let left_at = |ended_at: f64, held_at: f64| {
            let client = SlowClientSeen {
                end: Some(Disconnect::LeftInKernel),
                last_held_at: Some(held_at),
                ..reset_at(ended_at, true, 1.0)
            };
            outcomes(client, &[])
        };
        assert_outcomes(
            &left_at(1.5 + WITHIN, 1.3 + WITHIN),
            [Outcome::Pass, Outcome::Fail],
        );
        // The looks at the server were few, as on a machine that has too much to do.
        assert_outcomes(&left_at(1.5 + WITHIN, 3.0), [Outcome::Pass, Outcome::Unknown]);
    }

    #[test]
    fn on_another_machine_nobody_knows_when_a_plain_close_was() {
        let closed = SlowClientSeen {
            end: Some(Disconnect::EndOfFile),
            last_progress_at: 1.0,
            ..reset_at(5.0 + WITHIN, false, 1.0)
        };
        assert_outcomes(&outcomes(closed, &[]), [Outcome::Pass, Outcome::Unknown]);
    }

    #[test]
    fn a_client_that_was_owed_nothing_was_not_disconnected_for_being_slow() {
        let owed_nothing = SlowClientSeen {
            owed_bytes: Some(0),
            ..reset_at(3.0, true, 1.0)
        };
        assert_outcomes(&outcomes(owed_nothing, &[]), [Outcome::Unknown; 2]);
    }
}
