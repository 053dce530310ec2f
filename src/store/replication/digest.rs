//! A digest of a set of links that changes with each of them, whatever their order.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::model::LinkId;

const WORDS: usize = 4;
const WORD_BYTES: usize = size_of::<u64>();

/// The sum of the SHA-256 of all links, modulo 2^256. Equal sets have equal sums, and different ones never do unless
/// somebody can choose some thousands of millions of links for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentDigest([u64; WORDS]);

impl ContentDigest {
    pub const BYTES: usize = WORDS * WORD_BYTES;

    pub fn add(&mut self, id: LinkId, record: &[u8]) {
        let mut carry = false;
        for (word, more) in self.0.iter_mut().zip(words_of(id, record)) {
            let (sum, first) = word.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(carry.into());
            (*word, carry) = (sum, first || second);
        }
    }

    pub fn subtract(&mut self, id: LinkId, record: &[u8]) {
        let mut borrow = false;
        for (word, less) in self.0.iter_mut().zip(words_of(id, record)) {
            let (rest, first) = word.overflowing_sub(less);
            let (rest, second) = rest.overflowing_sub(borrow.into());
            (*word, borrow) = (rest, first || second);
        }
    }

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (part, word) in bytes.chunks_exact_mut(WORD_BYTES).zip(self.0) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut words = [0; WORDS];
        for (word, part) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*part);
        }
        Self(words)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn words_of(id: LinkId, record: &[u8]) -> [u64; WORDS] {
    let id = id.as_bytes();
    let mut hash = Sha256::new();
    // An id has 20 bytes at most.
    hash.update([u8::try_from(id.len()).unwrap_or(u8::MAX)]);
    hash.update(id);
    hash.update(record);
    ContentDigest::from_bytes(&hash.finalize().into()).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digest_depends_on_the_set_alone(
            records in proptest::collection::vec(any::<[u8; 9]>(), 1..20),
            gone in any::<[u8; 9]>(),
            turn in any::<prop::sample::Index>(),
        ) {
            let id: LinkId = "abcd".parse().unwrap();
            let (mut forward, mut backward) = (ContentDigest::default(), ContentDigest::default());
            let at = turn.index(records.len());
            for (number, record) in records.iter().enumerate() {
                forward.add(id, record);
                if number == at {
                    forward.add(id, &gone);
                }
            }
            for record in records.iter().rev() {
                backward.add(id, record);
            }
            prop_assert_ne!(forward, backward);
            forward.subtract(id, &gone);
            prop_assert_eq!(forward, backward);
            prop_assert_eq!(ContentDigest::from_bytes(&forward.to_bytes()), forward);
        }
    }
}
