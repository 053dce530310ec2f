//! The map from which redirects are answered: id → (destination, status, start and expiry), in shards.
//!
//! Invariants: a lookup takes its shard's read lock and nothing else, allocates nothing, and never waits for the disk;
//! several locks are held by [`LinkMap::prefetch`] alone, which waits for none; what is published here has been
//! committed by the store.

pub mod publisher;
pub mod records;

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::hint::black_box;
use std::sync::OnceLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use hyper::header::HeaderValue;
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::links::map::records::{ChunkOffset, Record, Records, Untimely, Validity, render};
use crate::model::{Destination, LinkId, LinkRef, Status, Timestamp};

/// Many more than cores, so that writers seldom block readers. A power of two.
const SHARDS: usize = 256;

/// Links that are loaded into a shard together.
const BATCH_LINKS: usize = 128;

/// Links that are read ahead together: about as many as a core can wait for.
pub const PREFETCHED_LINKS: usize = 16;

/// What to answer for an id (docs/kaltura-api.md#goto).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<L = HeaderValue> {
    /// With the link's `Location`.
    Redirect(L),
    Disabled,
    Deleted,
    Expired,
    /// Starts then.
    NotYet(Timestamp),
    Unknown,
    /// Not in the map, which is still loading.
    Loading,
    Damaged,
}

#[derive(Debug, Default)]
struct Shard {
    positions: HashTable<ChunkOffset>,
    records: Records,
}

// A cache line each, against false sharing of the locks.
#[repr(align(64))]
#[derive(Debug, Default)]
struct LockedShard(RwLock<Shard>);

#[derive(Debug)]
pub struct LinkMap {
    shards: Box<[LockedShard]>,
    // A random seed, against ids chosen to collide.
    hasher: RandomState,
    // Set when all links are loaded: the ids of the damaged ones.
    loaded: OnceLock<HashSet<LinkId>>,
}

impl Default for LinkMap {
    fn default() -> Self {
        Self {
            shards: std::iter::repeat_with(LockedShard::default).take(SHARDS).collect(),
            hasher: RandomState::default(),
            loaded: OnceLock::new(),
        }
    }
}

impl Shard {
    fn find(&self, hash: u64, id: LinkId) -> Option<Record<'_>> {
        let is_it = |position: &ChunkOffset| is_of(&self.records, *position, id);
        self.records.get(*self.positions.find(hash, is_it)?)
    }

    /// Inserts a record, or replaces the one with its id if `may_replace` and they differ.
    fn put(&mut self, hasher: &RandomState, hash: u64, id: LinkId, record: &[u8], replace: bool) -> bool {
        let Self { positions, records } = self;
        let is_it = |position: &ChunkOffset| is_of(records, *position, id);
        match positions.entry(hash, is_it, |position| hash_at(hasher, records, *position)) {
            Entry::Occupied(mut present) => {
                let old = *present.get();
                if !replace || records.get(old).is_some_and(|old| old.bytes() == record) {
                    return false;
                }
                let Some(position) = records.push(record) else {
                    return false;
                };
                *present.get_mut() = position;
                records.release(old);
            }
            Entry::Vacant(vacant) => {
                let Some(position) = records.push(record) else {
                    return false;
                };
                vacant.insert(position);
            }
        }
        self.pack(hasher);
        true
    }

    fn remove(&mut self, hasher: &RandomState, hash: u64, id: LinkId) {
        let Self { positions, records } = self;
        let is_it = |position: &ChunkOffset| is_of(records, *position, id);
        if let Ok(entry) = positions.find_entry(hash, is_it) {
            let (position, _) = entry.remove();
            records.release(position);
            self.pack(hasher);
        }
    }

    /// Empties sparse chunks: moves at most some hundred records at a time.
    fn pack(&mut self, hasher: &RandomState) {
        while let Some(taken) = self.records.take_sparse() {
            for (from, record) in taken.records() {
                let Some(id) = record.id() else { continue };
                // Dead records are in no slot.
                let slot = self
                    .positions
                    .find_mut(hash_of(hasher, id), |position| *position == from);
                if let (Some(slot), Some(to)) = (slot, self.records.push(record.bytes())) {
                    *slot = to;
                }
            }
        }
    }
}

/// Renders a link. False, and as a damaged link, if its destination was never acceptable and must not be sent.
fn render_link(record: &mut Vec<u8>, link: &LinkRef<'_>) -> bool {
    let is_whole = Destination::was_ever_accepted(link.full_url);
    let validity = Validity {
        starts_at: link.starts_at,
        expires_at: link.expires_at,
    };
    let status = is_whole.then_some(link.status);
    render(record, link.id, status, validity, |out| {
        if is_whole {
            Destination::write_location(link.full_url, out);
        }
    });
    is_whole
}

/// The table uses the lowest and highest bits of the hash; these are in between.
fn shard_of(hash: u64) -> usize {
    usize::try_from(hash >> 32).unwrap_or_default() % SHARDS
}

/// Links to load, collected by shard: its table is then in the cache.
#[derive(Debug)]
pub struct Batch<'i> {
    index: &'i LinkMap,
    scratch: Vec<u8>,
    /// By shard: concatenated records, and the hash of each.
    waiting: Vec<(Vec<u8>, Vec<u64>)>,
}

impl<'i> Batch<'i> {
    pub fn new(index: &'i LinkMap) -> Self {
        Self {
            index,
            scratch: Vec::new(),
            waiting: vec![(Vec::new(), Vec::new()); SHARDS],
        }
    }

    /// As [`LinkMap::load`], at the latest when the batch is finished. False if the destination was never acceptable.
    pub fn load(&mut self, link: &LinkRef<'_>) -> bool {
        if !render_link(&mut self.scratch, link) {
            return false;
        }
        let hash = hash_of(&self.index.hasher, link.id);
        let Some((records, hashes)) = self.waiting.get_mut(shard_of(hash)) else {
            return true;
        };
        records.extend_from_slice(&self.scratch);
        hashes.push(hash);
        if hashes.len() >= BATCH_LINKS {
            self.index.load_together(records, hashes);
        }
        true
    }

    pub fn finish(mut self) {
        for (records, hashes) in &mut self.waiting {
            self.index.load_together(records, hashes);
        }
    }
}

fn hash_of(hasher: &RandomState, id: LinkId) -> u64 {
    hasher.hash_one(id)
}

fn is_of(records: &Records, position: ChunkOffset, id: LinkId) -> bool {
    let record = records.get(position);
    record.is_some_and(|record| record.id_bytes() == id.as_bytes())
}

fn hash_at(hasher: &RandomState, records: &Records, position: ChunkOffset) -> u64 {
    let id = records.get(position).and_then(Record::id);
    id.map_or(0, |id| hash_of(hasher, id))
}

impl LinkMap {
    pub fn look_up(&self, id: LinkId, now: Timestamp) -> Verdict {
        // A location is visible ASCII, which every header can carry.
        let value = |location: &[u8]| HeaderValue::from_bytes(location).ok();
        match self.look_up_with(id, now, value) {
            Verdict::Redirect(location) => location.map_or(Verdict::Damaged, Verdict::Redirect),
            Verdict::Disabled => Verdict::Disabled,
            Verdict::Deleted => Verdict::Deleted,
            Verdict::Expired => Verdict::Expired,
            Verdict::NotYet(starts_at) => Verdict::NotYet(starts_at),
            Verdict::Unknown => Verdict::Unknown,
            Verdict::Loading => Verdict::Loading,
            Verdict::Damaged => Verdict::Damaged,
        }
    }

    /// What to answer for an id at `now`, with what `take` makes of the location. `take` runs under the shard's lock,
    /// so it must be quick; in return nothing is allocated.
    pub fn look_up_with<L>(&self, id: LinkId, now: Timestamp, take: impl FnOnce(&[u8]) -> L) -> Verdict<L> {
        // Before the look-up, so that a link loaded in between is not called unknown.
        let loaded = self.loaded.get();
        let hash = hash_of(&self.hasher, id);
        let Some(shard) = self.shard(hash) else {
            return Verdict::Unknown;
        };
        let links = shard.0.read();
        let Some(record) = links.find(hash, id) else {
            drop(links);
            return match loaded {
                None => Verdict::Loading,
                Some(damaged) if damaged.contains(&id) => Verdict::Damaged,
                Some(_) => Verdict::Unknown,
            };
        };
        match record.status() {
            None => Verdict::Damaged,
            Some(Status::Disabled) => Verdict::Disabled,
            Some(Status::Deleted) => Verdict::Deleted,
            Some(Status::Enabled) => match record.untimely_at(now) {
                None => Verdict::Redirect(take(record.location())),
                Some(Untimely::Expired) => Verdict::Expired,
                Some(Untimely::NotYet(starts_at)) => Verdict::NotYet(starts_at),
            },
        }
    }

    /// Reads links that are about to be looked up, so that the processor waits for the memory of all at once. Look-ups
    /// by themselves don't overlap: taking a lock waits for the reads before it.
    pub fn prefetch(&self, ids: impl Iterator<Item = LinkId>) {
        let mut held = SmallVec::<[_; PREFETCHED_LINKS]>::new();
        for id in ids.take(PREFETCHED_LINKS) {
            let hash = hash_of(&self.hasher, id);
            let links = self.shard(hash).and_then(|shard| shard.0.try_read());
            held.extend(links.map(|links| (links, hash, id)));
        }
        for (links, hash, id) in &held {
            let record = links.find(*hash, *id);
            black_box(record.and_then(|record| record.location().last().copied()));
        }
    }

    pub fn links(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.read().positions.len()).sum()
    }

    pub fn memory_bytes(&self) -> u64 {
        let of_shard = |shard: &LockedShard| {
            let links = shard.0.read();
            (links.positions.allocation_size() + links.records.memory_bytes()) as u64
        };
        self.shards.iter().map(of_shard).sum()
    }

    pub fn is_loaded(&self) -> bool {
        self.loaded.get().is_some()
    }

    pub fn damaged(&self) -> usize {
        self.loaded.get().map_or(0, HashSet::len)
    }

    pub fn set_loaded(&self, damaged: HashSet<LinkId>) {
        // The first load counts.
        let _ = self.loaded.set(damaged);
    }

    /// Makes room for so many links, so that loading moves none.
    pub fn reserve(&self, links: u64) {
        let each = usize::try_from(links).unwrap_or(usize::MAX) / SHARDS;
        for shard in &self.shards {
            let mut of_shard = shard.0.write();
            let Shard { positions, records } = &mut *of_shard;
            // Links spread nearly evenly.
            let wanted = (each + each / 32).saturating_sub(positions.len());
            positions.reserve(wanted, |position| hash_at(&self.hasher, records, *position));
        }
    }

    /// Publishes a committed link. True if the map had another version.
    pub fn publish(&self, link: &LinkRef<'_>) -> bool {
        self.insert(link, true)
    }

    pub fn ids(&self) -> Vec<LinkId> {
        let of_shard = |shard: &LockedShard| {
            let links = shard.0.read();
            let ids = links
                .positions
                .iter()
                .filter_map(|position| links.records.get(*position)?.id());
            ids.collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    pub fn remove(&self, id: LinkId) {
        let hash = hash_of(&self.hasher, id);
        if let Some(shard) = self.shard(hash) {
            shard.0.write().remove(&self.hasher, hash, id);
        }
    }

    /// Loads records of one shard, and clears both lists.
    fn load_together(&self, records: &mut Vec<u8>, hashes: &mut Vec<u64>) {
        let mut rest = records.as_slice();
        if let Some(shard) = hashes.first().and_then(|hash| self.shard(*hash)) {
            let mut links = shard.0.write();
            for hash in hashes.iter() {
                let Some((record, id)) = Record::from_bytes(rest).and_then(|record| Some((record, record.id()?)))
                else {
                    break;
                };
                links.put(&self.hasher, *hash, id, record.bytes(), false);
                rest = rest.get(record.bytes().len()..).unwrap_or_default();
            }
        }
        records.clear();
        hashes.clear();
    }

    /// Loads a stored link unless a commit has published it since.
    pub fn load(&self, link: &LinkRef<'_>) {
        self.insert(link, false);
    }

    fn insert(&self, link: &LinkRef<'_>, replace: bool) -> bool {
        // Before the lock.
        let mut record = Vec::new();
        render_link(&mut record, link);
        let hash = hash_of(&self.hasher, link.id);
        let Some(shard) = self.shard(hash) else { return false };
        shard.0.write().put(&self.hasher, hash, link.id, &record, replace)
    }

    fn shard(&self, hash: u64) -> Option<&LockedShard> {
        self.shards.get(shard_of(hash))
    }

    /// Location, status, start and expiry.
    #[cfg(test)]
    pub(crate) fn entry(&self, id: LinkId) -> Option<(String, Status, [Option<Timestamp>; 2])> {
        let hash = hash_of(&self.hasher, id);
        let links = self.shard(hash)?.0.read();
        let record = links.find(hash, id)?;
        let location = String::from_utf8(record.location().to_vec()).ok()?;
        let Validity { starts_at, expires_at } = record.validity();
        Some((location, record.status()?, [starts_at, expires_at]))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;

    #[test]
    fn prefetch_waits_for_no_writer() {
        let (map, id) = (Arc::new(LinkMap::default()), "67mk41xj".parse().unwrap());
        let writing = map.shard(hash_of(&map.hasher, id)).unwrap().0.write();
        let (done, is_done) = mpsc::channel();
        let prefetched = Arc::clone(&map);
        std::thread::spawn(move || {
            prefetched.prefetch([id, id].into_iter());
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(writing);
    }
}
