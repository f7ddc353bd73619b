//! Are healthy clients served, and do they notice the slow ones?

use super::finding::{Finding, Outcome, Question, all, micros};
use super::{
    HARMLESS_WAIT_US, LEAST_LEFT, LEAST_RATE_KEPT, LONGEST_WAIT_US, MOST_P99_GROWTH, MOST_PUT_DOWN_TO_OTHERS,
};
use crate::probe::protocol::Traits;
use crate::probe::report::measurement::{Healthy, Measurement, PhaseFigures};

/// Fewer answers than this make no rate.
const LEAST_MESSAGES: u64 = 20;

pub(super) fn served(traits: &Traits, seen: &Measurement) -> Finding {
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
    let silent = !traits.verifies && healthy.corrupt + healthy.ended + healthy.not_connected == 0;
    if silent && healthy.never_answered > 0 {
        let never = healthy.never_answered;
        return question.unknown(format!("nothing was pushed to {never} of {total}"));
    }
    if seen.interrupted && healthy.corrupt == 0 && healthy.ended == 0 && failure.is_some() {
        let reason = "the probe was ended before all of them were answered";
        return question.answer(Outcome::Unknown, None, reason);
    }
    let least_left = Left::of(seen).least();
    if !traits.verifies && healthy.corrupt > 0 && least_left < OTHERS_COUNT_FROM {
        return question.unknown(format!(
            "{why}, but other programs took {:.0} % of the machine, so that healthy clients may have read late",
            (1.0 - least_left) * 100.0
        ));
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

pub(super) fn unaffected(traits: &Traits, seen: &Measurement) -> Finding {
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
    let compared = Compared::of(traits, seen, before, during);
    // First the waits: a server that stands still shows however busy the machine is.
    let (outcome, reason) = compared
        .by_waits()
        .or_else(|| compared.by_rates(&seen.healthy))
        .unwrap_or_else(|| (Outcome::Pass, compared.as_pass()));
    match outcome {
        Outcome::Fail if seen.interrupted => question.unknown(format!(
            "{reason}, but the probe was ended before it was seen how it went on"
        )),
        Outcome::Unknown if before.messages < LEAST_MESSAGES => question.unknown(reason),
        _ => question.answer(outcome, Some(compared.kept), reason),
    }
}

/// The phases held against each other, less what other programs and the prober itself took.
struct Compared {
    before: PhaseFigures,
    during: PhaseFigures,
    left: Left,
    /// The part of their rate that healthy clients kept.
    kept: f64,
    of_what: &'static str,
    /// Other programs took more while slow clients were there.
    got_busier: bool,
    /// The part of their rate that they had once the slow ones were gone.
    recovered: f64,
    /// The server pushes so rarely that a phase may have met one push more than another.
    comes_in_bursts: bool,
    /// The longest p99, and the longest wait, that are allowed.
    most_p99_us: f64,
    longest_us: f64,
}

impl Compared {
    fn of(traits: &Traits, seen: &Measurement, before: PhaseFigures, during: PhaseFigures) -> Self {
        // What is pushed has no answers to count, only reads, which a busy machine makes fewer and longer.
        let rate = if traits.verifies { answer_rate } else { byte_rate };
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
        let of_what = match (others > 1.2, prober > 1.2) {
            (false, false) => "their rate",
            (true, false) => "the rate that other programs left them",
            (false, true) => "the rate that filling up slow clients left the prober time for",
            (true, true) => {
                "the rate that other programs, and filling up slow clients, left the prober time for"
            }
        };
        let worst = |before_us: f64, after_us: f64| match has_recovered {
            true => before_us.max(after_us),
            false => before_us,
        };
        let before = PhaseFigures {
            p99_us: worst(before.p99_us, after.p99_us),
            max_us: worst(before.max_us, after.max_us),
            ..before
        };
        Self {
            kept: rate(&during, &alone) * (others * prober).min(MOST_PUT_DOWN_TO_OTHERS),
            most_p99_us: (before.p99_us * MOST_P99_GROWTH).max(HARMLESS_WAIT_US),
            longest_us: LONGEST_WAIT_US.max(2.0 * before.max_us),
            before,
            during,
            left,
            of_what,
            got_busier: others > 1.2,
            recovered,
            comes_in_bursts: !traits.verifies && before.max_us > before.seconds * 1e6 * LONGEST_GAP,
        }
    }

    fn has_recovered(&self) -> bool {
        self.recovered >= LEAST_RATE_KEPT
    }

    /// The part of the machine that other programs took, in percent.
    fn others_percent(&self) -> f64 {
        (1.0 - self.left.least()) * 100.0
    }

    /// What the waits of healthy clients say, if they were too long.
    fn by_waits(&self) -> Option<(Outcome, String)> {
        let during = &self.during;
        let others_count = self.left.least() < OTHERS_COUNT_FROM;
        if others_count && may_be_others_doing(during, self.most_p99_us, self.longest_us) {
            let reason = format!(
                "one of them waited {}, but other programs took {:.0} % of the machine meanwhile",
                micros(during.max_us),
                self.others_percent()
            );
            return Some((Outcome::Unknown, reason));
        }
        let reason = if during.p99_us > self.most_p99_us {
            format!(
                "their p99 went from {} to {}",
                micros(self.before.p99_us),
                micros(during.p99_us)
            )
        } else if during.max_us > self.longest_us {
            format!("one of them waited {} for an answer", micros(during.max_us))
        } else {
            return None;
        };
        Some((Outcome::Fail, reason))
    }

    /// What their rates say, if they were too low.
    fn by_rates(&self, healthy: &Healthy) -> Option<(Outcome, String)> {
        if self.kept >= LEAST_RATE_KEPT && self.has_recovered() {
            return None;
        }
        let others_count = self.left.least() < OTHERS_COUNT_FROM;
        let unknown = if self.comes_in_bursts {
            format!(
                "{} passed between two pushes before the slow ones joined: too much for a rate",
                micros(self.before.max_us)
            )
        } else if self.before.messages < LEAST_MESSAGES {
            format!(
                "{} answers before the slow ones joined are too few for a rate",
                self.before.messages
            )
        } else if others_count && waited_unevenly(healthy) {
            "other programs kept the prober itself from a processor more in one phase than in another"
                .to_owned()
        } else if others_count && !self.has_recovered() {
            format!(
                "their rate did not come back after the slow ones, but other programs took {:.0} % of the machine",
                self.others_percent()
            )
        } else if self.left.least() < LEAST_LEFT {
            format!(
                "other programs took {:.0} % of the machine, so that rates tell nothing",
                self.others_percent()
            )
        } else if self.got_busier && self.has_recovered() && self.kept >= LEAST_RATE_KEPT_BESIDE_OTHERS {
            format!(
                "they kept {:.0} % of {}, but other programs took {:.0} % of the machine",
                self.kept * 100.0,
                self.of_what,
                self.others_percent()
            )
        } else {
            let reason = match self.kept < LEAST_RATE_KEPT {
                true => format!(
                    "they kept {:.0} % of {} while slow ones were there",
                    self.kept * 100.0,
                    self.of_what
                ),
                false => format!(
                    "they had {:.0} % of their rate after the slow ones",
                    self.recovered * 100.0
                ),
            };
            return Some((Outcome::Fail, reason));
        };
        Some((Outcome::Unknown, unknown))
    }

    fn as_pass(&self) -> String {
        format!(
            "they kept {:.0} % of {}, and p99 went from {} to {}",
            self.kept * 100.0,
            self.of_what,
            micros(self.before.p99_us),
            micros(self.during.p99_us)
        )
    }
}

/// Waits beyond what is allowed of which a busy machine can be the reason: no p99 of a second, and no
/// longest wait beyond [`LONGEST_WAIT_BY_OTHERS`] times the limit.
fn may_be_others_doing(during: &PhaseFigures, most_p99: f64, longest: f64) -> bool {
    let is_over = during.p99_us > most_p99 || during.max_us > longest;
    let tells = during.messages >= LEAST_FOR_P99;
    let is_always = tells && during.p99_us >= LONGEST_WAIT_US;
    is_over && !is_always && during.max_us < LONGEST_WAIT_BY_OTHERS * longest
}

/// Of fewer answers the p99 is one of the few longest waits, and tells nothing of the others.
const LEAST_FOR_P99: u64 = 1000;

/// A server that is kept from a processor makes a client wait longer by this factor at most.
const LONGEST_WAIT_BY_OTHERS: f64 = 2.5;

/// A gap between two pushes that is longer than this part of a phase makes the phase's rate a matter of luck.
const LONGEST_GAP: f64 = 0.2;

/// Below this part of the machine left, other programs may be why the prober waited for a processor.
const OTHERS_COUNT_FROM: f64 = 0.75;
/// What others took while slow clients were there is known roughly, so that on a machine that got busier
/// only a rate below this part of the one before fails.
const LEAST_RATE_KEPT_BESIDE_OTHERS: f64 = LEAST_RATE_KEPT / 2.0;
/// Parts of two phases, in percent, for which the prober had no processor differ by more than this.
const UNEVEN_WAIT_PERCENT: f64 = 15.0;

/// Whether the prober waited much more for a processor in one phase than in another.
fn waited_unevenly(healthy: &Healthy) -> bool {
    let phases = [healthy.before, healthy.during, healthy.after];
    let waited = || phases.iter().flatten().map(|phase| phase.prober_waited_percent);
    let most = waited().fold(0.0, f64::max);
    let least = waited().fold(f64::INFINITY, f64::min);
    most - least > UNEVEN_WAIT_PERCENT
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

fn answer_rate(now: &PhaseFigures, before: &PhaseFigures) -> f64 {
    now.messages_per_second / before.messages_per_second.max(1e-9)
}

fn byte_rate(now: &PhaseFigures, before: &PhaseFigures) -> f64 {
    now.bytes_per_second / before.bytes_per_second.max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::kind::SlowKind;
    use crate::probe::report::measurement::{ServerSeen, SlowClientSeen};

    const VERIFIED: Traits = Traits {
        name: "test",
        echoes: true,
        verifies: true,
        talks: false,
        fills: true,
        head_bytes: 0,
    };

    const PUSHED: Traits = Traits {
        verifies: false,
        ..VERIFIED
    };

    fn unaffected_by(rates: [f64; 3], others: [f64; 3]) -> Outcome {
        judged(rates, others, 1000.0)
    }

    /// Healthy clients with these rates before, during and after, while other programs took
    /// these parts of the machine, in percent, and one waited so long meanwhile.
    fn judged(rates: [f64; 3], others: [f64; 3], longest_us: f64) -> Outcome {
        unaffected(&VERIFIED, &measured(rates, others, longest_us)).outcome
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

    /// A phase in which files were fetched, as measured beside five builds on two processors.
    fn of_files(messages: u64, seconds: f64, p99_us: f64, max_us: f64) -> Option<PhaseFigures> {
        Some(PhaseFigures {
            seconds,
            messages,
            messages_per_second: messages as f64 / seconds,
            p99_us,
            max_us,
            ..PhaseFigures::default()
        })
    }

    #[test]
    fn few_answers_on_a_busy_machine_blame_nobody_for_a_second() {
        let fetched = |during, others| {
            let mut seen = measured([0.0; 3], others, 0.0);
            seen.healthy.before = of_files(25, 2.0, 270_008.3, 270_008.3);
            seen.healthy.during = during;
            seen.healthy.after = of_files(20, 2.0, 257_163.3, 257_163.3);
            unaffected(&VERIFIED, &seen).outcome
        };
        let busy = [95.0, 94.0, 95.0];
        let of_lighttpd = of_files(130, 9.1, 1_270_874.1, 1_953_497.1);
        assert_eq!(fetched(of_lighttpd, busy), Outcome::Unknown);
        assert_eq!(fetched(of_lighttpd, [0.0; 3]), Outcome::Fail);
        // Nobody is served for three seconds, or nearly everybody waits for a second.
        let stood = of_files(130, 9.1, 1_270_874.1, 3_000_000.0);
        assert_eq!(fetched(stood, busy), Outcome::Fail);
        let slow = of_files(2000, 9.1, 1_270_874.1, 1_953_497.1);
        assert_eq!(fetched(slow, busy), Outcome::Fail);
    }

    #[test]
    fn what_the_prober_had_no_time_for_is_not_put_down_to_the_server() {
        let outcome = |rate: f64, on_slow_percent: f64| {
            let mut seen = measured([1e4, rate, 1e4], [0.0; 3], 1000.0);
            if let Some(during) = &mut seen.healthy.during {
                during.prober_on_slow_percent = on_slow_percent;
            }
            unaffected(&VERIFIED, &seen).outcome
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
        // A machine that was busy all the time may leave a program less and less.
        assert_eq!(unaffected_by([1e4, 4e3, 4e3], [60.0; 3]), Outcome::Unknown);
        assert_eq!(unaffected_by([1e4, 4e3, 4e3], [20.0; 3]), Outcome::Fail);
        // Busier than before, by a measure that is rough.
        assert_eq!(
            unaffected_by([1e4, 1.5e3, 1e4], [10.0, 60.0, 10.0]),
            Outcome::Unknown
        );
        assert_eq!(unaffected_by([1e4, 1e3, 1e4], [10.0, 60.0, 10.0]), Outcome::Fail);
        // As busy as before, and a server that stands still on a machine that got busier.
        assert_eq!(unaffected_by([1e4, 3e3, 1e4], [60.0; 3]), Outcome::Fail);
        assert_eq!(unaffected_by([1e4, 1e2, 1e4], [10.0, 85.0, 10.0]), Outcome::Fail);
    }

    #[test]
    fn bytes_are_the_rate_of_a_server_that_pushes_and_bursts_have_none() {
        let outcome = |bytes: [f64; 3], gap_us: f64| {
            // Few long reads, where many short ones were before.
            let mut seen = measured([1e4, 1e3, 1e3], [0.0; 3], gap_us);
            let Healthy {
                before,
                during,
                after,
                ..
            } = &mut seen.healthy;
            for (phase, bytes) in [before, during, after].into_iter().flatten().zip(bytes) {
                phase.seconds = 1.0;
                phase.max_us = gap_us;
                phase.bytes_per_second = bytes;
            }
            unaffected(&PUSHED, &seen).outcome
        };
        assert_eq!(outcome([1e6; 3], 1e3), Outcome::Pass);
        assert_eq!(outcome([1e6, 4e5, 1e6], 1e3), Outcome::Fail);
        assert_eq!(
            outcome([1e6, 4e5, 1e6], 3e5),
            Outcome::Unknown,
            "a push more or less"
        );
        assert_eq!(outcome([1e6; 3], 3e5), Outcome::Pass);
    }

    #[test]
    fn rates_tell_nothing_on_a_machine_that_others_took_but_long_waits_do() {
        assert_eq!(
            unaffected_by([1e4, 1e2, 1e4], [10.0, 95.0, 10.0]),
            Outcome::Unknown
        );
        assert_eq!(unaffected_by([1e4, 1e4, 1e4], [95.0; 3]), Outcome::Pass);
        assert_eq!(
            judged([1e4, 1e4, 1e4], [10.0, 60.0, 10.0], 1.2e6),
            Outcome::Unknown
        );
        assert_eq!(judged([1e4, 1e4, 1e4], [10.0, 10.0, 10.0], 1.2e6), Outcome::Fail);
        assert_eq!(judged([1e4, 1e2, 1e4], [10.0, 95.0, 10.0], 3e6), Outcome::Fail);
    }
}
