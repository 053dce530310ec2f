//! The links on disk: tables, the record format, and the one writer with group commit.
//!
//! Alone names redb and bincode. Knows what a link is and keeps its indexes and counters true; who may change a link
//! and how is decided in `links`, by closures that run inside the write transaction.

mod error;
mod keys;
mod list;
mod query;
mod record;
mod snapshot;
mod tables;
mod transaction;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase};
use tokio::sync::watch;

pub use error::{OpenError, StoreError, WriteError};
pub use query::{Listing, Order, OrderField, Page, Query, TimeRange};
pub use snapshot::Snapshot;
pub use transaction::{Change, Transaction};
pub use writer::{CommitObserver, Health};

use crate::model::{LinkId, ShortLink, Status};
use crate::store::writer::Writer;

/// The name of the store's file in the data folder.
pub const FILE_NAME: &str = "links.redb";

/// redb's page cache. The map already holds what redirects need, so this serves writes and lists only; redb's own
/// default is 1 GiB.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The open store: one writer thread, any number of readers. Dropping it waits until what is queued has been written.
#[derive(Debug)]
pub struct Store {
    // Before the database, so that it is dropped first.
    writer: Writer,
    database: Arc<Database>,
    published: watch::Receiver<u64>,
}

impl Store {
    /// Opens the store in a data folder, or makes a new one there. `observer` is told of every commit, before those
    /// who asked for it are answered.
    ///
    /// # Errors
    /// When the file cannot be read or made, is in use, is damaged, is no store of tinyd, or was written by a newer
    /// program. The file is then left as it was.
    pub fn open(folder: &Path, observer: Arc<dyn CommitObserver>) -> Result<Self, OpenError> {
        let path = folder.join(FILE_NAME);
        let database = open_database(&path)?;
        let sequence = Snapshot::open(&database.begin_read().map_err(StoreError::from)?)?.sequence();
        let (published_sender, published) = watch::channel(sequence);
        let database = Arc::new(database);
        let writer = Writer::start(Arc::clone(&database), observer, published_sender, sequence)?;
        Ok(Self {
            writer,
            database,
            published,
        })
    }

    /// Runs `job` in a write transaction, with whatever else is waiting to be written, and returns what it returned
    /// once the transaction is on disk and the observer has been told.
    ///
    /// The job must read and decide before it changes anything: what it has changed is committed with whatever it returns
    /// as `Ok`. An error of a damaged record fails this job alone if it has changed nothing yet; any other error gives the
    /// whole transaction up, and writes are refused from then on. Once this future has been polled to the point of
    /// waiting, the job runs even if the future is dropped.
    ///
    /// # Errors
    /// [`WriteError::Unavailable`] when nothing was written, [`WriteError::OutcomeUnknown`] when that cannot be told.
    pub async fn write<R, F>(&self, job: F) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        self.writer.submit(job).await
    }

    /// Runs `job` on a consistent snapshot, off the async threads. What it saw has been published to the observer by
    /// the time this returns, so that no later look at the map shows an older state.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn read<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<R, StoreError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let read = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::open(&database.begin_read()?)?;
            Ok::<_, StoreError>((job(&snapshot)?, snapshot.sequence()))
        });
        let (result, seen) = read.await.map_err(|_| StoreError::Interrupted)??;
        let mut published = self.published.clone();
        // The sender lives as long as the writer; without it nothing more will be published.
        let _ = published.wait_for(|sequence| *sequence >= seen).await;
        Ok(result)
    }

    /// Calls `visit` for every link, in the order of the ids, and returns how many there are. What cannot be decoded is
    /// given as such.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn for_each(&self, visit: impl FnMut(LinkId, Result<ShortLink, StoreError>)) -> Result<u64, StoreError> {
        Snapshot::open(&self.database.begin_read()?)?.for_each(visit)
    }

    /// The revocations on disk: digest and the moment until which each is kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn revocations(&self) -> Result<Vec<([u8; 20], crate::model::Timestamp)>, StoreError> {
        Snapshot::open(&self.database.begin_read()?)?.revocations()
    }

    /// How many links have each status, in the order of [`Status::ALL`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn totals(&self) -> Result<[u64; Status::ALL.len()], StoreError> {
        Snapshot::open(&self.database.begin_read()?)?.totals()
    }

    /// Whether writes are accepted.
    #[must_use]
    pub fn health(&self) -> Health {
        self.writer.health()
    }
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let unreadable = |source: StoreError| OpenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let refused = |error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        error => unreadable(error.into()),
    };
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    if !path.try_exists().map_err(|error| unreadable(error.into()))? {
        create_database(path).map_err(unreadable)?;
    }
    // Opening for writing changes the file, so what it is is found out before, if that can be.
    match builder.open_read_only(path) {
        Ok(database) => check_format(&database, path)?,
        // Its last user crashed: only a writer can repair it.
        Err(redb::DatabaseError::RepairAborted) => {}
        Err(error) => return Err(refused(error)),
    }
    let database = builder.open(path).map_err(refused)?;
    check_format(&database, path)?;
    Ok(database)
}

/// Makes a new store under another name first: a crash leaves either none or a whole one.
fn create_database(path: &Path) -> Result<(), StoreError> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    let database = Builder::new().create_with_backend(FileBackend::new(file)?)?;
    tables::create(&database)?;
    database.close()?;
    fs::rename(&unfinished, path)?;
    sync_folder_of(path)?;
    Ok(())
}

fn check_format(database: &impl ReadableDatabase, path: &Path) -> Result<(), OpenError> {
    match tables::format_of(database)? {
        Some(tables::FORMAT) => Ok(()),
        Some(found) if found > tables::FORMAT => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: tables::FORMAT,
        }),
        _ => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

/// redb syncs the file, but not the folder that holds its name.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    File::open(folder)?.sync_all()
}
