//! `tinyd user`: the cascade.

use clap::Subcommand;
use serde_json::json;

use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::CliError;
use crate::cli::shown;

const EXAMPLES: &str = "\
Every link that the user owns becomes deleted, in one transaction; `tinyd link restore`
brings single ones back.

Example:
  tinyd user delete editor@example.com";

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Delete a user's links, as Kaltura does when a user is deleted
    #[command(after_help = EXAMPLES)]
    Delete {
        /// The user
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) fn run(command: &UserCommand) -> Result<(), CliError> {
    let UserCommand::Delete { name, client } = command;
    let result = Client::new(client)?.call("user", "delete", json!({ "userId": name }))?;
    client.print(&result, || Ok(format!("{}: all links deleted", shown::line(name))))
}
