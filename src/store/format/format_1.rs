//! Format 1, which had no checksums of its own, and the way from it to format 2.

use redb::{ReadableTable as _, Table, TableDefinition, Value, WriteTransaction};

use crate::model::Timestamp;
use crate::store::error::StoreError;
use crate::store::format::checksum::seal;
use crate::store::format::clicks;
use crate::store::format::keys::Bytes;
use crate::store::format::record;
use crate::store::format::tables::{ACTIONS, CLICKS, COUNTERS, LINKS, REVOCATIONS};
use crate::store::format::values;
use crate::store::read::snapshot::id_of;

pub const REVOCATIONS_1: TableDefinition<'_, Bytes, i64> = TableDefinition::new("revocations");
pub const ACTIONS_1: TableDefinition<'_, Bytes, (u64, i64)> = TableDefinition::new("actions");

/// Entries that are held in memory at a time.
const STRIDE: usize = if cfg!(test) { 2 } else { 4096 };

/// Gives every entry its checksum. What does not decode stays as it is, which no checksum fits: its link answers as
/// damaged, and a verification names it.
pub fn seal_all(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut damaged = 0_u64;
    rewrite(&mut transaction.open_table(LINKS)?, |key, value| {
        let link = id_of(key).and_then(|id| record::decode_of_format_1(id, value));
        let sealed = link.and_then(|link| record::encode(&link));
        if let Err(error) = &sealed {
            tracing::error!(%error, "keeping a damaged record as it is");
            damaged += 1;
        }
        sealed.ok()
    })?;
    let sealed = |length: usize| move |key: &[u8], value: &[u8]| (value.len() == length).then(|| seal(key, value));
    rewrite(
        &mut transaction.open_table(COUNTERS)?,
        sealed(size_of::<values::Counts>()),
    )?;
    rewrite(
        &mut transaction.open_table(CLICKS)?,
        sealed(size_of::<clicks::Stored>()),
    )?;
    seal_sessions(transaction, REVOCATIONS_1, REVOCATIONS, |digest, until| {
        values::encode_until(digest, Timestamp::from_unix(until))
    })?;
    seal_sessions(transaction, ACTIONS_1, ACTIONS, |digest, (calls, expiry)| {
        values::encode_calls(digest, calls, Timestamp::from_unix(expiry))
    })?;
    if damaged > 0 {
        tracing::error!(
            damaged,
            "the upgrade has met damaged links: restore them from a backup made before the damage"
        );
    }
    Ok(())
}

/// Replaces values, a few at a time, because a table cannot be changed while it is walked through.
fn rewrite(
    table: &mut Table<'_, Bytes, Bytes>,
    mut replace: impl FnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
) -> Result<(), StoreError> {
    let mut last: Option<Vec<u8>> = None;
    loop {
        let mut replaced = Vec::with_capacity(STRIDE);
        let mut seen = 0;
        let from = last.as_deref().unwrap_or_default();
        for entry in table.range(from..)? {
            let (key, value) = entry?;
            // The table begins with the last one that was seen.
            if last.as_deref() == Some(key.value()) {
                continue;
            }
            if let Some(value) = replace(key.value(), value.value()) {
                replaced.push((key.value().to_vec(), value));
            }
            seen += 1;
            if seen == STRIDE {
                last = Some(key.value().to_vec());
                break;
            }
        }
        for (key, value) in replaced {
            table.insert(key.as_slice(), value.as_slice())?;
        }
        if seen < STRIDE {
            return Ok(());
        }
    }
}

/// Replaces a table whose values have a type of redb's own, which a table cannot change.
fn seal_sessions<V: Value + 'static>(
    transaction: &WriteTransaction,
    old: TableDefinition<'_, Bytes, V>,
    new: TableDefinition<'_, Bytes, Bytes>,
    seal: impl Fn(&[u8], V::SelfType<'_>) -> Vec<u8>,
) -> Result<(), StoreError> {
    let mut entries = Vec::new();
    for entry in transaction.open_table(old)?.iter()? {
        let (digest, value) = entry?;
        entries.push((digest.value().to_vec(), seal(digest.value(), value.value())));
    }
    transaction.delete_table(old)?;
    let mut table = transaction.open_table(new)?;
    for (digest, sealed) in entries {
        table.insert(digest.as_slice(), sealed.as_slice())?;
    }
    Ok(())
}
