//! The tables of the store and what they hold. Format 1.

use redb::{Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use crate::model::PartnerId;
use crate::store::error::StoreError;
use crate::store::keys::{Bytes, Index};

/// The format that this program writes, in `meta` under `format`.
pub(super) const FORMAT: u64 = 1;

/// id → record: one byte of record version, then the fields as `record.rs` says.
pub(super) const LINKS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("links");

/// scope → how many links of it are disabled, enabled and deleted: three u64, big-endian. Scopes without links have no
/// entry. Key: one byte of kind (`P` partner, `U` user, `S` system name), then the scope as in the indexes.
pub(super) const COUNTERS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("counters");

/// SHA-1 of a revoked session or session id → unix second until which it is kept.
pub(super) const REVOCATIONS: TableDefinition<'_, Bytes, i64> = TableDefinition::new("revocations");

/// SHA-1 of a session with an `actionslimit` → calls counted so far, and the session's expiry in unix seconds.
pub(super) const ACTIONS: TableDefinition<'_, Bytes, (u64, i64)> = TableDefinition::new("actions");

/// id → how the link has been used: clicks and previews, two u64, and the unix second of the last click, an i64 that is zero
/// where there was no click; all big-endian. Links without either have no entry, and a deleted link keeps its own. The table is
/// made when first something is counted. It came after the others, and the format is 1 all the same: a program that does not
/// know it opens a store that was closed cleanly and does all that it ever did. (It refuses a journal with clicks in it, which a
/// crash may leave.)
pub(super) const CLICKS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("clicks");

/// `format` → the store's format. `sequence` → the number of commits so far.
pub(super) const META: TableDefinition<'_, &'static str, u64> = TableDefinition::new("meta");

/// `salt` → what the records of the journal are sealed with, `bytes` → the length of its file. Without them no journal is in
/// use. A table of its own, because it concerns the file and is no part of what a copy holds.
pub(super) const JOURNAL: TableDefinition<'_, &'static str, u64> = TableDefinition::new("journal");

const JOURNAL_SALT: &str = "salt";
const JOURNAL_BYTES: &str = "bytes";

pub(super) const META_FORMAT: &str = "format";
pub(super) const META_SEQUENCE: &str = "sequence";
/// How the keys begin of users whose links are being deleted; then come the partner, a space and the user. Their value is the
/// unix second since when.
pub(super) const META_DELETION: &str = "deleting ";

pub(super) fn deletion_key(partner: PartnerId, user: &str) -> String {
    format!("{META_DELETION}{partner} {user}")
}

/// The partner and the user of such a key.
pub(super) fn deletion_of(key: &str) -> Option<(PartnerId, &str)> {
    let (partner, user) = key.strip_prefix(META_DELETION)?.split_once(' ')?;
    Some((PartnerId(partner.parse().ok()?), user))
}

/// Makes every table, so that readers find them, and writes the format down.
pub(super) fn create(database: &Database) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(LINKS)?;
    for index in Index::ALL {
        transaction.open_table(index.table())?;
    }
    transaction.open_table(COUNTERS)?;
    transaction.open_table(REVOCATIONS)?;
    transaction.open_table(ACTIONS)?;
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_FORMAT, FORMAT)?;
    meta.insert(META_SEQUENCE, 0)?;
    drop(meta);
    transaction.commit()?;
    Ok(())
}

/// The format of the file, if it is a store of tinyd at all.
pub(super) fn format_of(database: &impl ReadableDatabase) -> Result<Option<u64>, StoreError> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(META_FORMAT)?.map(|format| format.value())),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// The salt of the journal and the length of its file, if one is in use.
pub(super) fn journal_of(database: &impl ReadableDatabase) -> Result<Option<(u64, u64)>, StoreError> {
    match database.begin_read()?.open_table(JOURNAL) {
        Ok(journal) => {
            let (salt, bytes) = (journal.get(JOURNAL_SALT)?, journal.get(JOURNAL_BYTES)?);
            Ok(salt.zip(bytes).map(|(salt, bytes)| (salt.value(), bytes.value())))
        }
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes down that a journal is in use from this commit on, or none.
pub(super) fn set_journal(transaction: &WriteTransaction, journal: Option<(u64, u64)>) -> Result<(), StoreError> {
    let mut table = transaction.open_table(JOURNAL)?;
    match journal {
        Some((salt, bytes)) => {
            table.insert(JOURNAL_SALT, salt)?;
            table.insert(JOURNAL_BYTES, bytes)?;
        }
        None => {
            table.remove(JOURNAL_SALT)?;
            table.remove(JOURNAL_BYTES)?;
        }
    }
    Ok(())
}
