//! Bringing a store that was not closed cleanly to where its journal ends.

use std::io;

use redb::Database;

use crate::model::{AuditEntry, Day, LinkId, PartnerId, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::{audit, record as stored_record, staged, tables};
use crate::store::journal::record::{self, has_later_record, is_foreign, records};
use crate::store::journal::redo::{
    ASSEMBLED, CLICKS_COUNTED, CLICKS_QUEUED, CLICKS_SENT, COUNTED, DAYS_DROPPED, DROPPED, ENTRY, FOLLOWED, IMPORTED,
    LINK, LOG_DROPPED, LOGGED, LOGGED_NEXT, PARTS_DROPPED, REVOKED, Redo, STAGED, USAGE_MOVED, USED, USED_ON,
    USER_DELETED, VERSION, is_followed,
};
use crate::store::read::snapshot::Snapshot;
use crate::store::replication::{ClickPosition, Entry, Position};
use crate::store::write::transaction::Transaction;

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

/// Brings a store that was not closed cleanly to where its journal ends, with a durable commit, after which no
/// journal is in use. `read` reads the file of the journal, if there is one.
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
    let snapshot = Snapshot::new(database)?;
    let (stored, position) = (snapshot.sequence, snapshot.position());
    drop(snapshot);
    let mut inner = database.begin_write()?;
    inner.set_quick_repair(true);
    let mut transaction = Transaction::open(&inner, false, Redo::not_kept())?;
    transaction.digest = position.map(|position| position.digest);
    let mut sequence = stored;
    // A store that could still be closed after a failure of its journal has the first ones already.
    let missing = records(&content, tie).skip_while(|(number, _)| *number <= stored);
    for (number, payload) in missing {
        if sequence.checked_add(1) != Some(number) {
            break;
        }
        apply(&mut transaction, payload, Source::Journal)?;
        sequence = number;
    }
    transaction.finish(sequence)?;
    tables::set_journal(&inner, None)?;
    inner.commit()?;
    if sequence > stored {
        tracing::info!(commits = sequence - stored, "journal replayed");
    }
    let is_cut = length.is_some_and(|length| length as u64 != bytes);
    // Records that were not synced come to the disk in any order.
    if is_cut || has_later_record(&content, tie, sequence, |payload| !is_followed(payload)) {
        tracing::error!("the journal is damaged: what was acknowledged after commit {sequence} is lost");
        return Ok(Replayed::CutOff);
    }
    Ok(Replayed::Whole)
}

/// Where a payload comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Journal,
    /// An entry of the replication log.
    Entry,
    /// What the parts that entries had were put together to.
    Parts,
}

impl Source {
    /// Whether such a change is of there. Only a journal has what concerns one store alone, and nothing nests.
    const fn has(self, kind: u8) -> bool {
        match kind {
            USED | USED_ON | DAYS_DROPPED | ENTRY | FOLLOWED | CLICKS_QUEUED | CLICKS_SENT | CLICKS_COUNTED => {
                matches!(self, Self::Journal)
            }
            USER_DELETED | STAGED | IMPORTED | PARTS_DROPPED | ASSEMBLED => matches!(self, Self::Entry),
            LOGGED_NEXT => !matches!(self, Self::Journal),
            _ => true,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Journal => "a journal",
            Self::Entry => "an entry",
            Self::Parts => "parts of an entry",
        }
    }
}

/// Makes the changes of a payload again. An error in the table [`record::NAME`] is of the payload, any other is of the
/// store.
pub fn apply(transaction: &mut Transaction<'_>, payload: &[u8], source: Source) -> Result<(), StoreError> {
    let mut rest = Parts::of(payload)?;
    while !rest.0.is_empty() {
        let [kind] = rest.take()?;
        if !source.has(kind) {
            let reason = format!("a change of kind {kind} in {}", source.name());
            return Err(StoreError::damaged(record::NAME, reason));
        }
        match kind {
            LINK => {
                let id = rest.take_id()?;
                let link = stored_record::decode_of_format_1(id, rest.take_long()?);
                let link = link.map_err(|error| StoreError::damaged(record::NAME, error))?;
                match transaction.get(id) {
                    Ok(old) => transaction.put(old.as_ref(), link)?,
                    // The original transaction decided that it may be replaced.
                    Err(StoreError::Damaged { .. }) => transaction.replay_over_damaged(link)?,
                    Err(error) => return Err(error),
                }
            }
            REVOKED => transaction.revoke(rest.take()?, rest.take_time()?)?,
            COUNTED => {
                let (digest, calls) = (rest.take()?, u64::from_be_bytes(rest.take()?));
                transaction.set_counted(digest, calls, rest.take_time()?)?;
            }
            DROPPED => transaction.drop_expired_sessions(rest.take_time()?)?,
            USED => {
                let (id, usage) = (rest.take_id()?, rest.take()?);
                transaction.set_usage(id, &usage, None)?;
            }
            USED_ON => {
                let (id, usage) = (rest.take_id()?, rest.take()?);
                let day = Day(u32::from_be_bytes(rest.take()?));
                transaction.set_usage(id, &usage, Some(day))?;
            }
            DAYS_DROPPED => transaction.drop_days_until(rest.take_key()?)?,
            LOGGED => {
                let sequence = u64::from_be_bytes(rest.take()?);
                transaction.put_audit(sequence, rest.take_long()?)?;
            }
            LOGGED_NEXT => {
                let most = u64::from_be_bytes(rest.take()?);
                transaction.append_encoded_audit(rest.take_long()?, most)?;
            }
            LOG_DROPPED => transaction.drop_audit_until(u64::from_be_bytes(rest.take()?))?,
            USAGE_MOVED => transaction.move_usage(rest.take_id()?, rest.take_id()?)?,
            CLICKS_QUEUED => {
                let (counter, length) = (u64::from_be_bytes(rest.take()?), u32::from_be_bytes(rest.take()?));
                transaction.put_queued(counter, rest.take_slice(length as usize)?)?;
            }
            CLICKS_SENT => transaction.drop_queued_until(u64::from_be_bytes(rest.take()?))?,
            CLICKS_COUNTED => {
                let at = ClickPosition::from_bytes(&rest.take()?);
                let [first, last] = [rest.take()?, rest.take()?].map(|day| Day(u32::from_be_bytes(day)));
                transaction.add_message(at, &(first..=last), rest.take_long()?)?;
            }
            ENTRY | FOLLOWED => {
                let bytes = rest.take_long()?;
                let entry = Entry::decode(bytes).map_err(|error| StoreError::damaged(record::NAME, error))?;
                apply(transaction, entry.payload, Source::Entry)?;
                let position = put_entry(transaction, bytes, &entry, u64::MAX)?;
                transaction.digest = transaction.digest.map(|_| position.digest);
            }
            kind => apply_ahead(transaction, kind, &mut rest)?,
        }
    }
    Ok(())
}

/// Does what an entry says that was appended before its changes were made.
fn apply_ahead(transaction: &mut Transaction<'_>, kind: u8, rest: &mut Parts<'_>) -> Result<(), StoreError> {
    match kind {
        USER_DELETED => {
            let (partner, at) = (PartnerId(u32::from_be_bytes(rest.take()?)), rest.take_time()?);
            let user = std::str::from_utf8(rest.take_long()?);
            let user = user.map_err(|error| StoreError::damaged(record::NAME, error))?;
            transaction.delete_links_of_user(partner, user, at, rest.take_note()?)
        }
        STAGED => transaction.stage(&rest.take()?, u32::from_be_bytes(rest.take()?), rest.take_long()?),
        IMPORTED => {
            let (import, parts) = (rest.take()?, u32::from_be_bytes(rest.take()?));
            transaction.import_staged(&import, parts, rest.take_note()?)
        }
        ASSEMBLED => {
            let (id, parts) = (rest.take()?, u32::from_be_bytes(rest.take()?));
            let payload = transaction.assemble(&id, parts)?;
            apply(transaction, &payload, Source::Parts)
        }
        PARTS_DROPPED => transaction.drop_staged(&rest.take()?),
        kind => Err(StoreError::damaged(record::NAME, format!("a change of kind {kind}"))),
    }
}

/// Keeps an entry whose changes the transaction has made, and drops parts of imports that are too old by then.
/// Returns the position after it.
pub fn put_entry(
    transaction: &Transaction<'_>,
    bytes: &[u8],
    entry: &Entry<'_>,
    most: u64,
) -> Result<Position, StoreError> {
    let position = entry.leads_to(transaction.digest);
    tables::put_entry(transaction.inner, bytes, &position, most)?;
    staged::drop_old(transaction.inner, entry.written_at)?;
    Ok(position)
}

/// What is left of a payload.
pub(super) struct Parts<'a>(pub &'a [u8]);

impl<'a> Parts<'a> {
    /// The changes of a payload, whose version is known.
    pub fn of(payload: &'a [u8]) -> Result<Self, StoreError> {
        let mut rest = Self(payload);
        let [version] = rest.take()?;
        if version != VERSION {
            let reason = format!("version {version} of changes, known is {VERSION}");
            return Err(StoreError::damaged(record::NAME, reason));
        }
        Ok(rest)
    }

    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (part, rest) = self.0.split_first_chunk().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(*part)
    }

    fn take_slice(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (part, rest) = self.0.split_at_checked(length).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(part)
    }

    fn take_key(&mut self) -> Result<&'a [u8], StoreError> {
        let [length] = self.take()?;
        self.take_slice(length.into())
    }

    pub fn take_long(&mut self) -> Result<&'a [u8], StoreError> {
        let length = u32::from_be_bytes(self.take()?);
        self.take_slice(length as usize)
    }

    /// An entry of the audit log, and how many are kept.
    pub fn take_note(&mut self) -> Result<Option<(AuditEntry, u64)>, StoreError> {
        let (most, text) = (u64::from_be_bytes(self.take()?), self.take_long()?);
        if text.is_empty() {
            return Ok(None);
        }
        // Of a newer version.
        let entry = audit::parse(text).map_err(|error| StoreError::damaged(record::NAME, error))?;
        Ok(Some((entry, most)))
    }

    pub fn take_id(&mut self) -> Result<LinkId, StoreError> {
        LinkId::from_bytes(self.take_key()?).map_err(|error| StoreError::damaged(record::NAME, error))
    }

    pub fn take_time(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_unix(i64::from_be_bytes(self.take()?)))
    }
}

fn cut_off() -> StoreError {
    StoreError::damaged(record::NAME, "changes that are cut off")
}
