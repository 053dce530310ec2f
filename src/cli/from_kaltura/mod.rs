//! `tinyd import --from-kaltura`: all links of a Kaltura account, over its own API.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

mod cursor;
mod pages;
mod source;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;

use crate::cli::exit::{CliError, Failure};
use crate::cli::progress::{LogWriter, bar};
use crate::cli::secure::TlsArgs;
use crate::links::file::{self, Defaults, FIELDS, FileFormat, ImportReport, LineProblem};
use crate::model::shown;
use crate::model::{Clock, PartnerId};

use cursor::Cursor;
use pages::{Pages, Portion};
use source::{Access, Source};

pub(super) use cursor::Route;

/// Links of one import into the appliance.
const BATCH_LINKS: usize = 5_000;
/// The same in bytes of lines.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
const SECRET: &str = "TINYD_KALTURA_SECRET";
const KS: &str = "TINYD_KALTURA_KS";

#[derive(Debug, Args)]
pub(super) struct KalturaArgs {
    /// Import all links of a Kaltura account over its API at this address
    #[arg(long, value_name = "URL", requires = "partner", conflicts_with_all = ["file", "format"])]
    pub(super) from_kaltura: Option<String>,

    /// Partner ID in Kaltura [default: that of --partner]
    #[arg(long, value_name = "ID", requires = "from_kaltura")]
    kaltura_partner: Option<u32>,

    /// File with the admin secret of the Kaltura account
    #[arg(long, value_name = "FILE", requires = "from_kaltura")]
    kaltura_secret_file: Option<PathBuf>,

    /// Keep the progress in this file, and continue where it says
    #[arg(long, value_name = "FILE", requires = "from_kaltura")]
    resume: Option<PathBuf>,
}

/// Where the links go.
pub(super) struct ImportTarget<'d> {
    /// The store or the appliance, as people know it.
    pub(super) into: &'d str,
    pub(super) partner: u32,
    pub(super) dry_run: bool,
    /// Imports JSON Lines.
    pub(super) import: &'d mut dyn FnMut(Vec<u8>) -> Result<ImportReport, CliError>,
}

/// Imports all links, and adds up what has become of them, also if it ends early. Tells about single links on standard
/// error.
pub(super) fn import<'m>(
    args: &KalturaArgs,
    url: &str,
    tls: &TlsArgs,
    target: ImportTarget<'m>,
    report: &'m mut ImportReport,
) -> Result<(), CliError> {
    let wrong = |reason| Failure::Usage.error(format!("--from-kaltura {url}: {reason}"));
    let base = source::base(url).map_err(wrong)?;
    let kaltura_partner = args.kaltura_partner.unwrap_or(target.partner);
    let route = Route {
        from: base.to_string(),
        kaltura_partner,
        into: target.into.to_owned(),
        partner: target.partner,
    };
    let cursor = args
        .resume
        .as_ref()
        .map(|path| Cursor::open(path, &route))
        .transpose()?;
    let from = cursor.as_ref().and_then(|cursor| cursor.created_from);
    let access = access(args)?;
    if base.scheme() == "http" && !is_local(&base) {
        say(&format!(
            "warning: {base} is not https: others can read the session and the secret"
        ))?;
    }
    let agent = tls.agent_without_certificate(base.as_str(), source::TIMEOUT)?;
    let source = Source::open(agent, &base, kaltura_partner, access)?;
    report.applied = !target.dry_run;
    let moving = Moving {
        kaltura_partner,
        target,
        cursor,
        report,
        batch: Batch::default(),
    };
    moving.run(Pages::new(source, from))
}

/// The secret or the session of Kaltura. Arguments would show it to other users of the machine.
fn access(args: &KalturaArgs) -> Result<Access, CliError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(path) = &args.kaltura_secret_file {
        let wrong = |reason: &str| {
            let text = format!("--kaltura-secret-file {}: {reason}", path.display());
            Failure::Usage.error(text)
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
        let secret = text.trim();
        if secret.is_empty() || secret.contains(char::is_whitespace) {
            return Err(wrong("expected the admin secret, and nothing else"));
        }
        return Ok(Access::Secret(secret.to_owned()));
    }
    match (variable(KS), variable(SECRET)) {
        (Some(ks), _) => Ok(Access::Ks(ks)),
        (None, Some(secret)) => Ok(Access::Secret(secret)),
        (None, None) => {
            let text = format!("no access to Kaltura: name a --kaltura-secret-file, or set {SECRET} or {KS}");
            Err(Failure::Usage.error(text))
        }
    }
}

fn is_local(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Writes a line about a single link.
fn say(line: &str) -> Result<(), CliError> {
    Ok(LogWriter.write_all(format!("{}\n", shown::line(line)).as_bytes())?)
}

#[derive(Default)]
struct Batch {
    /// JSON Lines.
    lines: Vec<u8>,
    /// The id of each line.
    ids: Vec<String>,
}

struct Moving<'m> {
    kaltura_partner: u32,
    target: ImportTarget<'m>,
    cursor: Option<Cursor>,
    report: &'m mut ImportReport,
    batch: Batch,
}

impl Moving<'_> {
    fn run(mut self, mut pages: Pages<Source>) -> Result<(), CliError> {
        let mut progress: Option<ProgressBar> = None;
        let mut from = None;
        loop {
            let portion = match pages.next() {
                Ok(Some(portion)) => portion,
                Ok(None) => return self.flush(from),
                Err(error) => {
                    // What was read before need not be read again.
                    self.flush(from)?;
                    return Err(error);
                }
            };
            let progress = progress.get_or_insert_with(|| bar("reading", "links", Some(portion.total)));
            progress.inc(portion.links.len() as u64);
            from = portion.from.or(from);
            self.take(portion)?;
            if self.batch.ids.len() >= BATCH_LINKS || self.batch.lines.len() >= BATCH_BYTES {
                self.flush(from)?;
            }
        }
    }

    fn take(&mut self, portion: Portion) -> Result<(), CliError> {
        for link in portion.links {
            self.push(link)?;
        }
        if let Some((second, links)) = portion.unlisted {
            self.report.refused += links;
            say(&format!(
                "createdAt {second}: {links} links left out, Kaltura does not list so many of one second"
            ))?;
        }
        Ok(())
    }

    /// Appends a link to the batch, or says why it cannot be imported.
    fn push(&mut self, mut link: Value) -> Result<(), CliError> {
        let id = pages::id(&link);
        if let Some(partner) = link["partnerId"].as_i64()
            && partner != i64::from(self.kaltura_partner)
        {
            let text = format!(
                "the session is one of partner {partner}, not of {} (--kaltura-partner)",
                self.kaltura_partner
            );
            return Err(Failure::NotAllowed.error(text));
        }
        if let Value::Object(fields) = &mut link {
            // The partner is ours, and a newer Kaltura may have more fields.
            fields.retain(|name, _| name != "partnerId" && FIELDS.contains(&name.as_str()));
        }
        let line = link.to_string();
        let defaults = Defaults {
            now: Clock::system().now(),
            partner: Some(PartnerId(self.target.partner)),
        };
        let mut read = file::read(FileFormat::JsonLines, line.as_bytes(), defaults)
            .map_err(|reason| Failure::Refused.error(reason))?;
        match read.next().transpose()?.map(|line| line.link) {
            Some(Ok(_)) => {
                self.batch.lines.extend_from_slice(line.as_bytes());
                self.batch.lines.push(b'\n');
                self.batch.ids.push(id);
            }
            Some(Err(reason)) => {
                self.report.refused += 1;
                say(&format!("link {id}: {reason}"))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Imports the batch. All links from before this second are then there.
    fn flush(&mut self, from: Option<i64>) -> Result<(), CliError> {
        let Batch { lines, ids } = std::mem::take(&mut self.batch);
        if !ids.is_empty() {
            let report = (self.target.import)(lines)?;
            self.add(report, &ids)?;
        }
        match &mut self.cursor {
            Some(cursor) if !self.target.dry_run && from.is_some() => cursor.save(from),
            _ => Ok(()),
        }
    }

    fn add(&mut self, report: ImportReport, ids: &[String]) -> Result<(), CliError> {
        let all = &mut *self.report;
        all.added += report.added;
        all.updated += report.updated;
        all.unchanged += report.unchanged;
        all.skipped += report.skipped;
        all.refused += report.refused;
        all.warned += report.warned;
        if all.first_ids.is_empty() {
            all.first_ids = report.first_ids;
        }
        let of = |line: u64| {
            let place = usize::try_from(line)
                .ok()
                .and_then(|line| ids.get(line.checked_sub(1)?));
            place.map_or("?", String::as_str)
        };
        for (kind, problems, count) in [
            ("warning: ", &report.warnings, report.warned),
            ("", &report.problems, report.refused),
        ] {
            for LineProblem { line, reason } in problems {
                say(&format!("link {}: {kind}{reason}", of(*line)))?;
            }
            let more = count.saturating_sub(problems.len() as u64);
            if more > 0 {
                say(&format!(
                    "{kind}and {more} more of the links {} to {}",
                    of(1),
                    of(ids.len() as u64)
                ))?;
            }
        }
        Ok(())
    }
}
