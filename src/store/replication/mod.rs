//! Replication: stores hold the same links because each applies the entries of one log, in their order.
//!
//! An entry is a batch of the writer: the changes of a record of the journal, the hash of the entry before it, and a
//! digest of all links after it. A store that may write appends its entry behind the last one that it has applied, or
//! finds that another came first, applies that one, and runs its jobs again. The position is in the transaction and
//! the journal record of the changes, so a copy of a store says which entry comes next.
//!
//! What is too long for an entry, or must not hold up the log while it is worked out, is appended before it is made:
//! an entry says what to do, and each store does it alike. The links of a user are deleted so, and those of an import
//! are written: its parts come first and stay out of sight until an entry says that they count.
//!
//! The log itself is behind [`ReplicationLog`]; what it returns is checked here.

pub mod click_position;
pub mod clicks;
pub mod digest;
pub mod entry;

use std::pin::Pin;

use crate::store::error::StoreError;

pub use click_position::ClickPosition;
pub use clicks::{CLICK_MESSAGE_MAX_LINKS, ClickError, ClickMessage, ClickSource};
pub use digest::ContentDigest;
#[cfg(test)]
pub use entry::Chain;
pub use entry::{Entry, Position};

/// The longest payload of an entry. NATS refuses messages of more than 1 MiB unless it is configured otherwise.
pub const PAYLOAD_MAX_BYTES: usize = if cfg!(test) { 4 * 1024 } else { 512 * 1024 };

pub const IMPORT_BYTES: usize = 16;
/// Which import parts are of: the millisecond in which it began, by the clock of its writer, and a random number.
pub type ImportId = [u8; IMPORT_BYTES];

/// A log that several stores share. Calls come from the writer's thread and block it.
pub trait ReplicationLog: Send + Sync + 'static {
    /// Appends an entry if the last one of the log has the number `after`.
    fn append(&self, after: u64, entry: &[u8]) -> Appended;

    /// Entries after the one with the number `after`, oldest first; after [`Appended::Overtaken`] at least one.
    fn read(&self, after: u64) -> Result<Vec<Vec<u8>>, String>;

    /// The number of the last entry now, for a read that must show what is acknowledged; `None`: it need not.
    fn head(&self) -> LogHead;

    /// Why nothing can be appended at the moment.
    fn problem(&self) -> Option<String>;

    /// Whether this store only follows what others append.
    fn only_follows(&self) -> bool {
        false
    }
}

/// How far the log goes, or why that is not known.
pub type LogHead = Pin<Box<dyn Future<Output = Result<Option<u64>, String>> + Send>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is on the disks of a quorum.
    Stored,
    /// Another entry has its place.
    Overtaken,
    /// It is not in the log, and will not be.
    Refused(String),
    /// It may be in the log, or come into it.
    Unknown(String),
}

/// Why an entry cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("entry {found} came where entry {expected} was expected")]
    Gap { expected: u64, found: u64 },
    #[error("entry {sequence} does not continue the history of this store")]
    Fork { sequence: u64 },
    #[error("entry {sequence} is of another cluster or epoch")]
    Foreign { sequence: u64 },
    #[error("entry {sequence} has {what}: use a newer tinyd")]
    Newer { sequence: u64, what: String },
    #[error("a malformed entry: {0}")]
    Malformed(&'static str),
    #[error("the links of this store differ from those of the cluster after entry {sequence}")]
    Diverged { sequence: u64 },
    #[error("store unavailable")]
    Unavailable,
}

impl ApplyError {
    /// Whether trying again, perhaps with other entries, cannot help: the store must not go on.
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Gap { .. } | Self::Malformed(_) | Self::Unavailable)
    }
}

impl From<StoreError> for ApplyError {
    fn from(_: StoreError) -> Self {
        Self::Unavailable
    }
}
