//! The `highwater` command: parses and runs.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    highwater::command::run(highwater::cli::Cli::parse())
}
