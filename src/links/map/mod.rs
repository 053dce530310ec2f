//! The map from which redirects are answered: id → (destination, status, expiry), in shards.
//!
//! Invariants: a lookup takes its shard's read lock and nothing else, allocates nothing, and never waits for the disk;
//! what is published here has been committed by the store.

pub mod publisher;
pub mod records;

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::OnceLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use hyper::header::HeaderValue;
use parking_lot::RwLock;

use crate::links::map::records::{ChunkOffset, Record, Records, render};
use crate::model::{Destination, LinkId, LinkRef, Status, Timestamp};

/// Shards: many more than cores, so that a writer is seldom in a reader's way. A power of two.
const SHARDS: usize = 256;

/// Links that are brought into a shard together.
const BATCH_LINKS: usize = 128;

/// What is to be answered for an id at some moment (docs/kaltura-api.md#goto).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<L = HeaderValue> {
    /// The link works; this is its `Location`.
    Redirect(L),
    Disabled,
    Deleted,
    Expired,
    Unknown,
    /// Not all links have been loaded yet, and this one is not among those that have.
    Loading,
    /// There is such a link, but its record is damaged.
    Damaged,
}

/// The links of one shard: a table of places, hashed by the ids of the records that are there.
#[derive(Debug, Default)]
struct Shard {
    places: HashTable<ChunkOffset>,
    records: Records,
}

// A line of cache each, so that the lock of one shard does not slow down the next.
#[repr(align(64))]
#[derive(Debug, Default)]
struct LockedShard(RwLock<Shard>);

#[derive(Debug)]
pub struct LinkMap {
    shards: Box<[LockedShard]>,
    // Seeded at random, so that nobody can choose ids that fall into one bucket.
    hasher: RandomState,
    // Set once all links are there: the ids of those whose records are damaged.
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
        let is_it = |place: &ChunkOffset| is_of(&self.records, *place, id);
        self.records.get(*self.places.find(hash, is_it)?)
    }

    /// Puts a record in the place of the one with its id, if there is one that is different and it may be replaced.
    fn put(&mut self, hasher: &RandomState, hash: u64, id: LinkId, record: &[u8], replace: bool) -> bool {
        let Self { places, records } = self;
        let is_it = |place: &ChunkOffset| is_of(records, *place, id);
        match places.entry(hash, is_it, |place| hash_at(hasher, records, *place)) {
            Entry::Occupied(mut present) => {
                let old = *present.get();
                if !replace || records.get(old).is_some_and(|old| old.bytes() == record) {
                    return false;
                }
                let Some(place) = records.push(record) else {
                    return false;
                };
                *present.get_mut() = place;
                records.release(old);
            }
            Entry::Vacant(vacant) => {
                let Some(place) = records.push(record) else {
                    return false;
                };
                vacant.insert(place);
            }
        }
        self.pack(hasher);
        true
    }

    fn remove(&mut self, hasher: &RandomState, hash: u64, id: LinkId) {
        let Self { places, records } = self;
        let is_it = |place: &ChunkOffset| is_of(records, *place, id);
        if let Ok(entry) = places.find_entry(hash, is_it) {
            let (place, _) = entry.remove();
            records.release(place);
            self.pack(hasher);
        }
    }

    /// Moves what is in use out of chunks that are mostly unused: at most some hundred records at a time.
    fn pack(&mut self, hasher: &RandomState) {
        while let Some(taken) = self.records.take_sparse() {
            for (from, record) in taken.records() {
                let Some(id) = record.id() else { continue };
                // A record that is no longer in use is in no slot.
                let slot = self.places.find_mut(hash_of(hasher, id), |place| *place == from);
                if let (Some(slot), Some(to)) = (slot, self.records.push(record.bytes())) {
                    *slot = to;
                }
            }
        }
    }
}

/// Renders a link; as a damaged one, and false, if its destination is none that any version has accepted: it must not
/// be shown to anybody.
fn render_link(record: &mut Vec<u8>, link: &LinkRef<'_>) -> bool {
    let is_whole = Destination::was_ever_accepted(link.full_url);
    render(
        record,
        link.id,
        is_whole.then_some(link.status),
        link.expires_at,
        |out| {
            if is_whole {
                Destination::write_location(link.full_url, out);
            }
        },
    );
    is_whole
}

/// The shard of a hash. The table inside the shard uses the lowest and highest bits; these are in between.
fn shard_of(hash: u64) -> usize {
    usize::try_from(hash >> 32).unwrap_or_default() % SHARDS
}

/// Many links on their way into the index. Those of a shard are brought in together, because its table is then near.
#[derive(Debug)]
pub struct Batch<'i> {
    index: &'i LinkMap,
    scratch: Vec<u8>,
    /// By shard: records, one after the other, and the hash of each.
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

    /// As [`LinkMap::load`], at the latest when the batch is finished. A link whose destination no version has
    /// accepted is not loaded; false then.
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
    hasher.hash_one(id.padded())
}

fn is_of(records: &Records, place: ChunkOffset, id: LinkId) -> bool {
    let record = records.get(place);
    record.is_some_and(|record| record.id_bytes() == id.as_bytes())
}

fn hash_at(hasher: &RandomState, records: &Records, place: ChunkOffset) -> u64 {
    let id = records.get(place).and_then(Record::id);
    id.map_or(0, |id| hash_of(hasher, id))
}

impl LinkMap {
    /// What to answer for an id at `now`.
    pub fn look_up(&self, id: LinkId, now: Timestamp) -> Verdict {
        // A location is visible ASCII, which every header can carry.
        let value = |location: &[u8]| HeaderValue::from_bytes(location).ok();
        match self.look_up_with(id, now, value) {
            Verdict::Redirect(location) => location.map_or(Verdict::Damaged, Verdict::Redirect),
            Verdict::Disabled => Verdict::Disabled,
            Verdict::Deleted => Verdict::Deleted,
            Verdict::Expired => Verdict::Expired,
            Verdict::Unknown => Verdict::Unknown,
            Verdict::Loading => Verdict::Loading,
            Verdict::Damaged => Verdict::Damaged,
        }
    }

    /// What to answer for an id at `now`, with what `take` makes of the location. It runs while the shard is locked, so
    /// it must be quick; in return nothing is allocated and nothing shared.
    pub fn look_up_with<L>(&self, id: LinkId, now: Timestamp, take: impl FnOnce(&[u8]) -> L) -> Verdict<L> {
        // Before the look, so that a link which the loader brings in between is not said to be unknown.
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
            // The link still works in the very second of its expiry.
            Some(Status::Enabled) if record.expires_at().is_some_and(|expires_at| now > expires_at) => Verdict::Expired,
            Some(Status::Enabled) => Verdict::Redirect(take(record.location())),
        }
    }

    pub fn links(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.read().places.len()).sum()
    }

    /// Bytes of memory that the map has allocated.
    pub fn memory_bytes(&self) -> u64 {
        let of_shard = |shard: &LockedShard| {
            let links = shard.0.read();
            (links.places.allocation_size() + links.records.memory_bytes()) as u64
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Whether every link of the store is in the map.
    pub fn is_loaded(&self) -> bool {
        self.loaded.get().is_some()
    }

    /// Links whose records are damaged; none until all links are in the map.
    pub fn damaged(&self) -> usize {
        self.loaded.get().map_or(0, HashSet::len)
    }

    pub fn set_loaded(&self, damaged: HashSet<LinkId>) {
        // Loading a second time changes nothing about what the first one found.
        let _ = self.loaded.set(damaged);
    }

    /// Makes room for so many links, so that bringing them in moves none of them.
    pub fn reserve(&self, links: u64) {
        let each = usize::try_from(links).unwrap_or(usize::MAX) / SHARDS;
        for shard in &self.shards {
            let mut of_shard = shard.0.write();
            let Shard { places, records } = &mut *of_shard;
            // They are spread evenly, but not quite.
            let wanted = (each + each / 32).saturating_sub(places.len());
            places.reserve(wanted, |place| hash_at(&self.hasher, records, *place));
        }
    }

    /// Shows a link as a commit left it; says whether it was shown otherwise before.
    pub fn publish(&self, link: &LinkRef<'_>) -> bool {
        self.insert(link, true)
    }

    /// The ids in the map, in no order.
    pub fn ids(&self) -> Vec<LinkId> {
        let of_shard = |shard: &LockedShard| {
            let links = shard.0.read();
            let ids = links.places.iter().filter_map(|place| links.records.get(*place)?.id());
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

    /// Brings in records of one shard, and empties both lists.
    fn load_together(&self, records: &mut Vec<u8>, hashes: &mut Vec<u64>) {
        let mut rest = records.as_slice();
        if let Some(shard) = hashes.first().and_then(|hash| self.shard(*hash)) {
            let mut links = shard.0.write();
            for hash in hashes.iter() {
                let Some((record, id)) = Record::at(rest).and_then(|record| Some((record, record.id()?))) else {
                    break;
                };
                links.put(&self.hasher, *hash, id, record.bytes(), false);
                rest = rest.get(record.bytes().len()..).unwrap_or_default();
            }
        }
        records.clear();
        hashes.clear();
    }

    /// Shows a link as the store has it, unless a commit has been published for it since.
    pub fn load(&self, link: &LinkRef<'_>) {
        self.insert(link, false);
    }

    fn insert(&self, link: &LinkRef<'_>, replace: bool) -> bool {
        // Rendered before the lock is taken.
        let mut record = Vec::new();
        render_link(&mut record, link);
        let hash = hash_of(&self.hasher, link.id);
        let Some(shard) = self.shard(hash) else { return false };
        shard.0.write().put(&self.hasher, hash, link.id, &record, replace)
    }

    fn shard(&self, hash: u64) -> Option<&LockedShard> {
        self.shards.get(shard_of(hash))
    }

    /// What the map holds of a link, for tests: location, status, expiry.
    #[cfg(test)]
    pub(crate) fn entry(&self, id: LinkId) -> Option<(String, Status, Option<Timestamp>)> {
        let hash = hash_of(&self.hasher, id);
        let links = self.shard(hash)?.0.read();
        let record = links.find(hash, id)?;
        let location = String::from_utf8(record.location().to_vec()).ok()?;
        Some((location, record.status()?, record.expires_at()))
    }
}
