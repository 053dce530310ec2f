//! Imports into a cluster: worked out beside the store, sent in parts, and put in force by one entry of its log.

use tokio::sync::mpsc;

use crate::links::file::ImportLog;
use crate::links::file::put::{ImportOptions, PutError, put_twice};
use crate::links::file::report::{ImportError, ImportReport, unread};
use crate::model::PROBLEMS_LISTED_MAX;
use crate::store::{PreparedLinks, Rehearsal, Snapshot, StagedImport, Store, StoreError, WriteError};

/// How often an import is worked out again after links that it replaces have changed.
const ATTEMPTS_MAX: usize = 3;

pub(super) async fn import(
    store: &Store,
    mut prepared: PreparedLinks,
    report: ImportReport,
    options: ImportOptions,
    log: ImportLog,
) -> Result<ImportReport, ImportError> {
    for _ in 0..ATTEMPTS_MAX {
        let staged;
        let mut report = report.clone();
        (prepared, report, staged) = stage(store, prepared, report, options.clone()).await?;
        if report.refused > 0 && !options.keep_going {
            return Ok(report);
        }
        if report.added + report.updated == 0 {
            report.applied = true;
            return Ok(report);
        }
        let note = log.note_ahead(&report.counts(), options.partner);
        let is_in_force = match staged.finish(note.as_ref()).await {
            Err(error @ WriteError::Unavailable) => {
                staged.give_up().await;
                return Err(error.into());
            }
            finished => finished?,
        };
        if is_in_force {
            report.applied = true;
            return Ok(report);
        }
        tracing::info!("working out an import again: links that it concerns have changed");
    }
    tracing::warn!("giving up an import: links that it concerns change all the time");
    Err(ImportError::Write(WriteError::Unavailable))
}

/// Works out what an import comes to, and sends it if it is to be.
async fn stage(
    store: &Store,
    mut prepared: PreparedLinks,
    mut report: ImportReport,
    options: ImportOptions,
) -> Result<(PreparedLinks, ImportReport, StagedImport<'_>), ImportError> {
    let waiting = store.prepare();
    let file = store.temporary_file().map_err(ImportError::File)?;
    // The file may be long, and other writes go between the parts.
    let (parts, mut received) = mpsc::channel(1);
    let job = move |snapshot: &Snapshot| {
        let mut rehearsal = Rehearsal::new(snapshot, file)?;
        let put = prepared
            .rewind()
            .map_err(PutError::File)
            .and_then(|()| put_twice(&mut rehearsal, (prepared.by_ref(), waiting), &options, &mut report));
        match put {
            Err(PutError::Store(error)) => return Err(error),
            Err(PutError::File(error)) => return Ok(Err(ImportError::File(error))),
            Ok(()) => {}
        }
        report.problems.truncate(PROBLEMS_LISTED_MAX);
        if report.refused == 0 || options.keep_going {
            // The receiver has gone if a part could not be sent, and says so.
            rehearsal.for_each_part(|part| parts.blocking_send(part).is_ok())?;
        }
        Ok::<_, StoreError>(Ok((prepared, report)))
    };
    let sending = async move {
        let mut staged = store.stage_import();
        while let Some(part) = received.recv().await {
            if let Err(error) = staged.add(&part).await {
                return (staged, Err(error));
            }
        }
        (staged, Ok(()))
    };
    let (worked_out, (staged, sent)) = tokio::join!(store.read(job), sending);
    let done = match (worked_out, sent) {
        (Ok(Ok(done)), Ok(())) => Ok(done),
        (Ok(Ok(_)), Err(error)) => Err(error.into()),
        (Ok(Err(error)), _) => Err(error),
        (Err(error), _) => Err(unread(error)),
    };
    match done {
        Ok((prepared, report)) => Ok((prepared, report, staged)),
        Err(error) => {
            staged.give_up().await;
            Err(error)
        }
    }
}
