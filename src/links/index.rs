//! The map from which redirects are answered: id → (destination, status, expiry), in shards.
//!
//! Invariants: a lookup takes its shard's read lock and nothing else, and never waits for the disk; what is published
//! here has been committed by the store.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::OnceLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hyper::header::HeaderValue;
use parking_lot::RwLock;

use crate::model::{Destination, LinkId, ShortLink, Status, Timestamp};

/// Shards: many more than cores, so that a writer is seldom in a reader's way. A power of two.
const SHARDS: usize = 256;

/// What a link does, rendered for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: LinkId,
    status: Status,
    expires_at: Option<Timestamp>,
    location: HeaderValue,
}

/// What is to be answered for an id at some moment (contract, section 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The link works; this is its `Location`.
    Redirect(HeaderValue),
    /// The link is switched off.
    Disabled,
    /// The link is deleted.
    Deleted,
    /// The link's time is over.
    Expired,
    /// There is no such link.
    Unknown,
    /// Not all links have been loaded yet, and this one is not among those that have.
    Loading,
    /// There is such a link, but its record is damaged.
    Damaged,
}

// A line of cache each, so that the lock of one shard does not slow down the next.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Shard(RwLock<HashTable<Entry>>);

/// The sharded map.
#[derive(Debug)]
pub struct Index {
    shards: Box<[Shard]>,
    // Seeded at random, so that nobody can choose ids that fall into one bucket.
    hasher: RandomState,
    // Set once all links are there: the ids of those whose records are damaged.
    loaded: OnceLock<HashSet<LinkId>>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: std::iter::repeat_with(Shard::default).take(SHARDS).collect(),
            hasher: RandomState::default(),
            loaded: OnceLock::new(),
        }
    }
}

impl Index {
    /// What to answer for an id at `now`. Allocates nothing: the location is shared.
    #[must_use]
    pub fn look_up(&self, id: LinkId, now: Timestamp) -> Verdict {
        // Before the look, so that a link which the loader brings in between is not said to be unknown.
        let loaded = self.loaded.get();
        let hash = self.hasher.hash_one(id.padded());
        let Some(shard) = self.shard(hash) else {
            return Verdict::Unknown;
        };
        let entries = shard.0.read();
        let Some(entry) = entries.find(hash, |entry| entry.id == id) else {
            drop(entries);
            return match loaded {
                None => Verdict::Loading,
                Some(damaged) if damaged.contains(&id) => Verdict::Damaged,
                Some(_) => Verdict::Unknown,
            };
        };
        match entry.status {
            Status::Disabled => Verdict::Disabled,
            Status::Deleted => Verdict::Deleted,
            // The link still works in the very second of its expiry.
            Status::Enabled if entry.expires_at.is_some_and(|expires_at| now > expires_at) => Verdict::Expired,
            Status::Enabled => Verdict::Redirect(entry.location.clone()),
        }
    }

    /// Links in the map.
    #[must_use]
    pub fn links(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.read().len()).sum()
    }

    /// Whether every link of the store is in the map.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded.get().is_some()
    }

    /// Links whose records are damaged; none until all links are in the map.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.loaded.get().map_or(0, HashSet::len)
    }

    pub(super) fn set_loaded(&self, damaged: HashSet<LinkId>) {
        // Loading a second time changes nothing about what the first one found.
        let _ = self.loaded.set(damaged);
    }

    /// Shows a link as a commit left it; says whether it was shown otherwise before.
    pub(super) fn publish(&self, link: &ShortLink) -> bool {
        self.insert(link, true)
    }

    /// The ids in the map, in no order.
    pub(super) fn ids(&self) -> Vec<LinkId> {
        let of_shard = |shard: &Shard| shard.0.read().iter().map(|entry| entry.id).collect::<Vec<_>>();
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// Shows a link no longer.
    pub(super) fn remove(&self, id: LinkId) {
        let hash = self.hasher.hash_one(id.padded());
        let Some(shard) = self.shard(hash) else { return };
        if let Ok(entry) = shard.0.write().find_entry(hash, |entry| entry.id == id) {
            entry.remove();
        }
    }

    /// Shows a link as the store has it, unless a commit has been published for it since.
    pub(super) fn load(&self, link: &ShortLink) {
        self.insert(link, false);
    }

    fn insert(&self, link: &ShortLink, replace: bool) -> bool {
        // Rendered before the lock is taken. A location is visible ASCII, which every header can carry.
        let location = HeaderValue::try_from(Destination::location_of(&link.full_url));
        let entry = Entry {
            id: link.id,
            status: link.status,
            expires_at: link.expires_at,
            location: location.unwrap_or_else(|_| HeaderValue::from_static("/")),
        };
        let hash = self.hasher.hash_one(link.id.padded());
        let Some(shard) = self.shard(hash) else { return false };
        let mut entries = shard.0.write();
        let rehash = |entry: &Entry| self.hasher.hash_one(entry.id.padded());
        match entries.entry(hash, |entry| entry.id == link.id, rehash) {
            hashbrown::hash_table::Entry::Occupied(mut present) => {
                let differs = replace && *present.get() != entry;
                if differs {
                    *present.get_mut() = entry;
                }
                differs
            }
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(entry);
                true
            }
        }
    }

    fn shard(&self, hash: u64) -> Option<&Shard> {
        // The table inside the shard uses the lowest and highest bits; these are in between.
        let position = usize::try_from(hash >> 32).unwrap_or_default() % SHARDS;
        self.shards.get(position)
    }

    /// What the map holds of a link, for tests: location, status, expiry.
    #[cfg(test)]
    pub(crate) fn entry(&self, id: LinkId) -> Option<(String, Status, Option<Timestamp>)> {
        let hash = self.hasher.hash_one(id.padded());
        let entries = self.shard(hash)?.0.read();
        let entry = entries.find(hash, |entry| entry.id == id)?;
        let location = entry.location.to_str().ok()?.to_owned();
        Some((location, entry.status, entry.expires_at))
    }
}
