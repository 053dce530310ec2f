//! The journal: a file beside the store to which each transaction is appended and synced before it is acknowledged. The
//! pages of the store are written together, seldom, by a checkpoint.
//!
//! An acknowledgement costs one sequential write and one sync of blocks that are allocated already. The store's table
//! `journal` holds a salt, which every durable commit draws anew, and with which every record is sealed: a record applies
//! to the durable state that it follows and to no other, so what earlier ones have left in the file, or what belonged to
//! a store that was replaced, never does. Without a salt no journal is in use, and the store is whole without one.
//!
//! The file begins with a sector that names the store that it belongs to: `tinyd journal 2\n`, the identity (8 bytes), and
//! the CRC32C of both. Records follow: the length of the payload (4 bytes), a checksum (4 bytes), the number of the commit
//! (8 bytes) and the payload, which `redo.rs` describes, filled up with zeros to whole sectors. Numbers are big-endian. The
//! checksum is CRC32C over identity, salt, number and payload. The first record that is not sealed as it should be, or does
//! not continue the count, ends them.
//!
//! The journal of a store of format 1 has no first sector and names no store; its checksum is the first 8 bytes of a SHA-1
//! over salt, number and payload. It is read when such a store is upgraded, and never written.

pub mod redo;
pub mod visibility;

use std::fmt;
use std::io;

use redb::Database;
use sha1::{Digest as _, Sha1};

use crate::store::error::StoreError;
use crate::store::format::checksum::{self, SEAL_BYTES};
use crate::store::format::tables;
use crate::store::journal::redo::Redo;
use crate::store::read::snapshot::Snapshot;
use crate::store::write::transaction::Transaction;

/// What it is called in errors.
pub const NAME: &str = "journal";

/// The length of the file. A checkpoint comes when it is full: the longer it is, the more changes share the writing of a
/// page, and the longer it takes to replay it after a crash. Tests have many checkpoints.
pub const FILE_BYTES: usize = if cfg!(test) { 4 * 1024 } else { 16 * 1024 * 1024 };

/// What a disk writes whole or not at all. No record shares one with another, so that writing one cannot harm those that
/// are acknowledged.
const SECTOR_BYTES: usize = 512;

/// With less room than this, a checkpoint is made before a batch needs it: more than most batches are long.
const RESERVE_BYTES: usize = if cfg!(test) { 1024 } else { 1024 * 1024 };

/// How often the content of a damaged journal is summed up at most, to find out whether there are records after the damage.
const SUMMED_MAX: usize = 4;

const LENGTH_BYTES: usize = 4;
/// In journals of format 1.
const CHECKSUM_BYTES_1: usize = 8;
const SEQUENCE_BYTES: usize = 8;
const HEADER_BYTES: usize = LENGTH_BYTES + SEAL_BYTES + SEQUENCE_BYTES;

/// Where the first record is.
pub const START: usize = SECTOR_BYTES;
const MAGIC: &[u8] = b"tinyd journal 2\n";

/// The longest payload that any journal has room for.
pub const PAYLOAD_MAX_BYTES: usize = FILE_BYTES - START - HEADER_BYTES;

/// What ties the records of a journal to a state of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tie {
    /// The identity of the store; none in a store of format 1.
    pub identity: Option<u64>,
    /// What its last durable commit has drawn.
    pub salt: u64,
}

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

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
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

    /// Whether the next batch may not fit.
    pub const fn is_nearly_full(&self) -> bool {
        FILE_BYTES - self.end < RESERVE_BYTES
    }

    /// Whether there are no records that the store's file does not have.
    pub const fn is_empty(&self) -> bool {
        self.end == START
    }

    pub const fn bytes(&self) -> u64 {
        self.end.saturating_sub(START) as u64
    }

    pub const fn has_room_for(&self, sequence: u64, payload: &[u8]) -> bool {
        sequence == self.next && HEADER_BYTES + payload.len() <= FILE_BYTES - self.end
    }

    /// Appends a commit, and returns once it is on disk. After an error, nobody knows whether it is, and the journal must
    /// not be written to before it has been replayed.
    pub fn append(&mut self, sequence: u64, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let tie = Tie {
            identity: Some(self.identity),
            salt: self.salt,
        };
        let mut record = Vec::with_capacity((HEADER_BYTES + payload.len()).next_multiple_of(SECTOR_BYTES));
        record.extend_from_slice(&length.to_be_bytes());
        record.extend_from_slice(&checksum(tie, sequence, payload));
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

/// The content of a new journal of a store.
pub fn new_file(identity: u64) -> Vec<u8> {
    let mut content = [MAGIC, &identity.to_be_bytes()].concat();
    let sum = checksum::checksum(&[&content]);
    content.extend_from_slice(&sum);
    content.resize(FILE_BYTES, 0);
    content
}

/// The identity of the store that a journal says it belongs to; none where its first sector is damaged, or it has none.
pub fn owner_of(content: &[u8]) -> Option<u64> {
    let rest = content.strip_prefix(MAGIC)?;
    let (identity, rest) = rest.split_first_chunk()?;
    let sum = rest.first_chunk::<SEAL_BYTES>()?;
    (checksum::checksum(&[MAGIC, identity]) == *sum).then(|| u64::from_be_bytes(*identity))
}

fn checksum(tie: Tie, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let (salt, sequence) = (tie.salt.to_be_bytes(), sequence.to_be_bytes());
    match tie.identity {
        Some(identity) => checksum::checksum(&[&identity.to_be_bytes(), &salt, &sequence, payload]).to_vec(),
        None => {
            let mut hash = Sha1::new();
            for part in [&salt, &sequence, payload] {
                hash.update(part);
            }
            hash.finalize().iter().take(CHECKSUM_BYTES_1).copied().collect()
        }
    }
}

impl Tie {
    /// Where the first record is.
    const fn start(self) -> usize {
        if self.identity.is_some() { START } else { 0 }
    }

    const fn checksum_bytes(self) -> usize {
        if self.identity.is_some() {
            SEAL_BYTES
        } else {
            CHECKSUM_BYTES_1
        }
    }

    /// The length of what precedes a payload.
    const fn header_bytes(self) -> usize {
        LENGTH_BYTES + self.checksum_bytes() + SEQUENCE_BYTES
    }
}

/// The number and the payload of the record that a journal has here, if it has one.
fn record_at(content: &[u8], tie: Tie) -> Option<(u64, &[u8])> {
    let (length, rest) = content.split_first_chunk::<LENGTH_BYTES>()?;
    let (expected, rest) = rest.split_at_checked(tie.checksum_bytes())?;
    let (sequence, rest) = rest.split_first_chunk::<SEQUENCE_BYTES>()?;
    let payload = rest.get(..u32::from_be_bytes(*length) as usize)?;
    let sequence = u64::from_be_bytes(*sequence);
    (checksum(tie, sequence, payload) == expected).then_some((sequence, payload))
}

pub fn records(content: &[u8], tie: Tie) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = content.get(tie.start()..).unwrap_or_default();
    let mut before: Option<u64> = None;
    std::iter::from_fn(move || {
        let (sequence, payload) = record_at(rest, tie)?;
        if before.is_some_and(|before| before.checked_add(1) != Some(sequence)) {
            return None;
        }
        before = Some(sequence);
        let length = (tie.header_bytes() + payload.len()).next_multiple_of(SECTOR_BYTES);
        rest = rest.get(length..).unwrap_or_default();
        Some((sequence, payload))
    })
}

/// Whether there is a record of a later commit further on: then what is between was damaged, because each is written after
/// the one before it is on disk.
fn has_later_record(content: &[u8], tie: Tie, sequence: u64) -> bool {
    let sectors = (FILE_BYTES / SECTOR_BYTES) as u64;
    let later = sequence.saturating_add(1)..=sequence.saturating_add(sectors);
    // Records do not overlap, so more to sum up is no journal that was ever written.
    let mut budget = SUMMED_MAX * content.len();
    (tie.start()..content.len()).step_by(SECTOR_BYTES).any(|offset| {
        let rest = content.get(offset..).unwrap_or_default();
        let number = rest
            .get(LENGTH_BYTES + tie.checksum_bytes()..)
            .and_then(<[u8]>::first_chunk);
        // The number first, so that hardly anything must be summed up.
        if !number.is_some_and(|number| later.contains(&u64::from_be_bytes(*number))) {
            return false;
        }
        let length = rest
            .first_chunk::<LENGTH_BYTES>()
            .map_or(0, |length| u32::from_be_bytes(*length) as usize);
        if length > rest.len() {
            return false;
        }
        let Some(left) = budget.checked_sub(length) else {
            return true;
        };
        budget = left;
        record_at(rest, tie).is_some()
    })
}

/// Whether something is written in the file of a journal.
pub fn is_used(content: &[u8]) -> bool {
    let records = content
        .strip_prefix(MAGIC)
        .map_or(content, |_| content.get(START..).unwrap_or_default());
    records.iter().take(HEADER_BYTES).any(|byte| *byte != 0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// All of it is in the store, or there is none.
    Whole,
    /// It is damaged, and what comes after the damage is not in the store.
    CutOff,
    /// The store has no use for one.
    Unused,
    /// The store was not closed cleanly, and this is the journal of another one. Nothing was changed.
    Foreign,
}

/// Brings a store that was not closed cleanly to where its journal ends, with a durable commit, after which no journal is in
/// use. `read` reads the file of the journal, if there is one.
pub fn replay(database: &Database, read: impl FnOnce() -> io::Result<Option<Vec<u8>>>) -> Result<Replayed, StoreError> {
    let Some((tie, bytes)) = tables::journal_of(database)? else {
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
    if is_foreign(&content, tie) {
        tracing::error!("the store was not closed cleanly, and the journal beside it belongs to another store");
        return Ok(Replayed::Foreign);
    }
    let stored = Snapshot::new(database)?.sequence();
    let mut inner = database.begin_write()?;
    inner.set_quick_repair(true);
    let mut transaction = Transaction::open(&inner, false, Redo::not_kept())?;
    let mut sequence = stored;
    // A store that could still be closed after a failure of its journal has the first ones already.
    let missing = records(&content, tie).skip_while(|(number, _)| *number <= stored);
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
    let is_cut = length.is_some_and(|length| length as u64 != bytes);
    if is_cut || has_later_record(&content, tie, sequence) {
        tracing::error!("the journal is damaged: what was acknowledged after commit {sequence} is lost");
        return Ok(Replayed::CutOff);
    }
    Ok(Replayed::Whole)
}

/// Whether a journal belongs to another store: its first sector does not name this one, and it has no record of it. Journals
/// of format 1 name none.
fn is_foreign(content: &[u8], tie: Tie) -> bool {
    let names_another = match tie.identity {
        Some(_) => owner_of(content) != tie.identity,
        None => content.starts_with(MAGIC),
    };
    names_another && !content.is_empty() && record_at(content.get(START..).unwrap_or_default(), tie).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::work::assert_is_linear;

    #[test]
    fn a_crafted_journal_takes_work_in_proportion() {
        // Every sector says that a record with all of the rest begins there.
        let make = |sectors: usize| {
            let mut content = vec![0; sectors * SECTOR_BYTES];
            let length = content.len();
            for (number, sector) in content.chunks_mut(SECTOR_BYTES).enumerate() {
                let rest = u32::try_from(length - number * SECTOR_BYTES - HEADER_BYTES).unwrap();
                sector[..LENGTH_BYTES].copy_from_slice(&rest.to_be_bytes());
                sector[LENGTH_BYTES + SEAL_BYTES..HEADER_BYTES].copy_from_slice(&1_u64.to_be_bytes());
            }
            content
        };
        let tie = Tie {
            identity: Some(1),
            salt: 1,
        };
        assert_is_linear(10, make, |content| {
            assert!(has_later_record(&content, tie, 0) || content.len() < 50_000)
        });
    }
}
