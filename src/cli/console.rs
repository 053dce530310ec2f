//! `tinyd console`: a link that signs a browser in.

use std::io::{self, Write as _};

use clap::Args;
use serde_json::json;

use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::{CliError, Failure};

const EXAMPLES: &str = "\
Prints a link to the web console of a running server. It signs a browser in
once, within ten minutes, as the user of --as, else as admin.

Examples:
  tinyd console
  tinyd console --as editor@example.com --type user
  tinyd console --url https://links.example.com:8443";

/// Who is signed in where nobody is named.
pub(super) const FIRST_USER: &str = "admin";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConsoleArgs {
    /// Access to the user's own links, or to all of the partner's
    #[arg(long, value_name = "TYPE", value_parser = ["user", "admin"], default_value = "admin")]
    r#type: String,

    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &ConsoleArgs) -> Result<(), CliError> {
    let client = Client::new(&args.client)?;
    let user = Some(args.client.user.as_str()).filter(|user| !user.is_empty());
    let user = user.unwrap_or(FIRST_USER);
    let kind = if args.r#type == "admin" { 2 } else { 0 };
    let made = client.call("tinyd", "signInLink", json!({ "userId": user, "type": kind }))?;
    let path = made.get("path").and_then(serde_json::Value::as_str);
    let path = path.ok_or_else(|| Failure::Unreachable.error("the server answered without a link"))?;
    args.client
        .print(&made, || Ok(format!("{}/{path}", client.console_url())))?;
    io::stdout().flush()?;
    Ok(())
}
