//! What a job may do inside a write transaction. Every change of a link goes through [`Transaction::put`], which keeps
//! indexes and counters true.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, Table, WriteTransaction};

use crate::model::{Day, Digest, LinkId, PartnerId, ShortLink, Status, Timestamp};
use crate::store::error::StoreError;
use crate::store::format::days::Visits;
use crate::store::format::keys::{self, Bytes, Index, OF_PARTNERS};
use crate::store::format::record;
use crate::store::format::tables::{self, META_SEQUENCE, Tables};
use crate::store::format::values::{self, Counts};
use crate::store::journal::redo::Redo;
use crate::store::read::remains::Remains;
use crate::store::read::snapshot;
use crate::store::replication::{ContentDigest, Position};

/// Changes of one transaction that are kept for the observer; where there are more, it is given the whole store
/// instead. An import can have millions.
const CHANGES_MAX: usize = if cfg!(test) { 300 } else { 100_000 };

/// A change of a transaction, for the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A link is new or different.
    Link(Box<ShortLink>),
    /// A session or session id was revoked; kept until the given moment.
    Revoked(Digest, Timestamp),
    /// Revocations that ended before the given moment were dropped.
    RevocationsDropped(Timestamp),
}

/// What became of a link in place of one whose record is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    Done,
    /// Nothing is written: the damaged record belonged to another partner.
    OfAnotherPartner,
    /// Nothing is written: the id may be retired, and the link would bring it back.
    MayBeRetired,
}

impl Replacement {
    pub fn judge(remains: &Remains, new: &ShortLink) -> Self {
        if !remains.are_of(new.partner_id) {
            Self::OfAnotherPartner
        } else if remains.may_be_retired() && !new.is_retired() {
            Self::MayBeRetired
        } else {
            Self::Done
        }
    }
}

/// What an entry has come to that was appended before its changes were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntryOutcome {
    /// Links of a user.
    pub deleted: usize,
    /// Links that an import replaces had changed, or a part was missing: nothing was written.
    pub is_void: bool,
}

/// What a transaction that counts clicks needs; most do not.
#[derive(Default)]
pub struct Counting<'t> {
    pub clicks: Option<Table<'t, Bytes, Bytes>>,
    pub days: Option<Table<'t, Bytes, Bytes>>,
    /// What came to the days of partners, which nearly every link changes: written once, at the end.
    pub partners: BTreeMap<(Day, PartnerId), Visits>,
}

/// An open write transaction, shared by all jobs of one group commit; each sees what those before it did.
pub struct Transaction<'t> {
    pub inner: &'t WriteTransaction,
    pub tables: Tables<'t>,
    pub counting: Counting<'t>,
    /// Opened when something is logged.
    pub audit: Option<Table<'t, Bytes, Bytes>>,
    /// The number of the last entry in it, once that is known.
    pub last_audit: Option<u64>,
    // Counters change with nearly every job; they are written once, at the end.
    counted: BTreeMap<Vec<u8>, [i64; Status::ALL.len()]>,
    // None without an observer, or if there are too many.
    changes: Option<Vec<Change>>,
    pub redo: Redo,
    /// Of all links, in a cluster.
    pub digest: Option<ContentDigest>,
    /// Of the last entry of the replication log that says what to do.
    pub outcome: EntryOutcome,
    /// How many changes have been made or begun.
    pub modifications: usize,
    /// How many of them are clicks.
    pub clicked: usize,
}

pub struct Finished {
    /// The changes in the order in which they were made, unless there were too many.
    pub changes: Option<Vec<Change>>,
    /// The same as a payload of the journal, unless they are too many for it.
    pub redo: Option<Vec<u8>>,
    /// Of all links after it, in a cluster.
    pub digest: Option<ContentDigest>,
    /// Its place in the replication log, once it has one.
    pub position: Option<Position>,
    /// By how much the number of links of each status has changed, in the order of [`Status::ALL`].
    pub links: [i64; Status::ALL.len()],
    /// Whether nothing but clicks was counted.
    pub is_clicks: bool,
}

impl<'t> Transaction<'t> {
    pub fn open(inner: &'t WriteTransaction, is_observed: bool, redo: Redo) -> Result<Self, StoreError> {
        Ok(Self {
            inner,
            tables: Tables::open(inner)?,
            counting: Counting::default(),
            audit: None,
            last_audit: None,
            counted: BTreeMap::new(),
            changes: is_observed.then(Vec::new),
            redo,
            digest: None,
            outcome: EntryOutcome::default(),
            modifications: 0,
            clicked: 0,
        })
    }

    pub fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        let stored = self.tables.links.get(id.as_bytes())?;
        stored.map(|bytes| record::decode(id, bytes.value())).transpose()
    }

    /// Whether there is a link with this id, damaged or not.
    pub fn has(&self, id: LinkId) -> Result<bool, StoreError> {
        Ok(self.tables.links.get(id.as_bytes())?.is_some())
    }

    /// The link of the partner that holds this unique id and is not deleted.
    pub fn holder_of_unique_id(&self, partner: PartnerId, unique_id: &str) -> Result<Option<LinkId>, StoreError> {
        let scope = keys::text_scope(partner, unique_id);
        let table = self.tables.indexes.get(Index::UniqueId);
        snapshot::undeleted(table, Index::UniqueId, &scope, None)?
            .next()
            .transpose()
    }

    /// Links that a user owns and that are not deleted, those made up to a moment or all, at most so many.
    pub fn links_of_user(
        &self,
        partner: PartnerId,
        user: &str,
        until: Option<Timestamp>,
        most: usize,
    ) -> Result<Vec<LinkId>, StoreError> {
        let (table, scope) = (self.tables.indexes.get(Index::User), keys::text_scope(partner, user));
        let ids = snapshot::undeleted(table, Index::User, &scope, until)?;
        ids.take(most).collect()
    }

    /// As [`snapshot::Snapshot::count_links_of_user`], with what the transaction has changed.
    pub fn count_links_of_user(
        &self,
        partner: PartnerId,
        user: &str,
        times: (Timestamp, Timestamp),
        most: usize,
    ) -> Result<usize, StoreError> {
        snapshot::count_of_user(self.tables.indexes.get(Index::User), partner, user, times, most)
    }

    /// Notes that the links of a user are being deleted, which takes several commits.
    pub fn begin_deletion(&mut self, partner: PartnerId, user: &str, at: Timestamp) -> Result<(), StoreError> {
        self.modifications += 1;
        // The journal has no words for it, so it is committed to the store's file itself.
        self.redo.give_up();
        let key = tables::deletion_key(partner, user);
        self.tables.meta.insert(key.as_str(), tables::seal_deletion(&key, at))?;
        Ok(())
    }

    pub fn end_deletion(&mut self, partner: PartnerId, user: &str) -> Result<(), StoreError> {
        self.modifications += 1;
        self.redo.give_up();
        self.tables.meta.remove(tables::deletion_key(partner, user).as_str())?;
        Ok(())
    }

    /// Writes a link in place of the one that [`Transaction::get`] returned for its id, or, with `old` = `None`, as a
    /// new one.
    pub fn put(&mut self, old: Option<&ShortLink>, new: ShortLink) -> Result<(), StoreError> {
        self.modifications += 1;
        let record = record::encode(&new)?;
        self.tables.links.insert(new.id.as_bytes(), record.as_slice())?;
        self.redo.link(new.id, &record);
        if let Some(digest) = &mut self.digest {
            if let Some(old) = old {
                digest.subtract(old.id, &record::encode(old)?);
            }
            digest.add(new.id, &record);
        }
        // What a lost record has left, which is in the counts.
        let mut counted = Vec::new();
        for (index, table) in self.tables.indexes.iter_mut() {
            let (before, after) = (old.and_then(|old| index.key_of(old)), index.key_of(&new));
            if before == after {
                continue;
            }
            if let Some(key) = before {
                table.remove(key.as_slice())?;
            }
            if let Some(key) = after
                && table.insert(key.as_slice(), ())?.is_some()
                && old.is_none()
            {
                counted.push(index);
            }
        }
        if let Some(old) = old {
            for key in keys::counters_of(old) {
                self.count_at(key, old.status.number(), -1);
            }
        }
        for key in keys::counters_of(&new) {
            if !Index::of_counter(&key).is_some_and(|(index, _)| counted.contains(&index)) {
                self.count_at(key, new.status.number(), 1);
            }
        }
        self.note(Change::Link(Box::new(new)));
        Ok(())
    }

    /// Writes a link in place of one whose record is damaged. What the indexes say of that one is found by looking at
    /// all of them, so this is for repairs only.
    pub fn replace_damaged(&mut self, new: ShortLink) -> Result<Replacement, StoreError> {
        let remains = Remains::of(new.id, |index| self.tables.indexes.get(index))?;
        let judged = Replacement::judge(&remains, &new);
        if judged == Replacement::Done {
            self.put_in_place_of(remains, new)?;
        }
        Ok(judged)
    }

    /// The same for what was acknowledged before: the damaged record is of an earlier state of the link.
    pub fn replay_over_damaged(&mut self, new: ShortLink) -> Result<(), StoreError> {
        let remains = Remains::of(new.id, |index| self.tables.indexes.get(index))?;
        if remains.are_of(new.partner_id) {
            self.put_in_place_of(remains, new)?;
        }
        Ok(())
    }

    fn put_in_place_of(&mut self, remains: Remains, new: ShortLink) -> Result<(), StoreError> {
        for (index, key) in remains.keys {
            self.modifications += 1;
            if let Some((_, table)) = self.tables.indexes.iter_mut().find(|(of, _)| *of == index) {
                table.remove(key.as_slice())?;
            }
            if let Some((scope, status)) = keys::split_scope(index, &key)
                && let Some(counter) = index.counter_key(scope)
            {
                self.count_at(counter, status, -1);
            }
        }
        self.put(None, new)
    }

    fn count_at(&mut self, key: Vec<u8>, status: u8, by: i64) {
        let position = usize::from(status).wrapping_sub(1);
        if let Some(count) = self.counted.entry(key).or_default().get_mut(position) {
            *count += by;
        }
    }

    pub fn revoke(&mut self, digest: Digest, until: Timestamp) -> Result<(), StoreError> {
        self.modifications += 1;
        let value = values::encode_until(&digest, until);
        self.tables.revocations.insert(digest.as_slice(), value.as_slice())?;
        self.redo.revoked(&digest, until);
        self.note(Change::Revoked(digest, until));
        Ok(())
    }

    /// Counts a call of a session that allows `limit` of them; false, and nothing counted, if it has had them all.
    pub fn count_action(&mut self, digest: Digest, limit: u64, expiry: Timestamp) -> Result<bool, StoreError> {
        let stored = self.tables.actions.get(digest.as_slice())?;
        let counted = stored.map(|entry| values::decode_calls(&digest, entry.value()));
        let used = counted.transpose()?.map_or(0, |(calls, _)| calls);
        if used >= limit {
            return Ok(false);
        }
        self.set_counted(digest, used + 1, expiry)?;
        Ok(true)
    }

    pub fn set_counted(&mut self, digest: Digest, calls: u64, expiry: Timestamp) -> Result<(), StoreError> {
        self.modifications += 1;
        let value = values::encode_calls(&digest, calls, expiry);
        self.tables.actions.insert(digest.as_slice(), value.as_slice())?;
        self.redo.counted(&digest, calls, expiry);
        Ok(())
    }

    /// Drops what is remembered of sessions that have expired by now. A damaged entry does not tell, and stays.
    pub fn drop_expired_sessions(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let is_over = |expiry: Result<Timestamp, StoreError>| expiry.is_ok_and(|expiry| expiry <= now);
        let (revocations, actions) = (&mut self.tables.revocations, &mut self.tables.actions);
        let has_dropped = drop_if(revocations, |digest, until| {
            is_over(values::decode_until(digest, until))
        })?;
        let has_forgotten = drop_if(actions, |digest, calls| {
            is_over(values::decode_calls(digest, calls).map(|(_, expiry)| expiry))
        })?;
        if has_dropped {
            self.note(Change::RevocationsDropped(now));
        }
        if has_dropped || has_forgotten {
            self.modifications += 1;
            self.redo.dropped(now);
        }
        Ok(())
    }

    /// Writes down the position in a replication log, with the digest of the links that are there.
    pub fn enter_cluster(&mut self, after: Position) -> Result<Position, StoreError> {
        self.finish_deletions()?;
        let mut digest = ContentDigest::default();
        for entry in self.tables.links.iter()? {
            let (id, record) = entry?;
            digest.add(snapshot::id_of(id.value())?, record.value());
        }
        let position = Position { digest, ..after };
        tables::set_position(self.inner, &position)?;
        self.modifications += 1;
        self.redo.give_up();
        Ok(position)
    }

    /// Writes a record that does not decode, for tests.
    #[cfg(test)]
    pub(crate) fn damage(&mut self, id: LinkId) -> Result<(), StoreError> {
        self.modifications += 1;
        self.redo.give_up();
        self.tables.links.insert(id.as_bytes(), [0xff].as_slice())?;
        Ok(())
    }

    fn note(&mut self, change: Change) {
        if let Some(changes) = &mut self.changes {
            changes.push(change);
            if changes.len() > CHANGES_MAX {
                self.changes = None;
            }
        }
    }

    /// Writes what was gathered, and returns what has changed.
    pub fn finish(mut self, sequence: u64) -> Result<Finished, StoreError> {
        let mut links = [0; Status::ALL.len()];
        for (key, deltas) in std::mem::take(&mut self.counted) {
            if key.starts_with(&[OF_PARTNERS]) {
                for (total, delta) in links.iter_mut().zip(deltas) {
                    *total += delta;
                }
            }
            if deltas == [0; Status::ALL.len()] {
                continue;
            }
            let stored = self.tables.counters.get(key.as_slice())?;
            let before = stored.map(|bytes| values::decode_counts(&key, bytes.value()));
            let after = match before
                .transpose()
                .and_then(|before| add(before.unwrap_or_default(), deltas))
            {
                Ok(after) => after,
                // Otherwise no write to its scope would succeed any more.
                Err(error) => {
                    tracing::error!(%error, "recounting a damaged counter");
                    let counted = Index::of_counter(&key);
                    counted.map_or(Ok(Counts::default()), |(index, scope)| {
                        snapshot::count_scope(self.tables.indexes.get(index), index, scope)
                    })?
                }
            };
            if after == Counts::default() {
                self.tables.counters.remove(key.as_slice())?;
            } else {
                let value = values::encode_counts(&key, after);
                self.tables.counters.insert(key.as_slice(), value.as_slice())?;
            }
        }
        self.write_partners_days()?;
        self.tables.meta.insert(META_SEQUENCE, sequence)?;
        Ok(Finished {
            changes: self.changes,
            redo: self.redo.into_bytes(),
            digest: self.digest,
            position: None,
            links,
            is_clicks: self.clicked == self.modifications,
        })
    }
}

/// Drops entries; false if there are none to drop.
fn drop_if(
    table: &mut Table<'_, Bytes, Bytes>,
    is_dropped: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<bool, StoreError> {
    let mut dropped = table.extract_if(is_dropped)?;
    Ok(dropped.try_fold(false, |_, entry| entry.map(|_| true))?)
}

fn add(mut counts: Counts, deltas: [i64; Status::ALL.len()]) -> Result<Counts, StoreError> {
    for (count, delta) in counts.iter_mut().zip(deltas) {
        let sum = count.checked_add_signed(delta);
        *count = sum.ok_or_else(|| StoreError::damaged("counters", "a count below zero"))?;
    }
    Ok(counts)
}
