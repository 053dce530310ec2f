//! `tinyd completions` and `tinyd man`: what the arguments generate.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::exit::CliError;

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tinyd completions bash > /etc/bash_completion.d/tinyd
  tinyd completions zsh > \"${fpath[1]}/_tinyd\"
  tinyd completions fish > ~/.config/fish/completions/tinyd.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Example:
  tinyd man /usr/local/share/man/man1";

pub(super) fn completions(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tinyd", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

/// Writes `tinyd.1`, and `tinyd-COMMAND.1` for each command.
pub(super) fn man(folder: &Path) -> Result<(), CliError> {
    let failed = || format!("cannot write man pages into {}", folder.display());
    Ok(clap_mangen::generate_to(Cli::command(), folder).with_context(failed)?)
}
