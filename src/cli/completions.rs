//! `tinyd completions`: shell completions.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::exit::CliError;

const EXAMPLES: &str = "\
Examples:
  tinyd completions bash > /etc/bash_completion.d/tinyd
  tinyd completions zsh > \"${fpath[1]}/_tinyd\"
  tinyd completions fish > ~/.config/fish/completions/tinyd.fish";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tinyd", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}
