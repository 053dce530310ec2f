//! What a transaction has changed, as bytes from which it can be done again: the payload of a record in the journal.
//!
//! One byte of version, then the changes in their order: a byte that says which kind, and its parts. Numbers are
//! big-endian. Only what was decided is kept; indexes and counters follow from it when it is applied.

use crate::model::{LinkId, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::clicks;
use crate::store::format::record;
use crate::store::journal;
use crate::store::write::transaction::{Digest, Transaction};

/// The version that is written.
const VERSION: u8 = 1;

/// Length of the id (1 byte), the id, length of the record (4 bytes), and the record as the store has it, or as one of format 1 had it.
const LINK: u8 = 1;
/// Digest, and the unix second until which it is kept.
const REVOKED: u8 = 2;
/// Digest, calls counted so far (8 bytes), and the session's expiry in unix seconds.
const COUNTED: u8 = 3;
/// The unix second at which expired sessions were dropped.
const DROPPED: u8 = 4;
/// Length of the id (1 byte), the id, and its clicks as the store has them from then on: the sum and not what was added, so that
/// making the change again changes nothing.
const USED: u8 = 5;

/// The changes of one transaction, unless nobody wants them or they are too many for the journal.
#[derive(Debug)]
pub struct Redo(Option<Vec<u8>>);

impl Redo {
    pub fn kept() -> Self {
        Self(Some(vec![VERSION]))
    }

    pub const fn not_kept() -> Self {
        Self(None)
    }

    pub fn link(&mut self, id: LinkId, record: &[u8]) {
        let id = id.as_bytes();
        match (u8::try_from(id.len()), u32::try_from(record.len())) {
            (Ok(id_length), Ok(length)) => self.append(&[&[LINK, id_length], id, &length.to_be_bytes(), record]),
            _ => self.give_up(),
        }
    }

    pub fn revoked(&mut self, digest: &Digest, until: Timestamp) {
        self.append(&[&[REVOKED], digest, &until.as_unix().to_be_bytes()]);
    }

    pub fn counted(&mut self, digest: &Digest, calls: u64, expiry: Timestamp) {
        let expiry = expiry.as_unix().to_be_bytes();
        self.append(&[&[COUNTED], digest, &calls.to_be_bytes(), &expiry]);
    }

    pub fn dropped(&mut self, now: Timestamp) {
        self.append(&[&[DROPPED], &now.as_unix().to_be_bytes()]);
    }

    pub fn used(&mut self, id: LinkId, usage: &clicks::Stored) {
        let id = id.as_bytes();
        match u8::try_from(id.len()) {
            Ok(id_length) => self.append(&[&[USED, id_length], id, usage]),
            Err(_) => self.give_up(),
        }
    }

    /// Something was changed that cannot be told: the transaction must be committed to the store's file itself.
    pub fn give_up(&mut self) {
        self.0 = None;
    }

    pub fn into_bytes(self) -> Option<Vec<u8>> {
        self.0
    }

    fn append(&mut self, parts: &[&[u8]]) {
        let Some(bytes) = &mut self.0 else { return };
        for part in parts {
            bytes.extend_from_slice(part);
        }
        if bytes.len() > journal::PAYLOAD_MAX_BYTES {
            self.give_up();
        }
    }
}

pub fn apply(transaction: &mut Transaction<'_>, payload: &[u8]) -> Result<(), StoreError> {
    let mut rest = Parts(payload);
    let [version] = rest.take()?;
    if version != VERSION {
        let reason = format!("version {version} of changes, known is {VERSION}");
        return Err(StoreError::damaged(journal::NAME, reason));
    }
    while !rest.0.is_empty() {
        match rest.take()? {
            [LINK] => {
                let id = rest.take_id()?;
                let length = u32::from_be_bytes(rest.take()?);
                let link = record::decode_of_format_1(id, rest.take_slice(length as usize)?)?;
                match transaction.get(id) {
                    Ok(old) => transaction.put(old.as_ref(), link)?,
                    // Whoever may replace it has decided so when the record was written.
                    Err(StoreError::Damaged { .. }) => drop(transaction.replace_damaged(link)?),
                    Err(error) => return Err(error),
                }
            }
            [REVOKED] => transaction.revoke(rest.take()?, rest.take_time()?)?,
            [COUNTED] => {
                let (digest, calls) = (rest.take()?, u64::from_be_bytes(rest.take()?));
                transaction.set_counted(digest, calls, rest.take_time()?)?;
            }
            [DROPPED] => transaction.drop_expired_sessions(rest.take_time()?)?,
            [USED] => {
                let (id, usage) = (rest.take_id()?, rest.take()?);
                // There was one when they were counted.
                if transaction.has(id)? {
                    transaction.set_usage(id, &usage)?;
                }
            }
            [kind] => return Err(StoreError::damaged(journal::NAME, format!("a change of kind {kind}"))),
        }
    }
    Ok(())
}

/// What is left of a payload.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (part, rest) = self.0.split_first_chunk().ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(*part)
    }

    fn take_slice(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (part, rest) = self.0.split_at_checked(length).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(part)
    }

    fn take_id(&mut self) -> Result<LinkId, StoreError> {
        let [length] = self.take()?;
        let id = self.take_slice(length.into())?;
        LinkId::from_bytes(id).map_err(|error| StoreError::damaged(journal::NAME, error))
    }

    fn take_time(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_unix(i64::from_be_bytes(self.take()?)))
    }
}

fn cut_off() -> StoreError {
    StoreError::damaged(journal::NAME, "changes that are cut off")
}
