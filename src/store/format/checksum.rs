//! The checksum of every entry: CRC32C over key and value, which finds a byte that the disk or the memory has
//! changed. The checksums of redb are of pages, and are looked at only where a whole file is verified.

use crate::store::error::StoreError;

pub const SEAL_BYTES: usize = 4;

/// The checksum of these parts, one after the other.
pub fn checksum(parts: &[&[u8]]) -> [u8; SEAL_BYTES] {
    let sum = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    sum.to_be_bytes()
}

/// A value in a table: followed by its checksum.
pub fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    [value, &checksum(&[key, value])].concat()
}

/// The value of an entry, `N` bytes long, if it and its key are what was written.
pub fn unseal<const N: usize>(table: &'static str, key: &[u8], sealed: &[u8]) -> Result<[u8; N], StoreError> {
    let (value, sum) = sealed
        .split_first_chunk::<N>()
        .filter(|(_, sum)| sum.len() == SEAL_BYTES)
        .ok_or_else(|| damaged(table, key, "wrong length"))?;
    if checksum(&[key, value]) != sum {
        return Err(damaged(table, key, "wrong checksum"));
    }
    Ok(*value)
}

/// As [`unseal`], of any length.
pub fn unseal_text<'s>(table: &'static str, key: &[u8], sealed: &'s [u8]) -> Result<&'s [u8], StoreError> {
    let (value, sum) = sealed
        .split_last_chunk::<SEAL_BYTES>()
        .ok_or_else(|| damaged(table, key, "wrong length"))?;
    if checksum(&[key, value]) != *sum {
        return Err(damaged(table, key, "wrong checksum"));
    }
    Ok(value)
}

fn damaged(table: &'static str, key: &[u8], reason: &str) -> StoreError {
    StoreError::damaged(table, format!("{}: {reason}", key.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_flipped_bit_of_an_entry_is_found(
            key in proptest::collection::vec(any::<u8>(), 1..30),
            value in any::<[u8; 24]>(),
        ) {
            let sealed = seal(&key, &value);
            prop_assert_eq!(unseal::<24>("t", &key, &sealed).unwrap(), value);
            for bit in 0..8 * sealed.len() {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(unseal::<24>("t", &key, &flipped).is_err());
            }
            for bit in 0..8 * key.len() {
                let mut flipped = key.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(unseal::<24>("t", &flipped, &sealed).is_err());
            }
            prop_assert!(unseal::<24>("t", &key, &sealed[1..]).is_err());
        }
    }
}
