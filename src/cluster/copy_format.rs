//! Copies of the store on the servers, as messages.
//!
//! A copy is a row of messages with a subject of its own: its chunks, and one without data, by which it is whole.
//! docs/store-format.md describes the bytes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cluster::nats::{Nats, NatsError};
use crate::model::unix_milliseconds;
use crate::store::replication::Position;

pub const CHUNK_BYTES: usize = 512 * 1024;
const MAGIC: &[u8; 4] = b"TYC2";

/// What each message says of its copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCopy {
    /// Drawn when it was made; the last part of its subject.
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    at: i64,
    /// Chunks.
    pub count: u32,
    // Its position.
    cluster: String,
    epoch: u32,
    pub sequence: u64,
    chain: String,
    digest: String,
}

impl StoreCopy {
    pub fn new(position: &Position, count: u32) -> Self {
        Self {
            id: format!("{:032x}", rand::random::<u128>()),
            at: unix_milliseconds(),
            count,
            cluster: position.cluster_text(),
            epoch: position.epoch,
            sequence: position.sequence,
            chain: position.chain.to_string(),
            digest: position.digest.to_string(),
        }
    }

    pub fn position(&self) -> Option<Position> {
        Position::from_text(&self.cluster, self.epoch, self.sequence, &self.chain, &self.digest)
    }

    pub fn bytes(&self) -> u64 {
        u64::from(self.count) * CHUNK_BYTES as u64
    }

    pub fn age(&self) -> Duration {
        let milliseconds = unix_milliseconds().saturating_sub(self.at);
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
    }
}

/// A part of a copy, as a message has it.
pub struct Part<'a> {
    pub of: StoreCopy,
    /// Of the chunk; of the message without data, how many chunks there are.
    pub number: u32,
    pub data: &'a [u8],
}

impl<'a> Part<'a> {
    pub fn encode(&self) -> Vec<u8> {
        let of = serde_json::to_vec(&self.of).unwrap_or_default();
        // It has some hundred bytes.
        let length = u16::try_from(of.len()).unwrap_or(u16::MAX).to_be_bytes();
        let number = self.number.to_be_bytes();
        let digest = Self::digest([&number, &length, &of, self.data]);
        [&MAGIC[..], &digest, &number, &length, &of, self.data].concat()
    }

    fn digest(parts: [&[u8]; 4]) -> [u8; 32] {
        let hashing = parts.into_iter().fold(Sha256::new(), Sha256::chain_update);
        hashing.finalize().into()
    }

    pub fn decode(message: &'a [u8]) -> Option<Self> {
        let rest = message.strip_prefix(MAGIC)?;
        let (expected, rest) = rest.split_first_chunk::<32>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (of, data) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        if Self::digest([number, length, of, data]) != *expected {
            return None;
        }
        Some(Self {
            of: serde_json::from_slice(of).ok()?,
            number: u32::from_be_bytes(*number),
            data,
        })
    }
}

/// A copy as the servers have it.
#[derive(Debug, Clone)]
pub struct FoundCopy {
    pub copy: StoreCopy,
    /// The number of its last message.
    pub last: u64,
    pub is_whole: bool,
}

/// The copies on the servers, also unfinished ones.
pub async fn found(copies: &Nats) -> Result<Vec<FoundCopy>, NatsError> {
    let parts = copies.last_parts().await?;
    let found = parts.iter().filter_map(|(last, part)| {
        let part = Part::decode(part)?;
        Some(FoundCopy {
            is_whole: part.number == part.of.count,
            copy: part.of,
            last: *last,
        })
    });
    Ok(found.collect())
}

pub fn newest(found: Vec<FoundCopy>) -> Option<FoundCopy> {
    let whole = found.into_iter().filter(|found| found.is_whole);
    whole.max_by_key(|found| found.last)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::store::replication::{Chain, ContentDigest};

    pub fn copy() -> StoreCopy {
        let position = Position {
            cluster: [7; 16],
            epoch: 2,
            sequence: 41,
            chain: Chain([3; 32]),
            digest: ContentDigest::default(),
        };
        assert_eq!(StoreCopy::new(&position, 2).position(), Some(position));
        StoreCopy::new(&position, 2)
    }

    pub fn message(of: &StoreCopy, number: u32, data: &[u8]) -> Vec<u8> {
        Part {
            of: of.clone(),
            number,
            data,
        }
        .encode()
    }

    #[test]
    fn every_flipped_bit_of_a_part_is_found() {
        let copy = copy();
        let whole = message(&copy, 1, b"data");
        let part = Part::decode(&whole).unwrap();
        assert_eq!((part.of, part.number, part.data), (copy, 1, &b"data"[..]));
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Part::decode(&damaged).is_none(), "bit {bit}");
        }
        assert!((0..whole.len()).all(|length| Part::decode(&whole[..length]).is_none()));
    }

    #[test]
    fn newest_copy_is_the_last_that_is_whole() {
        let found = |last, is_whole| FoundCopy {
            copy: copy(),
            last,
            is_whole,
        };
        let newest = |copies: &[FoundCopy]| newest(copies.to_vec()).map(|found| found.last);
        assert_eq!(newest(&[]), None);
        assert_eq!(newest(&[found(3, false)]), None);
        assert_eq!(newest(&[found(6, true), found(9, false), found(3, true)]), Some(6));
    }
}
