//! How links have been used, in the store: the entries of the table `clicks`.

use redb::ReadableTable;

use crate::model::{LinkId, Timestamp, Usage};
use crate::store::error::StoreError;
use crate::store::format::checksum::unseal;
use crate::store::format::keys::Bytes;
use crate::store::format::values;

const TABLE: &str = "clicks";

/// Clicks, previews, last click; 8 bytes each. In the table they are sealed, in the journal they are not.
pub type Stored = [u8; 24];

pub fn encode(usage: &Usage) -> Stored {
    let last = usage.last_used_at.map_or(0, Timestamp::as_unix);
    let numbers = [usage.clicks, usage.previews, last.cast_unsigned()].map(u64::to_be_bytes);
    let mut bytes = [0; 24];
    bytes.copy_from_slice(numbers.as_flattened());
    bytes
}

pub fn decode(id: &[u8], sealed: &[u8]) -> Result<Usage, StoreError> {
    Ok(decode_stored(&unseal(TABLE, id, sealed)?))
}

pub fn decode_stored(stored: &Stored) -> Usage {
    let [clicks, previews, last] = values::numbers(stored);
    Usage {
        clicks,
        previews,
        last_used_at: (clicks > 0).then(|| Timestamp::from_unix(last.cast_signed())),
    }
}

/// What was counted before is lost if it cannot be decoded: no reason to lose what comes, or not to show the link.
pub fn decode_or_none(id: LinkId, bytes: &[u8]) -> Usage {
    decode(id.as_bytes(), bytes).unwrap_or_else(|error| {
        tracing::error!(%id, %error, "cannot read the clicks of a link; counting from zero");
        Usage::default()
    })
}

/// How a link has been used; a damaged entry is logged and counts as none.
pub fn usage_of(id: LinkId, table: &impl ReadableTable<Bytes, Bytes>) -> Result<Usage, StoreError> {
    let stored = table.get(id.as_bytes())?;
    Ok(stored.map_or_else(Usage::default, |bytes| decode_or_none(id, bytes.value())))
}
