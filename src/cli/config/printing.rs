//! `highwater config print`: the options in force as a file.
//!
//! Owns how values are written and their sources named.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::file::{ConfigFile, SERVICES, first_line, option};
use super::{expand, is_typed};
use crate::cli::exit::usage;
use crate::cli::{command_line, print};

/// Prints the options of the command line `line`.
pub(super) fn run(line: Vec<OsString>) -> ExitCode {
    let text = text(line).unwrap_or_else(|sentence| usage(&sentence));
    print(text.as_bytes())
}

fn text(mut line: Vec<OsString>) -> Result<String, String> {
    let is_service = line
        .first()
        .is_some_and(|first| SERVICES.iter().any(|name| first == name));
    if !is_service {
        if line
            .first()
            .is_some_and(|first| !first.to_string_lossy().starts_with('-'))
        {
            let names = SERVICES.join(", ");
            let named = line[0].to_string_lossy().into_owned();
            return Err(format!(
                "`{named}` is no subcommand that serves: write one of {names}"
            ));
        }
        line.insert(0, "echo".into());
    }
    line.insert(0, "highwater".into());
    let typed = line.clone();
    let expanded = expand(line)?;
    let whole = command_line();
    let matches = whole.clone().try_get_matches_from(expanded.line);
    let matches = matches.map_err(|error| first_line(&error))?;
    let (Some((name, matches)), Some(file)) = (matches.subcommand(), Some(expanded.file)) else {
        return Err("there is no subcommand".to_owned());
    };
    let Some(service) = whole.find_subcommand(name) else {
        return Err(format!("`{name}` is no subcommand"));
    };
    let mut text = format!("# The options of `highwater {name}`, and where each comes from.\n");
    for arg in service.get_arguments() {
        if let Some(key) = arg.get_long().filter(|key| option(service, key).is_some()) {
            text.push_str(&row(key, arg, matches, file.as_ref(), is_typed(&typed, key)));
        }
    }
    Ok(text)
}

fn row(key: &str, arg: &Arg, matches: &ArgMatches, file: Option<&ConfigFile>, is_typed: bool) -> String {
    let id = arg.get_id().as_str();
    let entry = file.and_then(|file| {
        let entry = file.entries.iter().find(|entry| entry.key == key)?;
        Some(format!("{}:{}", file.path.display(), entry.line))
    });
    let source = match (is_typed, entry, matches.value_source(id)) {
        (true, _, _) => "command line".to_owned(),
        (false, Some(place), _) => place,
        (false, None, Some(ValueSource::DefaultValue)) => "default".to_owned(),
        (false, None, _) => return format!("# {key} is not set\n"),
    };
    let raw = matches.get_raw(id).into_iter().flatten();
    let values: Vec<String> = raw.map(|value| written(&value.to_string_lossy())).collect();
    let value = match (arg.get_action(), values.as_slice()) {
        (ArgAction::SetTrue, _) => matches.get_flag(id).to_string(),
        (ArgAction::Append, several) => format!("[{}]", several.join(", ")),
        (_, [one, ..]) => one.clone(),
        (_, []) => return format!("# {key} is not set\n"),
    };
    format!("{key} = {value} # {source}\n")
}

/// A value as TOML: a whole number, or text in quotes.
fn written(value: &str) -> String {
    let is_number = !value.is_empty() && value.len() < 18 && value.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && (value == "0" || !value.starts_with('0')) {
        return value.to_owned();
    }
    toml::Value::from(value).to_string()
}
