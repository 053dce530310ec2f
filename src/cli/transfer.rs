//! `tinyd export` and `tinyd import`: links as lines of a file, or from Kaltura.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value is null, not a panic"
)]

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::{CliError, Failure};
use crate::cli::from_kaltura::{self, ImportTarget, KalturaArgs};
use crate::cli::progress::bar;
use crate::cli::store::{check_target, opened};
use crate::config::Settings;
use crate::kaltura::session::Partners;
use crate::links::file::{self, Defaults, FileFormat, ImportEvent, ImportReport, LineProblem};
use crate::links::file::{
    Conflict, ImportError, ImportLog, ImportOptions, export as export_links, import as import_lines,
};
use crate::links::{AuditLog, NewDestinations};
use crate::model::shown;
use crate::model::{Actor, ActorKind, Clock, FULL_URL_MAX_BYTES, PartnerId, Way};
use crate::store::{Health, Store, Unfinished};

const EXPORT_EXAMPLES: &str = "\
Writes every field of every link, deleted ones too, ordered by ID. With
--partner, only that partner's links; otherwise an operator exports the links
of all partners.

Examples:
  tinyd export links.jsonl
  tinyd export --format csv - | sort -t, -k3
  tinyd export --store /backup/links.redb - | jq -r .fullUrl";

const IMPORT_EXAMPLES: &str = "\
Keeps IDs. Requires id, systemName and fullUrl; other fields have the API's
defaults. Reads what the API's list returns. CSV has a header line, and
commas, semicolons or tabs. A dry run shows the first IDs: a spreadsheet may
have cut off zeros.

Imports all lines in one transaction, or none; with --keep-going, all valid
lines in many short transactions, so that other writes wait less. An import
can be repeated: a line that equals the stored link changes nothing. With
--on-conflict update, a line replaces the whole link, with every field that it
leaves out.

--from-kaltura reads all links of a Kaltura account, deleted ones too, and
imports the valid ones in short transactions. The admin secret comes from
--kaltura-secret-file or TINYD_KALTURA_SECRET; TINYD_KALTURA_KS has an ADMIN
session instead. --partner is the partner here. With --resume, another run
continues where the last one ended.

Examples:
  tinyd import links.jsonl --dry-run
  tinyd import links.csv --on-conflict update
  tinyd export --url http://old:8081 - | tinyd import --url http://new:8081 -
  tinyd import --store /var/lib/tinyd/links.redb links.jsonl
  tinyd import --from-kaltura https://www.kaltura.com/api_v3 \\
    --partner 1234567 --kaltura-secret-file kaltura.secret --resume moving";

#[derive(Debug, Args)]
struct FileArgs {
    /// Format [default: by the file extension, else jsonl]
    #[arg(long, value_name = "FORMAT", value_parser = ["jsonl", "csv"])]
    format: Option<String>,

    /// Use this store, which no server has open, instead of a running server
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(super) struct ExportArgs {
    /// File, or - for standard output
    file: PathBuf,

    #[command(flatten)]
    of: FileArgs,

    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArgs {
    /// File, or - for standard input
    #[arg(required_unless_present = "from_kaltura")]
    file: Option<PathBuf>,

    #[command(flatten)]
    of: FileArgs,

    #[command(flatten)]
    kaltura: KalturaArgs,

    /// Action for a line whose ID is taken
    #[arg(long, value_name = "POLICY", value_parser = ["fail", "skip", "update"], default_value = "fail")]
    on_conflict: String,

    /// Report what would change; change nothing
    #[arg(long)]
    dry_run: bool,

    /// Import valid lines even if others are invalid
    #[arg(long)]
    keep_going: bool,
}

impl FileArgs {
    fn format(&self, file: &Path) -> FileFormat {
        let ending = file.extension().and_then(|ending| ending.to_str());
        let name = self.format.as_deref().or(ending);
        name.and_then(FileFormat::named).unwrap_or(FileFormat::JsonLines)
    }

    fn partner(&self) -> Option<PartnerId> {
        self.client.partner.map(PartnerId)
    }
}

impl ImportArgs {
    /// Links of Kaltura do not come all at once, so they cannot be imported all or not at all.
    const fn keeps_going(&self) -> bool {
        self.keep_going || self.kaltura.from_kaltura.is_some()
    }
}

fn is_pipe(file: &Path) -> bool {
    file == Path::new("-")
}

pub(super) fn export(args: &ExportArgs) -> Result<(), CliError> {
    let path = &args.file;
    if is_pipe(path) {
        return export_to(args, io::stdout().lock());
    }
    check_target(path, args.overwrite)?;
    let unwritable = || format!("cannot write {}", path.display());
    let unfinished = Unfinished::new(path);
    let file = unfinished.create().with_context(unwritable)?;
    let exported = export_to(args, &file);
    let failure = exported.as_ref().err().map(|error| error.failure);
    // A file that lacks damaged links is of use too.
    if matches!(failure, None | Some(Failure::Incomplete)) {
        let named = file.sync_all().and_then(|()| unfinished.publish());
        named.with_context(unwritable)?;
    }
    exported
}

fn export_to(args: &ExportArgs, out: impl Write) -> Result<(), CliError> {
    let ExportArgs { file, of, .. } = args;
    let format = of.format(file);
    let mut out = BufWriter::new(out);
    let damaged = match &of.store {
        Some(store) => export_store(store, of, format, &mut out)?,
        None => {
            let params = json!({ "fileFormat": format.name(), "partnerId": of.client.partner });
            let (body, damaged) = Client::new(&of.client)?.stream("export", params)?;
            let copied = io::copy(&mut bar("exporting", "bytes", None).wrap_read(body), &mut out);
            copied.map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => error.into(),
                _ => Failure::Unavailable.error(format!("export interrupted: {error}")),
            })?;
            damaged
        }
    };
    out.flush()?;
    if damaged > 0 {
        let text = format!(
            "{damaged} links left out, their records are damaged (run {} verify)",
            shown::command()
        );
        return Err(Failure::Incomplete.error(text));
    }
    Ok(())
}

/// Exports a store's links; returns how many cannot be read.
fn export_store(path: &Path, args: &FileArgs, format: FileFormat, out: &mut impl Write) -> Result<u64, CliError> {
    let store = opened(Store::open_read_only(path))?;
    let snapshot = store.snapshot()?;
    let bar = bar("exporting", "links", Some(snapshot.totals()?.iter().sum()));
    let writer = file::LinkWriter::new(format, out)?;
    Ok(export_links(&snapshot, args.partner(), writer, || bar.inc(1))?)
}

pub(super) fn import(args: &ImportArgs) -> Result<(), CliError> {
    let mut target = Target::new(args);
    if let Some(url) = &args.kaltura.from_kaltura {
        return import_from_kaltura(args, url, &mut target);
    }
    let path = args.file.as_deref().unwrap_or(Path::new("-"));
    let (file, bytes): (Box<dyn Read + Send>, _) = if is_pipe(path) {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(Failure::Usage.error(format!("{} is a folder", path.display())));
        }
        (Box::new(file), metadata.is_file().then_some(metadata.len()))
    };
    let lines = LinkFile {
        format: args.of.format(path),
        file,
        bytes,
    };
    let report = target.import(lines)?;
    let mut err = io::stderr().lock();
    print_lines(&mut err, "warning: ", &report.warnings, report.warned)?;
    print_lines(&mut err, "", &report.problems, report.refused)?;
    drop(err);
    print_counts(args, &report)?;
    if report.refused > 0 {
        return Err(Failure::Refused.error(format!("wrong lines: {}", report.refused)));
    }
    Ok(())
}

fn import_from_kaltura(args: &ImportArgs, url: &str, target: &mut Target<'_>) -> Result<(), CliError> {
    let client = &args.of.client;
    let partner = client
        .partner
        .ok_or_else(|| Failure::Usage.error("--partner is required"))?;
    let into = target.name()?;
    let mut import = |lines: Vec<u8>| {
        let bytes = Some(lines.len() as u64);
        target.import(LinkFile {
            format: FileFormat::JsonLines,
            file: Box::new(io::Cursor::new(lines)),
            bytes,
        })
    };
    let target = ImportTarget {
        into: &into,
        partner,
        dry_run: args.dry_run,
        import: &mut import,
    };
    let mut report = ImportReport::default();
    let ended = from_kaltura::import(&args.kaltura, url, &client.tls, target, &mut report);
    if ended.is_ok() || report != ImportReport::default() {
        print_counts(args, &report)?;
    }
    ended?;
    if report.refused > 0 {
        return Err(Failure::Incomplete.error(format!("links that were not imported: {}", report.refused)));
    }
    Ok(())
}

fn print_counts(args: &ImportArgs, report: &ImportReport) -> Result<(), CliError> {
    let counts = report.counts();
    let in_words = counts.map(|(name, count)| format!("{count} {name}")).join(", ");
    let mut out = io::stdout().lock();
    if args.of.client.json {
        let mut json = json!({ "applied": report.applied, "dryRun": args.dry_run, "warned": report.warned });
        for (name, count) in counts {
            json[name] = json!(count);
        }
        if args.dry_run {
            json["firstIds"] = json!(report.first_ids);
        }
        writeln!(out, "{json}")?;
    } else if args.dry_run {
        writeln!(out, "nothing was changed; it would be: {in_words}")?;
        if !report.first_ids.is_empty() {
            let ids = report.first_ids.join(", ");
            writeln!(out, "first ids as they would be: {}", shown::line(&ids))?;
        }
    } else if report.applied {
        writeln!(out, "{in_words}")?;
    } else {
        writeln!(out, "import aborted, nothing changed: {in_words}")?;
    }
    Ok(())
}

fn print_lines(out: &mut impl Write, kind: &str, lines: &[LineProblem], all: u64) -> io::Result<()> {
    for LineProblem { line, reason } in lines {
        writeln!(out, "line {line}: {kind}{}", shown::line(reason))?;
    }
    let more = all.saturating_sub(lines.len() as u64);
    if more > 0 {
        writeln!(out, "and {more} more")?;
    }
    Ok(())
}

/// Lines to import.
struct LinkFile {
    format: FileFormat,
    file: Box<dyn Read + Send>,
    bytes: Option<u64>,
}

/// Where the links go: a store, or else an appliance.
struct Target<'a> {
    args: &'a ImportArgs,
    /// The store, once it is open.
    store: Option<Store>,
}

impl<'a> Target<'a> {
    const fn new(args: &'a ImportArgs) -> Self {
        Self { args, store: None }
    }

    /// What it is called, if it can be reached as far as the arguments and settings say.
    fn name(&self) -> Result<String, CliError> {
        match &self.args.of.store {
            Some(store) => Ok(std::path::absolute(store)?.display().to_string()),
            None => Ok(Client::new(&self.args.of.client)?.url().to_owned()),
        }
    }

    fn import(&mut self, lines: LinkFile) -> Result<ImportReport, CliError> {
        match &self.args.of.store {
            Some(path) => self.import_into_store(path, lines),
            None => import_into_appliance(self.args, lines),
        }
    }

    fn import_into_store(&mut self, path: &Path, lines: LinkFile) -> Result<ImportReport, CliError> {
        let args = self.args;
        let bar = bar("importing", "bytes", lines.bytes);
        let by = Actor {
            partner: self.args.of.partner(),
            user: None,
            kind: ActorKind::Local,
            way: Way::CommandLine,
        };
        // Without a configuration, the server drops the oldest entries when it notes the next one.
        let settings = self.args.of.client.settings();
        let entries = settings.map_or(u64::MAX, |settings| settings.audit_entries);
        let now = Clock::system().now();
        let log = ImportLog {
            log: AuditLog::new(by, entries),
            format: lines.format,
            now,
        };
        let options = ImportOptions {
            conflict: Conflict::named(&args.on_conflict).unwrap_or_default(),
            dry_run: args.dry_run,
            keep_going: args.keeps_going(),
            partner: args.of.partner(),
            // Whoever may write this file may do anything with it.
            obeyed: None,
        };
        let defaults = Defaults {
            now: Clock::system().now(),
            partner: args.of.partner(),
        };
        let lines = file::read(lines.format, BufReader::new(bar.wrap_read(lines.file)), defaults)
            .map_err(|reason| Failure::Refused.error(reason))?;
        if args.dry_run && !path.try_exists()? {
            let text = format!("{} does not exist (a dry run does not create it)", path.display());
            return Err(Failure::Usage.error(text));
        }
        let store = match &self.store {
            Some(store) => store,
            None => self.store.insert(opened(Store::open(path, None))?),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (rules, partners) = new_destinations(args);
        let (lines, warnings) = rules.watch(Some(Arc::new(partners)), lines);
        match runtime.block_on(import_lines(store, lines, options, Arc::new(|_| {}), log)) {
            Ok(mut report) => {
                warnings.add_to(&mut report);
                Ok(report)
            }
            Err(ImportError::Write(error)) => {
                let reason = match store.health() {
                    Health::Refusing(reason) => format!(": {reason}"),
                    Health::Accepting | Health::ReadOnly => String::new(),
                };
                Err(Failure::Unavailable.error(format!("{error}{reason}")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The rules for destinations as the configuration has them, or without one as they are by default.
fn new_destinations(args: &ImportArgs) -> (NewDestinations, Partners) {
    match args.of.client.settings() {
        Ok(Settings {
            destination_max_bytes,
            public_url,
            public_listen,
            partners,
            ..
        }) => {
            let rules = NewDestinations::new(destination_max_bytes, public_url.as_deref(), &public_listen);
            (rules, partners)
        }
        Err(_) => (NewDestinations::new(FULL_URL_MAX_BYTES, None, &[]), Partners::default()),
    }
}

/// Counts the lines that go through it.
struct Counting<R> {
    inner: R,
    lines: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let lines = buffer.iter().take(read).filter(|&&byte| byte == b'\n').count();
        self.lines.fetch_add(lines as u64, Ordering::Relaxed);
        Ok(read)
    }
}

fn import_into_appliance(args: &ImportArgs, file: LinkFile) -> Result<ImportReport, CliError> {
    let client = Client::new(&args.of.client)?;
    let flag = |flag: bool| if flag { "1" } else { "0" }.to_owned();
    let mut fields = vec![
        ("fileFormat", file.format.name().to_owned()),
        ("conflict", args.on_conflict.clone()),
        ("dryRun", flag(args.dry_run)),
        ("keepGoing", flag(args.keeps_going())),
    ];
    if let Some(partner) = args.of.client.partner {
        fields.push(("partnerId", partner.to_string()));
    }
    let sending = bar("sending", "bytes", file.bytes);
    let lines = Arc::new(AtomicU64::new(0));
    let counting = Counting {
        inner: sending.wrap_read(file.file),
        lines: Arc::clone(&lines),
    };
    let answer = client.upload("import", fields, counting)?;
    drop(sending);
    follow(answer, &bar("importing", "lines", Some(lines.load(Ordering::Relaxed))))
}

/// Shows the progress until the server sends the report.
fn follow(answer: impl Read, bar: &ProgressBar) -> Result<ImportReport, CliError> {
    let cut_off = || {
        let text = "the connection ended before the report: outcome unknown; import again, nothing changes twice";
        Failure::Unavailable.error(text)
    };
    for line in BufReader::new(answer).lines() {
        let line = line.map_err(|_| cut_off())?;
        match serde_json::from_str(&line).map_err(|_| cut_off())? {
            ImportEvent::Progress { lines } => bar.set_position(lines),
            ImportEvent::Report(report) => return Ok(report),
            ImportEvent::Failed { error, is_of_the_store } => {
                let failure = if is_of_the_store {
                    Failure::Unavailable
                } else {
                    Failure::Refused
                };
                return Err(failure.error(error));
            }
        }
    }
    Err(cut_off())
}
