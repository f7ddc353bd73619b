//! The command line: the table of subcommands.
//!
//! A subcommand is a variant and an arm here, and a file of its own for its
//! arguments. What all servers share is in `options` and `serve`.

mod activation;
mod admin;
mod arguments;
mod broadcast;
mod completions;
mod config;
mod echo;
mod exit;
mod listening;
mod log;
mod man;
mod notify;
mod options;
mod parse;
mod probe;
mod reload;
mod sentences;
mod serve;
mod serve_files;
mod signals;
mod sockets;
mod stopper;
mod take_over;
mod tunnel;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, Parser, Subcommand};

use arguments::{ServingArguments, check};
use broadcast::BroadcastArgs;
use completions::CompletionsArgs;
use config::ConfigArgs;
use echo::EchoArgs;
use man::ManArgs;
use probe::ProbeArgs;
use reload::Source;
use serve_files::ServeArgs;
use tunnel::TunnelArgs;

/// Parses the command line and runs the subcommand. Wrong usage prints one
/// line and exits with 2.
pub(crate) fn run() -> ExitCode {
    let typed = std::env::args_os().collect();
    let (line, source) = Source::find(typed).unwrap_or_else(|sentence| exit::usage(&sentence));
    match Cli::parse_from(line).command {
        Command::Echo(args) => echo::run(args, source),
        Command::Tunnel(args) => serve::serve(args, source),
        Command::Broadcast(args) => broadcast::run(args, source),
        Command::Serve(args) => serve_files::run(*args, source),
        Command::Probe(args) => probe::run(&args),
        Command::Config(args) => config::run(args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// The whole command line, as clap holds it: from it come completions and
/// manual pages.
fn command_line() -> clap::Command {
    Cli::command()
}

/// What a command line of a subcommand may have to say beside a file, by
/// example.
fn required_of(subcommand: &str) -> &'static [&'static str] {
    match subcommand {
        TunnelArgs::SUBCOMMAND => &["--admin=127.0.0.1:1", "--to=127.0.0.1:1"],
        ServeArgs::SUBCOMMAND => &["--admin=127.0.0.1:1", "."],
        _ => &["--admin=127.0.0.1:1"],
    }
}

/// Checks the options of a subcommand that serves together, as its start does.
///
/// # Errors
///
/// One sentence about options that cancel each other.
fn check_together(subcommand: &str, matches: &ArgMatches) -> Result<(), String> {
    match subcommand {
        EchoArgs::SUBCOMMAND => check::<EchoArgs>(matches),
        TunnelArgs::SUBCOMMAND => check::<TunnelArgs>(matches),
        BroadcastArgs::SUBCOMMAND => check::<BroadcastArgs>(matches),
        ServeArgs::SUBCOMMAND => check::<ServeArgs>(matches),
        _ => Ok(()),
    }
}

/// Writes a text that the caller asked for to standard output. A reader that
/// has seen enough, such as `head`, is no failure.
fn print(text: &[u8]) -> ExitCode {
    let mut output = std::io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// TCP servers in which no slow client can hurt the others.
///
/// Each client has a bounded send queue. At its high-water mark the server
/// pauses the source of the bytes. A client whose queue stays full for longer
/// than the grace is disconnected with a reset. All other clients go on.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, arg_required_else_help = true, args_override_self = true, after_help = EXAMPLES)]
struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  highwater echo                          echo on 127.0.0.1:9000; try `nc 127.0.0.1 9000`
  highwater echo --port 0 --grace 2s      echo on a free port, with a shorter grace
  highwater tunnel --to 127.0.0.1:6379    protect a Redis from slow clients
  highwater broadcast --port 6379         publish and subscribe; try `redis-cli subscribe news`
  highwater serve . --listing             send the files of this folder over HTTP
  highwater probe --port 9000             test any TCP server with slow clients

Exit codes: 0 stopped in order, 1 failed, 2 wrong usage.";

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Return every byte to the client that sent it.
    Echo(EchoArgs),
    /// Carry the bytes of every client to another server and back.
    ///
    /// Each client gets an upstream: a connection of its own to the other
    /// server. A slow client pauses its upstream, and a slow upstream its
    /// client. If one stays too slow for too long, both are reset.
    Tunnel(TunnelArgs),
    /// Publish and subscribe in Redis's protocol.
    ///
    /// Any Redis client speaks it, such as `redis-cli`. What happens to a
    /// subscriber that is too slow is chosen for each channel, and each gap in
    /// what it gets is told to it on the channel `__highwater__:lost`.
    Broadcast(BroadcastArgs),
    /// Send files over HTTP to clients of any speed.
    ///
    /// A file goes out as fast as its client takes it, and nothing of it waits
    /// in memory. A client that acknowledges nothing for the grace is reset.
    Serve(Box<ServeArgs>),
    /// Test whether a TCP server survives slow clients.
    Probe(Box<ProbeArgs>),
    /// Check a file of options, or print the options in force as one.
    Config(ConfigArgs),
    /// Print completions for a shell.
    ///
    /// The shell then completes subcommands, options and their values at TAB.
    Completions(CompletionsArgs),
    /// Print a manual page.
    ///
    /// `highwater man | man -l -` shows it; with a subcommand, the page of that
    /// one.
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
