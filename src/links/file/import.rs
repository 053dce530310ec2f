//! Bringing links in from a file: all of it or nothing, or as much as is right.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;

use crate::links::file::put::{ImportOptions, PutError, put_all, put_twice};
use crate::links::file::report::{ImportError, unread};
use crate::links::file::{ImportLog, ImportReport, Line, staged};
use crate::model::{LinkId, PROBLEMS_LISTED_MAX, ShortLink};
use crate::store::{Prepared, PreparedLinks, Preparing, Rehearsal, Snapshot, Store, Transaction, TransactionEnd};

/// Lines of one transaction with `keep_going`, for which other writes wait.
const BATCH_LINES: usize = 2_000;
/// The same in bytes of destinations.
const BATCH_BYTES: usize = 1024 * 1024;
/// Links remembered to recognise repeated lines.
const REPEATED_MAX: usize = if cfg!(test) { 100 } else { 500_000 };
const PROGRESS_LINES: u64 = 1_000;

/// Called with the number of lines read.
pub type OnLines = Arc<dyn Fn(u64) + Send + Sync>;

/// Imports lines, in one transaction unless `keep_going`, and in a cluster always. An interrupted import can be
/// repeated: links that are there already are unchanged.
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
        options: options.clone(),
        on_lines,
        read: 0,
        report: ImportReport::default(),
        again: None,
    };
    if options.keep_going && !options.dry_run && !store.is_in_cluster() {
        return import_in_batches(store, lines, log).await;
    }
    let (preparing, waiting) = (store.prepare(), store.prepare());
    let (prepared, report) = off_runtime(move || lines.prepare(preparing)).await?;
    if options.dry_run || (report.refused > 0 && !options.keep_going) {
        return rehearse(store, (prepared, waiting), report, options).await;
    }
    if store.is_in_cluster() {
        return staged::import(store, prepared, report, options, log).await;
    }
    let job = move |transaction: &mut Transaction<'_>| {
        let mut report = report;
        match put_twice(transaction, (prepared, waiting), &options, &mut report) {
            Ok(()) if report.refused == 0 => {
                report.applied = true;
                report.note(transaction, &log, options.partner, None)?;
                Ok((TransactionEnd::Commit, Ok(report)))
            }
            Ok(()) => Ok((TransactionEnd::Abort, Ok(report))),
            Err(PutError::File(error)) => Ok((TransactionEnd::Abort, Err(ImportError::File(error)))),
            Err(PutError::Store(error)) => Err(error),
        }
    };
    store.write_alone_once(job).await?
}

async fn import_in_batches(
    store: &Store,
    mut lines: Lines<impl Iterator<Item = io::Result<Line>> + Send + 'static>,
    log: ImportLog,
) -> Result<ImportReport, ImportError> {
    let options = lines.options.clone();
    let mut noted = None;
    // Until all lines have been read.
    let mut waiting = Some(store.prepare());
    loop {
        let batch;
        (lines, batch) = off_runtime(move || {
            let batch = lines.next_batch()?;
            Ok((lines, batch))
        })
        .await?;
        if batch.is_empty() {
            if let Some(waiting) = waiting.take() {
                lines.again = Some(waiting.finish().map_err(ImportError::File)?);
                continue;
            }
            lines.report.applied = true;
            lines.report.problems.sort();
            return Ok(lines.report);
        }
        let (mut report, mut aside, log, options) = (lines.report, waiting, log.clone(), options.clone());
        let job = move |transaction: &mut Transaction<'_>| {
            let batch = batch.into_iter().map(Ok);
            match put_all(transaction, batch, &options, &mut report, aside.as_mut()) {
                Ok(()) => {
                    // One entry, which grows with each batch.
                    let noted = report.note(transaction, &log, options.partner, noted)?;
                    Ok((TransactionEnd::Commit, (report, aside, noted)))
                }
                Err(PutError::File(error)) => Err(error.into()),
                Err(PutError::Store(error)) => Err(error),
            }
        };
        (lines.report, waiting, noted) = store.write_alone_once(job).await?;
    }
}

async fn rehearse(
    store: &Store,
    links: (PreparedLinks, Preparing),
    mut report: ImportReport,
    options: ImportOptions,
) -> Result<ImportReport, ImportError> {
    let file = store.temporary_file().map_err(ImportError::File)?;
    let job = move |snapshot: &Snapshot| {
        let mut rehearsal = Rehearsal::new(snapshot, file)?;
        match put_twice(&mut rehearsal, links, &options, &mut report) {
            Err(PutError::Store(error)) => return Err(error),
            Err(PutError::File(error)) => return Ok(Err(ImportError::File(error))),
            Ok(()) => {}
        }
        report.problems.truncate(PROBLEMS_LISTED_MAX);
        Ok(Ok(report))
    };
    store.read(job).await.map_err(unread)?
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
    /// After all lines, those that wait for a unique id.
    again: Option<PreparedLinks>,
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
        if let Some(again) = &mut self.again {
            return again.next().transpose();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::tests::imports::link;
    use crate::model::Status;

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
                again: None,
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
