//! A consistent view of the store for reading.

#[cfg(test)]
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable};

use crate::model::{DailyUsage, Day, LinkId, PartnerId, ShortLink, Status, Timestamp, Usage, shown};
use crate::store::error::{StoreError, unless_corrupt};
use crate::store::format::clicks;
use crate::store::format::days;
use crate::store::format::keys::{self, Bytes, Index, OF_PARTNERS, PerIndex};
use crate::store::format::outbox::FleetClicks;
use crate::store::format::record;
use crate::store::format::tables::{
    self, ACTIONS, AUDIT, CLICKS, COUNTERS, DAYS, ENTRIES, LINKS, META, META_SEQUENCE, REVOCATIONS, STAGED,
};
use crate::store::format::values::{self, Counts, decode_counts};
use crate::store::replication::{ContentDigest, Position};

/// An id and its link, or why the link cannot be read.
type Found = (LinkId, Result<ShortLink, StoreError>);

/// The store as one commit left it.
#[derive(Debug)]
pub struct Snapshot {
    pub links: ReadOnlyTable<Bytes, Bytes>,
    indexes: PerIndex<ReadOnlyTable<Bytes, ()>>,
    pub counters: ReadOnlyTable<Bytes, Bytes>,
    pub revocations: ReadOnlyTable<Bytes, Bytes>,
    pub actions: ReadOnlyTable<Bytes, Bytes>,
    /// None where nothing has been counted yet.
    pub clicks: Option<ReadOnlyTable<Bytes, Bytes>>,
    pub days: Option<ReadOnlyTable<Bytes, Bytes>>,
    pub audit: Option<ReadOnlyTable<Bytes, Bytes>>,
    pub meta: ReadOnlyTable<&'static str, u64>,
    /// In a cluster.
    position: Option<Position>,
    pub entries: Option<ReadOnlyTable<u64, Bytes>>,
    /// Parts of imports that are not in force yet.
    pub staged: Option<ReadOnlyTable<Bytes, Bytes>>,
    pub fleet: Option<FleetClicks>,
    /// The number of the commit that left the store so.
    pub sequence: u64,
}

impl Snapshot {
    pub fn new(database: &Database) -> Result<Self, StoreError> {
        let inner = database.begin_read()?;
        let meta = inner.open_table(META)?;
        let sequence = meta.get(META_SEQUENCE)?.map_or(0, |entry| entry.value());
        let position = tables::position_of(&inner)?;
        Ok(Self {
            links: inner.open_table(LINKS)?,
            indexes: PerIndex::make(|index| inner.open_table(index.table()))?,
            counters: inner.open_table(COUNTERS)?,
            revocations: inner.open_table(REVOCATIONS)?,
            actions: inner.open_table(ACTIONS)?,
            clicks: tables::open_if_there(&inner, CLICKS)?,
            days: tables::open_if_there(&inner, DAYS)?,
            audit: tables::open_if_there(&inner, AUDIT)?,
            fleet: position.map(|_| FleetClicks::open(&inner)).transpose()?,
            position,
            entries: tables::open_if_there(&inner, ENTRIES)?,
            staged: tables::open_if_there(&inner, STAGED)?,
            meta,
            sequence,
        })
    }

    /// Up to where the replication log has been applied; none outside of a cluster.
    pub const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Entries of the replication log after one that this store has applied, oldest first, as long as they take so many
    /// bytes; none if the first of them is not kept any more.
    pub fn entries_after(&self, sequence: u64, most_bytes: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut entries = Vec::new();
        let Some(table) = &self.entries else { return Ok(entries) };
        let mut bytes = 0;
        for (kept, expected) in table
            .range(sequence.saturating_add(1)..)?
            .zip(sequence.saturating_add(1)..)
        {
            let (number, value) = kept?;
            let entry = tables::split_entry(value.value()).1;
            bytes += entry.len();
            if number.value() != expected || (bytes > most_bytes && !entries.is_empty()) {
                break;
            }
            entries.push(entry.to_vec());
        }
        Ok(entries)
    }

    /// The digest of all links, as counted anew.
    pub fn content_digest(&self) -> Result<ContentDigest, StoreError> {
        let mut digest = ContentDigest::default();
        for entry in self.links.iter()? {
            let (key, record) = entry?;
            digest.add(id_of(key.value())?, record.value());
        }
        Ok(digest)
    }

    /// How a link has been used, as far as that has been written down; a damaged entry is logged and counts as none. In
    /// a cluster, this is what the stream of clicks has led to.
    pub fn usage(&self, id: LinkId) -> Result<Usage, StoreError> {
        match &self.clicks {
            Some(table) => clicks::usage_of(id, table),
            None => Ok(Usage::default()),
        }
    }

    /// Calls `visit` with every link that has been used and its clicks, as far as they have been written down.
    pub fn for_each_used(&self, mut visit: impl FnMut(LinkId, u64)) -> Result<(), StoreError> {
        let entries = self.clicks.as_ref().map(|table| table.iter()).transpose()?;
        for entry in entries.into_iter().flatten() {
            let (id, sealed) = entry?;
            let Ok(link) = id_of(id.value()) else { continue };
            let clicks = clicks::decode_or_none(link, sealed.value()).clicks;
            if clicks > 0 {
                visit(link, clicks);
            }
        }
        self.for_each_queued_click(&mut visit)
    }

    /// How a link has been used on each of these days, without those on which it was not.
    pub fn usage_by_day(&self, id: LinkId, days: RangeInclusive<Day>) -> Result<Vec<DailyUsage>, StoreError> {
        self.by_day(days, |day| days::key_of_link(day, id))
    }

    /// The same for all links of a partner together.
    pub fn usage_of_partner_by_day(
        &self,
        partner: PartnerId,
        days: RangeInclusive<Day>,
    ) -> Result<Vec<DailyUsage>, StoreError> {
        self.by_day(days, |day| days::key_of_partner(day, partner))
    }

    fn by_day(&self, days: RangeInclusive<Day>, key: impl Fn(Day) -> Vec<u8>) -> Result<Vec<DailyUsage>, StoreError> {
        let mut used = Vec::new();
        let Some(table) = &self.days else { return Ok(used) };
        for day in (days.start().0..=days.end().0).map(Day) {
            let key = key(day);
            let stored = table.get(key.as_slice())?;
            if let Some(visits) = stored.and_then(|sealed| days::decode_or_none(&key, sealed.value())) {
                used.push(DailyUsage {
                    day,
                    clicks: visits.clicks,
                    previews: visits.previews,
                });
            }
        }
        Ok(used)
    }

    pub fn get(&self, id: LinkId) -> Result<Option<ShortLink>, StoreError> {
        let stored = self.links.get(id.as_bytes())?;
        stored.map(|bytes| record::decode(id, bytes.value())).transpose()
    }

    /// Calls `visit` for every link, in the order of the ids, and returns how many there are. What cannot be decoded is
    /// given as such; an id that is none is logged and passed over.
    pub fn for_each(&self, mut visit: impl FnMut(LinkId, Result<ShortLink, StoreError>)) -> Result<u64, StoreError> {
        let mut links = 0;
        for entry in self.iter()? {
            match entry {
                Ok((id, record)) => {
                    visit(id, record);
                    links += 1;
                }
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(%error, "a link has a damaged id: run {} verify on a copy", shown::command());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(links)
    }

    /// Every link, in the order of the ids. What cannot be decoded is given as such, and an id that is none as
    /// [`StoreError::Damaged`].
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<Found, StoreError>> + '_, StoreError> {
        Ok(self.links.iter()?.map(|entry| {
            let (id, bytes) = entry?;
            let id = id_of(id.value())?;
            Ok((id, record::decode(id, bytes.value())))
        }))
    }

    /// The revocations: digest and the moment until which each is kept. Where that is damaged, it is kept for ever: a
    /// session that was ended must not begin again.
    pub fn revocations(&self) -> Result<Vec<([u8; 20], Timestamp)>, StoreError> {
        let mut revocations = Vec::new();
        for entry in self.revocations.iter()? {
            let (digest, until) = entry?;
            let until = values::decode_until(digest.value(), until.value()).unwrap_or_else(|error| {
                tracing::error!(%error, "a revocation is damaged: if its digest is, a session that was ended works \
                    again");
                Timestamp::MAX
            });
            if let Ok(digest) = digest.value().try_into() {
                revocations.push((digest, until));
            }
        }
        Ok(revocations)
    }

    /// The entries of the table of days, for tests: each key, clicks and previews.
    #[cfg(test)]
    pub(crate) fn days(&self) -> Result<BTreeMap<Vec<u8>, (u64, u64)>, StoreError> {
        let Some(table) = &self.days else {
            return Ok(BTreeMap::new());
        };
        let entries = table.iter()?.map(|entry| {
            let (key, sealed) = entry?;
            let visits = days::decode(key.value(), sealed.value())?;
            Ok((key.value().to_vec(), (visits.clicks, visits.previews)))
        });
        entries.collect()
    }

    /// How many parts of imports are staged, for tests.
    #[cfg(test)]
    pub(crate) fn staged_parts(&self) -> Result<usize, StoreError> {
        use redb::ReadableTableMetadata as _;
        let Some(table) = &self.staged else { return Ok(0) };
        Ok(usize::try_from(table.len()?).unwrap())
    }

    /// The calls that were counted, by session, for tests.
    #[cfg(test)]
    pub(crate) fn counted_calls(&self) -> Result<Vec<([u8; 20], u64)>, StoreError> {
        let entries = self.actions.iter()?;
        entries
            .map(|entry| {
                let (digest, counted) = entry?;
                let (calls, _) = values::decode_calls(digest.value(), counted.value())?;
                Ok((digest.value().try_into().unwrap(), calls))
            })
            .collect()
    }

    /// The links that a user owns and that are not deleted.
    pub fn links_of_user(&self, partner: PartnerId, user: &str) -> Result<Vec<LinkId>, StoreError> {
        let scope = keys::text_scope(partner, user);
        undeleted(self.index(Index::User), Index::User, &scope, None)?.collect()
    }

    /// The users whose links are being deleted, and since when.
    pub fn deletions(&self) -> Result<Vec<(PartnerId, String, Timestamp)>, StoreError> {
        deletions_in(&self.meta)
    }

    /// How many links have each status, in the order of [`Status::ALL`].
    pub fn totals(&self) -> Result<[u64; Status::ALL.len()], StoreError> {
        let counted = match unless_corrupt(|| self.counted_totals()) {
            Err(StoreError::Damaged { .. }) => Ok(None),
            counted => counted,
        };
        if let Some(totals) = counted? {
            return Ok(totals);
        }
        let totals = unless_corrupt(|| count(self.index(Index::Created).iter()?, Index::Created))?;
        totals.ok_or_else(|| StoreError::damaged(Index::Created.name(), "unreadable page"))
    }

    fn counted_totals(&self) -> Result<Counts, StoreError> {
        let mut totals = Counts::default();
        let partners = [OF_PARTNERS];
        for entry in self.counters.range(partners.as_slice()..)? {
            let (key, counts) = entry?;
            if !key.value().starts_with(&partners) {
                break;
            }
            for (total, count) in totals.iter_mut().zip(decode_counts(key.value(), counts.value())?) {
                *total += count;
            }
        }
        Ok(totals)
    }

    /// What the counter with this key says.
    pub fn counts(&self, key: &[u8]) -> Result<Counts, StoreError> {
        match self.counters.get(key)? {
            Some(bytes) => decode_counts(key, bytes.value()),
            None => Ok(Counts::default()),
        }
    }

    /// How many links of a user were made between two moments, deleted ones too; at most so many.
    pub fn count_links_of_user(
        &self,
        partner: PartnerId,
        user: &str,
        times: (Timestamp, Timestamp),
        most: usize,
    ) -> Result<usize, StoreError> {
        count_of_user(self.index(Index::User), partner, user, times, most)
    }

    pub const fn index(&self, index: Index) -> &ReadOnlyTable<Bytes, ()> {
        self.indexes.get(index)
    }
}

/// The id of a record, if its key is one.
pub fn id_of(key: &[u8]) -> Result<LinkId, StoreError> {
    LinkId::from_bytes(key).map_err(|error| StoreError::damaged("links", format!("{}: {error}", key.escape_ascii())))
}

/// How many of these entries of an index have each status.
fn count(entries: redb::Range<'_, Bytes, ()>, index: Index) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    for entry in entries {
        let (key, ()) = (entry?.0, ());
        let status = keys::split_scope(index, key.value()).map_or(0, |(_, status)| status);
        if let Some(count) = counts.get_mut(usize::from(status).wrapping_sub(1)) {
            *count += 1;
        }
    }
    Ok(counts)
}

/// How many entries of each status an index has in a scope.
pub fn count_scope(table: &impl ReadableTable<Bytes, ()>, index: Index, scope: &[u8]) -> Result<Counts, StoreError> {
    let (first, last) = keys::scope_bounds(scope);
    count(table.range(first.as_slice()..=last.as_slice())?, index)
}

pub fn count_of_user<T: ReadableTable<Bytes, ()>>(
    table: &T,
    partner: PartnerId,
    user: &str,
    (from, to): (Timestamp, Timestamp),
    most: usize,
) -> Result<usize, StoreError> {
    let scope = keys::text_scope(partner, user);
    let mut count = 0;
    for status in Status::ALL {
        let (first, last) = keys::bounds(&scope, status, Some(from), Some(to));
        for entry in table.range(first.as_slice()..=last.as_slice())?.take(most - count) {
            entry?;
            count += 1;
        }
    }
    Ok(count)
}

/// The users whose links are being deleted, and since when.
pub fn deletions_in(
    meta: &impl ReadableTable<&'static str, u64>,
) -> Result<Vec<(PartnerId, String, Timestamp)>, StoreError> {
    let mut deletions = Vec::new();
    for entry in meta.range(tables::META_DELETION..)? {
        let (key, at) = entry?;
        let Some((partner, user)) = tables::deletion_of(key.value()) else {
            break;
        };
        match tables::unseal_deletion(key.value(), at.value()) {
            Some(at) => deletions.push((partner, user.to_owned(), at)),
            None => tracing::error!("ignoring a damaged note of a deletion"),
        }
    }
    Ok(deletions)
}

/// The links of a scope that are not deleted, made up to a moment.
pub fn undeleted<T: ReadableTable<Bytes, ()>>(
    table: &T,
    index: Index,
    scope: &[u8],
    until: Option<Timestamp>,
) -> Result<impl Iterator<Item = Result<LinkId, StoreError>>, StoreError> {
    let entries = |status| {
        let (first, last) = keys::bounds(scope, status, None, until);
        table.range(first.as_slice()..=last.as_slice())
    };
    let entries = entries(Status::Disabled)?.chain(entries(Status::Enabled)?);
    Ok(entries.map(move |entry| Ok(keys::decode_tail(index, scope.len(), entry?.0.value())?.1)))
}
