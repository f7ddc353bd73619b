//! INFO: what the server does, in numbers.

use std::fmt::Write;

use super::super::Broadcast;
use super::super::channels::Kind;
use super::connection::REDIS_VERSION;
use crate::Actions;
use crate::protocol::resp::Arguments;

pub(super) fn info(this: &mut Broadcast, slot: usize, arguments: Arguments<'_>, actions: &mut Actions<'_>) {
    let asked: Vec<Vec<u8>> = arguments.from(1).map(<[u8]>::to_ascii_lowercase).collect();
    let is_asked = |name: &str| {
        let all = [&b"all"[..], b"default", b"everything"];
        asked.is_empty()
            || asked
                .iter()
                .any(|asked| asked == name.as_bytes() || all.contains(&&**asked))
    };
    let mut text = String::new();
    for (name, lines) in this.sections(actions) {
        if !is_asked(&name.to_lowercase()) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "# {name}\r\n");
        for (key, value) in lines {
            let _ = write!(text, "{key}:{value}\r\n");
        }
    }
    this.reply(slot, |reply| reply.verbatim(&text));
}

type Section = (&'static str, Vec<(&'static str, String)>);

impl Broadcast {
    fn sections(&self, actions: &Actions<'_>) -> Vec<Section> {
        let up = self.started.map_or(0, |started| {
            actions.now().saturating_duration_since(started).as_secs()
        });
        let subscribers = self
            .sessions
            .iter()
            .filter(|(_, session)| session.all_subscriptions() > 0)
            .count();
        let owed: usize = (0..self.states.len())
            .filter(|&slot| self.states[slot].is_behind)
            .map(|slot| self.owed(slot).bytes())
            .sum();
        let lost: u64 = self.statistics.lost_messages + self.lost_and_not_passed();
        let statistics = &self.statistics;
        vec![
            (
                "Server",
                vec![
                    ("redis_version", REDIS_VERSION.to_owned()),
                    ("redis_mode", "standalone".to_owned()),
                    ("highwater_version", env!("CARGO_PKG_VERSION").to_owned()),
                    ("process_id", std::process::id().to_string()),
                    ("uptime_in_seconds", up.to_string()),
                ],
            ),
            (
                "Clients",
                vec![
                    ("connected_clients", self.sessions.len().to_string()),
                    ("maxclients", self.settings.max_clients.unwrap_or(0).to_string()),
                    ("pubsub_clients", subscribers.to_string()),
                    ("clients_behind", self.patrol.clients_behind.to_string()),
                    ("held_publishers", self.holding.count().to_string()),
                ],
            ),
            (
                "Memory",
                vec![
                    ("waiting_bytes", self.waiting_bytes().to_string()),
                    ("owed_bytes", owed.to_string()),
                    ("subscription_bytes", self.subscription_bytes().to_string()),
                ],
            ),
            (
                "Stats",
                vec![
                    ("total_connections_received", statistics.connections.to_string()),
                    ("total_commands_processed", statistics.commands.to_string()),
                    (
                        "pubsub_channels",
                        self.channels.of_kind(Kind::Channel).count().to_string(),
                    ),
                    (
                        "pubsub_patterns",
                        self.channels.of_kind(Kind::Pattern).count().to_string(),
                    ),
                    (
                        "pubsubshard_channels",
                        self.channels.of_kind(Kind::Shard).count().to_string(),
                    ),
                    (
                        "client_output_buffer_limit_disconnections",
                        statistics.slow_clients.to_string(),
                    ),
                    ("lost_messages", lost.to_string()),
                ],
            ),
            (
                "Replication",
                vec![
                    ("role", "master".to_owned()),
                    ("connected_slaves", "0".to_owned()),
                ],
            ),
        ]
    }

    /// Messages that are lost, and whose gap no subscriber has reached yet.
    fn lost_and_not_passed(&self) -> u64 {
        let behind = (0..self.states.len()).filter(|&slot| self.states[slot].is_behind);
        behind
            .map(|slot| self.lost_of(slot) - self.sessions[slot].outgoing.lost)
            .sum()
    }
}
