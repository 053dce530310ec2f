//! The records of a journal, as bytes.

use std::num::TryFromIntError;

use sha1::{Digest as _, Sha1};

use crate::store::format::checksum::{self, SEAL_BYTES};

/// What it is called in errors.
pub const NAME: &str = "journal";

/// The length of the file. A checkpoint comes when it is full: the longer it is, the more changes share the writing
/// of a page, and the longer it takes to replay it after a crash. Tests have many checkpoints.
pub const FILE_BYTES: usize = if cfg!(test) { 4 * 1024 } else { 32 * 1024 * 1024 };

/// What a disk writes whole or not at all. No record shares one with another, so that writing one cannot harm those
/// that are acknowledged.
const SECTOR_BYTES: usize = 512;

/// How often the content of a damaged journal is summed up at most, to find out whether there are records after the
/// damage.
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

/// A record, filled up to whole sectors.
pub fn encode(tie: Tie, sequence: u64, payload: &[u8]) -> Result<Vec<u8>, TryFromIntError> {
    let length = u32::try_from(payload.len())?;
    let mut record = Vec::with_capacity((tie.header_bytes() + payload.len()).next_multiple_of(SECTOR_BYTES));
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(&checksum(tie, sequence, payload));
    record.extend_from_slice(&sequence.to_be_bytes());
    record.extend_from_slice(payload);
    record.resize(record.len().next_multiple_of(SECTOR_BYTES), 0);
    Ok(record)
}

/// The length of the payload, the checksum and the number of the record that a journal may have here, and what follows
/// them.
fn header(content: &[u8], tie: Tie) -> Option<(usize, &[u8], u64, &[u8])> {
    let (length, rest) = content.split_first_chunk()?;
    let (sum, rest) = rest.split_at_checked(tie.checksum_bytes())?;
    let (sequence, rest) = rest.split_first_chunk()?;
    Some((
        u32::from_be_bytes(*length) as usize,
        sum,
        u64::from_be_bytes(*sequence),
        rest,
    ))
}

/// The number and the payload of the record that a journal has here, if it has one.
fn record_at(content: &[u8], tie: Tie) -> Option<(u64, &[u8])> {
    let (length, sum, sequence, rest) = header(content, tie)?;
    let payload = rest.get(..length)?;
    (checksum(tie, sequence, payload) == sum).then_some((sequence, payload))
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

/// Whether there is a record of a later commit further on that was synced: then what is between was damaged, because
/// it was on disk before.
pub fn has_later_record(content: &[u8], tie: Tie, sequence: u64, was_synced: impl Fn(&[u8]) -> bool) -> bool {
    let sectors = (FILE_BYTES / SECTOR_BYTES) as u64;
    let later = sequence.saturating_add(1)..=sequence.saturating_add(sectors);
    // Records do not overlap, so more to sum up is no journal that was ever written.
    let mut budget = SUMMED_MAX * content.len();
    (tie.start()..content.len()).step_by(SECTOR_BYTES).any(|offset| {
        let rest = content.get(offset..).unwrap_or_default();
        // The number first, so that hardly anything must be summed up.
        let Some((length, ..)) = header(rest, tie).filter(|(_, _, sequence, _)| later.contains(sequence)) else {
            return false;
        };
        if length > rest.len() {
            return false;
        }
        let Some(left) = budget.checked_sub(length) else {
            return true;
        };
        budget = left;
        record_at(rest, tie).is_some_and(|(_, payload)| was_synced(payload))
    })
}

/// Whether something is written in the file of a journal.
pub fn is_used(content: &[u8]) -> bool {
    let records = content
        .strip_prefix(MAGIC)
        .map_or(content, |_| content.get(START..).unwrap_or_default());
    records.iter().take(HEADER_BYTES).any(|byte| *byte != 0)
}

/// Whether a journal belongs to another store: its first sector does not name this one, and it has no record of it.
/// Journals of format 1 name none.
pub fn is_foreign(content: &[u8], tie: Tie) -> bool {
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
            assert!(has_later_record(&content, tie, 0, |_| true) || content.len() < 50_000)
        });
    }
}
