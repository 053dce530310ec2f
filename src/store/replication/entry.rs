//! Entries of the log, as bytes, and the position of a store in it. docs/store-format.md describes both.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::store::error::StoreError;
use crate::store::format::checksum;
use crate::store::journal::redo::NO_CHANGES;
use crate::store::replication::{ApplyError, ContentDigest};

const MAGIC: &[u8; 2] = b"TE";
const VERSION: u8 = 1;
/// The payload is what a record of the journal has.
const CHANGES: u8 = 1;
/// The same, appended before any store has made the changes: the digest after them is not stated.
const CHANGES_AHEAD: u8 = 2;

const TABLE: &str = "replication";

/// Which cluster a log belongs to: drawn when it is made.
pub type ClusterId = [u8; 16];

/// The SHA-256 of an entry, which the next one contains: equal chains mean equal histories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain(pub [u8; 32]);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Up to where a store has applied the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub cluster: ClusterId,
    /// Grows when the log is made anew.
    pub epoch: u32,
    /// The number of the last entry.
    pub sequence: u64,
    pub chain: Chain,
    /// Of the links after it.
    pub digest: ContentDigest,
}

const POSITION_BYTES: usize = 16 + 4 + 8 + 32 + ContentDigest::BYTES;

/// What so many hexadecimal digits say.
fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl Position {
    /// A position as its parts are written for people.
    pub fn from_text(cluster: &str, epoch: u32, sequence: u64, chain: &str, digest: &str) -> Option<Self> {
        Some(Self {
            cluster: bytes_of_hex(cluster)?,
            epoch,
            sequence,
            chain: Chain(bytes_of_hex(chain)?),
            digest: ContentDigest::from_bytes(&bytes_of_hex(digest)?),
        })
    }

    /// The cluster as it is written for people.
    pub fn cluster_text(&self) -> String {
        self.cluster.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A value of the table, for its key.
    pub fn seal(&self, key: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 5] = [
            &self.cluster,
            &self.epoch.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.chain.0,
            &self.digest.to_bytes(),
        ];
        checksum::seal(key, &parts.concat())
    }

    pub fn unseal(key: &[u8], sealed: &[u8]) -> Result<Self, StoreError> {
        let bytes = checksum::unseal::<POSITION_BYTES>(TABLE, key, sealed)?;
        let mut rest = Parts(&bytes);
        let mut read = || {
            Some(Self {
                cluster: rest.take()?,
                epoch: u32::from_be_bytes(rest.take()?),
                sequence: u64::from_be_bytes(rest.take()?),
                chain: Chain(rest.take()?),
                digest: ContentDigest::from_bytes(&rest.take()?),
            })
        };
        read().ok_or_else(|| StoreError::damaged(TABLE, "cut off"))
    }
}

/// A batch of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What this entry leads to; the chain is the hash of the entry itself.
    pub position: Position,
    /// Whether the digest in it says anything; else each store finds its own, and a later entry proves it.
    pub states_digest: bool,
    /// The chain before.
    pub previous: Chain,
    /// When it was written, by the clock of its writer, in milliseconds since 1970.
    pub written_at: i64,
    /// The changes, as in a record of the journal.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry that follows a position, as bytes, and the position after it.
    pub fn encode(after: &Position, digest: ContentDigest, written_at: i64, payload: &[u8]) -> (Vec<u8>, Position) {
        let bytes = Self::bytes(CHANGES, after, digest, written_at, payload);
        let position = Position {
            sequence: after.sequence.saturating_add(1),
            chain: chain_of(&bytes),
            digest,
            ..*after
        };
        (bytes, position)
    }

    /// The same for changes that no store has made yet.
    pub fn encode_ahead(after: &Position, written_at: i64, payload: &[u8]) -> Vec<u8> {
        Self::bytes(CHANGES_AHEAD, after, ContentDigest::default(), written_at, payload)
    }

    fn bytes(kind: u8, after: &Position, digest: ContentDigest, written_at: i64, payload: &[u8]) -> Vec<u8> {
        let sequence = after.sequence.saturating_add(1);
        let parts: [&[u8]; 9] = [
            MAGIC,
            &[VERSION, kind],
            &after.cluster,
            &after.epoch.to_be_bytes(),
            &sequence.to_be_bytes(),
            &written_at.to_be_bytes(),
            &after.chain.0,
            &digest.to_bytes(),
            payload,
        ];
        parts.concat()
    }

    /// The position after it, in a store whose links have this digest then.
    pub fn leads_to(&self, own: Option<ContentDigest>) -> Position {
        let digest = own.filter(|_| !self.states_digest);
        Position {
            digest: digest.unwrap_or(self.position.digest),
            ..self.position
        }
    }

    /// An entry without changes.
    pub fn encode_empty(after: &Position, written_at: i64) -> (Vec<u8>, Position) {
        Self::encode(after, after.digest, written_at, &NO_CHANGES)
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, ApplyError> {
        const CUT_OFF: ApplyError = ApplyError::Malformed("it is cut off");
        let mut rest = Parts(bytes);
        if rest.take::<2>().as_ref() != Some(MAGIC) {
            return Err(ApplyError::Malformed("it does not begin as one"));
        }
        let [version, kind] = rest.take().ok_or(CUT_OFF)?;
        let mut read = || {
            let (cluster, epoch, sequence) = (rest.take()?, rest.take()?, rest.take()?);
            let (written_at, previous, digest) = (rest.take()?, rest.take()?, rest.take()?);
            let position = Position {
                cluster,
                epoch: u32::from_be_bytes(epoch),
                sequence: u64::from_be_bytes(sequence),
                chain: chain_of(bytes),
                digest: ContentDigest::from_bytes(&digest),
            };
            Some(Self {
                position,
                states_digest: kind == CHANGES,
                previous: Chain(previous),
                written_at: i64::from_be_bytes(written_at),
                payload: rest.0,
            })
        };
        let entry = read().ok_or(CUT_OFF)?;
        let sequence = entry.position.sequence;
        let newer = |what: String| Err(ApplyError::Newer { sequence, what });
        match (version, kind) {
            (VERSION, CHANGES | CHANGES_AHEAD) => Ok(entry),
            (VERSION, kind) => newer(format!("kind {kind}")),
            (version, _) => newer(format!("version {version}")),
        }
    }

    /// Whether it comes next.
    pub fn check_follows(&self, position: &Position) -> Result<(), ApplyError> {
        let sequence = self.position.sequence;
        // A log that was made anew has a later epoch, and goes on where the one before ended.
        if self.position.cluster != position.cluster || self.position.epoch < position.epoch {
            return Err(ApplyError::Foreign { sequence });
        }
        let expected = position.sequence.saturating_add(1);
        if sequence != expected {
            return Err(ApplyError::Gap {
                expected,
                found: sequence,
            });
        }
        if self.previous != position.chain {
            return Err(ApplyError::Fork { sequence });
        }
        Ok(())
    }
}

fn chain_of(entry: &[u8]) -> Chain {
    Chain(Sha256::digest(entry).into())
}

/// What is left of some bytes.
pub(super) struct Parts<'a>(pub &'a [u8]);

impl Parts<'_> {
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position() -> Position {
        Position {
            cluster: *b"cluster of tests",
            epoch: 3,
            sequence: 41,
            chain: Chain([7; 32]),
            digest: ContentDigest::default(),
        }
    }

    proptest! {
        #[test]
        fn written_entries_are_read_back(payload in proptest::collection::vec(any::<u8>(), 0..80), at in any::<i64>()) {
            let (bytes, after) = Entry::encode(&position(), ContentDigest::from_bytes(&[9; 32]), at, &payload);
            let entry = Entry::decode(&bytes).unwrap();
            prop_assert_eq!(entry.position, after);
            prop_assert_eq!((entry.written_at, entry.payload), (at, payload.as_slice()));
            prop_assert_eq!(entry.check_follows(&position()), Ok(()));
            prop_assert!(entry.check_follows(&after).is_err());
            prop_assert_eq!(entry.leads_to(Some(ContentDigest::default())), after);
        }

        #[test]
        fn entry_without_a_digest_leads_to_that_of_the_store(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Entry::encode_ahead(&position(), 5, &payload);
            let entry = Entry::decode(&bytes).unwrap();
            let own = ContentDigest::from_bytes(&[9; 32]);
            let (stated, after) = Entry::encode(&position(), own, 5, &payload);
            prop_assert_eq!((entry.states_digest, entry.payload), (false, payload.as_slice()));
            prop_assert_eq!(entry.check_follows(&position()), Ok(()));
            let chain = entry.position.chain;
            prop_assert_eq!(entry.leads_to(Some(own)), Position { chain, ..after });
            prop_assert_ne!(stated, bytes);
        }

        #[test]
        fn decoding_an_entry_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode(&bytes);
            let _ = Entry::decode(&[b"TE\x01\x01", bytes.as_slice()].concat());
            let _ = Position::unseal(b"position", &bytes);
        }
    }

    #[test]
    fn entries_that_do_not_follow_are_named() {
        let (bytes, after) = Entry::encode(&position(), ContentDigest::default(), 0, b"x");
        let entry = Entry::decode(&bytes).unwrap();
        let follows = |position: Position| entry.check_follows(&position).unwrap_err();
        let other = Position {
            cluster: [0; 16],
            ..position()
        };
        assert_eq!(follows(other), ApplyError::Foreign { sequence: 42 });
        let other = Position { epoch: 4, ..position() };
        assert_eq!(follows(other), ApplyError::Foreign { sequence: 42 });
        let other = Position {
            sequence: 40,
            ..position()
        };
        assert_eq!(
            follows(other),
            ApplyError::Gap {
                expected: 41,
                found: 42
            }
        );
        let other = Position {
            chain: Chain([8; 32]),
            ..position()
        };
        assert_eq!(follows(other), ApplyError::Fork { sequence: 42 });
        let mut newer = bytes.clone();
        newer[2] = 2;
        assert!(matches!(
            Entry::decode(&newer),
            Err(ApplyError::Newer { sequence: 42, .. })
        ));
        newer[2..4].copy_from_slice(&[1, 9]);
        assert!(matches!(
            Entry::decode(&newer),
            Err(ApplyError::Newer { sequence: 42, .. })
        ));
        assert_eq!(Position::unseal(b"p", &after.seal(b"p")).unwrap(), after);
        assert!(Position::unseal(b"q", &after.seal(b"p")).is_err());
    }
}
