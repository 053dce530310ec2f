//! Bringing links in from a file: all of it or nothing, or as much as is right.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::links::file::{ImportLog, Line};
use crate::model::validate;
use crate::model::{LinkId, PROBLEMS_LISTED_MAX, PartnerId, ShortLink, Status};
use crate::store::{
    Prepared, PreparedLinks, Preparing, Rehearsal, Snapshot, Store, StoreError, Transaction, TransactionEnd, WriteError,
};

/// Lines of one transaction with `keep_going`, for which other writes wait.
const BATCH_LINES: usize = 2_000;
/// The same in bytes of destinations.
const BATCH_BYTES: usize = 1024 * 1024;
/// Links remembered to recognise repeated lines.
const REPEATED_MAX: usize = if cfg!(test) { 100 } else { 500_000 };
/// Ids that a dry run shows: enough to see what a spreadsheet has made of them.
const FIRST_IDS_MAX: usize = 5;
const PROGRESS_LINES: u64 = 1_000;

/// What to do with a line whose id is taken by a different link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflict {
    #[default]
    Fail,
    Skip,
    /// Replace the stored link.
    Update,
}

impl Conflict {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "fail" => Some(Self::Fail),
            "skip" => Some(Self::Skip),
            "update" => Some(Self::Update),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    pub conflict: Conflict,
    /// Report what would happen; write nothing.
    pub dry_run: bool,
    /// Import valid lines even if others are invalid.
    pub keep_going: bool,
    /// Refuse links of other partners.
    pub partner: Option<PartnerId>,
}

/// What an import did, or a dry run would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportReport {
    pub added: u64,
    pub updated: u64,
    /// Stored links that equal their lines.
    pub unchanged: u64,
    /// Lines whose id is taken.
    pub skipped: u64,
    pub refused: u64,
    pub problems: Vec<LineProblem>,
    /// Imported lines that the API's `add` would refuse.
    #[serde(default)]
    pub warned: u64,
    #[serde(default)]
    pub warnings: Vec<LineProblem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_ids: Vec<String>,
    /// Whether links were written: not by a dry run, and not if a line was invalid without `keep_going`.
    pub applied: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LineProblem {
    pub line: u64,
    pub reason: String,
}

/// A line of the API's response to an import. The report comes last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImportEvent {
    Progress {
        lines: u64,
    },
    #[serde(rename_all = "camelCase")]
    Failed {
        error: String,
        #[serde(default)]
        is_of_the_store: bool,
    },
    Report(ImportReport),
}

impl ImportReport {
    /// Notes it in the audit log, if anything was changed.
    fn note(
        &self,
        transaction: &mut Transaction<'_>,
        log: &ImportLog,
        options: &ImportOptions,
        noted: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        if self.added + self.updated == 0 {
            return Ok(noted);
        }
        log.note(transaction, &self.counts(), options.partner, noted)
    }

    pub const fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("added", self.added),
            ("updated", self.updated),
            ("unchanged", self.unchanged),
            ("skipped", self.skipped),
            ("refused", self.refused),
        ]
    }

    fn refuse(&mut self, line: u64, reason: String) {
        self.refused += 1;
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(LineProblem { line, reason });
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read; without `keep_going`, nothing was written.
    #[error("cannot read the file")]
    File(#[source] io::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Called with the number of lines read.
pub type OnLines = Arc<dyn Fn(u64) + Send + Sync>;

/// Imports lines, in one transaction unless `keep_going`. An interrupted import can be repeated: links that are there
/// already are unchanged.
///
/// Lines are read and checked before the writer is taken, because other writes wait for it. A dry run, or a file with
/// invalid lines, does not take it at all.
pub async fn import(
    store: &Store,
    lines: impl Iterator<Item = io::Result<Line>> + Send + 'static,
    options: ImportOptions,
    on_lines: OnLines,
    log: ImportLog,
) -> Result<ImportReport, ImportError> {
    let lines = Lines {
        lines,
        options,
        on_lines,
        read: 0,
        report: ImportReport::default(),
    };
    if options.keep_going && !options.dry_run {
        return import_in_batches(store, lines, log).await;
    }
    let preparing = store.prepare();
    let (prepared, report) = off_runtime(move || lines.prepare(preparing)).await?;
    if options.dry_run || report.refused > 0 {
        return rehearse(store, prepared, report, options).await;
    }
    let job = move |transaction: &mut Transaction<'_>| {
        let mut report = report;
        match put_all(transaction, prepared, &options, &mut report) {
            Ok(()) if report.refused == 0 => {
                report.applied = true;
                report.note(transaction, &log, &options, None)?;
                Ok((TransactionEnd::Commit, Ok(report)))
            }
            Ok(()) => Ok((TransactionEnd::Abort, Ok(report))),
            Err(PutError::File(error)) => Ok((TransactionEnd::Abort, Err(ImportError::File(error)))),
            Err(PutError::Store(error)) => Err(error),
        }
    };
    store.write_alone(job).await?
}

async fn import_in_batches(
    store: &Store,
    mut lines: Lines<impl Iterator<Item = io::Result<Line>> + Send + 'static>,
    log: ImportLog,
) -> Result<ImportReport, ImportError> {
    let options = lines.options;
    let mut noted = None;
    loop {
        let batch;
        (lines, batch) = off_runtime(move || {
            let batch = lines.next_batch()?;
            Ok((lines, batch))
        })
        .await?;
        if batch.is_empty() {
            lines.report.applied = true;
            return Ok(lines.report);
        }
        let (mut report, log) = (lines.report, log.clone());
        let job = move |transaction: &mut Transaction<'_>| match put_all(
            transaction,
            batch.into_iter().map(Ok),
            &options,
            &mut report,
        ) {
            Ok(()) => {
                // One entry, which grows with each batch.
                let noted = report.note(transaction, &log, &options, noted)?;
                Ok((TransactionEnd::Commit, (report, noted)))
            }
            Err(PutError::File(error)) => Err(error.into()),
            Err(PutError::Store(error)) => Err(error),
        };
        (lines.report, noted) = store.write_alone(job).await?;
    }
}

async fn rehearse(
    store: &Store,
    prepared: PreparedLinks,
    mut report: ImportReport,
    options: ImportOptions,
) -> Result<ImportReport, ImportError> {
    let file = store.temporary_file().map_err(ImportError::File)?;
    let job = move |snapshot: &Snapshot| {
        let mut rehearsal = Rehearsal::new(snapshot, file)?;
        match put_all(&mut rehearsal, prepared, &options, &mut report) {
            Err(PutError::Store(error)) => return Err(error),
            Err(PutError::File(error)) => return Ok(Err(ImportError::File(error))),
            Ok(()) => {}
        }
        report.problems.sort();
        report.problems.truncate(PROBLEMS_LISTED_MAX);
        Ok(Ok(report))
    };
    match store.read(job).await {
        Ok(rehearsed) => rehearsed,
        Err(error) if error.is_of_the_file() => Err(ImportError::Write(WriteError::Unavailable)),
        Err(error) => Err(ImportError::File(io::Error::other(error))),
    }
}

async fn off_runtime<R: Send + 'static>(
    job: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> Result<R, ImportError> {
    let done = tokio::task::spawn_blocking(job).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(ImportError::File)
}

struct Lines<L> {
    lines: L,
    options: ImportOptions,
    on_lines: OnLines,
    read: u64,
    report: ImportReport,
}

impl<L: Iterator<Item = io::Result<Line>>> Lines<L> {
    /// All lines that are valid by themselves.
    fn prepare(mut self, mut preparing: Preparing) -> io::Result<(PreparedLinks, ImportReport)> {
        let mut repeated = Repeated::default();
        while let Some(prepared) = self.next_right()? {
            if repeated.is_known(&prepared) {
                self.report.unchanged += 1;
            } else {
                preparing.push(&prepared)?;
            }
        }
        Ok((preparing.finish()?, self.report))
    }

    /// The next line that is valid by itself.
    fn next_right(&mut self) -> io::Result<Option<Prepared>> {
        loop {
            let Some(line) = self.lines.next().transpose()? else {
                (self.on_lines)(self.read);
                return Ok(None);
            };
            self.read += 1;
            if self.read.is_multiple_of(PROGRESS_LINES) {
                (self.on_lines)(self.read);
            }
            let Line {
                number,
                link,
                is_dated,
                has_start,
            } = line;
            match link.and_then(|link| self.of_partner(link)) {
                Ok(link) => {
                    return Ok(Some(Prepared {
                        number,
                        is_dated,
                        has_start,
                        link,
                    }));
                }
                Err(reason) => self.report.refuse(number, reason),
            }
        }
    }

    fn of_partner(&self, link: ShortLink) -> Result<ShortLink, String> {
        match self.options.partner {
            Some(partner) if link.partner_id != partner => {
                Err(format!("a link of partner {}, not of {partner}", link.partner_id))
            }
            _ => Ok(link),
        }
    }

    /// The lines of one transaction; empty at the end.
    fn next_batch(&mut self) -> io::Result<Vec<Prepared>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_LINES
            && bytes < BATCH_BYTES
            && let Some(prepared) = self.next_right()?
        {
            bytes += prepared.link.full_url.len();
            batch.push(prepared);
        }
        Ok(batch)
    }
}

/// The last lines by id, to pass over repetitions: a file may repeat one line a million times.
#[derive(Default)]
struct Repeated {
    hasher: RandomState,
    said: HashMap<LinkId, u64>,
}

impl Repeated {
    fn is_known(&mut self, prepared: &Prepared) -> bool {
        let Prepared { link, has_start, .. } = prepared;
        if self.said.len() >= REPEATED_MAX {
            // A line that repeats after so many others costs little beside them.
            self.said.clear();
        }
        let hash = self.hasher.hash_one((link, has_start));
        self.said.insert(link.id, hash) == Some(hash)
    }
}

/// The store, or a rehearsal.
trait Target {
    fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError>;
    fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError>;
    fn put(&mut self, old: Option<&ShortLink>, new: ShortLink) -> Result<(), StoreError>;
    fn replace_damaged(&mut self, new: ShortLink) -> Result<bool, StoreError>;
}

impl Target for Transaction<'_> {
    fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        Transaction::get(self, id)
    }

    fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError> {
        Transaction::holder_of_unique_id(self, partner, unique_id)
    }

    fn put(&mut self, old: Option<&ShortLink>, new: ShortLink) -> Result<(), StoreError> {
        Transaction::put(self, old, new)
    }

    fn replace_damaged(&mut self, new: ShortLink) -> Result<bool, StoreError> {
        Transaction::replace_damaged(self, new)
    }
}

impl Target for Rehearsal<'_> {
    fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        Rehearsal::get(self, id)
    }

    fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError> {
        Rehearsal::holder_of_unique_id(self, partner, unique_id)
    }

    fn put(&mut self, old: Option<&ShortLink>, new: ShortLink) -> Result<(), StoreError> {
        Rehearsal::put(self, old, &new)
    }

    fn replace_damaged(&mut self, new: ShortLink) -> Result<bool, StoreError> {
        // Finding the partner of a damaged link would take a scan of every index.
        Rehearsal::put(self, None, &new)?;
        Ok(true)
    }
}

/// The links cannot be read, or cannot be put.
enum PutError {
    File(io::Error),
    Store(StoreError),
}

fn put_all(
    target: &mut impl Target,
    links: impl Iterator<Item = io::Result<Prepared>>,
    options: &ImportOptions,
    report: &mut ImportReport,
) -> Result<(), PutError> {
    for prepared in links {
        let prepared = prepared.map_err(PutError::File)?;
        let (number, id, refused_before) = (prepared.number, prepared.link.id, report.refused);
        match put(target, prepared, options) {
            Ok(Outcome::Added) => report.added += 1,
            Ok(Outcome::Updated) => report.updated += 1,
            Ok(Outcome::Unchanged) => report.unchanged += 1,
            Ok(Outcome::Skipped) => report.skipped += 1,
            Ok(Outcome::Refused(reason)) => report.refuse(number, reason),
            // Found while reading, before any change.
            Err(error @ StoreError::Damaged { .. }) => report.refuse(number, error.to_string()),
            Err(error) => return Err(PutError::Store(error)),
        }
        if options.dry_run && report.refused == refused_before && report.first_ids.len() < FIRST_IDS_MAX {
            report.first_ids.push(id.to_string());
        }
    }
    Ok(())
}

enum Outcome {
    Added,
    Updated,
    Unchanged,
    Skipped,
    Refused(String),
}

fn put(transaction: &mut impl Target, prepared: Prepared, options: &ImportOptions) -> Result<Outcome, StoreError> {
    let Prepared {
        is_dated,
        has_start,
        mut link,
        ..
    } = prepared;
    let id = link.id;
    let of_another_partner = || Outcome::Refused(format!("a link of another partner has the id {id}"));
    let stored = match transaction.get(id) {
        Err(StoreError::Damaged { .. }) if options.conflict == Conflict::Update => {
            if let Some(holder) = holder(transaction, &link)? {
                return Ok(Outcome::Refused(unique_id_taken(&link, holder)));
            }
            return Ok(if transaction.replace_damaged(link)? {
                Outcome::Updated
            } else {
                of_another_partner()
            });
        }
        stored => stored?,
    };
    if let Some(stored) = &stored
        && !has_start
    {
        link.starts_at = stored.starts_at;
    }
    match (&stored, options.conflict) {
        (None, _) => {}
        (Some(stored), _) if is_same(stored, &link, is_dated) => return Ok(Outcome::Unchanged),
        (Some(stored), Conflict::Fail | Conflict::Update) if stored.is_retired() => {
            return Ok(Outcome::Refused(format!(
                "the id {id} is retired: a new one has taken its place"
            )));
        }
        (Some(_), Conflict::Skip) => return Ok(Outcome::Skipped),
        (Some(_), Conflict::Fail) => return Ok(Outcome::Refused(format!("another link has the id {id}"))),
        (Some(stored), Conflict::Update) if stored.partner_id != link.partner_id => {
            return Ok(of_another_partner());
        }
        (Some(_), Conflict::Update) => {}
    }
    if let Some(holder) = holder(transaction, &link)? {
        return Ok(match options.conflict {
            Conflict::Skip => Outcome::Skipped,
            Conflict::Fail | Conflict::Update => Outcome::Refused(unique_id_taken(&link, holder)),
        });
    }
    if let Err(why) = validate::validity(link.starts_at, link.expires_at) {
        // The start is that of the stored link.
        return Ok(Outcome::Refused(why.to_string()));
    }
    let outcome = if stored.is_some() {
        Outcome::Updated
    } else {
        Outcome::Added
    };
    let created_at = match &stored {
        Some(stored) if !is_dated => stored.created_at,
        _ => link.created_at,
    };
    transaction.put(stored.as_ref(), ShortLink { created_at, ..link })?;
    Ok(outcome)
}

fn unique_id_taken(link: &ShortLink, holder: LinkId) -> String {
    let unique_id = link.unique_id.as_deref().unwrap_or_default();
    format!("the link {holder} has the unique id {unique_id:?}")
}

/// Whether two links agree in every field of the line. CSV cannot tell an empty name from none.
fn is_same(stored: &ShortLink, link: &ShortLink, is_dated: bool) -> bool {
    let of_name = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut comparable = link.clone();
    comparable.name.clone_from(&stored.name);
    if !is_dated {
        (comparable.created_at, comparable.updated_at) = (stored.created_at, stored.updated_at);
    }
    of_name(&stored.name) == of_name(&link.name) && *stored == comparable
}

/// Another link that holds this link's unique id.
fn holder(transaction: &impl Target, link: &ShortLink) -> Result<Option<LinkId>, StoreError> {
    match &link.unique_id {
        Some(unique_id) if link.status != Status::Deleted => {
            let holder = transaction.holder_of_unique_id(link.partner_id, unique_id)?;
            Ok(holder.filter(|holder| *holder != link.id))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::tests::imports::link;

    #[test]
    fn a_repeated_line_is_prepared_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store"), None).unwrap();
        let prepared = |links: Vec<ShortLink>| {
            let line = |link| Line {
                number: 1,
                link: Ok(link),
                is_dated: true,
                has_start: true,
            };
            let lines = Lines {
                lines: links.into_iter().map(|link| Ok(line(link))),
                options: ImportOptions::default(),
                on_lines: Arc::new(|_| {}),
                read: 0,
                report: ImportReport::default(),
            };
            let (prepared, report) = lines.prepare(store.prepare()).unwrap();
            (
                prepared.map(|one| one.unwrap().link).collect::<Vec<_>>(),
                report.unchanged,
            )
        };
        assert_eq!(prepared(vec![link(1); 1_000]), (vec![link(1)], 999));
        let other = || ShortLink {
            status: Status::Disabled,
            ..link(1)
        };
        let changing = vec![link(1), other(), link(1), link(2), link(1)];
        assert_eq!(prepared(changing), (vec![link(1), other(), link(1), link(2)], 1));
        // However many there are, what is remembered is bounded.
        let many: Vec<_> = (0..3 * REPEATED_MAX).map(link).collect();
        assert_eq!(prepared(many.clone()), (many, 0));
    }
}
