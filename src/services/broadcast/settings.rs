//! What an operator chooses for a broadcast server.
//!
//! Owns the choices and their defaults. Refuses to act on them.

use std::time::Duration;

use crate::backpressure::Action;
use crate::limits::Limits;
use crate::limits::broadcast::{HARD_LIMIT_BYTES, MAX_MESSAGE_BYTES};
use crate::protocol::glob;

/// A broadcast server's choices. Times and sizes that stand in [`Limits`] are
/// taken from there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest message, in bytes.
    pub max_message_bytes: usize,
    /// What happens to a slow subscriber of a channel that no rule names.
    pub default_action: Action,
    /// Patterns of channels with their actions. The first match wins.
    pub rules: Vec<(Vec<u8>, Action)>,
    /// What AUTH must say; `None` admits everybody.
    pub password: Option<Vec<u8>>,
    /// Whether strangers from other machines are refused while there is no
    /// password.
    pub is_protected: bool,
    /// From here on, a subscriber is full under `drop-oldest` and `pause`.
    pub high_water_mark_bytes: usize,
    /// From here on the grace runs; 0 switches the rule off.
    pub limit_bytes: usize,
    /// More than this is never owed; 0 switches the rule off.
    pub hard_limit_bytes: usize,
    /// Longest time over the limit; zero switches the rule off.
    pub grace: Duration,
    /// Longest time in which a waiting subscriber takes nothing.
    pub drain_timeout: Duration,
    /// All that waits together, in bytes, if the operator chose it.
    pub memory_budget_bytes: Option<usize>,
    /// Nobody is disconnected for slowness; it is told who would be.
    pub shadow: bool,
    /// Most clients, if the operator chose it.
    pub max_clients: Option<usize>,
}

impl Settings {
    /// The defaults, with times and sizes of `limits`.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            max_message_bytes: MAX_MESSAGE_BYTES,
            default_action: Action::Disconnect,
            rules: Vec::new(),
            password: None,
            is_protected: true,
            high_water_mark_bytes: limits.high_water_mark_bytes,
            limit_bytes: limits.limit_bytes(),
            hard_limit_bytes: limits.hard_limit_bytes.unwrap_or(HARD_LIMIT_BYTES),
            grace: limits.grace,
            drain_timeout: limits.drain_timeout(),
            memory_budget_bytes: limits.memory_budget_bytes,
            max_clients: limits.max_clients,
            shadow: limits.shadow,
        }
    }

    /// The limits by which subscribers are judged, as a server of another kind has
    /// them.
    pub(super) fn as_limits(&self) -> Limits {
        let or_none = |bytes: usize| if bytes == 0 { usize::MAX } else { bytes };
        Limits {
            high_water_mark_bytes: self.high_water_mark_bytes,
            limit_bytes: Some(or_none(self.limit_bytes)),
            hard_limit_bytes: Some(or_none(self.hard_limit_bytes)),
            grace: self.grace,
            drain_timeout: Some(self.drain_timeout),
            ..Limits::default()
        }
    }

    /// What happens to a slow subscriber of this channel.
    #[must_use]
    pub fn action_for(&self, channel: &[u8]) -> Action {
        let rule = self
            .rules
            .iter()
            .find(|(pattern, _)| glob::matches(pattern, channel));
        rule.map_or(self.default_action, |(_, action)| *action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_a_channel_wins() {
        let mut settings = Settings::new(&Limits::default());
        settings.rules = vec![
            (b"ticks.audit".to_vec(), Action::Pause),
            (b"ticks.*".to_vec(), Action::Latest),
        ];
        assert_eq!(settings.action_for(b"ticks.audit"), Action::Pause);
        assert_eq!(settings.action_for(b"ticks.eur"), Action::Latest);
        assert_eq!(settings.action_for(b"news"), Action::Disconnect);
        assert_eq!(settings.hard_limit_bytes, 32 << 20);
    }
}
