//! The journal: a file beside the store to which each transaction is appended and synced before it is acknowledged. The
//! pages of the store are written together, seldom, by a checkpoint.
//!
//! An acknowledgement costs one sequential write and one sync of blocks that are allocated already. The store's table
//! `journal` holds a salt, which every durable commit draws anew, and with which every record is sealed: a record applies
//! to the durable state that it follows and to no other, so what earlier ones have left in the file, or what belonged to
//! a store that was replaced, never does. Without a salt no journal is in use, and the store is whole without one.
//!
//! A record is the length of the payload (4 bytes), a checksum (8 bytes), the number of its commit (8 bytes) and the
//! payload, which `redo.rs` describes, filled up with zeros to whole sectors. Numbers are big-endian. The first record is
//! at the beginning of the file; the first that is not sealed as it should be, or does not continue the count, ends them.

use std::fmt;
use std::io;

use redb::Database;
use sha1::{Digest as _, Sha1};

use crate::store::error::StoreError;
use crate::store::redo::{self, Redo};
use crate::store::snapshot::Snapshot;
use crate::store::tables;
use crate::store::transaction::Transaction;

/// What it is called in errors.
pub(super) const NAME: &str = "journal";

/// The length of the file. A checkpoint comes when it is full: the longer it is, the more changes share the writing of a
/// page, and the longer it takes to replay it after a crash. Tests have many checkpoints.
pub(super) const FILE_BYTES: usize = if cfg!(test) { 4 * 1024 } else { 16 * 1024 * 1024 };

/// What a disk writes whole or not at all. No record shares one with another, so that writing one cannot harm those that
/// are acknowledged.
const SECTOR_BYTES: usize = 512;

/// With less room than this, a checkpoint is made before a batch needs it: more than most batches are long.
const RESERVE_BYTES: usize = if cfg!(test) { 1024 } else { 1024 * 1024 };

const LENGTH_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 8;
const SEQUENCE_BYTES: usize = 8;
const HEADER_BYTES: usize = LENGTH_BYTES + CHECKSUM_BYTES + SEQUENCE_BYTES;

/// The longest payload that any journal has room for.
pub(super) const PAYLOAD_MAX_BYTES: usize = FILE_BYTES - HEADER_BYTES;

/// The file of a journal, with all its blocks allocated.
pub(super) trait JournalFile: Send {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Returns once all that was written will be there after a crash.
    fn sync(&self) -> io::Result<()>;
}

/// A journal that is in use.
pub(super) struct Journal {
    file: Box<dyn JournalFile>,
    salt: u64,
    end: usize,
    /// The number of the commit that can be appended.
    next: u64,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// A journal that takes nothing before it has been [restarted](Journal::restart).
    pub(super) fn on(file: Box<dyn JournalFile>) -> Self {
        Self {
            file,
            salt: 0,
            end: FILE_BYTES,
            next: 0,
        }
    }

    /// Forgets its records: the commit with this number is durable, and so is the salt, in the store.
    pub(super) fn restart(&mut self, salt: u64, sequence: u64) {
        (self.salt, self.end, self.next) = (salt, 0, sequence + 1);
    }

    /// Whether the next batch may not fit.
    pub(super) const fn is_nearly_full(&self) -> bool {
        FILE_BYTES - self.end < RESERVE_BYTES
    }

    /// Whether there are no records that the store's file does not have.
    pub(super) const fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Bytes that its records take.
    pub(super) const fn bytes(&self) -> u64 {
        self.end as u64
    }

    /// Whether this can be appended.
    pub(super) const fn has_room_for(&self, sequence: u64, payload: &[u8]) -> bool {
        sequence == self.next && HEADER_BYTES + payload.len() <= FILE_BYTES - self.end
    }

    /// Appends a commit, and returns once it is on disk. After an error, nobody knows whether it is, and the journal must
    /// not be written to before it has been replayed.
    pub(super) fn append(&mut self, sequence: u64, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity((HEADER_BYTES + payload.len()).next_multiple_of(SECTOR_BYTES));
        record.extend_from_slice(&length.to_be_bytes());
        record.extend_from_slice(&checksum(self.salt, sequence, payload));
        record.extend_from_slice(&sequence.to_be_bytes());
        record.extend_from_slice(payload);
        record.resize(record.len().next_multiple_of(SECTOR_BYTES), 0);
        self.file.write_at(self.end as u64, &record)?;
        self.file.sync()?;
        self.end += record.len();
        self.next += 1;
        Ok(())
    }
}

/// The first bytes of a SHA-1, which no other salt, number or payload has.
fn checksum(salt: u64, sequence: u64, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Sha1::new();
    hash.update(salt.to_be_bytes());
    hash.update(sequence.to_be_bytes());
    hash.update(payload);
    let digest: [u8; 20] = hash.finalize().into();
    *digest.first_chunk().unwrap_or(&[0; CHECKSUM_BYTES])
}

/// The number and the payload of the record that a journal has here, if it has one.
fn record_at(content: &[u8], salt: u64) -> Option<(u64, &[u8])> {
    let (length, rest) = content.split_first_chunk::<LENGTH_BYTES>()?;
    let (expected, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    let (sequence, rest) = rest.split_first_chunk::<SEQUENCE_BYTES>()?;
    let payload = rest.get(..u32::from_be_bytes(*length) as usize)?;
    let sequence = u64::from_be_bytes(*sequence);
    (checksum(salt, sequence, payload) == *expected).then_some((sequence, payload))
}

/// The records of a journal.
pub(super) fn records(content: &[u8], salt: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = content;
    let mut before: Option<u64> = None;
    std::iter::from_fn(move || {
        let (sequence, payload) = record_at(rest, salt)?;
        if before.is_some_and(|before| before.checked_add(1) != Some(sequence)) {
            return None;
        }
        before = Some(sequence);
        let length = (HEADER_BYTES + payload.len()).next_multiple_of(SECTOR_BYTES);
        rest = rest.get(length..).unwrap_or_default();
        Some((sequence, payload))
    })
}

/// Whether there is a record of a later commit further on: then what is between was damaged, because each is written after
/// the one before it is on disk.
fn has_later_record(content: &[u8], salt: u64, sequence: u64) -> bool {
    let sectors = (FILE_BYTES / SECTOR_BYTES) as u64;
    let later = sequence.saturating_add(1)..=sequence.saturating_add(sectors);
    (0..content.len()).step_by(SECTOR_BYTES).any(|offset| {
        let rest = content.get(offset..).unwrap_or_default();
        let number = rest.get(LENGTH_BYTES + CHECKSUM_BYTES..).and_then(<[u8]>::first_chunk);
        // The number first, so that hardly anything must be summed up.
        number.is_some_and(|number| later.contains(&u64::from_be_bytes(*number))) && record_at(rest, salt).is_some()
    })
}

/// Whether something is written in the file of a journal.
pub(super) fn is_used(content: &[u8]) -> bool {
    content.iter().take(HEADER_BYTES).any(|byte| *byte != 0)
}

/// What became of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replayed {
    /// All of it is in the store, or there is none.
    Whole,
    /// It is damaged, and what comes after the damage is not in the store.
    CutOff,
    /// The store has no use for one.
    Unused,
}

/// Brings a store that was not closed cleanly to where its journal ends, with a durable commit, after which no journal is in
/// use. `read` reads the file of the journal, if there is one.
pub(super) fn replay(
    database: &Database,
    read: impl FnOnce() -> io::Result<Option<Vec<u8>>>,
) -> Result<Replayed, StoreError> {
    let Some((salt, bytes)) = tables::journal_of(database)? else {
        return Ok(Replayed::Unused);
    };
    let content = read()?;
    let length = content.as_ref().map(Vec::len);
    if length.map(|length| length as u64) != Some(bytes) {
        tracing::error!(
            expected = bytes,
            length,
            "the store was not closed cleanly, and its journal is missing or has another length: what was acknowledged \
             since the last checkpoint may be lost"
        );
    }
    let content = content.unwrap_or_default();
    let stored = Snapshot::of(database)?.sequence();
    let mut inner = database.begin_write()?;
    inner.set_quick_repair(true);
    let mut transaction = Transaction::open(&inner, false, Redo::not_kept())?;
    let mut sequence = stored;
    // A store that could still be closed after a failure of its journal has the first ones already.
    let missing = records(&content, salt).skip_while(|(number, _)| *number <= stored);
    for (number, payload) in missing {
        if sequence.checked_add(1) != Some(number) {
            break;
        }
        redo::apply(&mut transaction, payload)?;
        sequence = number;
    }
    transaction.finish(sequence)?;
    tables::set_journal(&inner, None)?;
    inner.commit()?;
    if sequence > stored {
        tracing::info!(commits = sequence - stored, "the journal was replayed");
    }
    if has_later_record(&content, salt, sequence) {
        tracing::error!("the journal is damaged: what was acknowledged after commit {sequence} is lost");
        return Ok(Replayed::CutOff);
    }
    Ok(Replayed::Whole)
}
