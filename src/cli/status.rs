//! `tinyd status`: the health of a running server on one screen.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use crate::admin::ApplianceStatus;
use crate::cli::ConfigArgs;
use crate::cli::client::{not_secured, untrusted};
use crate::cli::exit::{CliError, Failure};
use crate::cli::secure::TlsArgs;
use crate::config::Settings;
use crate::model::shown;

const EXAMPLES: &str = "\
Reads the admin listener, without a session. Exits with 0 if the server is
healthy, with 1 and the reasons if not, and with 6 if it cannot be reached.

Examples:
  tinyd status
  tinyd status --config /etc/tinyd/tinyd.toml
  tinyd status --url http://10.0.0.5:8081 --json";

const TIMEOUT: Duration = Duration::from_secs(10);

/// Width of the column with names.
const NAME_WIDTH: usize = 13;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// URL of the admin listener [default: from the configuration]
    #[arg(long, value_name = "URL", env = "TINYD_URL", hide_env_values = true)]
    url: Option<String>,

    #[command(flatten)]
    tls: TlsArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<(), CliError> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => Settings::load(&args.config.overrides())?.admin_url(),
    };
    let url = url.trim_end_matches('/');
    let answer = fetch(&args.tls, url)?;
    if !answer.get("healthy").is_some_and(Value::is_boolean) {
        return Err(not_tinyd(url));
    }
    let status = ApplianceStatus::deserialize(&answer).map_err(|_| not_tinyd(url))?;
    let mut out = io::stdout().lock();
    if args.json {
        // As the server sent it: it may be newer and say more.
        writeln!(out, "{}", shown::json(&answer))?;
    } else {
        out.write_all(shown::lines(&screen(url, &status)).as_bytes())?;
    }
    out.flush()?;
    if status.healthy {
        return Ok(());
    }
    Err(Failure::Other.error(format!("tinyd at {url} is not healthy")))
}

fn fetch(tls: &TlsArgs, url: &str) -> Result<Value, CliError> {
    let response = tls.agent(url, TIMEOUT)?.get(format!("{url}/status")).call();
    let mut response = response.map_err(|error| {
        Failure::Unreachable.error(match untrusted(&error) {
            Some(reason) => not_secured(url, &reason),
            None => format!("cannot reach tinyd at {url}: {error}"),
        })
    })?;
    let body = response.body_mut().read_to_string().map_err(|_| not_tinyd(url))?;
    serde_json::from_str(&body).map_err(|_| not_tinyd(url))
}

fn not_tinyd(url: &str) -> CliError {
    Failure::Unreachable.error(format!("{url} did not answer as tinyd does: is it the admin listener?"))
}

fn screen(url: &str, status: &ApplianceStatus) -> String {
    let mut screen = String::new();
    let verdict = if status.healthy { "healthy" } else { "NOT HEALTHY" };
    let (version, [uptime, minutes]) = (&status.version, status.spans());
    let _ = writeln!(screen, "{verdict}: tinyd {version} at {url}, up {uptime}");
    let problems = status.problems.iter().map(|text| ("problem", text));
    for (kind, text) in problems.chain(status.hints.iter().map(|text| ("hint", text))) {
        let _ = writeln!(screen, "{kind:NAME_WIDTH$}{text}");
    }
    let _ = writeln!(screen, "\nNumbers without a time are of the last {minutes}.\n");
    for (name, text) in status.rows() {
        let _ = writeln!(screen, "{name:NAME_WIDTH$}{text}");
    }
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_first_and_missing_members_are_ignored() {
        let status = r#"{"healthy":false,"problems":["the store refuses writes: full"],"hints":["a hint"]}"#;
        let screen = screen("http://a", &serde_json::from_str(status).unwrap());
        let mut lines = screen.lines();
        assert!(lines.next().unwrap().starts_with("NOT HEALTHY: tinyd  at http://a"));
        assert_eq!(lines.next(), Some("problem      the store refuses writes: full"));
        assert_eq!(lines.next(), Some("hint         a hint"));
        assert!(
            screen.contains("REFUSES WRITES") && screen.contains("last backup  never"),
            "{screen}"
        );
    }
}
