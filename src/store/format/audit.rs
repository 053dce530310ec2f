//! The entries of the audit log, in the store: JSON, sealed, so that a field can be added without a new format.

use crate::model::AuditEntry;
use crate::store::error::StoreError;
use crate::store::format::checksum::{seal, unseal_text};

const TABLE: &str = "audit";

pub fn sequence_of(key: &[u8]) -> Result<u64, StoreError> {
    let key = key
        .try_into()
        .map_err(|_| StoreError::damaged(TABLE, "malformed key"))?;
    Ok(u64::from_be_bytes(key))
}

/// As a journal has it.
pub fn encode(entry: &AuditEntry) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(entry).map_err(|error| StoreError::damaged(TABLE, error))
}

pub fn sealed(sequence: u64, encoded: &[u8]) -> Vec<u8> {
    seal(&sequence.to_be_bytes(), encoded)
}

pub fn parse(encoded: &[u8]) -> serde_json::Result<AuditEntry> {
    serde_json::from_slice(encoded)
}

pub fn decode(key: &[u8], sealed: &[u8]) -> Result<AuditEntry, StoreError> {
    let sequence = sequence_of(key)?;
    let text = unseal_text(TABLE, key, sealed)?;
    let entry = parse(text).map_err(|error| StoreError::damaged(TABLE, format!("entry {sequence}: {error}")))?;
    Ok(AuditEntry { sequence, ..entry })
}
