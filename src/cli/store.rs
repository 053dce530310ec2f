//! What is done with the store's file itself: `tinyd backup`, `tinyd verify`, `tinyd compact`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::ConfigArgs;
use crate::cli::client::{Client, ClientArgs};
use crate::cli::exit::{CliError, Failure};
use crate::cli::progress::Bars;
use crate::config::Settings;
use crate::model::shown;
use crate::store::{self, CopyError, FILE_NAME, OpenError, Progress as _, Store, Verification};

const BACKUP_EXAMPLES: &str = "\
The backup is a store. It gets its name only when it is complete, synced and
verified. `tinyd serve --read-only --store FILE` serves it. To restore it,
stop tinyd and copy it over links.redb in the data folder.

Without --store, the running server sends the backup through its admin
listener, while redirects and writes go on. That takes an administrator of an
operator: the only partner, or one with operator = true.

Examples:
  tinyd backup /backup/links-$(date +%F).redb
  tinyd backup --overwrite /backup/links.redb
  tinyd backup --store /var/lib/tinyd/links.redb /backup/links.redb";

pub(super) const VERIFY_EXAMPLES: &str = "\
Reads every record, index entry and counter of a store that no server has
open, and compares them. Changes nothing: it repairs the traces of a crash in
memory only. Exits with 0 if the store is intact, else with 1.

Examples:
  tinyd verify --store /backup/links.redb
  tinyd verify --config /etc/tinyd/tinyd.toml";

pub(super) const COMPACT_EXAMPLES: &str = "\
Copies a store that no server has open to the smallest file possible. The old
file stays until the new one is verified, so the disk needs room for both.

Example:
  systemctl stop tinyd.socket tinyd.service
  runuser -u tinyd -- tinyd compact --store /var/lib/tinyd/links.redb
  systemctl start tinyd.socket tinyd.service";

#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct BackupArgs {
    /// Output file
    file: PathBuf,

    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,

    /// Copy this store, which no server has open
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// Store file [default: links.redb in the data folder]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArgs,
}

impl FileArgs {
    fn path(&self) -> Result<PathBuf, CliError> {
        match &self.store {
            Some(path) => Ok(path.clone()),
            None => Ok(Settings::load(&self.config.overrides())?.data_dir.join(FILE_NAME)),
        }
    }
}

pub(super) fn backup(args: &BackupArgs) -> Result<(), CliError> {
    let path = &args.file;
    check_target(path, args.overwrite)?;
    let mut bars = Bars::default();
    let found = match &args.store {
        // A copy has checksums of its own, which would hide that those of the original are wrong.
        Some(store) => opened(Store::open_verified(store))?
            .snapshot()?
            .copy_to(path, &mut bars),
        None => {
            let (dump, _) = Client::new(&args.client)?.stream("backup", json!({}))?;
            store::restore_dump(dump, path, &mut bars)
        }
    };
    drop(bars);
    let found = found.map_err(|error| {
        let failure = match error {
            // What came from the appliance ended too early.
            CopyError::NoDump(_) => Failure::Unavailable,
            _ => Failure::Other,
        };
        CliError {
            failure,
            error: anyhow::Error::new(error).context(format!("no backup was written to {}", path.display())),
        }
    })?;
    report(&found, &format!("{}: written and verified", path.display()))
}

pub(super) fn verify(file: &FileArgs) -> Result<(), CliError> {
    let path = file.path()?;
    let store = opened(Store::open_verified(&path))?;
    let snapshot = store.snapshot()?;
    let mut bars = Bars::default();
    bars.begin("verifying", snapshot.totals()?.iter().sum());
    let found = snapshot.verify(|| bars.advance(1))?;
    drop(bars);
    report(&found, &path.display().to_string())
}

pub(super) fn compact(file: &FileArgs) -> Result<(), CliError> {
    let path = file.path()?;
    if !path.try_exists()? {
        return Err(Failure::Usage.error(format!("{}: no such file", path.display())));
    }
    let done = store::compact(&path, &mut Bars::default()).map_err(|error| match error {
        CopyError::Open(error) => not_opened(error),
        error => anyhow::Error::new(error)
            .context(format!("{} was not compacted", path.display()))
            .into(),
    })?;
    let mebibytes = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
    let (before, after) = (mebibytes(done.before), mebibytes(done.after));
    writeln!(io::stdout(), "{}: {before} before, {after} now", path.display())?;
    Ok(())
}

/// Whether a file may be written there: not over a store that is open, nor over anything but a regular file.
pub(super) fn check_target(path: &Path, overwrite: bool) -> Result<(), CliError> {
    let reason = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(anyhow::Error::new(error).context(path.display().to_string()).into()),
        Ok(_) if !overwrite => "exists: name another file, or add --overwrite",
        Ok(metadata) if !metadata.is_file() => "is not a plain file, so it is not replaced",
        Ok(_) if Store::is_in_use(path) => "is a store in use, so it is not replaced",
        Ok(_) => return Ok(()),
    };
    Err(Failure::Usage.error(format!("{} {reason}", path.display())))
}

/// A store that was opened, or why not.
pub(super) fn opened(opened: Result<Store, OpenError>) -> Result<Store, CliError> {
    opened.map_err(not_opened)
}

fn not_opened(error: OpenError) -> CliError {
    let is_in_use = matches!(error, OpenError::InUse { .. });
    let error = anyhow::Error::new(error);
    if !is_in_use {
        return error.into();
    }
    CliError {
        failure: Failure::Usage,
        error: error.context("this needs a store that no appliance has open: end tinyd first"),
    }
}

/// Says what a verification has found; problems are a failure.
fn report(found: &Verification, what: &str) -> Result<(), CliError> {
    let [disabled, enabled, deleted] = found.links;
    let links = disabled + enabled + deleted;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{what}\n{links} links: {enabled} enabled, {disabled} disabled, {deleted} deleted\n{} index entries, {} \
        counters",
        found.index_entries, found.counters
    )?;
    for problem in &found.problems {
        writeln!(out, "problem: {}", shown::line(&problem.to_string()))?;
    }
    if found.is_clean() {
        writeln!(out, "no problems")?;
        return Ok(());
    }
    Err(Failure::Other.error(format!("{} problems in the store", found.found)))
}
