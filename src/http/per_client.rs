//! Limits for each client: of what it has at a time ([`Slots`]), and of what it does within a while ([`Windows`]).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::model::Timestamp;

/// Counts the slots that clients hold.
#[derive(Debug)]
pub struct Slots<K: Hash + Eq> {
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    total: usize,
    by_client: HashMap<K, usize>,
}

/// A slot, which is free again when this is dropped.
#[derive(Debug)]
pub struct Slot<K: Hash + Eq> {
    slots: Arc<Slots<K>>,
    client: K,
}

impl<K: Hash + Eq> Default for Slots<K> {
    fn default() -> Self {
        let held = Held {
            total: 0,
            by_client: HashMap::new(),
        };
        Self { held: Mutex::new(held) }
    }
}

impl<K: Hash + Eq + Clone> Slots<K> {
    /// Takes a slot unless the client holds `most_each` or all clients together hold `most`.
    pub fn take(self: &Arc<Self>, client: K, most_each: usize, most: usize) -> Option<Slot<K>> {
        let mut held = self.held.lock();
        let of_client = held.by_client.get(&client).copied().unwrap_or_default();
        if held.total >= most || of_client >= most_each {
            return None;
        }
        held.total += 1;
        held.by_client.insert(client.clone(), of_client + 1);
        Some(Slot {
            slots: Arc::clone(self),
            client,
        })
    }
}

impl<K: Hash + Eq> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut held = self.slots.held.lock();
        held.total -= 1;
        if let Some(of_client) = held.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

const SHARDS: usize = 64;
/// Clients per shard, about 64 bytes each. When a flood exceeds this, the shard forgets all.
const SHARD_CLIENTS_MAX: usize = 1024;

/// What each client did in its current window of fixed length.
#[derive(Debug)]
pub struct Windows<K, V> {
    seconds: i64,
    shards: Vec<Mutex<HashMap<K, Window<V>, RandomState>>>,
    hasher: RandomState,
}

#[derive(Debug)]
pub struct Window<V> {
    began: Timestamp,
    ends: Timestamp,
    pub value: V,
}

impl<V> Window<V> {
    pub const fn ends(&self) -> Timestamp {
        self.ends
    }

    fn is_over(&self, now: Timestamp) -> bool {
        // Also when the clock has been set back.
        now >= self.ends || now < self.began
    }
}

impl<K: Hash + Eq, V: Default> Windows<K, V> {
    pub fn new(seconds: i64) -> Self {
        Self {
            seconds,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
        }
    }

    pub fn get<R>(&self, client: &K, now: Timestamp, read: impl FnOnce(&V) -> R) -> Option<R> {
        let windows = self.shard(client)?.lock();
        let window = windows.get(client).filter(|window| !window.is_over(now))?;
        Some(read(&window.value))
    }

    /// Changes a client's window, which is a new one if the last is over.
    pub fn update<R>(&self, client: K, now: Timestamp, change: impl FnOnce(&mut Window<V>) -> R) -> Option<R> {
        let mut windows = self.shard(&client)?.lock();
        if windows.len() >= SHARD_CLIENTS_MAX && !windows.contains_key(&client) {
            windows.retain(|_, window| !window.is_over(now));
            if windows.len() >= SHARD_CLIENTS_MAX {
                windows.clear();
            }
        }
        let new = || Window {
            began: now,
            ends: now.plus(self.seconds),
            value: V::default(),
        };
        let window = windows.entry(client).or_insert_with(new);
        if window.is_over(now) {
            *window = new();
        }
        Some(change(window))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub fn hash(&self, value: impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// Never `None`: the remainder is less than the number of shards.
    fn shard(&self, client: &K) -> Option<&Mutex<HashMap<K, Window<V>, RandomState>>> {
        let shard = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or_default();
        self.shards.get(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_in_all_and_for_each_client() {
        let slots = Arc::<Slots<u8>>::default();
        let take = |client| slots.take(client, 2, 3);
        let (one, two) = (take(1).unwrap(), take(1).unwrap());
        assert!(take(1).is_none());
        let other = take(2).unwrap();
        assert!(take(3).is_none());
        drop(one);
        assert!(take(1).is_some());
        drop((two, other));
        assert!(slots.held.lock().by_client.is_empty());
        assert_eq!(slots.held.lock().total, 0);
    }

    #[test]
    fn window_ends_after_its_time_or_when_the_clock_is_set_back() {
        let windows = Windows::<u8, u32>::new(60);
        let count = |second| {
            windows.update(1, Timestamp::from_unix(second), |window| {
                window.value += 1;
                window.value
            })
        };
        assert_eq!([100, 159, 160, 161, 99].map(count), [1, 2, 1, 2, 1].map(Some));
        assert_eq!(windows.get(&1, Timestamp::from_unix(158), |&value| value), Some(1));
        assert_eq!(windows.get(&1, Timestamp::from_unix(159), |&value| value), None);
        assert_eq!(windows.get(&2, Timestamp::from_unix(99), |&value| value), None);
    }

    #[test]
    fn memory_of_windows_is_bounded() {
        let windows = Windows::<u32, u32>::new(60);
        for client in 0..200_000 {
            windows.update(client, Timestamp::from_unix(100), |window| window.value += 1);
        }
        assert!(windows.len() <= SHARDS * SHARD_CLIENTS_MAX, "{}", windows.len());
    }
}
