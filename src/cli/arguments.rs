//! What the arguments of a subcommand that serves come to: its limits, or one
//! sentence about options that cancel each other.
//!
//! Pure: the start, a reload and `highwater config check` ask the same. Refuses
//! to open a file, to look up a name and to end the program.

use clap::{ArgMatches, FromArgMatches};
use highwater::Limits;

use super::admin;
use super::options::{ListenArgs, ServingArgs};
use super::sentences;

/// The arguments of a subcommand that serves.
pub(crate) trait ServingArguments: FromArgMatches {
    /// The name of the subcommand.
    const SUBCOMMAND: &'static str;

    /// The arguments that all servers share.
    fn shared(&self) -> (&ListenArgs, &ServingArgs);

    /// The limits by which clients are judged, from those that all servers
    /// share.
    fn limits(&self, shared: Limits) -> Limits {
        shared
    }

    /// Options that cancel each other although the limits fit together, in one
    /// sentence. A service whose sources cannot be paused reaches limits above
    /// the mark, and has an answer of its own.
    fn contradiction(&self, limits: &Limits) -> Option<String> {
        sentences::of_unreachable_limit(limits)
    }

    /// The limits of the engine. A service that judges by itself sets the rules
    /// of the engine out of the way.
    fn engine_limits(&self, limits: Limits) -> Limits {
        limits
    }

    /// The limits by which clients are judged.
    ///
    /// # Errors
    ///
    /// One sentence: limits contradict each other, or options cancel each other.
    fn checked_limits(&self) -> Result<Limits, String> {
        let (_, serving) = self.shared();
        let limits = self.limits(serving.limits());
        limits.check().map_err(|error| sentences::of_limits(&error))?;
        match self.contradiction(&limits).or_else(|| serving.contradiction()) {
            Some(sentence) => Err(sentence),
            None => Ok(limits),
        }
    }

    /// The limits that an engine runs with.
    ///
    /// # Errors
    ///
    /// As [`checked_limits`](Self::checked_limits).
    fn limits_to_run(&self) -> Result<Limits, String> {
        let limits = self.engine_limits(self.checked_limits()?);
        Ok(match self.shared().1.admin.admin {
            Some(_) => admin::reserve(limits),
            None => limits,
        })
    }
}

/// Checks the options of one subcommand together, as its start does.
///
/// # Errors
///
/// One sentence about options that cancel each other.
pub(crate) fn check<A: ServingArguments>(matches: &ArgMatches) -> Result<(), String> {
    let arguments = A::from_arg_matches(matches).map_err(|error| error.to_string())?;
    arguments.checked_limits().map(drop)
}
