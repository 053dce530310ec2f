//! The journal: a file beside the store to which each transaction is appended and synced before it is acknowledged.
//! The pages of the store are written together, seldom, by a checkpoint.
//!
//! An acknowledgement costs one sequential write and one sync of blocks that are allocated already. The store's table
//! `journal` holds a salt, which every durable commit draws anew, and with which every record is sealed: a record
//! applies to the durable state that it follows and to no other, so what earlier ones have left in the file, or what
//! belonged to a store that was replaced, never does. Without a salt no journal is in use, and the store is whole
//! without one.
//!
//! docs/store-format.md describes the bytes. Journals of format 1 are only read, when their store is upgraded.

pub mod concerned;
pub mod record;
pub mod redo;
pub mod replay;
pub mod visibility;

use std::io;

pub use record::{FILE_BYTES, NAME, START, Tie, is_used, new_file, owner_of};
use redo::is_followed;
pub use replay::{Replayed, replay};

/// With less room than this, a checkpoint is made before a batch needs it: more than most batches are long.
const RESERVE_BYTES: usize = if cfg!(test) { 1024 } else { 1024 * 1024 };

/// The file of a journal, with all its blocks allocated.
pub trait JournalFile: Send {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Returns once all that was written will be there after a crash.
    fn sync(&self) -> io::Result<()>;
}

/// A journal that is in use.
pub struct Journal {
    file: Box<dyn JournalFile>,
    identity: u64,
    salt: u64,
    end: usize,
    /// The number of the commit that can be appended.
    next: u64,
}

impl Journal {
    /// A journal that takes nothing before it has been [restarted](Journal::restart).
    pub fn new(file: Box<dyn JournalFile>, identity: u64) -> Self {
        Self {
            file,
            identity,
            salt: 0,
            end: FILE_BYTES,
            next: 0,
        }
    }

    /// Forgets its records: the commit with this number is durable, and so is the salt, in the store.
    pub fn restart(&mut self, salt: u64, sequence: u64) {
        (self.salt, self.end, self.next) = (salt, START, sequence + 1);
    }

    /// Whether it has been restarted.
    pub const fn is_in_use(&self) -> bool {
        self.next > 0
    }

    /// Whether the next batch may not fit.
    pub const fn is_nearly_full(&self) -> bool {
        self.is_in_use() && FILE_BYTES - self.end < RESERVE_BYTES
    }

    /// Whether there are no records that the store's file does not have.
    pub const fn is_empty(&self) -> bool {
        self.end == START || !self.is_in_use()
    }

    pub const fn bytes(&self) -> u64 {
        self.end.saturating_sub(START) as u64
    }

    pub const fn has_room_for(&self, sequence: u64, payload: &[u8]) -> bool {
        sequence == self.next && payload.len() + self.end - START <= record::PAYLOAD_MAX_BYTES
    }

    /// Appends a commit, and returns once it is on disk with all that precede it, or, where [`is_followed`], at once.
    /// After an error its outcome is unknown, and the journal must be replayed before the next write.
    pub fn append(&mut self, sequence: u64, payload: &[u8]) -> io::Result<()> {
        let tie = Tie {
            identity: Some(self.identity),
            salt: self.salt,
        };
        let record = record::encode(tie, sequence, payload).map_err(io::Error::other)?;
        self.file.write_at(self.end as u64, &record)?;
        if !is_followed(payload) {
            self.file.sync()?;
        }
        self.end += record.len();
        self.next += 1;
        Ok(())
    }
}
