//! The links on disk: tables, the record format, and the one writer with group commit.
//!
//! The only room that names redb and bincode. Keeps indexes and counters consistent with the links. `links` decides
//! which changes are allowed, in closures that run inside the write transaction.

mod error;
mod files;
mod format;
mod journal;
mod read;
pub mod replication;
mod write;

#[cfg(test)]
pub mod testing;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use redb::Database;
use tokio::sync::{oneshot, watch};

pub use error::{CopyError, OpenError, Stopped, StoreError, WriteError, takes_no_writes};
pub use files::compact::compact;
pub use files::disk::{SPACE_LEFT_BYTES, check_space};
pub use files::dump::{Progress, restore_dump};
pub use files::medium::unless_damaged;
pub use files::unfinished::Unfinished;
pub use journal::concerned::Concerned;
pub use read::audit::{AuditPage, AuditQuery};
pub use read::inspection::{Inspected, Inspection};
pub use read::limit::ReadLimit;
pub use read::query::{Listing, Order, OrderField, Page, Query, SORT_MAX_LINKS, TimeOrder, TimeRange};
pub use read::rank::Rank;
pub use read::scan::Visitor;
pub use read::snapshot::Snapshot;
pub use read::verify::Verification;
pub use write::ahead::{Note, StagedImport};
pub use write::leave::leave_cluster;
pub use write::outbox::CountedMessage;
pub use write::prepared::{Prepared, PreparedLinks, Preparing};
pub use write::queue::{REOPEN_SECONDS_MAX, TransactionEnd};
pub use write::rehearsal::Rehearsal;
pub use write::transaction::{Change, Replacement, Transaction};
pub use write::writer::{CommitObserver, Health};

use crate::metrics::StoreMetrics;
#[cfg(fuzzing)]
use crate::model::LinkId;
use crate::model::{Timestamp, priority};
use crate::store::files::disk;
use crate::store::files::last_backup::LastBackup;
use crate::store::files::medium::{Medium, StoreFile};
use crate::store::files::unfinished::folder_of;
#[cfg(fuzzing)]
use crate::store::format::record;
use crate::store::journal::visibility::Visibility;
use crate::store::replication::{ApplyError, Position, ReplicationLog};
use crate::store::write::log_state::{Replicated, Replicating};
use crate::store::write::queue::{JobScope, RetryTiming, WriterRequest};
use crate::store::write::recovery::with_causes;
use crate::store::write::writer::{Handle, SharedWithReaders, Writer};

/// The name of the store's file in the data folder.
pub const FILE_NAME: &str = "links.redb";

/// Entries of the replication log that a store keeps, for others that miss them.
const ENTRIES_KEPT_BYTES: u64 = if cfg!(test) { 16 * 1024 } else { 64 * 1024 * 1024 };

/// The open store: one writer thread, any number of readers. Dropping it waits until what is queued has been written.
#[derive(Debug)]
pub struct Store {
    // Before the database, so that it is dropped first. None in a store that is only read.
    writer: Option<Writer>,
    handle: Handle,
    published: watch::Receiver<u64>,
    visibility: Arc<Visibility>,
    folder: PathBuf,
    metrics: Arc<StoreMetrics>,
    /// The file it is in, unless tests have put something else in its place.
    file: Option<PathBuf>,
    last_backup: LastBackup,
    /// Why it takes no writes, where it should.
    refusing: Option<String>,
    inspected: Mutex<Inspected>,
}

/// What becomes of a store whose disk takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WithoutWrites {
    Fails,
    Reads,
}

/// How much room there is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskSpace {
    pub file: u64,
    /// Free space on its disk, without what is reserved for root.
    pub free: u64,
    pub total: u64,
}

impl Drop for Store {
    fn drop(&mut self) {
        // It uses the file until it ends.
        drop(self.writer.take());
        // redb cleans up as it closes, and panics in some files that are damaged or were changed meanwhile.
        let database = self.handle.send_replace(None);
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

impl Store {
    /// Opens or creates the store; a failure leaves the file as it was. Beside the journal of another store, an unclean
    /// store is read-only.
    pub fn open(path: &Path, observer: Option<Arc<dyn CommitObserver>>) -> Result<Self, OpenError> {
        Self::open_file(path, observer, None, WithoutWrites::Fails)
    }

    /// As [`Store::open`], or a store of a cluster, with its log. While the disk takes no writes, the store refuses
    /// them, and what it has can be read.
    pub fn open_to_serve(
        path: &Path,
        observer: Option<Arc<dyn CommitObserver>>,
        log: Option<Arc<dyn ReplicationLog>>,
    ) -> Result<Self, OpenError> {
        Self::open_file(path, observer, log, WithoutWrites::Reads)
    }

    fn open_file(
        path: &Path,
        observer: Option<Arc<dyn CommitObserver>>,
        log: Option<Arc<dyn ReplicationLog>>,
        without_writes: WithoutWrites,
    ) -> Result<Self, OpenError> {
        let file = StoreFile::new(path);
        // A new store would be in the way of the one that the box is to take.
        if log.is_some() && !path.try_exists()? {
            return Err(OpenError::NotInCluster(folder_of(path).to_owned()));
        }
        file.create_if_missing()?;
        let folder = folder_of(path);
        match Self::open_on(
            Arc::new(file),
            folder,
            observer,
            RetryTiming::default(),
            log,
            without_writes,
        ) {
            // Redirects go on from what the file has; a write would make the journal useless that may still be found.
            Err(error @ OpenError::ForeignJournal { .. }) => {
                tracing::error!("refusing writes: {error}");
                let mut store = Self::open_read_only(path)?;
                store.refusing = Some(error.to_string());
                Ok(store)
            }
            opened => Ok(opened?.in_file(path)),
        }
    }

    /// Opens a store, for instance a backup, without ever writing to its file. A file that was in use when its machine
    /// crashed is repaired in memory.
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        Self::open_view(path, StoreFile::open_read_only)
    }

    /// As [`Store::open_read_only`], with every checksum in the file verified.
    pub fn open_verified(path: &Path) -> Result<Self, OpenError> {
        Self::open_view(path, StoreFile::open_verified)
    }

    fn open_view(path: &Path, open: fn(&StoreFile) -> Result<Database, OpenError>) -> Result<Self, OpenError> {
        unless_damaged(path, || {
            let (store, _) = Self::reading(open(&StoreFile::new(path))?, folder_of(path))?;
            Ok(store.in_file(path))
        })
    }

    /// Whether a process has this file open as a store, this one included.
    pub fn is_in_use(path: &Path) -> bool {
        // A later step reports what cannot be opened or locked.
        File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// A store that is only read, and the sender of the numbers of its commits.
    fn reading(database: Database, folder: &Path) -> Result<(Self, watch::Sender<u64>), StoreError> {
        let snapshot = Snapshot::new(&database)?;
        let metrics = StoreMetrics::default();
        // A store with damaged counters can be opened, to be verified.
        if let Ok(totals) = snapshot.totals() {
            metrics.set_links(totals);
        }
        let (sender, published) = watch::channel(snapshot.sequence);
        let store = Self {
            writer: None,
            handle: Arc::new(watch::Sender::new(Some(Arc::new(database)))),
            published,
            visibility: Arc::new(Visibility::new(snapshot.sequence)),
            folder: folder.to_owned(),
            metrics: Arc::new(metrics),
            file: None,
            last_backup: LastBackup::default(),
            refusing: None,
            inspected: Mutex::default(),
        };
        Ok((store, sender))
    }

    fn in_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self.last_backup = LastBackup::open(path, self.writer.is_some());
        self
    }

    fn open_on(
        medium: Arc<dyn Medium>,
        folder: &Path,
        observer: Option<Arc<dyn CommitObserver>>,
        pace: RetryTiming,
        log: Option<Arc<dyn ReplicationLog>>,
        without_writes: WithoutWrites,
    ) -> Result<Self, OpenError> {
        let (database, failure) = match medium.open() {
            Err(error) if without_writes == WithoutWrites::Reads && error.is_for_want_of_writes() => {
                (medium.open_read_only()?, Some(with_causes(&error)))
            }
            opened => (opened?, None),
        };
        let (mut store, published) = Self::reading(database, folder)?;
        let replicated = match (log, store.snapshot()?.position()) {
            (Some(log), Some(position)) => Some(Replicated::new(log, position, ENTRIES_KEPT_BYTES)),
            (Some(_), None) => return Err(OpenError::NotInCluster(folder.to_owned())),
            (None, Some(_)) => return Err(OpenError::InCluster(folder.to_owned())),
            (None, None) => None,
        };
        let shared = SharedWithReaders {
            handle: Arc::clone(&store.handle),
            published,
            visibility: Arc::clone(&store.visibility),
            metrics: Arc::clone(&store.metrics),
        };
        store.writer = Some(Writer::start(medium, shared, observer, pace, replicated, failure)?);
        Ok(store)
    }

    /// The folder that its file is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file without a name, on the disk of the store, that is gone once it is closed.
    pub fn temporary_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.folder)
    }

    /// Takes links that are to be written, and keeps them on the disk of the store.
    pub fn prepare(&self) -> Preparing {
        Preparing::in_folder(&self.folder)
    }

    /// As [`disk::check_space`], on the disk of the store.
    pub fn check_space(&self, bytes: u64) -> io::Result<()> {
        disk::check_space(&self.folder.join(FILE_NAME), bytes)
    }

    /// Runs `job` in a write transaction, with whatever else is waiting to be written, and returns what it returned
    /// once the transaction is on disk and the observer has seen it.
    ///
    /// The job must read and decide before it changes anything: what it has changed is committed with whatever it
    /// returns as `Ok`. An error of a damaged record fails this job alone if it has changed nothing yet; any other
    /// error gives the whole transaction up. In a cluster it runs again after another store's
    /// change. Once this future has been polled to the point of waiting, the job runs
    /// even if the future is dropped.
    pub async fn write<R, F>(&self, job: F) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Clone + Send + 'static,
    {
        let job = |transaction: &mut Transaction<'_>| Ok((TransactionEnd::Commit, job(transaction)?));
        self.submit(JobScope::Shared, job).await
    }

    /// As [`Store::write`], for what concerns this store alone, also in a cluster.
    pub async fn write_local<R, F>(&self, job: F) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Clone + Send + 'static,
    {
        let job = |transaction: &mut Transaction<'_>| Ok((TransactionEnd::Commit, job(transaction)?));
        self.writer()?.submit(JobScope::Local, job, Some(Clone::clone)).await
    }

    /// Runs a job that concerns all stores of a cluster. One that changes nothing is in no entry, so it runs again if
    /// this store was behind.
    async fn submit<R, F>(&self, scope: JobScope, job: F) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Clone + Send + 'static,
    {
        let writer = self.writer()?;
        let Some(replicating) = self.replicating() else {
            return writer.submit(scope, job, Some(Clone::clone)).await;
        };
        let at = replicating.position().borrow().sequence;
        let first = job.clone();
        let noting = |transaction: &mut Transaction<'_>| {
            let before = transaction.modifications;
            let (end, result) = first(transaction)?;
            let is_change = end == TransactionEnd::Commit && transaction.modifications > before;
            Ok((end, (result, is_change)))
        };
        let (result, has_changed) = writer.submit(scope, noting, Some(Clone::clone)).await?;
        if has_changed {
            return Ok(result);
        }
        match replicating.was_current(at).await {
            Ok(true) => Ok(result),
            Ok(false) => writer.submit(scope, job, Some(Clone::clone)).await,
            Err(_) => Err(WriteError::Unavailable),
        }
    }

    /// As [`Store::write`], in a transaction of its own: the job may change things first and decide at its end whether
    /// they are kept. Other writes wait for it meanwhile. In a cluster, it must not change more than an entry can have.
    pub async fn write_alone<R, F>(&self, job: F) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Clone + Send + 'static,
    {
        self.submit(JobScope::Alone, job).await
    }

    /// As [`Store::write_alone`], for a job that cannot run again: outside of a cluster.
    pub async fn write_alone_once<R, F>(&self, job: F) -> Result<R, WriteError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<(TransactionEnd, R), StoreError> + Send + 'static,
    {
        self.writer()?.submit(JobScope::Alone, job, None).await
    }

    /// Makes this store one of a cluster, whose log has come to an entry with this number and hash. Without effect on
    /// this process: open it again with the log.
    pub async fn enter_cluster(&self, after: Position) -> Result<Position, WriteError> {
        let job =
            move |transaction: &mut Transaction<'_>| Ok((TransactionEnd::Commit, transaction.enter_cluster(after)?));
        self.write_alone(job).await
    }

    /// Applies entries of the replication log up to the first that cannot be applied, and returns the position after
    /// them. Entries that have been applied are passed over.
    pub async fn apply(&self, entries: Vec<Vec<u8>>) -> Result<Position, ApplyError> {
        let writer = self.writer().map_err(|_| ApplyError::Unavailable)?;
        writer.apply(entries).await
    }

    /// Goes on with a later copy of the cluster's links in this one's place, and returns its position. The copy must be
    /// on the same file system.
    pub async fn replace(&self, with: PathBuf) -> Result<Position, ApplyError> {
        let writer = self.writer().map_err(|_| ApplyError::Unavailable)?;
        writer.replace(with).await
    }

    /// Has the file brought to where the journal is, so that closing the store takes little. Without effect while it
    /// takes no writes.
    pub async fn checkpoint(&self) {
        let Ok(writer) = self.writer() else { return };
        let (sender, done) = oneshot::channel();
        if writer.send(WriterRequest::Checkpoint(sender)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// What is known of the replication log; none outside of a cluster.
    pub fn replicating(&self) -> Option<&Replicating> {
        self.writer.as_ref().and_then(Writer::replicating)
    }

    /// Whether it takes writes that concern links at all: it is not read-only, and not an edge of a cluster.
    pub fn takes_writes(&self) -> bool {
        self.health() != Health::ReadOnly && !self.replicating().is_some_and(Replicating::only_follows)
    }

    fn writer(&self) -> Result<&Writer, WriteError> {
        let refusal = match self.refusing {
            Some(_) => WriteError::Unavailable,
            None => WriteError::ReadOnly,
        };
        self.writer.as_ref().ok_or(refusal)
    }

    /// Runs `job` on a consistent snapshot, off the async threads. In a cluster, the snapshot has what any store has
    /// acknowledged before. What it saw has been published to the observer by
    /// the time this returns, so that no later look at the map shows an older state.
    /// [`StoreError::Closed`] while the file is being opened again after a failure.
    pub async fn read<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<R, StoreError> + Send + 'static,
    {
        self.read_on(Lane::Shared, job).await
    }

    /// As [`Store::read`], on the threads of a lane.
    pub async fn read_on<R, F>(&self, lane: Lane, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<R, StoreError> + Send + 'static,
    {
        if let Some(replicating) = self.replicating() {
            replicating.wait_until_current().await?;
        }
        let read = move |snapshot: &Snapshot| Ok((job(snapshot)?, snapshot.sequence));
        let (result, seen) = self.look(lane, read).await?;
        let mut published = self.published.clone();
        // What a file that has failed shows beyond it may not be on disk.
        if seen > *published.borrow() && matches!(self.health(), Health::Refusing(_)) {
            return Err(StoreError::Closed);
        }
        // Fewer commits than before mean that the disk has lost some, and what was seen is not to come.
        let mut before = 0;
        let is_published = |sequence: &u64| {
            let is_less = *sequence < before;
            before = *sequence;
            is_less || *sequence >= seen
        };
        // The sender lives as long as the writer; without it nothing more will be published.
        let _ = published.wait_for(is_published).await;
        Ok(result)
    }

    /// As [`Store::read`], but what the job sees may be a commit that is not published yet, or in a file that has
    /// failed, one of unknown outcome.
    pub async fn read_ahead<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<R, StoreError> + Send + 'static,
    {
        self.look(Lane::Shared, job).await
    }

    async fn look<R, F>(&self, lane: Lane, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<R, StoreError> + Send + 'static,
    {
        let (handle, visibility) = (Arc::clone(&self.handle), Arc::clone(&self.visibility));
        let acknowledged = self.published.clone();
        let work = move || {
            visibility.wait_for_acknowledged(&acknowledged);
            job(&snapshot_of(&handle)?)
        };
        let read = match lane {
            Lane::Shared => tokio::task::spawn_blocking(work).await.ok(),
            Lane::Apart => apart(work)?.await.ok(),
        };
        let read = read.ok_or(StoreError::Interrupted)?;
        if read.as_ref().is_err_and(StoreError::is_of_the_file) {
            self.nudge();
        }
        read
    }

    /// Waits until the file can be read, if it is just being opened again; false if that takes longer than `patience`.
    pub async fn wait_until_readable(&self, patience: Duration) -> bool {
        let mut handle = self.handle.subscribe();
        let waiting = tokio::time::timeout(patience, handle.wait_for(Option::is_some)).await;
        waiting.is_ok_and(|readable| readable.is_ok())
    }

    /// Has the writer find out whether the file still works, after a read of it has failed.
    pub fn nudge(&self) {
        self.writer.iter().for_each(Writer::nudge);
    }

    /// A consistent view of the store as it is now, for work that takes long; it can take as long as a commit. It
    /// fails with [`StoreError::Closed`] when the store is opened again after a failure meanwhile.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.visibility.wait_for_acknowledged(&self.published);
        snapshot_of(&self.handle)
    }

    pub const fn metrics(&self) -> &Arc<StoreMetrics> {
        &self.metrics
    }

    /// Writes that wait to be taken into a transaction.
    pub fn queued(&self) -> usize {
        self.writer.as_ref().map_or(0, Writer::queued)
    }

    /// Asks the file system, which may take as long as the disk does.
    pub fn disk_space(&self) -> io::Result<DiskSpace> {
        let (free, total) = disk::space(&self.folder)?;
        let file = self.file.as_ref().map(std::fs::metadata).transpose()?;
        Ok(DiskSpace {
            file: file.map_or(0, |file| file.len()),
            free,
            total,
        })
    }

    pub fn last_backup(&self) -> Option<Timestamp> {
        self.last_backup.get()
    }

    pub fn note_backup(&self, at: Timestamp) {
        if let Err(error) = self.last_backup.note(at) {
            tracing::warn!(%error, "cannot save the time of the last backup");
        }
    }

    /// What the inspections have found so far.
    pub fn inspected(&self) -> Inspected {
        *self.inspected.lock()
    }

    pub fn note_inspected(&self, inspected: Inspected) {
        *self.inspected.lock() = inspected;
    }

    pub fn health(&self) -> Health {
        match (&self.writer, &self.refusing) {
            (Some(writer), _) => writer.health(),
            (None, Some(reason)) => Health::Refusing(reason.clone()),
            (None, None) => Health::ReadOnly,
        }
    }
}

/// On which threads the store is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Those that are there for whatever blocks.
    Shared,
    /// One of its own, of low priority: for what takes long.
    Apart,
}

/// Runs something on a thread of low priority.
fn apart<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> io::Result<oneshot::Receiver<R>> {
    let (sender, result) = oneshot::channel();
    let run = move || {
        priority::lower(priority::LOWEST_NICE);
        let _ = sender.send(work());
    };
    thread::Builder::new().name("tinyd-scan".into()).spawn(run)?;
    Ok(result)
}

/// Decodes a record for the fuzzer, which reaches public items only. What decodes can be encoded and is the same again.
#[cfg(fuzzing)]
pub fn fuzz_record(data: &[u8]) {
    let Ok(id) = LinkId::from_bytes(b"67mk41xj") else {
        return;
    };
    if let Ok(link) = record::decode_of_format_1(id, data) {
        let again = record::encode(&link).and_then(|bytes| record::decode(id, &bytes));
        assert!(again.is_ok_and(|again| again == link));
    }
}

fn snapshot_of(handle: &Handle) -> Result<Snapshot, StoreError> {
    let database = handle.borrow().clone();
    Snapshot::new(&*database.ok_or(StoreError::Closed)?)
}
