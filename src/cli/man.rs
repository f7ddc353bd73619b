//! `highwater man [SUBCOMMAND]`: the help as a manual page.
//!
//! Owns what a page has besides the help: section, date, and other pages to
//! read. Refuses to say of an option what its help does not.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::exit::usage;
use super::{command_line, print};

/// The arguments of `highwater man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The page of this subcommand [default: the page of the whole command]
    subcommand: Option<String>,
}

/// The day on which this version was released, as the changelog has it. A page
/// is the same wherever it is built.
const RELEASED: &str = "2026-11-28";

/// Prints the page.
pub(crate) fn run(args: &ManArgs) -> ExitCode {
    let mut whole = command_line();
    whole.build();
    let (wanted, others) = match &args.subcommand {
        None => (Some(whole.clone()), pages_of(&whole).collect()),
        Some(name) => (page_of(&whole, name), vec!["highwater(1)".to_owned()]),
    };
    let Some(wanted) = wanted else {
        usage(&unknown(&whole, args.subcommand.as_deref().unwrap_or_default()));
    };
    print(page(wanted, &others).as_bytes())
}

fn subcommands(whole: &Command) -> impl Iterator<Item = &Command> {
    whole
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
}

fn page_of(whole: &Command, name: &str) -> Option<Command> {
    subcommands(whole)
        .find(|command| command.get_name() == name)
        .cloned()
}

fn pages_of(whole: &Command) -> impl Iterator<Item = String> {
    subcommands(whole).map(|command| format!("highwater-{}(1)", command.get_name()))
}

fn unknown(whole: &Command, name: &str) -> String {
    let names: Vec<_> = subcommands(whole).map(Command::get_name).collect();
    format!("`{name}` is no subcommand: write one of {}", names.join(", "))
}

/// The whole page. Sections come in the usual order (man-pages(7)).
fn page(command: Command, others: &[String]) -> String {
    let extra = Roff::new()
        .control("SH", ["SEE ALSO"])
        .text([roman(others.join(", "))])
        .render();
    let version = command_line().get_version().unwrap_or_default().to_owned();
    let man = Man::new(command)
        .manual("highwater")
        .source(format!("highwater {version}"))
        .date(RELEASED);
    let mut page = Vec::new();
    let _ = man.render(&mut page);
    without_idle_breaks(&String::from_utf8_lossy(&page)) + &extra
}

/// Leaves out line breaks (`.br`) beside a blank line, which breaks the line
/// already; mandoc warns of them.
fn without_idle_breaks(page: &str) -> String {
    let lines: Vec<&str> = page.lines().collect();
    let is_blank = |index: Option<usize>| {
        let line = index.and_then(|index| lines.get(index));
        line.is_some_and(|line| matches!(*line, "" | ".sp"))
    };
    let kept = lines.iter().enumerate().filter(|(index, line)| {
        let beside_blank = is_blank(index.checked_sub(1)) || is_blank(Some(index + 1));
        **line != ".br" || !beside_blank
    });
    kept.flat_map(|(_, line)| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_newest_release() {
        let changelog = include_str!("../../CHANGELOG.md");
        let newest = changelog
            .lines()
            .filter_map(|line| line.strip_prefix("## ["))
            .find(|line| !line.starts_with("Unreleased"))
            .unwrap();
        let (version, date) = newest.split_once("] - ").unwrap();
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert_eq!(date, RELEASED);
    }

    #[test]
    fn each_subcommand_has_a_page_that_names_its_options_and_an_unknown_one_lists_them() {
        let mut whole = command_line();
        whole.build();
        let tunnel = page(page_of(&whole, "tunnel").unwrap(), &[]);
        assert!(
            tunnel.contains("highwater\\-tunnel") && tunnel.contains("upstream\\-grace"),
            "{tunnel}"
        );
        assert!(!tunnel.contains("max\\-frame"), "an option of another subcommand");
        assert!(page_of(&whole, "help").is_none());
        let refusal = unknown(&whole, "tunel");
        assert!(
            refusal.contains("`tunel`") && refusal.contains("echo, tunnel"),
            "{refusal}"
        );
    }
}
