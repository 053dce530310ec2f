//! `tinyd link`: add, get, list, update, delete, restore and new IDs.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

mod restore;

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::{CliError, Failure};
use crate::cli::store::opened;
use crate::cli::time;
use crate::links::file::{LinkJson, UsageJson, UsedLinkJson};
use crate::model::shown;
use crate::model::{self, Timestamp};
use crate::store::Store;

pub(super) const SERVICE: &str = "shortlink_shortlink";

/// Characters of a destination in a table of many links.
const DESTINATION_SHOWN_CHARS: usize = 72;

const ADD_EXAMPLES: &str = "\
Examples:
  tinyd link add https://example.com/video --system-name PREVIEW
  tinyd link add https://example.com/sale --system-name SALE --expires 30d
  tinyd link add https://example.com/premiere --system-name PREMIERE \\
    --starts 2027-01-31T18:00:00Z";
const LIST_EXAMPLES: &str = "\
Examples:
  tinyd link list
  tinyd link list --system-name SALE --status enabled
  tinyd link list --expires-before now --order +expiresAt --page-size 500 --json";
const UPDATE_EXAMPLES: &str = "\
Examples:
  tinyd link update 67mk41xj --status disabled
  tinyd link update 67mk41xj --to https://example.com/new --expires never";
const GET_EXAMPLES: &str = "\
Examples:
  tinyd link get 67mk41xj
  tinyd link get https://go.example.com/tiny/67mk41xj --json
  tinyd link get 67mk41xj --store /backup/links.redb";
const DELETE_EXAMPLES: &str = "\
Examples:
  tinyd link delete 67mk41xj
  tinyd link list --status disabled --json | jq -r '.objects[].id' |
    xargs tinyd link delete";
const NEW_ID_EXAMPLES: &str = "\
The old ID answers 410 from then on. It cannot be restored and is never used
again. Destination, names, owner, times and click counts stay.

Examples:
  tinyd link new-id 67mk41xj
  tinyd link new-id https://go.example.com/tiny/67mk41xj --json";
pub(super) const ID_HELP: &str = "ID or short URL";

#[derive(Debug, Subcommand)]
pub(super) enum LinkCommand {
    /// Add a link
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// Show a link
    #[command(after_help = GET_EXAMPLES)]
    Get {
        #[arg(help = ID_HELP, value_parser = id_of)]
        id: String,

        /// Read it from this store, such as a backup, which no server has open
        #[arg(long, value_name = "FILE")]
        store: Option<PathBuf>,

        #[command(flatten)]
        client: ClientArgs,
    },
    /// List links
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Update a link
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(UpdateArgs),
    /// Delete links (undo with restore)
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        #[arg(help = ID_HELP, value_parser = id_of, required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Give a link a new ID and revoke the old one for ever
    #[command(after_help = NEW_ID_EXAMPLES)]
    NewId {
        #[arg(help = ID_HELP, value_parser = id_of)]
        id: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Restore deleted links
    Restore(restore::RestoreArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LinkStatus {
    Disabled = 1,
    Enabled = 2,
    Deleted = 3,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Destination URL
    to: String,

    /// Name for programs, 3 to 63 characters
    #[arg(long, value_name = "NAME")]
    system_name: String,

    #[command(flatten)]
    fields: FieldArgs,

    /// Your own key, unique among the partner's links
    #[arg(long, value_name = "KEY")]
    unique_id: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[arg(help = ID_HELP, value_parser = id_of)]
    id: String,

    /// Destination URL
    #[arg(long, value_name = "URL")]
    to: Option<String>,

    /// Name for programs, 3 to 63 characters
    #[arg(long, value_name = "NAME")]
    system_name: Option<String>,

    #[command(flatten)]
    fields: FieldArgs,

    /// Clear a field
    #[arg(long, value_name = "FIELD", value_parser = ["name", "owner", "starts", "expires"], value_delimiter = ',')]
    clear: Vec<String>,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct FieldArgs {
    /// Name for people
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// User ID of the owner
    #[arg(long, value_name = "USER")]
    owner: Option<String>,

    /// Start: 7d, 12h, 2027-01-31T12:00:00Z, Unix seconds, or now
    #[arg(long, value_name = "WHEN", value_parser = parse_start)]
    starts: Option<i64>,

    /// Expiry: 7d, 12h, 2027-01-31T12:00:00Z, Unix seconds, or never
    #[arg(long, value_name = "WHEN", value_parser = parse_expiry)]
    expires: Option<i64>,

    /// Status; only enabled links redirect
    #[arg(long, value_name = "STATUS", value_enum)]
    status: Option<LinkStatus>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only links with this status (repeatable); deleted ones need it
    #[arg(long, value_name = "STATUS", value_enum, value_delimiter = ',')]
    status: Vec<LinkStatus>,

    /// Only links of this owner (repeatable)
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    owner: Vec<String>,

    /// Only links with this system name (repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    system_name: Vec<String>,

    /// Only this link (repeatable)
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = id_of)]
    id: Vec<String>,

    /// Only the link with this unique ID
    #[arg(long, value_name = "KEY")]
    unique_id: Option<String>,

    /// Only links created after TIME: 7d (ago) or 2026-01-31
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time::parse_past)]
    created_after: Option<Timestamp>,

    /// Only links created before TIME: 7d (ago) or 2026-01-31
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time::parse_past)]
    created_before: Option<Timestamp>,

    /// Only links that expire after TIME: now or 7d (from now)
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time::parse_future)]
    expires_after: Option<Timestamp>,

    /// Only links that expire before TIME: now or 7d (from now)
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time::parse_future)]
    expires_before: Option<Timestamp>,

    /// Sort order
    #[arg(long, value_name = "ORDER", default_value = "-createdAt", allow_hyphen_values = true, value_parser = ORDERS)]
    order: String,

    /// Links per page, up to 500
    #[arg(long, value_name = "LINKS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=500))]
    page_size: u64,

    /// Page number, from 1
    #[arg(long, value_name = "PAGE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    page: u64,

    #[command(flatten)]
    client: ClientArgs,
}

const ORDERS: [&str; 6] = [
    "+createdAt",
    "-createdAt",
    "+updatedAt",
    "-updatedAt",
    "+expiresAt",
    "-expiresAt",
];

pub(super) fn run(command: &LinkCommand) -> Result<(), CliError> {
    match command {
        LinkCommand::Add(args) => {
            let mut link = args.fields.to_json();
            link["fullUrl"] = json!(args.to);
            link["systemName"] = json!(args.system_name);
            link["uniqueId"] = json!(args.unique_id);
            show_result(&args.client, "add", json!({ "shortLink": link, "withStartsAt": true }))
        }
        LinkCommand::Get {
            id,
            store: Some(path),
            client,
        } => show_stored(client, path, id),
        LinkCommand::Get { id, client, .. } => {
            let params = json!({ "id": id, "withClicks": true, "withStartsAt": true });
            show_result(client, "get", params)
        }
        LinkCommand::List(args) => list(args),
        LinkCommand::Update(args) => {
            let mut link = args.fields.to_json();
            link["fullUrl"] = json!(args.to);
            link["systemName"] = json!(args.system_name);
            for field in &args.clear {
                let name = match field.as_str() {
                    "name" => "name__null",
                    "owner" => "userId__null",
                    "starts" => "startsAt__null",
                    _ => "expiresAt__null",
                };
                link[name] = json!("");
            }
            if let Value::Object(fields) = &mut link {
                // An empty object changes nothing; the API takes an object of nulls for none.
                fields.retain(|_, value| !value.is_null());
            }
            let params = json!({ "id": args.id, "shortLink": link, "withStartsAt": true });
            show_result(&args.client, "update", params)
        }
        LinkCommand::Delete { ids, client } => each(client, "delete", ids),
        LinkCommand::NewId { id, client } => show_result(client, "renewId", json!({ "id": id, "withStartsAt": true })),
        LinkCommand::Restore(args) => restore::run(args),
    }
}

impl FieldArgs {
    /// Null is what is not given, here and wherever the API reads JSON.
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "userId": self.owner,
            "status": self.status.map(|status| status as u8),
            "startsAt": self.starts,
            "expiresAt": self.expires,
        })
    }
}

fn show_result(args: &ClientArgs, action: &str, params: Value) -> Result<(), CliError> {
    let client = Client::new(args)?;
    let link = client.call(SERVICE, action, params)?;
    show(args, client.short_url_base.as_deref(), &link)
}

/// Shows a link of a store, deleted ones too.
fn show_stored(args: &ClientArgs, path: &Path, id: &str) -> Result<(), CliError> {
    let store = opened(Store::open_read_only(path))?;
    let snapshot = store.snapshot()?;
    let found = match id.parse() {
        Ok(id) => snapshot.get(id)?,
        Err(_) => None,
    };
    let link = found.ok_or_else(|| Failure::NotFound.error(format!("{} has no link {id}", path.display())))?;
    let usage = snapshot.usage_with_queued(link.id)?.into();
    let link = UsedLinkJson {
        link: (&link).into(),
        usage,
    };
    show(args, None, &serde_json::to_value(&link)?)
}

fn show(args: &ClientArgs, short_url_base: Option<&str>, answer: &Value) -> Result<(), CliError> {
    args.print(answer, || {
        let UsedLinkJson { link, usage } = UsedLinkJson::deserialize(answer)?;
        let mut table = plain_table();
        let mut row = |name: &str, value: Option<Cow<'_, str>>| {
            if let Some(value) = value {
                table.add_row([name, &*shown::line(&value)]);
            }
        };
        let short_url = short_url_base.map(|base| format!("{base}/tiny/{}", link.id).into());
        row("id", Some(link.id));
        row("short URL", short_url);
        row("leads to", Some(link.full_url));
        row("status", Some(status_name(link.status).into()));
        row("starts", link.starts_at.map(|at| start(at).into()));
        row("expires", Some(time_or_never(link.expires_at).into()));
        row("system name", Some(link.system_name));
        row("name", link.name);
        row("owner", link.user_id);
        row("unique id", link.unique_id);
        row("created", Some(time::show(link.created_at).into()));
        row("updated", Some(time::show(link.updated_at).into()));
        if usage.clicks.is_some() {
            row("clicks", Some(usage.clicks_shown().into()));
            row("last used", Some(usage.last_used().into()));
        }
        Ok(trimmed(&table))
    })
}

/// A link whose ID is retired starts never again.
fn start(at: i64) -> String {
    time_or_never((at != Timestamp::NEVER.as_unix()).then_some(at))
}

fn time_or_never(at: Option<i64>) -> String {
    at.map_or_else(|| "never".to_owned(), time::show)
}

impl UsageJson {
    fn clicks_shown(&self) -> String {
        let clicks = self.clicks.unwrap_or_default();
        match self.previews {
            None | Some(0) => clicks.to_string(),
            Some(1) => format!("{clicks} (1 preview)"),
            Some(previews) => format!("{clicks} ({previews} previews)"),
        }
    }

    fn last_used(&self) -> String {
        match (self.clicks, self.last_used_at) {
            (None, None) => "-".to_owned(),
            (_, last_used_at) => time_or_never(last_used_at),
        }
    }
}

fn list(args: &ListArgs) -> Result<(), CliError> {
    let client = Client::new(&args.client)?;
    let joined = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
    let statuses: Vec<_> = args.status.iter().map(|status| (*status as u8).to_string()).collect();
    let seconds = |at: Option<Timestamp>| at.map(|at| at.as_unix().to_string());
    let filter = json!({
        "statusIn": joined(&statuses),
        "userIdIn": joined(&args.owner),
        "systemNameIn": joined(&args.system_name),
        "idIn": joined(&args.id),
        "uniqueIdEqual": args.unique_id,
        "createdAtGreaterThanOrEqual": seconds(args.created_after),
        "createdAtLessThanOrEqual": seconds(args.created_before),
        "expiresAtGreaterThanOrEqual": seconds(args.expires_after),
        "expiresAtLessThanOrEqual": seconds(args.expires_before),
        "orderBy": args.order,
    });
    let pager = json!({ "pageSize": args.page_size, "pageIndex": args.page });
    let params = json!({ "filter": filter, "pager": pager, "withClicks": true, "withStartsAt": true });
    let result = client.call(SERVICE, "list", params)?;
    args.client.print(&result, || table_of(&result, args.page))
}

fn table_of(result: &Value, page: u64) -> Result<String, CliError> {
    let ListJson { objects, total_count } = ListJson::deserialize(result)?;
    let mut table = plain_table();
    // Few links have a start, and a line is long enough.
    let starts = objects.iter().any(|object| object.link.starts_at.is_some());
    let header = ["ID", "STATUS", "CLICKS", "LAST USED"].into_iter();
    let header = header.chain(starts.then_some("STARTS"));
    table.set_header(header.chain(["EXPIRES", "OWNER", "SYSTEM NAME", "LEADS TO"]));
    for UsedLinkJson { link, usage } in &objects {
        let text = |text: &str| shown::line(text).into_owned();
        let cells = [
            text(&link.id),
            status_name(link.status).to_owned(),
            usage.clicks.map_or_else(|| "-".to_owned(), |clicks| clicks.to_string()),
            usage.last_used(),
        ];
        let start = starts.then(|| link.starts_at.map_or_else(|| "-".to_owned(), start));
        let others = [
            time_or_never(link.expires_at),
            text(link.user_id.as_deref().unwrap_or("-")),
            text(&link.system_name),
            shortened(&text(&link.full_url)),
        ];
        table.add_row(cells.into_iter().chain(start).chain(others));
    }
    let count = objects.len();
    Ok(format!(
        "{}\n{count} of {total_count} links, page {page}",
        trimmed(&table)
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListJson<'a> {
    #[serde(borrow)]
    objects: Vec<UsedLinkJson<'a>>,
    total_count: u64,
}

/// Does the same to several links: all are tried, and the first failure is the command's.
fn each(args: &ClientArgs, action: &str, ids: &[String]) -> Result<(), CliError> {
    let client = Client::new(args)?;
    let mut first_failure = None;
    for id in ids {
        match client.call(SERVICE, action, json!({ "id": id })) {
            Ok(link) => args.print(&link, || {
                let status = status_name(LinkJson::deserialize(&link)?.status);
                Ok(format!("{} {status}", shown::line(id)))
            })?,
            Err(error) if first_failure.is_none() => first_failure = Some(error),
            Err(error) => writeln!(io::stderr(), "tinyd: {}", shown::lines(&format!("{:#}", error.error)))?,
        }
    }
    first_failure.map_or(Ok(()), Err)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

/// The table without the spaces that fill up its lines.
fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect();
    lines.join("\n")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(DESTINATION_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

pub(super) fn status_name(number: u8) -> &'static str {
    model::Status::from_number(number.into()).map_or("unknown", model::Status::name)
}

/// An id, or what is the id in a URL: the value of `id=`, else the last part of the path.
#[allow(clippy::unnecessary_wraps, reason = "clap wants a parser that can fail")]
pub(super) fn id_of(text: &str) -> Result<String, String> {
    let Ok(url) = url::Url::parse(text) else {
        return Ok(text.to_owned());
    };
    let of_query = url
        .query_pairs()
        .find(|(name, _)| name == "id")
        .map(|(_, id)| id.into_owned());
    let of_path = || url.path().trim_end_matches('/').rsplit('/').next().map(str::to_owned);
    Ok(of_query.or_else(of_path).unwrap_or_else(|| text.to_owned()))
}

/// Seconds since 1970; 0 is at once.
fn parse_start(text: &str) -> Result<i64, String> {
    if text == "now" {
        return Ok(0);
    }
    Ok(time::parse_future(text)?.as_unix())
}

/// Seconds since 1970; 0 is never.
fn parse_expiry(text: &str) -> Result<i64, String> {
    Ok(time::parse(text)?.map_or(0, Timestamp::as_unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_every_url_of_a_link() {
        for text in [
            "67mk41xj",
            "https://go.example.com/tiny/67mk41xj",
            "https://go.example.com/tiny/67mk41xj/?utm_source=x#y",
            "https://go.example.com/api_v3/service/shortlink_shortlink/action/goto/id/67mk41xj",
            "https://go.example.com/api_v3/index.php?service=shortLink_shortLink&action=goto&id=67mk41xj",
        ] {
            assert_eq!(id_of(text).as_deref(), Ok("67mk41xj"), "{text}");
        }
    }
}
