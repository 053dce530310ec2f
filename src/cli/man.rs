//! `tinyd man`: man pages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use crate::cli::Cli;
use crate::cli::exit::CliError;

const EXAMPLES: &str = "\
Example:
  tinyd man /usr/local/share/man/man1";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ManArgs {
    /// The folder, which exists
    folder: PathBuf,
}

/// Writes `tinyd.1`, and `tinyd-COMMAND.1` for each command.
pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let failed = || format!("cannot write man pages into {}", args.folder.display());
    clap_mangen::generate_to(Cli::command(), &args.folder).with_context(failed)?;
    Ok(())
}
