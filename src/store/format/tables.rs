//! The tables of the store; docs/store-format.md describes what they hold. Format 2.

use redb::{
    Database, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable as _, Table, TableDefinition,
    TableError, Value, WriteTransaction,
};

use crate::model::{PartnerId, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::checksum::checksum;
use crate::store::format::keys::{Bytes, PerIndex};
use crate::store::journal::record::Tie;
use crate::store::replication::Position;

/// The format that this program writes, in `meta` under `format`.
pub const FORMAT: u64 = 2;

/// id → record, as `record.rs` says.
pub const LINKS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("links");

/// Kind and scope → how many links are disabled, enabled and deleted. Scopes without links have no entry.
pub const COUNTERS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("counters");

/// SHA-1 of a revoked session or session id → unix second until which it is kept.
pub const REVOCATIONS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("revocations");

/// SHA-1 of a session with an `actionslimit` → calls counted so far, and the session's expiry in unix seconds.
pub const ACTIONS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("actions");

/// id → how the link has been used, in all. The table is made when first something is counted.
pub const CLICKS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("clicks");

/// Day, and link or partner → how it was used on that day, as `days.rs` says. The table is made when first something is
/// counted.
pub const DAYS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("clicks_by_day");

/// Number → an entry of the audit log, as `audit.rs` says. The table is made when first something is logged.
pub const AUDIT: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("audit");

/// `position` → up to where the replication log has been applied. The table is there in a cluster only.
pub const REPLICATION: TableDefinition<'_, &'static str, Bytes> = TableDefinition::new("replication");

/// The number of an entry of the replication log → as [`split_entry`]. The last ones only; the table is there in a
/// cluster only.
pub const ENTRIES: TableDefinition<'_, u64, Bytes> = TableDefinition::new("replication_entries");

/// Import and number → a part of an import that is not in force yet, as `staged.rs` says. The table is there in a
/// cluster only.
pub const STAGED: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new(STAGED_NAME);
pub const STAGED_NAME: &str = "staged";

pub const POSITION: &str = "position";
/// An entry without changes has more.
const ENTRY_BYTES_MIN: usize = 64;
/// Entries that are dropped for a new one, at least.
const ENTRIES_DROPPED_MAX: usize = 4;

/// `format` → the store's format. `sequence` → the number of commits so far.
pub const META: TableDefinition<'_, &'static str, u64> = TableDefinition::new("meta");

/// What ties the journal to the store. Without a salt no journal is in use. A table of its own, because it concerns the
/// file and is no part of what a copy holds.
pub const JOURNAL: TableDefinition<'_, &'static str, u64> = TableDefinition::new("journal");

const JOURNAL_IDENTITY: &str = "identity";
const JOURNAL_SALT: &str = "salt";
const JOURNAL_BYTES: &str = "bytes";
const JOURNAL_CHECK: &str = "check";

pub const META_FORMAT: &str = "format";
pub const META_SEQUENCE: &str = "sequence";
/// How the keys begin of users whose links are being deleted.
pub const META_DELETION: &str = "deleting ";

/// The value of such a key, sealed, so that no damaged key deletes the links of another.
pub fn seal_deletion(key: &str, at: Timestamp) -> u64 {
    let at = u32::try_from(at.as_unix()).unwrap_or(u32::MAX);
    let sum = u32::from_be_bytes(checksum(&[key.as_bytes(), &at.to_be_bytes()]));
    u64::from(sum) << 32 | u64::from(at)
}

/// The unix second in such a value; none if key or value are damaged.
pub fn unseal_deletion(key: &str, value: u64) -> Option<Timestamp> {
    let at = Timestamp::from_unix(i64::from(u32::try_from(value & u64::from(u32::MAX)).ok()?));
    (seal_deletion(key, at) == value).then_some(at)
}

pub fn deletion_key(partner: PartnerId, user: &str) -> String {
    format!("{META_DELETION}{partner} {user}")
}

/// The partner and the user of such a key.
pub fn deletion_of(key: &str) -> Option<(PartnerId, &str)> {
    let (partner, user) = key.strip_prefix(META_DELETION)?.split_once(' ')?;
    Some((PartnerId(partner.parse().ok()?), user))
}

/// The tables that every store has, open for writing.
pub struct Tables<'t> {
    pub links: Table<'t, Bytes, Bytes>,
    pub indexes: PerIndex<Table<'t, Bytes, ()>>,
    pub counters: Table<'t, Bytes, Bytes>,
    pub revocations: Table<'t, Bytes, Bytes>,
    pub actions: Table<'t, Bytes, Bytes>,
    pub meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            links: transaction.open_table(LINKS)?,
            indexes: PerIndex::make(|index| transaction.open_table(index.table()))?,
            counters: transaction.open_table(COUNTERS)?,
            revocations: transaction.open_table(REVOCATIONS)?,
            actions: transaction.open_table(ACTIONS)?,
            meta: transaction.open_table(META)?,
        })
    }
}

/// Makes every table, so that readers find them, and writes down the format and the identity of the store.
pub fn create(database: &Database, identity: u64) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut tables = Tables::open(&transaction)?;
    tables.meta.insert(META_FORMAT, FORMAT)?;
    tables.meta.insert(META_SEQUENCE, 0)?;
    drop(tables);
    transaction.open_table(JOURNAL)?.insert(JOURNAL_IDENTITY, identity)?;
    transaction.commit()?;
    Ok(())
}

/// The format of the file, if it is a store of tinyd at all.
pub fn format_of(database: &impl ReadableDatabase) -> Result<Option<u64>, StoreError> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(META_FORMAT)?.map(|format| format.value())),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// What is noted of the journal: what its records are sealed with and the length of its file, if one is in use.
pub fn journal_of(database: &impl ReadableDatabase) -> Result<Option<(Tie, u64)>, StoreError> {
    let Some(table) = open_if_there(&database.begin_read()?, JOURNAL)? else {
        return Ok(None);
    };
    let get = |name| Ok::<_, StoreError>(table.get(name)?.map(|value| value.value()));
    let (identity, salt, bytes) = (get(JOURNAL_IDENTITY)?, get(JOURNAL_SALT)?, get(JOURNAL_BYTES)?);
    let noted = get(JOURNAL_CHECK)?;
    let Some((salt, bytes)) = salt.zip(bytes) else {
        if salt.is_some() || bytes.is_some() || noted.is_some() {
            let reason = "a part of what is noted of the journal is missing";
            return Err(StoreError::damaged("journal", reason));
        }
        return Ok(None);
    };
    if identity.is_none() && noted.is_some() {
        return Err(StoreError::damaged("journal", "the identity of the store is missing"));
    }
    if identity.is_some_and(|identity| noted != Some(check(identity, salt, bytes))) {
        let reason = "wrong checksum of the salt, without which the journal cannot be read";
        return Err(StoreError::damaged("journal", reason));
    }
    Ok(Some((Tie { identity, salt }, bytes)))
}

/// The identity of the store; none in one that has never been opened for writing since it was copied or upgraded.
pub fn identity_of(database: &impl ReadableDatabase) -> Result<Option<u64>, StoreError> {
    match open_if_there(&database.begin_read()?, JOURNAL)? {
        Some(table) => Ok(table.get(JOURNAL_IDENTITY)?.map(|identity| identity.value())),
        None => Ok(None),
    }
}

pub fn open_if_there<K: Key, V: Value>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match transaction.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check(identity: u64, salt: u64, bytes: u64) -> u64 {
    let parts = [identity, salt, bytes].map(u64::to_be_bytes);
    u32::from_be_bytes(checksum(&[parts.as_flattened()])).into()
}

/// Writes down that a journal is in use from this commit on, or none: its salt and the length of its file.
pub fn set_journal(transaction: &WriteTransaction, journal: Option<(u64, u64)>) -> Result<(), StoreError> {
    let mut table = transaction.open_table(JOURNAL)?;
    match journal {
        Some((salt, bytes)) => {
            let identity = table.get(JOURNAL_IDENTITY)?.map(|identity| identity.value());
            table.insert(JOURNAL_SALT, salt)?;
            table.insert(JOURNAL_BYTES, bytes)?;
            if let Some(identity) = identity {
                table.insert(JOURNAL_CHECK, check(identity, salt, bytes))?;
            }
        }
        None => {
            for name in [JOURNAL_SALT, JOURNAL_BYTES, JOURNAL_CHECK] {
                table.remove(name)?;
            }
        }
    }
    Ok(())
}

/// Draws an identity for a store that has none.
pub fn ensure_identity(database: &Database) -> Result<(), StoreError> {
    if identity_of(database)?.is_some() {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction
        .open_table(JOURNAL)?
        .insert(JOURNAL_IDENTITY, rand::random::<u64>())?;
    transaction.commit()?;
    Ok(())
}

/// Up to where a store has applied the replication log; none outside of a cluster.
pub fn position_of(transaction: &ReadTransaction) -> Result<Option<Position>, StoreError> {
    let Some(table) = open_if_there(transaction, REPLICATION)? else {
        return Ok(None);
    };
    let sealed = table.get(POSITION)?;
    sealed
        .map(|sealed| Position::unseal(POSITION.as_bytes(), sealed.value()))
        .transpose()
}

/// The same inside a transaction.
pub fn position_in(transaction: &WriteTransaction) -> Result<Option<Position>, StoreError> {
    let table = transaction.open_table(REPLICATION)?;
    let sealed = table.get(POSITION)?;
    sealed
        .map(|sealed| Position::unseal(POSITION.as_bytes(), sealed.value()))
        .transpose()
}

pub fn set_position(transaction: &WriteTransaction, position: &Position) -> Result<(), StoreError> {
    let sealed = position.seal(POSITION.as_bytes());
    transaction
        .open_table(REPLICATION)?
        .insert(POSITION, sealed.as_slice())?;
    Ok(())
}

/// Keeps an entry that has been applied, and the position after it. Of what is kept longer than `most` bytes, the
/// oldest is dropped.
pub fn put_entry(
    transaction: &WriteTransaction,
    entry: &[u8],
    position: &Position,
    most: u64,
) -> Result<(), StoreError> {
    set_position(transaction, position)?;
    let mut entries = transaction.open_table(ENTRIES)?;
    let before = entries.last()?.map_or(0, |(_, value)| split_entry(value.value()).0);
    let end = before.wrapping_add(entry.len() as u64);
    entries.insert(position.sequence, [&end.to_be_bytes(), entry].concat().as_slice())?;
    // A long one takes the place of many short ones.
    for _ in 0..ENTRIES_DROPPED_MAX.max(entry.len() / ENTRY_BYTES_MIN) {
        let first = entries.first()?.map_or(end, |(_, value)| split_entry(value.value()).0);
        if end.wrapping_sub(first) < most {
            break;
        }
        entries.pop_first()?;
    }
    Ok(())
}

/// An entry that is kept.
pub fn entry(transaction: &WriteTransaction, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let entries = transaction.open_table(ENTRIES)?;
    let value = entries.get(sequence)?;
    Ok(value.map(|value| split_entry(value.value()).1.to_vec()))
}

/// The bytes of all entries up to this one, since the table was made, and the entry.
pub fn split_entry(value: &[u8]) -> (u64, &[u8]) {
    match value.split_first_chunk() {
        Some((end, entry)) => (u64::from_be_bytes(*end), entry),
        None => (0, value),
    }
}

/// Forgets the replication log and the position in it.
pub fn forget_replication(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.delete_table(REPLICATION)?;
    transaction.delete_table(ENTRIES)?;
    transaction.delete_table(STAGED)?;
    Ok(())
}
