//! `--config FILE`, and `highwater config`: options in a file.
//!
//! Owns the order in which command line, file and default count. Refuses to
//! know single options.

mod check;
mod file;
mod printing;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::Command as Grammar;
use clap::{Args, Subcommand};

pub(super) use self::check::placed;
pub(super) use self::file::{ConfigFile, Entry, first_line};
use self::file::{SERVICES, option};
use super::exit::usage;
use super::{command_line, print};

/// The arguments of `highwater config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check a file of options: names, types, values, and options that cancel
    /// each other.
    Check {
        /// The file.
        file: PathBuf,
        /// The subcommand that it is for [default: those whose own options it
        /// has, else any].
        service: Option<String>,
    },
    /// Print every option of a subcommand as a file, and where its value comes
    /// from: command line, file or default.
    Print {
        /// The subcommand that serves, with its options [default: echo].
        #[arg(
            value_name = "SERVICE] [--config FILE] [OPTIONS",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        line: Vec<OsString>,
    },
}

/// Does what the arguments ask.
pub(crate) fn run(args: ConfigArgs) -> ExitCode {
    match args.action {
        Action::Check { file, service } => match check::text(&file, service.as_deref()) {
            Ok(text) => print(text.as_bytes()),
            Err(sentence) => usage(&sentence),
        },
        Action::Print { line } => printing::run(line),
    }
}

/// A command line with the options of its file, and the file.
pub(super) struct Expanded {
    pub(super) line: Vec<OsString>,
    pub(super) file: Option<ConfigFile>,
}

/// Puts the options of the file that `--config` names in front of those that
/// were typed, as far as the subcommand has them and they were not typed.
///
/// # Errors
///
/// One line: the file cannot be read, or something in it is wrong.
pub(super) fn expand(typed: Vec<OsString>) -> Result<Expanded, String> {
    let whole = command_line();
    let service = typed.get(1).and_then(|name| name.to_str());
    let service = service.filter(|name| SERVICES.contains(name));
    let service = service.and_then(|name| whole.find_subcommand(name));
    let Some((service, path)) = service.zip(path_in(&typed)) else {
        return Ok(Expanded {
            line: typed,
            file: None,
        });
    };
    let file = ConfigFile::read(&path, &whole)?;
    Ok(Expanded {
        line: line_with(&typed, &file.entries, service),
        file: Some(file),
    })
}

/// What was typed, with these entries of a file in front as far as they count.
pub(super) fn line_with(typed: &[OsString], entries: &[Entry], service: &Grammar) -> Vec<OsString> {
    let mut line = typed[..2].to_vec();
    let counting = entries
        .iter()
        .filter(|entry| is_of(service, &entry.key) && !is_typed(typed, &entry.key));
    line.extend(counting.flat_map(Entry::typed).map(OsString::from));
    line.extend_from_slice(&typed[2..]);
    line
}

/// Whether a service has this option.
pub(super) fn is_of(service: &Grammar, key: &str) -> bool {
    option(service, key).is_some()
}

/// Whether an option stands on the command line.
pub(super) fn is_typed(typed: &[OsString], key: &str) -> bool {
    let options = typed.iter().map(|arg| arg.to_string_lossy());
    options.take_while(|arg| arg != "--").any(|arg| {
        let name = arg
            .strip_prefix("--")
            .map(|rest| rest.split('=').next().unwrap_or_default());
        name == Some(key)
    })
}

/// The file that `--config` names, the last one if it stands twice.
fn path_in(typed: &[OsString]) -> Option<PathBuf> {
    let mut path = None;
    for (index, arg) in typed.iter().enumerate().skip(2) {
        match arg.to_str() {
            Some("--") => break,
            Some("--config") => path = typed.get(index + 1).map(PathBuf::from),
            Some(arg) => {
                if let Some(named) = arg.strip_prefix("--config=") {
                    path = Some(PathBuf::from(named));
                }
            }
            None => {}
        }
    }
    path
}
