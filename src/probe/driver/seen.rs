//! From clients to plain numbers: what the driver saw, as a measurement.
//!
//! Pure. Knows the clients' state and turns instants into seconds.

use std::time::Instant;

use crate::probe::clients::healthy::HealthyClient;
use crate::probe::clients::slow::SlowClient;
use crate::probe::clients::tally::{PhaseTally, Tally};
use crate::probe::kind::Disconnect;
use crate::probe::printable::printable;
use crate::probe::report::measurement::{Healthy, PhaseFigures, SlowClientSeen, StandstillSeen};

/// What the healthy clients felt.
pub(crate) fn healthy<S: std::io::Read + std::io::Write>(
    clients: &[HealthyClient<S>],
    connected: &[bool],
    answered: &[bool],
    tally: &Tally,
) -> Healthy {
    let corruption = |client: &HealthyClient<S>| client.corruption().map(|c| printable(&c.why));
    let phase = |index: usize| tally.phases().get(index).map(figures);
    Healthy {
        clients: clients.len(),
        // A client that was answered once is only on the way back to a server that closed in order.
        not_connected: (connected.iter().zip(answered))
            .filter(|(connected, answered)| !**connected && !**answered)
            .count(),
        ended: clients.iter().filter(|client| client.end().is_some()).count(),
        corrupt: clients
            .iter()
            .filter(|client| client.corruption().is_some())
            .count(),
        first_corruption: clients.iter().find_map(corruption),
        closed_in_order: 0,
        lifetimes: Vec::new(),
        first_words: (clients.iter()).map(HealthyClient::first_words).find_map(words),
        never_answered: answered.iter().filter(|answered| !**answered).count(),
        before: phase(0),
        during: phase(1),
        after: phase(2),
    }
}

/// What a server said, for people; `None` where it said nothing.
pub(crate) fn words(said: &[u8]) -> Option<String> {
    (!said.is_empty()).then(|| printable(&String::from_utf8_lossy(said)))
}

/// One phase as rates and percentiles.
pub(crate) fn figures(phase: &PhaseTally) -> PhaseFigures {
    let ended = phase.ended.unwrap_or(phase.started);
    let seconds = ended.nanoseconds_since(phase.started) as f64 / 1e9;
    let wait = |quantile: f64| phase.waits.value_at_quantile(quantile) as f64 / 1e3;
    PhaseFigures {
        from: phase.started.since_epoch().as_secs_f64(),
        seconds,
        messages: phase.counts.messages,
        bytes: phase.counts.bytes,
        messages_per_second: phase.counts.messages as f64 / seconds.max(1e-9),
        bytes_per_second: phase.counts.bytes as f64 / seconds.max(1e-9),
        p50_us: wait(0.5),
        p99_us: wait(0.99),
        p999_us: wait(0.999),
        max_us: phase.waits.max() as f64 / 1e3,
        prober_waited_percent: 0.0,
        prober_on_slow_percent: phase.spent_on_slow.as_secs_f64() / seconds.max(1e-9) * 100.0,
    }
}

/// The fate of one slow client.
pub(crate) fn slow_client<S: std::io::Read + std::io::Write>(
    client: &SlowClient<S>,
    local_port: u16,
    epoch: Instant,
) -> SlowClientSeen {
    let seconds = |at: Instant| at.saturating_duration_since(epoch).as_secs_f64();
    let ended = client
        .end()
        .filter(|(_, end)| *end != Disconnect::NotConnected || !client.was_connected());
    // What a talker goes on sending moves, and even after its server has closed: it was full when
    // nothing came towards it any more.
    let stood = client.standstill().map(|stands| stands.seen_at);
    let full = match (client.full_at(), ended) {
        (Some(full), Some((at, _))) if full > at => stood.filter(|stood| *stood <= at),
        (full, _) => full,
    };
    let seconds_to_end = match (full, ended) {
        (Some(full), Some((at, _))) => Some(at.saturating_duration_since(full).as_secs_f64()),
        _ => None,
    };
    SlowClientSeen {
        kind: client.kind(),
        local_port,
        connected: client.was_connected(),
        joined_at: seconds(client.joined()),
        first_refused_at: client.fullness().first_refused().map(seconds),
        full_at: full.map(seconds),
        resumed_at: client.resumed_at().map(seconds),
        ended_at: ended.map(|(at, _)| seconds(at)),
        end: ended.map(|(_, end)| end),
        seconds_to_end,
        connected_at: client.connected_at().map(seconds),
        standstill: client.standstill().map(|stands| StandstillSeen {
            not_before: seconds(stands.not_before),
            seen_at: seconds(stands.seen_at),
            bytes: stands.bytes,
            began_at: seconds(stands.began),
            in_sight: stands.is_in_sight,
            input_at: seconds(stands.input_at),
            owed_much_at: stands.owed_much_at.map(seconds),
        }),
        last_look_at: seconds(client.fullness().last_look()),
        last_held_at: client.held_at().map(seconds),
        last_progress_at: seconds(client.last_progress()),
        owed_bytes: client.fullness().owed(),
        most_owed_bytes: client.fullness().most_owed(),
        owed_when_resumed_bytes: client.owed_when_resumed(),
        in_sight: client.fullness().is_in_sight(),
        output_bytes: client.fullness().output_bytes(),
        closed_in_order: client.closed_in_order(),
        left_bytes: client.left_bytes(),
        absorbed_bytes: client.taken(),
        offer_exhausted: client.offer_exhausted(),
        received_bytes: client.received(),
        intact: client.is_verifiable().then_some(client.corruption().is_none()),
        corruption: client.corruption().map(|corruption| printable(&corruption.why)),
        complete: client.is_complete(),
    }
}
