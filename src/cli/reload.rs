//! A reload: the file of options is read again, and what can change while a
//! server runs changes.
//!
//! Owns which options can change, and what the log says of those that changed
//! and those that did not. A file that a start would refuse changes nothing.
//! Refuses to put limits in force: the event loop does.

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::channel;

use highwater::limits::RELOAD_TIMEOUT;
use highwater::{Limits, Remote};
use log::{error, info, warn};

use super::arguments::ServingArguments;
use super::config::{ConfigFile, Entry, expand, first_line, is_of, is_typed, line_with, placed};
use super::log::Log;
use super::{admin, command_line};

/// The options that change while a server runs.
pub(crate) const CHANGEABLE: [&str; 19] = [
    "connect-timeout",
    "drain-timeout",
    "grace",
    "half-closed-timeout",
    "hard-limit",
    "high-water-mark",
    "idle-timeout",
    "limit",
    "log-level",
    "max-clients",
    "max-clients-per-address",
    "memory-budget",
    "shadow",
    "slow",
    "slow-for",
    "slowest-reader",
    "splice-from",
    "stop-timeout",
    "upstream-grace",
];

/// Where the options of a server come from: what was typed, and the file that
/// it names.
pub(crate) struct Source {
    typed: Vec<OsString>,
    file: Option<ConfigFile>,
}

impl Source {
    /// The command line with the options of its file, and where they come from.
    ///
    /// # Errors
    ///
    /// One line: the file cannot be read, or something in it is wrong.
    pub(crate) fn find(typed: Vec<OsString>) -> Result<(Vec<OsString>, Self), String> {
        let expanded = expand(typed.clone())?;
        let file = expanded.file;
        Ok((expanded.line, Self { typed, file }))
    }

    /// The arguments with these entries of the file.
    fn arguments<A: ServingArguments>(&self, entries: &[Entry]) -> Result<A, String> {
        let whole = command_line();
        let service = whole
            .find_subcommand(A::SUBCOMMAND)
            .ok_or("there is no subcommand")?;
        let line = line_with(&self.typed, entries, service);
        let matches = whole.clone().try_get_matches_from(line);
        let mut matches = matches.map_err(|error| first_line(&error))?;
        let (_, mut matches) = matches.remove_subcommand().ok_or("there is no subcommand")?;
        A::from_arg_matches_mut(&mut matches).map_err(|error| first_line(&error))
    }
}

/// Hands other arguments to a service that runs, before its limits change.
pub(crate) type Follower<A> = Box<dyn Fn(&A) + Send>;

/// Reads the file again, for a server that runs.
pub(crate) struct Reloader<A> {
    /// With the entries that are in force.
    source: Source,
    remote: Remote,
    /// The loop that answers operators.
    admin: Option<Remote>,
    follower: Follower<A>,
}

impl<A: ServingArguments> Reloader<A> {
    /// For the server that `remote` reaches, whose options come from `source`.
    pub(crate) fn new(source: Source, remote: Remote, admin: Option<Remote>, follower: Follower<A>) -> Self {
        Self {
            source,
            remote,
            admin,
            follower,
        }
    }

    /// Whether there is a file to read.
    pub(crate) const fn has_file(&self) -> bool {
        self.source.file.is_some()
    }

    /// Reads the file, and logs what came of it.
    pub(crate) fn reload(&mut self) {
        if let Err(sentence) = self.try_reload() {
            error!(event = "reload_failed"; "reload: {sentence}; nothing has changed");
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let Some(file) = &self.source.file else {
            return Ok(());
        };
        let read = ConfigFile::read(&file.path, &command_line())?;
        let place = |sentence: String| placed(&sentence, &read.path, &read.entries);
        // The whole file must be one that a start takes.
        let wanted: A = self.source.arguments(&read.entries).map_err(place)?;
        wanted.checked_limits().map_err(place)?;
        let changes = Changes::between::<A>(&self.source.typed, &file.entries, &read.entries);
        let in_force = in_force(&file.entries, &read.entries);
        let args: A = self.source.arguments(&in_force).map_err(place)?;
        let limits = args.limits_to_run().map_err(place)?;
        let level = args.shared().1.log_level;
        self.put_in_force(&args, limits)?;
        Log::set_level(level.max(log::max_level()));
        changes.log(&read.path);
        Log::set_level(level);
        self.source.file = Some(ConfigFile {
            path: read.path,
            entries: in_force,
        });
        Ok(())
    }

    /// Hands limits to the loops, and waits until they are in force.
    fn put_in_force(&self, args: &A, limits: Limits) -> Result<(), String> {
        (self.follower)(args);
        if let Some(operators) = &self.admin {
            operators.reload(admin::of_operators(&limits), |_| {});
        }
        let (done, outcome) = channel();
        // Nobody listens any more where it took too long.
        self.remote.reload(limits, move |result| drop(done.send(result)));
        match outcome.recv_timeout(RELOAD_TIMEOUT) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => {
                warn!(event = "reload_slow"; "reload: the event loop is busy, and takes the new limits once it can");
                Ok(())
            }
        }
    }
}

/// The entries in force after a reload: what can change as it was read, the
/// rest as it was.
fn in_force(before: &[Entry], read: &[Entry]) -> Vec<Entry> {
    let can_change = |entry: &&Entry| CHANGEABLE.contains(&entry.key.as_str());
    let stays = before.iter().filter(|entry| !can_change(entry));
    stays.chain(read.iter().filter(can_change)).cloned().collect()
}

/// What is different in a file that was read again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// As they would be written into the file.
    changed: Vec<String>,
    needs_restart: Vec<String>,
    on_command_line: Vec<String>,
}

impl Changes {
    fn between<A: ServingArguments>(typed: &[OsString], before: &[Entry], read: &[Entry]) -> Self {
        let whole = command_line();
        let mut changes = Self::default();
        let Some(service) = whole.find_subcommand(A::SUBCOMMAND) else {
            return changes;
        };
        let mut keys: Vec<&str> = before
            .iter()
            .chain(read)
            .map(|entry| entry.key.as_str())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys.into_iter().filter(|key| is_of(service, key)) {
            let value = |entries: &[Entry]| {
                let entry = entries.iter().find(|entry| entry.key == key);
                entry.map(Entry::typed).unwrap_or_default()
            };
            if value(before) == value(read) {
                continue;
            }
            if is_typed(typed, key) {
                changes.on_command_line.push(key.to_owned());
            } else if !CHANGEABLE.contains(&key) {
                changes.needs_restart.push(key.to_owned());
            } else {
                changes.changed.push(written(key, read));
            }
        }
        changes
    }

    fn log(&self, path: &Path) {
        let path = path.display();
        match self.changed.join(", ") {
            none if none.is_empty() => {
                info!(event = "reloaded"; "reload: {path}: no option that can change while running is different");
            }
            changed => info!(event = "reloaded", changed = changed.as_str(); "reload: {path}: {changed}"),
        }
        if !self.needs_restart.is_empty() {
            let keys = self.needs_restart.join(", ");
            warn!(event = "restart_needed", keys = keys.as_str(); "reload: {path}: only a restart changes {keys}");
        }
        if !self.on_command_line.is_empty() {
            let keys = self.on_command_line.join(", ");
            info!(event = "reloaded"; "reload: {path}: the command line has {keys}, and goes before the file");
        }
    }
}

/// An entry as the log tells it.
fn written(key: &str, entries: &[Entry]) -> String {
    match entries.iter().find(|entry| entry.key == key) {
        None => format!("{key} is back to its default"),
        Some(entry) => format!("{key} = {}", entry.values.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tunnel::TunnelArgs;

    fn entries(pairs: &[(&str, &str)]) -> Vec<Entry> {
        let entry = |(line, (key, value)): (usize, &(&str, &str))| Entry {
            key: (*key).to_owned(),
            line: line + 1,
            values: vec![(*value).to_owned()],
            is_switch: ["true", "false"].contains(value),
        };
        pairs.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn what_changes_what_needs_a_restart_and_what_was_typed_are_told_apart() {
        let typed: Vec<OsString> = ["highwater", "tunnel", "--to=a:1", "--limit=1KiB"]
            .map(OsString::from)
            .to_vec();
        let before = entries(&[
            ("grace", "5s"),
            ("max-clients", "7"),
            ("limit", "2KiB"),
            ("slow", "latest"),
        ]);
        let read = entries(&[
            ("grace", "2s"),
            ("port", "1"),
            ("limit", "3KiB"),
            ("shadow", "false"),
        ]);
        let changes = Changes::between::<TunnelArgs>(&typed, &before, &read);
        assert_eq!(
            changes,
            Changes {
                changed: vec![
                    "grace = 2s".to_owned(),
                    "max-clients is back to its default".to_owned()
                ],
                needs_restart: vec!["port".to_owned()],
                on_command_line: vec!["limit".to_owned()],
            },
            "a switch that is off is as good as none, and options of others do not count"
        );
        let keys: Vec<_> = in_force(&before, &read)
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(keys, ["grace", "limit", "shadow"], "the port stays as it was");
    }

    #[test]
    fn every_option_that_can_change_is_one_of_a_service() {
        let whole = command_line();
        for key in CHANGEABLE {
            let has = |name: &str| {
                whole
                    .find_subcommand(name)
                    .is_some_and(|service| is_of(service, key))
            };
            assert!(["echo", "tunnel", "broadcast"].into_iter().any(has), "{key}");
        }
    }
}
