//! `--send-first` and `--expect`: the steps before the protocol, in the order in which they were typed.

use clap::{Arg, ArgAction, ArgMatches, Command};
use highwater::probe::Step;
use regex::bytes::Regex;

use crate::cli::parse::unescape;

/// The most that one step sends: a login is far below.
const LONGEST_STEP_BYTES: usize = 1 << 20;

/// The steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps(pub(crate) Vec<Step>);

fn parse_send(typed: &str) -> Result<Step, String> {
    let bytes = match typed.strip_prefix('@') {
        Some(file) => std::fs::read(file).map_err(|error| format!("cannot read {file}: {error}"))?,
        None => unescape(typed)?,
    };
    match bytes.len() {
        0 => Err("nothing to send: write some text, or @FILE".to_owned()),
        1..=LONGEST_STEP_BYTES => Ok(Step::Send(bytes)),
        len => Err(format!("{len} bytes are too many: one step sends at most 1MiB")),
    }
}

fn parse_expect(typed: &str) -> Result<Step, String> {
    let pattern = Regex::new(typed).map_err(|error| {
        let lines: Vec<_> = error
            .to_string()
            .lines()
            .map(str::trim)
            .map(str::to_owned)
            .collect();
        format!(
            "`{typed}` is not a regular expression: {}",
            lines.last().cloned().unwrap_or_default()
        )
    })?;
    if pattern.is_match(b"") {
        return Err(format!(
            "`{typed}` matches nothing at all: write what the server says, such as ^220"
        ));
    }
    Ok(Step::Expect(pattern))
}

impl clap::Args for Steps {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("send-first")
                    .long("send-first")
                    .value_name("TEXT")
                    .action(ArgAction::Append)
                    .value_parser(parse_send)
                    .help(
                        "Send this before the protocol begins, such as a login, or a file as @FILE; escapes \\r \\n \\t \\0 \\\\ \\xHH. \
                         Repeatable, in the order given together with --expect",
                    ),
            )
            .arg(
                Arg::new("expect")
                    .long("expect")
                    .value_name("REGEX")
                    .action(ArgAction::Append)
                    .value_parser(parse_expect)
                    .help(
                        "Read until this matches before the next step. The protocol begins at the byte after \
                         the last match",
                    ),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Steps {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut steps = Vec::new();
        for name in ["send-first", "expect"] {
            let indices = matches.indices_of(name).into_iter().flatten();
            let values = matches.get_many::<Step>(name).into_iter().flatten().cloned();
            steps.extend(indices.zip(values));
        }
        steps.sort_by_key(|(index, _)| *index);
        Ok(Self(steps.into_iter().map(|(_, step)| step).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
