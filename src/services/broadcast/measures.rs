//! What the server counts for monitoring.
//!
//! Owns the names. Refuses to count: each number belongs to the part that
//! changes it.

use super::Broadcast;
use crate::backpressure::Action;
use crate::{Measure, MeasureKind};

impl Broadcast {
    pub(super) fn all_measures(&self) -> Vec<Measure> {
        let statistics = &self.statistics;
        let mut measures = vec![
            counter("commands", "commands that clients have sent", statistics.commands),
            counter(
                "deliveries",
                "messages to subscribers, those that wait or were dropped included",
                statistics.deliveries,
            ),
            counter("messages", "messages that were published", statistics.messages),
            counter(
                "publisher_pauses",
                "times that a publisher waited for a subscriber",
                statistics.publisher_pauses,
            ),
            gauge(
                "subscriptions",
                "subscriptions of all clients",
                statistics.subscriptions,
            ),
            gauge(
                "clients_behind",
                "clients for which something waits",
                self.patrol.clients_behind,
            ),
            gauge(
                "held_publishers",
                "publishers that wait for a subscriber under pause",
                self.holding.count(),
            ),
            gauge(
                "waiting_bytes",
                "messages and replies that wait, each once",
                self.waiting_bytes(),
            ),
        ];
        measures.extend(Action::ALL.into_iter().map(|action| Measure {
            label: Some(("action", action.name().to_owned())),
            ..counter(
                "lost_messages",
                "messages that were dropped for slow subscribers, by action",
                statistics.lost_by_action[action as usize],
            )
        }));
        measures
    }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Measure {
    Measure {
        name,
        help,
        kind: MeasureKind::Counter,
        label: None,
        value,
    }
}

fn gauge(name: &'static str, help: &'static str, value: usize) -> Measure {
    Measure {
        kind: MeasureKind::Gauge,
        ..counter(name, help, value as u64)
    }
}

#[cfg(test)]
mod tests {
    use crate::services::broadcast::{Broadcast, Settings};
    use crate::{Limits, Service};

    #[test]
    fn every_measure_has_a_name_of_its_own_and_one_sentence() {
        let measures = Broadcast::new(Settings::new(&Limits::default())).measures();
        for (index, measure) in measures.iter().enumerate() {
            let is_other =
                |other: &crate::Measure| (other.name, &other.label) != (measure.name, &measure.label);
            assert!(measures[..index].iter().all(is_other));
            assert!(!measure.name.ends_with("_total"), "{}", measure.name);
            assert!(!measure.help.ends_with('.'), "{}", measure.help);
            assert_eq!(measure.value, 0, "{}", measure.name);
        }
    }
}
