//! Imports that are not in force yet: parts of links, with what each of them replaces.

use redb::{ReadableTable as _, WriteTransaction};
use sha2::{Digest as _, Sha256};

use crate::model::LinkId;
use crate::store::error::StoreError;
use crate::store::format::checksum::{seal, unseal_text};
use crate::store::format::tables::{STAGED, STAGED_NAME};
use crate::store::journal::record;
use crate::store::replication::{IMPORT_BYTES, ImportId};

/// How long the parts of an import are kept that is never put in force, in milliseconds.
const KEPT_MILLISECONDS: i64 = 24 * 60 * 60 * 1000;

const MOMENT_BYTES: usize = 8;
const KEY_BYTES: usize = IMPORT_BYTES + 4;

pub fn import_id(began_at: i64) -> ImportId {
    let mut id = [0; IMPORT_BYTES];
    let parts = [moment(began_at), rand::random()];
    id.copy_from_slice(parts.as_flattened());
    id
}

fn moment(milliseconds: i64) -> [u8; MOMENT_BYTES] {
    u64::try_from(milliseconds).unwrap_or(0).to_be_bytes()
}

pub fn key_of(import: &ImportId, number: u32) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..IMPORT_BYTES].copy_from_slice(import);
    key[IMPORT_BYTES..].copy_from_slice(&number.to_be_bytes());
    key
}

pub fn encode(key: &[u8], part: &[u8]) -> Vec<u8> {
    seal(key, part)
}

pub fn decode<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], StoreError> {
    if key.len() != KEY_BYTES {
        return Err(StoreError::damaged(STAGED_NAME, "malformed key"));
    }
    unseal_text(STAGED_NAME, key, value)
}

/// Drops all parts of an import.
pub fn drop_parts(transaction: &WriteTransaction, import: &ImportId) -> Result<(), StoreError> {
    let (first, last) = (key_of(import, 0), key_of(import, u32::MAX));
    let mut staged = transaction.open_table(STAGED)?;
    staged.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
    Ok(())
}

/// Drops the parts of imports that began too long before an entry was written: each store does so alike.
pub fn drop_old(transaction: &WriteTransaction, written_at: i64) -> Result<(), StoreError> {
    let mut staged = transaction.open_table(STAGED)?;
    if staged.first()?.is_some() {
        let first_kept = moment(written_at.saturating_sub(KEPT_MILLISECONDS));
        staged.retain_in(..first_kept.as_slice(), |_, _| false)?;
    }
    Ok(())
}

/// A link of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedLink<'p> {
    pub id: LinkId,
    /// The hash of the record that was there when the import was worked out.
    pub replaced: Option<[u8; 32]>,
    /// Which link had its unique id then.
    pub holder: Option<LinkId>,
    pub record: &'p [u8],
}

/// What a part says of the record that a link replaces.
pub fn hash_of(record: &[u8]) -> [u8; 32] {
    Sha256::digest(record).into()
}

impl StagedLink<'_> {
    /// Appends it to a part.
    pub fn append_to(&self, part: &mut Vec<u8>) -> Result<(), StoreError> {
        let id = |part: &mut Vec<u8>, id: Option<LinkId>| {
            let id = id.as_ref().map_or(&[][..], LinkId::as_bytes);
            // An id has 20 bytes at most.
            part.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
            part.extend_from_slice(id);
        };
        id(part, Some(self.id));
        part.push(self.replaced.is_some().into());
        part.extend(self.replaced.iter().flatten());
        id(part, self.holder);
        let length = u32::try_from(self.record.len()).map_err(|error| StoreError::damaged(STAGED_NAME, error))?;
        part.extend_from_slice(&length.to_be_bytes());
        part.extend_from_slice(self.record);
        Ok(())
    }
}

/// The links of a part.
pub fn links_of(part: &[u8]) -> impl Iterator<Item = Result<StagedLink<'_>, StoreError>> {
    let mut rest = part;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = split_link(rest);
        rest = next.as_ref().map_or(&[][..], |(_, rest)| rest);
        // Every store has the same, so this is of a program that knows more.
        Some(
            next.map(|(link, _)| link)
                .ok_or_else(|| StoreError::damaged(record::NAME, "a malformed part")),
        )
    })
}

fn split_link(part: &[u8]) -> Option<(StagedLink<'_>, &[u8])> {
    let (id, rest) = split_id(part)?;
    let ([is_replacing], rest) = rest.split_first_chunk()?;
    let (replaced, rest) = match is_replacing {
        0 => (None, rest),
        _ => rest.split_first_chunk().map(|(hash, rest)| (Some(*hash), rest))?,
    };
    let (holder, rest) = split_id(rest)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (record, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let link = StagedLink {
        id: id?,
        replaced,
        holder,
        record,
    };
    Some((link, rest))
}

/// An id, or none.
fn split_id(part: &[u8]) -> Option<(Option<LinkId>, &[u8])> {
    let ([length], rest) = part.split_first_chunk()?;
    let (id, rest) = rest.split_at_checked((*length).into())?;
    let id = match id {
        [] => None,
        id => Some(LinkId::from_bytes(id).ok()?),
    };
    Some((id, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn links_of_a_part_are_read_back(
            links in proptest::collection::vec(
                ("[0-9a-z]{4,20}", any::<Option<[u8; 32]>>(), proptest::option::of("[0-9a-z]{4,20}"), any::<Vec<u8>>()),
                1..5,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let links: Vec<_> = links
                .iter()
                .map(|(id, replaced, holder, record)| StagedLink {
                    id: id.parse().unwrap(),
                    replaced: *replaced,
                    holder: holder.as_ref().map(|holder| holder.parse().unwrap()),
                    record,
                })
                .collect();
            let mut part = Vec::new();
            links.iter().try_for_each(|link| link.append_to(&mut part)).unwrap();
            prop_assert_eq!(links_of(&part).collect::<Result<Vec<_>, _>>().unwrap(), links);
            // Ends, whatever it finds.
            let cut = &part[cut.index(part.len())..];
            prop_assert!(links_of(cut).count() <= cut.len());
        }
    }
}
