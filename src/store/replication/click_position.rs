//! The position of a store in the stream of clicks.

use crate::store::error::StoreError;
use crate::store::format::{checksum, values};

const TABLE: &str = "replication";

/// Up to where a store has counted the stream of clicks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClickPosition {
    /// Which stream: another one has another number.
    pub stream: u64,
    /// The number of the last message before which none waits.
    pub sequence: u64,
    /// The number of the last message that was looked at: those between wait, or are counted.
    pub seen: u64,
}

impl ClickPosition {
    /// After a message, while none waits.
    pub const fn after(stream: u64, sequence: u64) -> Self {
        Self {
            stream,
            sequence,
            seen: sequence,
        }
    }

    pub fn to_bytes(self) -> [u8; 24] {
        let numbers = [self.stream, self.sequence, self.seen].map(u64::to_be_bytes);
        let mut bytes = [0; 24];
        bytes.copy_from_slice(numbers.as_flattened());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; 24]) -> Self {
        let [stream, sequence, seen] = values::numbers(bytes);
        Self { stream, sequence, seen }
    }

    pub fn seal(self, key: &[u8]) -> Vec<u8> {
        checksum::seal(key, &self.to_bytes())
    }

    pub fn unseal(key: &[u8], sealed: &[u8]) -> Result<Self, StoreError> {
        Ok(Self::from_bytes(&checksum::unseal(TABLE, key, sealed)?))
    }
}
