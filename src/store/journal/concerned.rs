//! Which links entries of the replication log concern.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Digest, LinkId, PartnerId, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::staged;
use crate::store::journal::record;
use crate::store::journal::redo::{
    ASSEMBLED, COUNTED, DROPPED, IMPORTED, LINK, LOG_DROPPED, LOGGED, LOGGED_NEXT, PARTS_DROPPED, REVOKED, STAGED,
    USAGE_MOVED, USER_DELETED,
};
use crate::store::journal::replay::Parts;
use crate::store::read::snapshot::Snapshot;
use crate::store::replication::{Entry, ImportId};

/// The links that entries concern.
#[derive(Debug, Default)]
pub struct Concerned {
    links: BTreeSet<LinkId>,
    /// Of all links of a user, at a moment: the entry does not name them.
    deletions: Vec<(PartnerId, String, Timestamp)>,
    /// Of imports, and of changes that were too long for an entry.
    parts: BTreeMap<(ImportId, u32), Vec<u8>>,
    is_part_missing: bool,
}

impl Concerned {
    /// By the entries of a store from this one on; none if it does not keep all that it takes to tell.
    pub fn since(snapshot: &Snapshot, first: u64) -> Result<Option<Self>, StoreError> {
        let kept = |sequence: u64| -> Result<_, StoreError> {
            let entries = snapshot.entries_after(sequence - 1, 1)?;
            Ok(entries.into_iter().next())
        };
        // The parts of an import may have come before.
        let mut oldest = first;
        while oldest > 1 && kept(oldest - 1)?.is_some() {
            oldest -= 1;
        }
        let last = snapshot.position().map_or(0, |position| position.sequence);
        let mut concerned = Self::default();
        for sequence in oldest..=last {
            let Some(bytes) = kept(sequence)? else { return Ok(None) };
            let entry = Entry::decode(&bytes).map_err(|error| StoreError::damaged(record::NAME, error))?;
            concerned.add(entry.payload, sequence >= first)?;
        }
        Ok((!concerned.is_part_missing).then_some(concerned))
    }

    pub fn has(&self, link: &ShortLink) -> bool {
        self.links.contains(&link.id)
            || self.deletions.iter().any(|(partner, user, at)| {
                link.status == Status::Deleted
                    && (link.partner_id, link.updated_at) == (*partner, *at)
                    && link.user_id.as_deref() == Some(user)
            })
    }

    /// Adds what a payload concerns; if it is not asked for, keeps its parts only.
    fn add(&mut self, payload: &[u8], is_asked: bool) -> Result<(), StoreError> {
        let mut rest = Parts::of(payload)?;
        while !rest.0.is_empty() {
            let mut links = Vec::new();
            match rest.take()? {
                [LINK] => {
                    links.push(rest.take_id()?);
                    rest.take_long()?;
                }
                [REVOKED] => drop((rest.take::<{ size_of::<Digest>() }>()?, rest.take_time()?)),
                [COUNTED] => drop((
                    rest.take::<{ size_of::<Digest>() }>()?,
                    rest.take::<8>()?,
                    rest.take_time()?,
                )),
                [DROPPED | LOG_DROPPED] => drop(rest.take::<8>()?),
                [LOGGED] => drop((rest.take::<8>()?, rest.take_long()?)),
                [LOGGED_NEXT] => drop(rest.take_note()?),
                [USAGE_MOVED] => links.extend([rest.take_id()?, rest.take_id()?]),
                [USER_DELETED] => {
                    let (partner, at) = (PartnerId(u32::from_be_bytes(rest.take()?)), rest.take_time()?);
                    let user = String::from_utf8_lossy(rest.take_long()?).into_owned();
                    rest.take_note()?;
                    if is_asked {
                        self.deletions.push((partner, user, at));
                    }
                }
                [STAGED] => {
                    let key = (rest.take()?, u32::from_be_bytes(rest.take()?));
                    self.parts.insert(key, rest.take_long()?.to_vec());
                }
                [IMPORTED] => {
                    let parts = self.parts_of(rest.take()?, u32::from_be_bytes(rest.take()?), is_asked);
                    rest.take_note()?;
                    for part in &parts {
                        for link in staged::links_of(part) {
                            links.push(link?.id);
                        }
                    }
                }
                [ASSEMBLED] => {
                    let parts = self.parts_of(rest.take()?, u32::from_be_bytes(rest.take()?), is_asked);
                    if !parts.is_empty() {
                        self.add(&parts.concat(), is_asked)?;
                    }
                }
                [PARTS_DROPPED] => drop(rest.take::<{ size_of::<ImportId>() }>()?),
                [kind] => return Err(StoreError::damaged(record::NAME, format!("a change of kind {kind}"))),
            }
            if is_asked {
                self.links.extend(links);
            }
        }
        Ok(())
    }

    /// All parts, or none if one is missing or they are not asked for.
    fn parts_of(&mut self, id: ImportId, count: u32, is_asked: bool) -> Vec<Vec<u8>> {
        let parts: Option<Vec<_>> = (0..count).map(|number| self.parts.remove(&(id, number))).collect();
        self.is_part_missing |= is_asked && parts.is_none();
        parts.filter(|_| is_asked).unwrap_or_default()
    }
}
