//! The position of a store in the stream of clicks.

use crate::store::error::StoreError;
use crate::store::format::checksum;

const TABLE: &str = "replication";

/// Up to where a store has counted the stream of clicks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClickPosition {
    /// Which stream: another one has another number.
    pub stream: u64,
    /// The number of the last message.
    pub sequence: u64,
}

impl ClickPosition {
    pub fn seal(&self, key: &[u8]) -> Vec<u8> {
        let numbers = [self.stream, self.sequence].map(u64::to_be_bytes);
        checksum::seal(key, numbers.as_flattened())
    }

    pub fn unseal(key: &[u8], sealed: &[u8]) -> Result<Self, StoreError> {
        let numbers = u128::from_be_bytes(checksum::unseal(TABLE, key, sealed)?);
        Ok(Self {
            stream: (numbers >> 64) as u64,
            sequence: numbers as u64,
        })
    }
}
