//! How links have been used, in the store: the entries of the table `clicks`.

use redb::ReadableTable;

use crate::model::{LinkId, Timestamp, Usage};
use crate::store::error::StoreError;
use crate::store::format::checksum::unseal;
use crate::store::format::keys::Bytes;

const TABLE: &str = "clicks";

/// Clicks, previews, last click; 8 bytes each. In the table they are sealed, in the journal they are not.
pub type Stored = [u8; 24];

pub fn encode(usage: &Usage) -> Stored {
    let mut bytes = [0; 24];
    let last = usage.last_used_at.map_or(0, Timestamp::as_unix);
    let parts = [
        usage.clicks.to_be_bytes(),
        usage.previews.to_be_bytes(),
        last.to_be_bytes(),
    ];
    for (slot, byte) in bytes.iter_mut().zip(parts.as_flattened()) {
        *slot = *byte;
    }
    bytes
}

pub fn decode(id: &[u8], sealed: &[u8]) -> Result<Usage, StoreError> {
    let bytes: Stored = unseal(TABLE, id, sealed)?;
    let [clicks, previews, last] = [0, 8, 16].map(|at| {
        let part = bytes.get(at..).and_then(<[u8]>::first_chunk);
        u64::from_be_bytes(*part.unwrap_or(&[0; 8]))
    });
    Ok(Usage {
        clicks,
        previews,
        last_used_at: (clicks > 0).then(|| Timestamp::from_unix(last.cast_signed())),
    })
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
