//! What the server counts, for those who watch it.
//!
//! Owns the names. Refuses to count: each number belongs to the part that
//! changes it.

use super::Broadcast;
use crate::{Measure, MeasureKind};

impl Broadcast {
    pub(super) fn all_measures(&self) -> Vec<Measure> {
        let statistics = &self.statistics;
        vec![
            counter("commands", "commands that clients have sent", statistics.commands),
            counter(
                "deliveries",
                "messages to subscribers, those that wait or were dropped included",
                statistics.deliveries,
            ),
            counter(
                "lost_messages",
                "messages that were dropped for slow subscribers",
                statistics.lost_messages,
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
        ]
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
            assert!(measures[..index].iter().all(|other| other.name != measure.name));
            assert!(!measure.name.ends_with("_total"), "{}", measure.name);
            assert!(!measure.help.ends_with('.'), "{}", measure.help);
            assert_eq!(measure.value, 0, "{}", measure.name);
        }
    }
}
