//! What can go wrong with the store. None of these texts is for API clients: they go to the log and the operator.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::model::{LinkId, shown};

/// Why a read was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    #[error("it takes too many steps")]
    Steps,
    #[error("its time is over")]
    Time,
    #[error("the client has left")]
    Left,
}

/// The file could not be read or written, or holds what it should not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Database(Box<redb::Error>),
    #[error("damaged record in table {table}: {reason}")]
    Damaged { table: &'static str, reason: String },
    /// The file has failed and is being opened again.
    #[error("the store is closed after a failure")]
    Closed,
    #[error("a write has panicked")]
    Panicked,
    #[error("interrupted")]
    Interrupted,
    #[error("a read was stopped: {0}")]
    Stopped(#[from] Stopped),
    /// Of the replication log.
    #[error("nothing can be appended to the replication log: {0}")]
    Log(String),
}

impl StoreError {
    pub(super) fn damaged(table: &'static str, reason: impl ToString) -> Self {
        Self::Damaged {
            table,
            reason: reason.to_string(),
        }
    }

    /// Whether a page of the file is none, which trying again does not change.
    pub(super) fn is_corruption(&self) -> bool {
        matches!(self, Self::Database(error) if matches!(**error, redb::Error::Corrupted(_)))
    }

    /// A link whose destination no version has accepted, so that it is not what was once stored.
    pub(crate) fn never_accepted(id: LinkId) -> Self {
        let reason = format!("{id}: it leads to what no version has accepted as a destination");
        Self::damaged("links", reason)
    }

    /// Whether the file or the disk under it has failed, rather than one read or write.
    pub const fn is_of_the_file(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Closed | Self::Panicked)
    }
}

/// What reading comes to; none if a page is damaged, on which redb gives an error or panics.
pub fn unless_corrupt<R>(read: impl FnOnce() -> Result<R, StoreError>) -> Result<Option<R>, StoreError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Err(error)) if error.is_corruption() => Ok(None),
        Ok(read) => read.map(Some),
        Err(_) => Ok(None),
    }
}

/// redb has an error type for every kind of call; to us they are one.
macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                match redb::Error::from(error) {
                    // redb answers so once an operation has failed, and after it was closed for that.
                    redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::Closed,
                    error => Self::Database(Box::new(error)),
                }
            }
        }

        impl From<$error> for CopyError {
            fn from(error: $error) -> Self {
                Self::Store(error.into())
            }
        }
    )*};
}
from_redb!(
    redb::Error,
    redb::CommitError,
    redb::DatabaseError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        redb::Error::Io(error).into()
    }
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is already in use by another process", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} has store format {found}, and this program knows formats up to {known}: use a newer tinyd",
        path.display()
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("{} is damaged: restore a backup, or export what can still be read from a copy", .0.display())]
    Damaged(PathBuf),
    #[error("{} is not a store of tinyd", .0.display())]
    Foreign(PathBuf),
    /// The journal beside a store that was not closed cleanly belongs to another store.
    #[error(
        "{} was not closed cleanly, and {} is the journal of another store: what was written last is in this \
         store's own journal. Put that one back and start tinyd again; if it is lost, move {} away, which gives up \
         what was written since the last checkpoint",
        path.display(), journal.display(), journal.display()
    )]
    ForeignJournal { path: PathBuf, journal: PathBuf },
    #[error("cannot open {} as a store", path.display())]
    Unreadable { path: PathBuf, source: StoreError },
    #[error("cannot read the store")]
    Read(#[from] StoreError),
    #[error(
        "the store in {} is of a cluster, and cluster.servers is not set: set it, or run {} cluster leave, which \
         makes the store one of a box that is alone",
        .0.display(), shown::command()
    )]
    InCluster(PathBuf),
    #[error(
        "cluster.servers is set, and {} has no store of a cluster: run {command} cluster init on the first box, or \
         {command} cluster join on any other; to be alone, leave cluster.servers out",
        .0.display(), command = shown::command()
    )]
    NotInCluster(PathBuf),
    #[error("cannot start the writer thread")]
    Thread(#[from] std::io::Error),
}

impl OpenError {
    /// Whether the disk takes no writes, which may end by itself and does not keep the store from being read.
    pub(super) fn is_for_want_of_writes(&self) -> bool {
        let source = match self {
            Self::Read(source) | Self::Unreadable { source, .. } => source,
            _ => return false,
        };
        let StoreError::Database(error) = source else {
            return false;
        };
        matches!(&**error, redb::Error::Io(error) if takes_no_writes(error))
    }
}

/// Whether a disk is full or read-only.
pub fn takes_no_writes(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// A copy of the store could not be made. Whatever had been begun has been removed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("not a dump of a store: {0}")]
    NoDump(&'static str),
    #[error("the store is damaged, and its copy would be: {0} (restore this entry from a backup made before)")]
    Damaged(String),
}

/// Displayed as what has happened, in words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written, and nothing will be until the store works again.
    #[error("no link can be changed at the moment")]
    Unavailable,
    #[error("this server is read-only")]
    ReadOnly,
    /// The commit may have reached the disk or not.
    #[error("outcome unknown: the store failed during the write")]
    OutcomeUnknown,
}

impl WriteError {
    /// What helps, in words for people. What has happened is what is displayed.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Unavailable => "try again soon",
            Self::ReadOnly => "ask its operator where changes are made",
            Self::OutcomeUnknown => "look whether it is stored before you try again",
        }
    }
}
