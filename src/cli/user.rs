//! `tinyd user`: the cascade.

use clap::Subcommand;
use serde_json::json;

use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::CliError;
use crate::model::shown;

const EXAMPLES: &str = "\
Deletes every link that the user owns. `tinyd link restore` restores single
ones.

Example:
  tinyd user delete editor@example.com";

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Delete all links of a user, as Kaltura's user.delete does
    #[command(after_help = EXAMPLES)]
    Delete {
        /// User ID
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
