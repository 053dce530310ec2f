//! What a transaction has changed, as bytes from which it can be done again: the payload of a record in the journal.
//!
//! Only decisions are kept; indexes and counters follow from them. docs/store-format.md describes the bytes.

use std::ops::RangeInclusive;

use crate::model::{Day, Digest, LinkId, PartnerId, Timestamp};
use crate::store::format::clicks;
use crate::store::journal::record::PAYLOAD_MAX_BYTES;
use crate::store::replication::{ClickPosition, ImportId, PAYLOAD_MAX_BYTES as PAYLOAD_MAX_OF_ENTRY};

/// The version that is written.
pub const VERSION: u8 = 1;

/// The payload of an entry that changes nothing.
pub const NO_CHANGES: [u8; 1] = [VERSION];

/// Its record is as the store has it, or as one of format 1 had it.
pub const LINK: u8 = 1;
pub const REVOKED: u8 = 2;
pub const COUNTED: u8 = 3;
pub const DROPPED: u8 = 4;
/// The sum and not what was added, so that making the change again changes nothing. In journals of earlier versions,
/// which counted no days.
pub const USED: u8 = 5;
/// The same, with the day that what was added belongs to.
pub const USED_ON: u8 = 6;
pub const DAYS_DROPPED: u8 = 7;
pub const LOGGED: u8 = 8;
pub const LOG_DROPPED: u8 = 9;
/// An entry of the replication log, with the changes that it has.
pub const ENTRY: u8 = 10;
/// What was counted of a link is that of another one.
pub const USAGE_MOVED: u8 = 11;
// In entries that are appended before their changes are made: what to do.
pub const USER_DELETED: u8 = 12;
pub const STAGED: u8 = 13;
pub const IMPORTED: u8 = 14;
pub const PARTS_DROPPED: u8 = 15;
/// The parts are a payload that was too long for an entry, and whose changes are made now.
pub const ASSEMBLED: u8 = 16;

/// A message that the stream of clicks is to have.
pub const CLICKS_QUEUED: u8 = 17;
/// The stream has the messages up to this one.
pub const CLICKS_SENT: u8 = 18;
/// A message of the stream of clicks, with the position that it leads to and the days that it counts for.
pub const CLICKS_COUNTED: u8 = 19;

/// An entry of the audit log with the next number, and how many are kept: in entries of the replication log, where it
/// is the same whatever comes before it.
pub const LOGGED_NEXT: u8 = 20;

/// As [`ENTRY`], in a store that only follows the log: all entries of such a record are, and it was not synced.
pub const FOLLOWED: u8 = 21;

/// The changes of one transaction in a cluster, in however many entries.
const ENTRIES_MAX_BYTES: usize = if cfg!(test) { 64 * 1024 } else { 64 * 1024 * 1024 };

/// An entry takes no more changes beyond this: a job changes less than the rest has room for.
const FULL_ENTRY_BYTES: usize = PAYLOAD_MAX_OF_ENTRY / 4 * 3;

/// The changes of one transaction, unless there is no journal or they are too many for it.
#[derive(Debug)]
pub struct Redo {
    bytes: Option<Vec<u8>>,
    max_bytes: usize,
}

impl Redo {
    pub fn kept() -> Self {
        Self {
            bytes: Some(vec![VERSION]),
            max_bytes: PAYLOAD_MAX_BYTES,
        }
    }

    /// For the replication log.
    pub fn kept_for_entries() -> Self {
        Self {
            max_bytes: ENTRIES_MAX_BYTES,
            ..Self::kept()
        }
    }

    pub const fn not_kept() -> Self {
        Self {
            bytes: None,
            max_bytes: 0,
        }
    }

    pub fn link(&mut self, id: LinkId, record: &[u8]) {
        let id = id.as_bytes();
        match (u8::try_from(id.len()), u32::try_from(record.len())) {
            (Ok(id_length), Ok(length)) => self.append(&[&[LINK, id_length], id, &length.to_be_bytes(), record]),
            _ => self.give_up(),
        }
    }

    pub fn revoked(&mut self, digest: &Digest, until: Timestamp) {
        self.append(&[&[REVOKED], digest, &until.as_unix().to_be_bytes()]);
    }

    pub fn counted(&mut self, digest: &Digest, calls: u64, expiry: Timestamp) {
        let expiry = expiry.as_unix().to_be_bytes();
        self.append(&[&[COUNTED], digest, &calls.to_be_bytes(), &expiry]);
    }

    pub fn dropped(&mut self, now: Timestamp) {
        self.append(&[&[DROPPED], &now.as_unix().to_be_bytes()]);
    }

    pub fn used(&mut self, id: LinkId, usage: &clicks::Stored, day: Day) {
        self.keyed(USED_ON, id.as_bytes(), &[usage, &day.0.to_be_bytes()]);
    }

    #[cfg(test)]
    pub fn used_without_day(&mut self, id: LinkId, usage: &clicks::Stored) {
        self.keyed(USED, id.as_bytes(), &[usage]);
    }

    /// Everything up to this key of the table of days was dropped.
    pub fn days_dropped(&mut self, last: &[u8]) {
        self.keyed(DAYS_DROPPED, last, &[]);
    }

    pub fn usage_moved(&mut self, from: LinkId, to: LinkId) {
        self.keyed(USAGE_MOVED, from.as_bytes(), &[]);
        match u8::try_from(to.as_bytes().len()) {
            Ok(length) => self.append(&[&[length], to.as_bytes()]),
            Err(_) => self.give_up(),
        }
    }

    pub fn clicks_queued(&mut self, counter: u64, message: &[u8]) {
        self.message(&[&[CLICKS_QUEUED], &counter.to_be_bytes()], message);
    }

    pub fn clicks_sent(&mut self, counter: u64) {
        self.append(&[&[CLICKS_SENT], &counter.to_be_bytes()]);
    }

    /// `days` are those of which it was counted by day.
    pub fn clicks_counted(&mut self, at: ClickPosition, days: &RangeInclusive<Day>, message: &[u8]) {
        let (first, last) = (days.start().0.to_be_bytes(), days.end().0.to_be_bytes());
        self.message(&[&[CLICKS_COUNTED], &at.to_bytes(), &first, &last], message);
    }

    fn message(&mut self, parts: &[&[u8]], message: &[u8]) {
        match u32::try_from(message.len()) {
            Ok(length) => {
                self.append(parts);
                self.append(&[&length.to_be_bytes(), message]);
            }
            Err(_) => self.give_up(),
        }
    }

    pub fn logged(&mut self, sequence: u64, entry: &[u8]) {
        self.append(&[&[LOGGED], &sequence.to_be_bytes()]);
        self.long(entry);
    }

    /// So many entries are kept.
    pub fn logged_next(&mut self, most: u64, entry: &[u8]) {
        self.append(&[&[LOGGED_NEXT]]);
        self.note((most, entry));
    }

    /// Entries of the audit log up to this one were dropped.
    pub fn log_dropped(&mut self, last: u64) {
        self.append(&[&[LOG_DROPPED], &last.to_be_bytes()]);
    }

    /// All links of a user are to be deleted, changed at this moment, and an entry of the audit log is to be written,
    /// of which so many are kept.
    pub fn user_deleted(&mut self, partner: PartnerId, user: &str, at: Timestamp, note: (u64, &[u8])) {
        self.append(&[&[USER_DELETED], &partner.0.to_be_bytes(), &at.as_unix().to_be_bytes()]);
        self.long(user.as_bytes());
        self.note(note);
    }

    pub fn staged(&mut self, import: &ImportId, number: u32, part: &[u8]) {
        self.append(&[&[STAGED], import, &number.to_be_bytes()]);
        self.long(part);
    }

    /// The parts of an import are to be put in force, if nothing has changed under them, and an audit entry written.
    pub fn imported(&mut self, import: &ImportId, parts: u32, note: (u64, &[u8])) {
        self.append(&[&[IMPORTED], import, &parts.to_be_bytes()]);
        self.note(note);
    }

    pub fn parts_dropped(&mut self, import: &ImportId) {
        self.append(&[&[PARTS_DROPPED], import]);
    }

    pub fn assembled(&mut self, import: &ImportId, parts: u32) {
        self.append(&[&[ASSEMBLED], import, &parts.to_be_bytes()]);
    }

    fn note(&mut self, (most, entry): (u64, &[u8])) {
        self.append(&[&most.to_be_bytes()]);
        self.long(entry);
    }

    fn long(&mut self, bytes: &[u8]) {
        match u32::try_from(bytes.len()) {
            Ok(length) => self.append(&[&length.to_be_bytes(), bytes]),
            Err(_) => self.give_up(),
        }
    }

    fn keyed(&mut self, kind: u8, key: &[u8], parts: &[&[u8]]) {
        match u8::try_from(key.len()) {
            Ok(length) => {
                self.append(&[&[kind, length], key]);
                self.append(parts);
            }
            Err(_) => self.give_up(),
        }
    }

    /// A change has no form here: the transaction must be committed to the store's file itself.
    pub fn give_up(&mut self) {
        self.bytes = None;
    }

    pub fn is_full_for_an_entry(&self) -> bool {
        self.bytes.as_ref().is_none_or(|bytes| bytes.len() > FULL_ENTRY_BYTES)
    }

    pub fn into_bytes(self) -> Option<Vec<u8>> {
        self.bytes
    }

    fn append(&mut self, parts: &[&[u8]]) {
        let Some(bytes) = &mut self.bytes else { return };
        for part in parts {
            bytes.extend_from_slice(part);
        }
        if bytes.len() > self.max_bytes {
            self.give_up();
        }
    }
}

/// The payload of a record that has applied entries of the replication log, each as an [`ENTRY`] or [`FOLLOWED`].
pub fn journal_of_entries<'e>(kind: u8, entries: impl IntoIterator<Item = &'e [u8]>) -> Vec<u8> {
    let mut payload = vec![VERSION];
    for entry in entries {
        payload.push(kind);
        // An entry has less than a megabyte.
        payload.extend_from_slice(&u32::try_from(entry.len()).unwrap_or(u32::MAX).to_be_bytes());
        payload.extend_from_slice(entry);
    }
    payload
}

/// Whether a store that only follows a replication log has written a record with this payload. It is not synced:
/// after a crash, what has not come to the disk is read from the log again.
pub fn is_followed(payload: &[u8]) -> bool {
    payload.get(1) == Some(&FOLLOWED)
}
