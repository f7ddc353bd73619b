//! What happens to a subscriber that is too slow for a channel.
//!
//! Owns the four actions. Refuses to act.

use std::fmt;
use std::str::FromStr;

/// What happens when a subscriber does not take the messages of a channel as
/// fast as they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It may owe the limit for the grace; then it is disconnected.
    #[default]
    Disconnect,
    /// At the high-water mark its oldest messages make room for new ones.
    DropOldest,
    /// Only the newest message of each channel waits for it.
    Latest,
    /// Publishers are not read until it has room, for at most the grace.
    Pause,
}

impl Action {
    /// Every action, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Disconnect, Self::DropOldest, Self::Latest, Self::Pause];

    /// Its name on the command line and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropOldest => "drop-oldest",
            Self::Latest => "latest",
            Self::Pause => "pause",
        }
    }

    /// Whether messages are given up, and not the subscriber. What waits under
    /// such an action does not count to the limit.
    #[must_use]
    pub const fn drops(self) -> bool {
        matches!(self, Self::DropOldest | Self::Latest)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// This is not the name of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAction;

impl fmt::Display for UnknownAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the actions are disconnect, drop-oldest, latest and pause")
    }
}

impl std::error::Error for UnknownAction {}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|action| action.name() == name);
        found.ok_or(UnknownAction)
    }
}
