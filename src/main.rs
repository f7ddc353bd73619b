//! The `highwater` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater::probe::command::{self, ProbeArgs};

#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find out whether a server survives slow clients
    Probe(ProbeArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Probe(args) => command::run(&args),
    }
}
