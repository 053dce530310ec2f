//! The values of the small tables, as they stand there: numbers, big-endian, sealed with their key.

use crate::model::{Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::checksum::{seal, unseal};

/// How many links have each status, in the order of [`Status::ALL`].
pub type Counts = [u64; Status::ALL.len()];

pub fn encode_counts(key: &[u8], counts: Counts) -> Vec<u8> {
    seal(key, counts.map(u64::to_be_bytes).as_flattened())
}

pub fn decode_counts(key: &[u8], value: &[u8]) -> Result<Counts, StoreError> {
    let counts: [u8; size_of::<Counts>()] = unseal("counters", key, value)?;
    Ok(numbers(&counts))
}

/// As many as there are; zero for those that there are not.
pub fn numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
        *number = u64::from_be_bytes(*bytes);
    }
    numbers
}

/// The moment until which a revocation is kept.
pub fn encode_until(digest: &[u8], until: Timestamp) -> Vec<u8> {
    seal(digest, &until.as_unix().to_be_bytes())
}

pub fn decode_until(digest: &[u8], value: &[u8]) -> Result<Timestamp, StoreError> {
    let until = unseal("revocations", digest, value)?;
    Ok(Timestamp::from_unix(i64::from_be_bytes(until)))
}

/// How many calls of a session have been counted, and when it expires.
pub fn encode_calls(digest: &[u8], calls: u64, expiry: Timestamp) -> Vec<u8> {
    let both = [calls.to_be_bytes(), expiry.as_unix().to_be_bytes()];
    seal(digest, both.as_flattened())
}

pub fn decode_calls(digest: &[u8], value: &[u8]) -> Result<(u64, Timestamp), StoreError> {
    let both = u128::from_be_bytes(unseal("actions", digest, value)?);
    let (calls, expiry) = ((both >> 64) as u64, both as u64);
    Ok((calls, Timestamp::from_unix(expiry.cast_signed())))
}
