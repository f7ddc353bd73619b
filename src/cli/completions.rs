//! `highwater completions SHELL`: a script that completes the command line at
//! TAB.
//!
//! Refuses to install it: the help says where each shell looks.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::{command_line, print};

/// The arguments of `highwater completions`.
#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub(crate) struct CompletionsArgs {
    /// The shell that completes.
    shell: Shell,
}

const PLACES: &str = "\
Examples:
  highwater completions bash > ~/.local/share/bash-completion/completions/highwater
  highwater completions zsh  > ~/.zfunc/_highwater     with fpath+=~/.zfunc in .zshrc
  highwater completions fish > ~/.config/fish/completions/highwater.fish

The Debian package has those of bash, zsh and fish.";

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "highwater", &mut script);
    print(&script)
}
