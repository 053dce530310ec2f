//! `tinyd audit`: changes with their actors and times.

use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::{CliError, Failure};
use crate::cli::link::{ID_HELP, id_of};
use crate::cli::store::opened;
use crate::cli::time;
use crate::model::{ActorKind, AuditAction, AuditEntry, PartnerId, Timestamp, Way, shown};
use crate::store::{AuditQuery, Store};

/// Entries that are shown to people if nothing else is said.
const LIMIT_DEFAULT: u64 = 100;

const EXAMPLES: &str = "\
Shows the newest entries first. With --json, one JSON object a line, and all
entries unless --limit is given. Needs an administrator's session; an operator
sees all partners unless --partner is given.

Examples:
  tinyd audit --id 67mk41xj
  tinyd audit --user editor@example.com --since 7d
  tinyd audit --change delete --limit 20
  tinyd audit --json --until 2026-06-30T00:00:00Z > audit.jsonl";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AuditArgs {
    #[arg(long, value_name = "ID", help = ID_HELP, value_parser = id_of)]
    id: Option<String>,

    /// User who made the change
    #[arg(long = "user", value_name = "USER")]
    by: Option<String>,

    /// Kind of change
    #[arg(long, value_name = "CHANGE", value_parser = AuditAction::ALL.map(AuditAction::name))]
    change: Option<String>,

    /// Time of the oldest entry, such as 7d or 2026-05-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time::parse_past)]
    since: Option<Timestamp>,

    /// Time of the newest entry
    #[arg(long, value_name = "TIME", value_parser = time::parse_past)]
    until: Option<Timestamp>,

    /// Number of entries [default: 100; with --json: all]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Read this store, which no server has open, instead of a running server
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,

    #[command(flatten)]
    client: ClientArgs,
}

impl AuditArgs {
    fn limit(&self) -> Option<u64> {
        self.limit.or((!self.client.json).then_some(LIMIT_DEFAULT))
    }
}

pub(super) fn run(args: &AuditArgs) -> Result<(), CliError> {
    match &args.store {
        Some(store) => read_store(args, store),
        None => read_server(args),
    }
}

fn read_server(args: &AuditArgs) -> Result<(), CliError> {
    let params = json!({
        "id": args.id,
        "userId": args.by,
        "change": args.change,
        "since": args.since.map(Timestamp::as_unix),
        "until": args.until.map(Timestamp::as_unix),
        "limit": args.limit(),
        "partnerId": args.client.partner,
    });
    let (body, _) = Client::new(&args.client)?.stream("audit", params)?;
    let mut out = io::stdout().lock();
    let interrupted = |error: &dyn std::fmt::Display| Failure::Unavailable.error(format!("interrupted: {error}"));
    for line in BufReader::new(body).lines() {
        let line = line.map_err(|error| interrupted(&error))?;
        let entry = serde_json::from_str(&line).map_err(|error| interrupted(&error))?;
        print(args, &entry, &mut out)?;
    }
    Ok(())
}

fn read_store(args: &AuditArgs, path: &Path) -> Result<(), CliError> {
    let store = opened(Store::open_read_only(path))?;
    let snapshot = store.snapshot()?;
    let mut left = args.limit().unwrap_or(u64::MAX);
    let mut query = AuditQuery {
        partner: args.client.partner.map(PartnerId),
        user: args.by.clone(),
        // Checked when the arguments were read.
        id: args.id.as_deref().and_then(|id| id.parse().ok()),
        action: args.change.as_deref().and_then(AuditAction::named),
        since: args.since,
        until: args.until,
        before: None,
        limit: 0,
    };
    let mut out = io::stdout().lock();
    loop {
        query.limit = usize::try_from(left).unwrap_or(usize::MAX);
        let page = snapshot.audit(&query)?;
        for entry in &page.entries {
            print(args, entry, &mut out)?;
        }
        left = left.saturating_sub(page.entries.len() as u64);
        query.before = page.next;
        if left == 0 || query.before.is_none() {
            return Ok(());
        }
    }
}

fn print(args: &AuditArgs, entry: &AuditEntry, out: &mut impl Write) -> Result<(), CliError> {
    if args.client.json {
        return Ok(writeln!(out, "{}", shown::json(&serde_json::to_value(entry)?))?);
    }
    Ok(writeln!(out, "{}", shown::line(&in_words(entry)))?)
}

fn in_words(entry: &AuditEntry) -> String {
    let by = &entry.by;
    let way = match by.way {
        Way::Api => "API",
        Way::Console => "console",
        Way::CommandLine => "command line",
    };
    let who = match (by.kind, &by.user) {
        (ActorKind::Local, _) => "local".to_owned(),
        (ActorKind::User, user) => user.clone().unwrap_or_default(),
        (ActorKind::Admin, Some(user)) if !user.is_empty() => format!("{user}, admin"),
        (ActorKind::Admin, _) => "admin".to_owned(),
    };
    let partner = entry
        .partner
        .map(|partner| format!("  partner {partner}"))
        .unwrap_or_default();
    let id = entry.id.map(|id| format!(" {id}")).unwrap_or_default();
    let changes = entry
        .changes
        .iter()
        .map(|(name, change)| match (&change.old, &change.new) {
            (Some(old), Some(new)) => format!("{name} {old} -> {new}"),
            (Some(old), None) => format!("{name} was {old}"),
            (None, Some(new)) => format!("{name} {new}"),
            (None, None) => name.clone(),
        });
    let changes = changes.collect::<Vec<_>>().join("; ");
    let at = time::show(entry.at.as_unix());
    let line = format!("{at}{partner}  {who} ({way})  {}{id}  {changes}", entry.action.name());
    line.trim_end().to_owned()
}
