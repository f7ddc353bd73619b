//! Other settings while clients are connected.
//!
//! Owns the way of settings from another thread, and what they mean for
//! subscribers that are behind: one whose time became shorter has all of it
//! from now on. A message goes by the rules that hold when it is published.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Broadcast, Settings};
use crate::Actions;
use crate::backpressure::spread::share_of;

/// Leaves other settings for a server that runs, which takes them when it hears
/// that limits have changed ([`Remote::reload`](crate::Remote::reload)). Clones
/// reach the same server.
#[derive(Clone, Debug, Default)]
pub struct SettingsChange(Arc<Mutex<Option<Settings>>>);

impl SettingsChange {
    /// Leaves these settings. The last ones count. Of a running server the
    /// password, the protected mode and the longest message stay.
    pub fn leave(&self, settings: Settings) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
    }

    fn take(&self) -> Option<Settings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Broadcast {
    /// Takes what is left in `change` while it runs.
    #[must_use]
    pub fn following(mut self, change: SettingsChange) -> Self {
        self.change = change;
        self
    }

    pub(super) fn take_settings(&mut self, actions: &Actions<'_>) {
        let Some(left) = self.change.take() else { return };
        let before = self.settings.clone();
        self.settings = Settings {
            password: before.password.clone(),
            is_protected: before.is_protected,
            max_message_bytes: before.max_message_bytes,
            ..left
        };
        self.pardon(&before, actions);
        self.patrol.look_at_all();
        self.holding.is_to_review = true;
    }

    /// Clocks of which the time is shorter than before begin anew, and those
    /// that the limit starts begin with them: one after the other where they are
    /// many.
    fn pardon(&mut self, before: &Settings, actions: &Actions<'_>) {
        let now = actions.now();
        let has_less = |now: Duration, before: Duration| !now.is_zero() && (before.is_zero() || now < before);
        let ends_shadow = before.shadow && !self.settings.shadow;
        let shorter_grace = ends_shadow || has_less(self.settings.grace, before.grace);
        let shorter_patience = ends_shadow || self.settings.drain_timeout < before.drain_timeout;
        let behind = (0..self.states.len()).filter(|&slot| self.states[slot].is_behind);
        let mut pardoned: Vec<usize> = Vec::new();
        for slot in behind.collect::<Vec<_>>() {
            let was_over = self.sessions[slot].outgoing.clocks.over_limit_since.is_some();
            self.turn_clocks(slot, now);
            let is_over = self.sessions[slot].outgoing.clocks.over_limit_since.is_some();
            if is_over && (!was_over || shorter_grace) || shorter_patience {
                pardoned.push(slot);
            }
        }
        if shorter_grace {
            self.holding.all_begin_anew(now);
        }
        for (at, &slot) in pardoned.iter().enumerate() {
            let clocks = &mut self.sessions[slot].outgoing.clocks;
            if clocks
                .over_limit_since
                .is_some_and(|since| shorter_grace || since == now)
            {
                clocks.over_limit_since = Some(now + share_of(self.settings.grace, at, pardoned.len()));
                clocks.tried_again = false;
            }
            if shorter_patience {
                let begins = now + share_of(self.settings.drain_timeout, at, pardoned.len());
                clocks.counted_since = clocks.counted_since.and(Some(begins));
                clocks.silent_since = clocks.silent_since.and(Some(begins));
            }
        }
    }
}
