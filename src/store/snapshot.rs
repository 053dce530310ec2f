//! A consistent view of the store for reading.

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _};

use crate::model::{LinkId, PartnerId, ShortLink, Status, Timestamp};
use crate::store::clicks;
use crate::store::error::StoreError;
use crate::store::keys::{self, Bytes, Counter, Index, PerIndex};
use crate::store::record;
use crate::store::tables::{self, ACTIONS, COUNTERS, LINKS, META, META_DELETION, META_SEQUENCE, REVOCATIONS};
use crate::store::transaction::decode_counts;

/// An id and the link that has it, or why that cannot be told.
type Found = (LinkId, Result<ShortLink, StoreError>);

/// The store as one commit left it.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) links: ReadOnlyTable<Bytes, Bytes>,
    indexes: PerIndex<ReadOnlyTable<Bytes, ()>>,
    pub(super) counters: ReadOnlyTable<Bytes, Bytes>,
    pub(super) revocations: ReadOnlyTable<Bytes, i64>,
    pub(super) actions: ReadOnlyTable<Bytes, (u64, i64)>,
    /// None where nothing has been counted yet.
    pub(super) clicks: Option<ReadOnlyTable<Bytes, Bytes>>,
    pub(super) meta: ReadOnlyTable<&'static str, u64>,
    sequence: u64,
}

impl Snapshot {
    pub(super) fn of(database: &Database) -> Result<Self, StoreError> {
        Self::open(&database.begin_read()?)
    }

    fn open(inner: &ReadTransaction) -> Result<Self, StoreError> {
        let meta = inner.open_table(META)?;
        let sequence = meta.get(META_SEQUENCE)?.map_or(0, |entry| entry.value());
        Ok(Self {
            links: inner.open_table(LINKS)?,
            indexes: PerIndex::make(|index| inner.open_table(index.table()))?,
            counters: inner.open_table(COUNTERS)?,
            revocations: inner.open_table(REVOCATIONS)?,
            actions: inner.open_table(ACTIONS)?,
            clicks: clicks::open(inner)?,
            meta,
            sequence,
        })
    }

    /// The link with this id.
    ///
    /// # Errors
    /// When the file cannot be read or the record cannot be decoded.
    pub fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        let stored = self.links.get(id.as_bytes())?;
        stored.map(|bytes| record::decode(id, bytes.value())).transpose()
    }

    /// Calls `visit` for every link, in the order of the ids, and returns how many there are. What cannot be decoded is
    /// given as such.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn for_each(&self, mut visit: impl FnMut(LinkId, Result<ShortLink, StoreError>)) -> Result<u64, StoreError> {
        let mut links = 0;
        for entry in self.iter()? {
            let (id, record) = entry?;
            visit(id, record);
            links += 1;
        }
        Ok(links)
    }

    /// Every link, in the order of the ids. What cannot be decoded is given as such.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<Found, StoreError>> + '_, StoreError> {
        Ok(self.links.iter()?.map(|entry| {
            let (id, bytes) = entry?;
            let id = LinkId::from_bytes(id.value()).map_err(|error| StoreError::damaged("links", error))?;
            Ok((id, record::decode(id, bytes.value())))
        }))
    }

    /// The number of the commit that left the store so.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The revocations: digest and the moment until which each is kept.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn revocations(&self) -> Result<Vec<([u8; 20], Timestamp)>, StoreError> {
        let entries = self.revocations.iter()?;
        entries
            .map(|entry| {
                let (digest, until) = entry?;
                let digest = digest
                    .value()
                    .try_into()
                    .map_err(|error| StoreError::damaged("revocations", error))?;
                Ok((digest, Timestamp::from_unix(until.value())))
            })
            .collect()
    }

    /// The calls that were counted, by session, for tests.
    #[cfg(test)]
    pub(crate) fn counted_calls(&self) -> Result<Vec<([u8; 20], u64)>, StoreError> {
        let entries = self.actions.iter()?;
        entries
            .map(|entry| {
                let (digest, counted) = entry?;
                Ok((digest.value().try_into().unwrap(), counted.value().0))
            })
            .collect()
    }

    /// The links that a user owns and that are not deleted.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn links_of_user(&self, partner: PartnerId, user: &str) -> Result<Vec<LinkId>, StoreError> {
        let scope = keys::text_scope(partner, user);
        let mut ids = Vec::new();
        for status in [Status::Disabled, Status::Enabled] {
            let (first, last) = keys::bounds(&scope, status, None, None);
            for entry in self.index(Index::User).range(first.as_slice()..=last.as_slice())? {
                ids.push(keys::decode_tail(Index::User, scope.len(), entry?.0.value())?.1);
            }
        }
        Ok(ids)
    }

    /// The users whose links are being deleted, and since when.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn deletions(&self) -> Result<Vec<(PartnerId, String, Timestamp)>, StoreError> {
        let mut deletions = Vec::new();
        for entry in self.meta.range(META_DELETION..)? {
            let (key, at) = entry?;
            let Some((partner, user)) = tables::deletion_of(key.value()) else {
                break;
            };
            deletions.push((partner, user.to_owned(), Timestamp::from_unix(at.value().cast_signed())));
        }
        Ok(deletions)
    }

    /// How many links have each status, in the order of [`Status::ALL`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn totals(&self) -> Result<[u64; Status::ALL.len()], StoreError> {
        let mut totals = [0; Status::ALL.len()];
        let partners = [Counter::Partner.kind()];
        for entry in self.counters.range(partners.as_slice()..)? {
            let (key, counts) = entry?;
            if !key.value().starts_with(&partners) {
                break;
            }
            for (total, count) in totals.iter_mut().zip(decode_counts(counts.value())?) {
                *total += count;
            }
        }
        Ok(totals)
    }

    /// How many links of a scope have each status.
    pub(super) fn counts(&self, counter: Counter, scope: &[u8]) -> Result<[u64; Status::ALL.len()], StoreError> {
        match self.counters.get(counter.key(scope).as_slice())? {
            Some(bytes) => decode_counts(bytes.value()),
            None => Ok([0; Status::ALL.len()]),
        }
    }

    pub(super) const fn index(&self, index: Index) -> &ReadOnlyTable<Bytes, ()> {
        self.indexes.get(index)
    }
}
