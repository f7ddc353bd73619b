//! `highwater config check`: what is wrong with a file, as the server would say
//! it, without a server.
//!
//! Owns for which subcommands a file is meant. Refuses to know options.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::Command as Grammar;

use super::file::{ConfigFile, Entry, SERVICES, first_line, option};
use crate::cli::{check_together, command_line, required_of};

/// Checks a file, for one subcommand or for those that it can be meant for.
/// Answers what to print.
///
/// # Errors
///
/// One line, if every such subcommand would refuse the file.
pub(super) fn text(path: &Path, service: Option<&str>) -> Result<String, String> {
    let whole = command_line();
    let file = ConfigFile::read(path, &whole)?;
    let meant: Vec<&str> = match service {
        Some(name) if SERVICES.contains(&name) => vec![name],
        Some(name) => {
            let names = SERVICES.join(", ");
            return Err(format!(
                "`{name}` is no subcommand that serves: write one of {names}"
            ));
        }
        None => meant_for(&file, &whole),
    };
    let refusals = meant
        .iter()
        .filter_map(|name| Some((*name, refusal(name, &file, &whole)?)));
    let refusals: Vec<(&str, String)> = refusals.collect();
    if let Some((_, first)) = refusals.first().filter(|_| refusals.len() == meant.len()) {
        return Err(first.clone());
    }
    let mut text = format!("{}: {} options, all right\n", path.display(), file.entries.len());
    for (name, sentence) in refusals {
        text.push_str(&format!("not for `highwater {name}`: {sentence}\n"));
    }
    Ok(text)
}

/// The subcommands that have an option of the file which not all have; all of
/// them, if there is no such option.
fn meant_for(file: &ConfigFile, whole: &Grammar) -> Vec<&'static str> {
    let having = |key: &str| {
        let mut names = SERVICES.to_vec();
        names.retain(|name| {
            whole
                .find_subcommand(name)
                .is_some_and(|service| option(service, key).is_some())
        });
        names
    };
    let own: Vec<Vec<&str>> = file.entries.iter().map(|entry| having(&entry.key)).collect();
    let mut names = SERVICES.to_vec();
    names.retain(|name| {
        own.iter()
            .any(|having| having.len() < SERVICES.len() && having.contains(name))
    });
    if names.is_empty() {
        SERVICES.to_vec()
    } else {
        names
    }
}

/// Why a subcommand would not start with this file.
fn refusal(name: &str, file: &ConfigFile, whole: &Grammar) -> Option<String> {
    let service = whole.find_subcommand(name)?;
    let mut line = vec![OsString::from("highwater"), name.into()];
    // The file goes before it.
    line.extend(required_of(name).iter().map(OsString::from));
    let counting = file
        .entries
        .iter()
        .filter(|entry| option(service, &entry.key).is_some());
    line.extend(counting.flat_map(Entry::typed).map(OsString::from));
    let outcome = match whole.clone().try_get_matches_from(line) {
        Err(error) => Err(first_line(&error)),
        Ok(matches) => match matches.subcommand() {
            Some((_, matches)) => check_together(name, matches),
            None => return None,
        },
    };
    let sentence = outcome.err()?;
    Some(placed(&sentence, &file.path, &file.entries))
}

/// A sentence with the place in the file of the first option that it names.
pub(in crate::cli) fn placed(sentence: &str, path: &Path, entries: &[Entry]) -> String {
    let words = sentence.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let named = words.filter_map(|word| word.strip_prefix("--"));
    let entry = named
        .filter_map(|key| entries.iter().find(|entry| entry.key == key))
        .next();
    match entry {
        Some(entry) => format!("{}:{}: {sentence}", path.display(), entry.line),
        None => format!("{}: {sentence}", path.display()),
    }
}
