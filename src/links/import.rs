//! Bringing links in from a file: all of it or nothing, or as much as is right.

use std::io;
use std::sync::Arc;

use crate::model::{LinkId, PartnerId, ShortLink, Status};
use crate::rows::Line;
use crate::store::{Ending, Store, StoreError, Transaction, WriteError};

/// Lines of one commit where those that are right are kept whatever comes after them.
const BATCH_LINES: usize = 5_000;
/// Lines whose problems are told; of those beyond it, only the number is known.
const PROBLEMS_TOLD_MAX: usize = 100;
/// How often progress is told, in lines.
const PROGRESS_LINES: u64 = 1_000;

/// What to do with a line whose id another link has. One that is the same in every field is no conflict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflict {
    /// The line is wrong.
    #[default]
    Fail,
    /// The stored link stays.
    Skip,
    /// The line's link takes its place.
    Update,
}

impl Conflict {
    /// The policy with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "fail" => Some(Self::Fail),
            "skip" => Some(Self::Skip),
            "update" => Some(Self::Update),
            _ => None,
        }
    }
}

/// How to import.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// What to do about ids that are taken.
    pub conflict: Conflict,
    /// Find out what would happen, and change nothing.
    pub dry_run: bool,
    /// Import the lines that are right even if others are wrong.
    pub keep_going: bool,
    /// Only links of this partner are accepted.
    pub partner: Option<PartnerId>,
}

/// What an import has done, or on a dry run would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Links that were not there.
    pub added: u64,
    /// Links that were there and are different now.
    pub updated: u64,
    /// Links that were there, the same in every field.
    pub unchanged: u64,
    /// Lines that were passed over because their id is taken.
    pub skipped: u64,
    /// Lines that are wrong.
    pub refused: u64,
    /// The number and the reason of the first of them.
    pub problems: Vec<(u64, String)>,
    /// Whether anything was written: not on a dry run, and not if a line was wrong and all had to be right.
    pub applied: bool,
}

impl ImportReport {
    /// Lines so far.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.added + self.updated + self.unchanged + self.skipped + self.refused
    }

    fn refuse(&mut self, line: u64, reason: String) {
        self.refused += 1;
        if self.problems.len() < PROBLEMS_TOLD_MAX {
            self.problems.push((line, reason));
        }
    }
}

/// An import that was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read; nothing was written, unless it was to keep going.
    #[error("the file cannot be read")]
    File(#[source] io::Error),
    /// A commit was not acknowledged.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Told of progress: how many lines have been read.
pub type OnLines = Arc<dyn Fn(u64) + Send + Sync>;

/// Imports lines, in one transaction unless it is to keep going. An import that was cut off can be done again: what is
/// there already is unchanged.
///
/// # Errors
/// When the lines cannot be read or a commit was not acknowledged.
pub async fn import(
    store: &Store,
    lines: impl Iterator<Item = io::Result<Line>> + Send + 'static,
    options: ImportOptions,
    on_lines: OnLines,
) -> Result<ImportReport, ImportError> {
    let is_batched = options.keep_going && !options.dry_run;
    let batch = if is_batched { BATCH_LINES } else { usize::MAX };
    let mut state = (lines, ImportReport::default());
    loop {
        let on_lines = Arc::clone(&on_lines);
        let job = move |transaction: &mut Transaction<'_>| {
            let (mut lines, mut report) = state;
            let read = take(transaction, &mut lines, batch, &options, &mut report, &on_lines)?;
            let is_right = report.refused == 0 || options.keep_going;
            let ending = if read.is_ok() && is_right && !options.dry_run {
                report.applied = true;
                Ending::Commit
            } else {
                Ending::Abort
            };
            Ok((ending, (lines, report, read)))
        };
        let (lines, report, read) = store.write_alone(job).await?;
        if read.map_err(ImportError::File)? {
            return Ok(report);
        }
        state = (lines, report);
    }
}

/// Takes up to `batch` lines; says whether they were the last ones. The inner error is the file's.
fn take(
    transaction: &mut Transaction<'_>,
    lines: &mut impl Iterator<Item = io::Result<Line>>,
    batch: usize,
    options: &ImportOptions,
    report: &mut ImportReport,
    on_lines: &OnLines,
) -> Result<io::Result<bool>, StoreError> {
    for _ in 0..batch {
        let line = match lines.next() {
            None => {
                on_lines(report.lines());
                return Ok(Ok(true));
            }
            Some(Err(error)) => return Ok(Err(error)),
            Some(Ok(line)) => line,
        };
        match line.link {
            Ok(link) => match put(transaction, link, line.is_dated, options) {
                Ok(Ok(Outcome::Added)) => report.added += 1,
                Ok(Ok(Outcome::Updated)) => report.updated += 1,
                Ok(Ok(Outcome::Unchanged)) => report.unchanged += 1,
                Ok(Ok(Outcome::Skipped)) => report.skipped += 1,
                Ok(Err(reason)) => report.refuse(line.number, reason),
                // Met while looking, before anything was changed.
                Err(error @ StoreError::Damaged { .. }) => report.refuse(line.number, error.to_string()),
                Err(error) => return Err(error),
            },
            Err(reason) => report.refuse(line.number, reason),
        }
        if report.lines().is_multiple_of(PROGRESS_LINES) {
            on_lines(report.lines());
        }
    }
    Ok(Ok(false))
}

enum Outcome {
    Added,
    Updated,
    Unchanged,
    Skipped,
}

fn put(
    transaction: &mut Transaction<'_>,
    link: ShortLink,
    is_dated: bool,
    options: &ImportOptions,
) -> Result<Result<Outcome, String>, StoreError> {
    if let Some(partner) = options.partner
        && link.partner_id != partner
    {
        return Ok(Err(format!("a link of partner {}, not of {partner}", link.partner_id)));
    }
    let id = link.id;
    let stored = match transaction.get(id) {
        Err(StoreError::Damaged { .. }) if options.conflict == Conflict::Update => {
            if let Some(holder) = holder(transaction, &link)? {
                return Ok(Err(unique_id_taken(&link, holder)));
            }
            return Ok(if transaction.replace_damaged(link)? {
                Ok(Outcome::Updated)
            } else {
                Err(format!("a link of another partner has the id {id}"))
            });
        }
        stored => stored?,
    };
    match (&stored, options.conflict) {
        (None, _) => {}
        (Some(stored), _) if is_same(stored, &link, is_dated) => return Ok(Ok(Outcome::Unchanged)),
        (Some(_), Conflict::Skip) => return Ok(Ok(Outcome::Skipped)),
        (Some(_), Conflict::Fail) => return Ok(Err(format!("another link has the id {id}"))),
        (Some(stored), Conflict::Update) if stored.partner_id != link.partner_id => {
            return Ok(Err(format!("a link of another partner has the id {id}")));
        }
        (Some(_), Conflict::Update) => {}
    }
    if let Some(holder) = holder(transaction, &link)? {
        return Ok(match options.conflict {
            Conflict::Skip => Ok(Outcome::Skipped),
            Conflict::Fail | Conflict::Update => Err(unique_id_taken(&link, holder)),
        });
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
    Ok(Ok(outcome))
}

fn unique_id_taken(link: &ShortLink, holder: LinkId) -> String {
    let unique_id = link.unique_id.as_deref().unwrap_or_default();
    format!("the link {holder} has the unique id {unique_id:?}")
}

/// Whether two links are the same in every field that the line says. CSV cannot tell an empty name from none.
fn is_same(stored: &ShortLink, link: &ShortLink, is_dated: bool) -> bool {
    let of_name = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut comparable = link.clone();
    comparable.name.clone_from(&stored.name);
    if !is_dated {
        (comparable.created_at, comparable.updated_at) = (stored.created_at, stored.updated_at);
    }
    of_name(&stored.name) == of_name(&link.name) && *stored == comparable
}

/// Another link that holds this one's unique id.
fn holder(transaction: &Transaction<'_>, link: &ShortLink) -> Result<Option<LinkId>, StoreError> {
    match &link.unique_id {
        Some(unique_id) if link.status != Status::Deleted => {
            let holder = transaction.holder_of_unique_id(link.partner_id, unique_id)?;
            Ok(holder.filter(|holder| *holder != link.id))
        }
        _ => Ok(None),
    }
}
