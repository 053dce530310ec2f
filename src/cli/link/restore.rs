//! `tinyd link restore`: bringing deleted links back, one or a file of them.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::{CliError, Failure};
use crate::cli::link::{ID_HELP, SERVICE, id_of, status_name};
use crate::model::shown;
use crate::model::validate::without_byte_order_mark;

/// Links in one call, each of which is one transaction.
const CALL_LINKS: usize = 500;

const EXAMPLES: &str = "\
A file has one ID or short URL per line; # begins a comment. Exits with 3 if
some links do not exist, and restores the others.

Examples:
  tinyd link restore 67mk41xj https://go.example.com/tiny/8gjenojs
  tinyd link restore --from deleted.txt --dry-run
  tinyd link list --status deleted --json | jq -r '.objects[].id' |
    tinyd link restore --from -";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreArgs {
    #[arg(help = ID_HELP, value_parser = id_of, required_unless_present = "from")]
    ids: Vec<String>,

    /// Read IDs from this file, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    from: Option<PathBuf>,

    /// Report what would change; change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    client: ClientArgs,
}

pub fn run(args: &RestoreArgs) -> Result<(), CliError> {
    let ids = match &args.from {
        Some(path) => ids_in(&text_of(path)?),
        None => args.ids.clone(),
    };
    let client = Client::new(&args.client)?;
    let (mut restored, mut already, mut unknown, mut stay) = (0, 0, 0, 0);
    for chunk in ids.chunks(CALL_LINKS) {
        let params = json!({ "ids": chunk.join(","), "dryRun": args.dry_run });
        let outcomes = client.call(SERVICE, "restoreMany", params)?;
        for link in outcomes.as_array().map_or(&[][..], Vec::as_slice) {
            let status = link["status"].as_u64().and_then(|number| u8::try_from(number).ok());
            let already_what = format!("already {}", status_name(status.unwrap_or_default()));
            let (count, what) = match link["outcome"].as_str() {
                Some("restored") => (&mut restored, "restored"),
                Some("notDeleted") => (&mut already, already_what.as_str()),
                Some("retired") => (&mut stay, "stays deleted: it has a new ID"),
                Some("uniqueIdTaken") => (&mut stay, "stays deleted: another link has its unique id now"),
                Some("damaged") => (&mut stay, "stays as it is: its record is damaged"),
                _ => (&mut unknown, "unknown"),
            };
            *count += 1;
            let id = shown::line(link["id"].as_str().unwrap_or(""));
            // A closed pipe ends the output, not the restoring.
            match args.client.print(link, || Ok(format!("{id} {what}"))) {
                Err(error) if !error.is_broken_pipe() => return Err(error),
                _ => {}
            }
        }
    }
    if !args.client.json {
        let would = if args.dry_run {
            "nothing was changed; it would be: "
        } else {
            ""
        };
        let cannot = if stay > 0 {
            format!(", {stay} that cannot be")
        } else {
            String::new()
        };
        writeln!(
            io::stdout(),
            "{would}{restored} restored, {already} not deleted, {unknown} unknown{cannot}"
        )?;
    }
    if unknown > 0 {
        return Err(Failure::NotFound.error(format!("unknown links: {unknown}")));
    }
    if stay > 0 {
        return Err(Failure::Incomplete.error(format!("links that could not be restored: {stay}")));
    }
    Ok(())
}

fn text_of(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|read| text = read)
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// The ids of a file, each once, in their order.
fn ids_in(text: &str) -> Vec<String> {
    let text = str::from_utf8(without_byte_order_mark(text.as_bytes())).unwrap_or(text);
    let mut seen = HashSet::new();
    text.lines()
        .map(|line| {
            // A URL has its # without a space before it.
            let end = line.find(" #").or_else(|| line.find("\t#")).unwrap_or(line.len());
            line.get(..end).unwrap_or(line).trim()
        })
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| id_of(line).ok())
        // What is no id is looked for as it stands, and not found; a comma would make two of it.
        .map(|id| {
            if id.is_empty() {
                "-".to_owned()
            } else {
                id.replace(',', ";")
            }
        })
        .filter(|id| seen.insert(id.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_an_id_or_a_url_a_line_and_comments() {
        let text = "# those of last week\n67mk41xj\n\nhttps://go.example.com/tiny/8gjenojs#x # the sale\r\n  abcd\t# \
            more\n67mk41xj\n";
        assert_eq!(ids_in(text), ["67mk41xj", "8gjenojs", "abcd"]);
    }
}
