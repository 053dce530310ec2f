//! Keeping people from finding links by trying ids: who asks for many that there are none of is refused for a while.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::kaltura::LoggedAddress;
use crate::metrics::{Connections, Refusal};
use crate::model::{LinkId, Timestamp, client_network, is_local};

/// The length of the window in which guesses are counted, in seconds.
pub(super) const WINDOW_SECONDS: i64 = 60;
/// A client with so many times the allowed guesses is refused everything for the rest of the window: else 429 would
/// reveal unknown IDs just as well.
const SHUT_OUT_FACTOR: u32 = 2;
/// Shut-outs within so many seconds after one that was logged are only counted: a search must not fill the log.
const WARNING_INTERVAL_SECONDS: i64 = 3600;
/// Unknown IDs of a client that are remembered: requesting one again is no guess. Many people, who may share an
/// address, open a link that is printed wrong.
const REMEMBERED_IDS: usize = 4;

/// Clients whose guesses are counted by different locks.
const SHARDS: usize = 64;
/// Clients that a shard remembers at most, about 64 bytes each.
const SHARD_MAX: usize = 1024;

/// What becomes of a request for an id that there is none of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guess {
    /// It is answered.
    Allowed,
    /// Its client has asked for too many.
    TooMany,
}

#[derive(Debug)]
struct Guesser {
    since: Timestamp,
    count: u32,
    is_shut_out: bool,
    // Hashes of the ids asked for last.
    ids: [u64; REMEMBERED_IDS],
}

type Guessers = HashMap<IpAddr, Guesser, RandomState>;

impl Guesser {
    fn is_over(&self, now: Timestamp) -> bool {
        // Also when the clock has been set back.
        now >= self.since.plus(WINDOW_SECONDS) || now < self.since
    }
}

/// The guesses of the last minute.
#[derive(Debug)]
pub struct UnknownIdLimit {
    /// How many are allowed in a minute; 0: as many as they like. A reload may change it.
    per_minute: Arc<AtomicU32>,
    /// Whether who does not stop is refused everything.
    shuts_out: bool,
    counts: Arc<Connections>,
    addresses: LoggedAddress,
    /// When a shut-out was logged last, in unix seconds.
    warned_at: AtomicI64,
    shards: Vec<Mutex<Guessers>>,
    hasher: RandomState,
    /// Nobody is shut out from this unix second on, so that there is nothing to look up.
    shut_out_until: AtomicI64,
}

impl UnknownIdLimit {
    /// Allows so many guesses a minute; 0 allows any number. `shuts_out`: whether a client with twice as many is
    /// refused everything. Refusals are counted with the connections.
    #[must_use]
    pub fn new(per_minute: Arc<AtomicU32>, shuts_out: bool, counts: Arc<Connections>) -> Self {
        Self {
            per_minute,
            shuts_out,
            counts,
            addresses: LoggedAddress::default(),
            warned_at: AtomicI64::new(i64::MIN),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            shut_out_until: AtomicI64::new(0),
        }
    }

    /// How much of a client's address is logged.
    #[must_use]
    pub fn logging(self, addresses: LoggedAddress) -> Self {
        Self { addresses, ..self }
    }

    fn per_minute(&self) -> Option<u32> {
        let per_minute = self.per_minute.load(Ordering::Relaxed);
        (per_minute > 0).then_some(per_minute)
    }

    /// Whether anybody is shut out, so that it has to be found out who asks.
    #[inline]
    pub(super) fn is_anybody_shut_out(&self, now: Timestamp) -> bool {
        now.as_unix() < self.shut_out_until.load(Ordering::Relaxed)
    }

    /// Whether a client is refused everything. Those behind an address that is not public never are: it may be a proxy,
    /// and they everybody.
    pub(super) fn is_shut_out(&self, client: IpAddr, now: Timestamp) -> bool {
        let Some(per_minute) = self.per_minute() else {
            return false;
        };
        let network = client_network(client);
        let Some(shard) = self.shard(network) else {
            return false;
        };
        let guessers = shard.lock();
        let guesser = guessers.get(&network).filter(|guesser| !guesser.is_over(now));
        let is_over = |guesser: &Guesser| guesser.count >= per_minute.saturating_mul(SHUT_OUT_FACTOR);
        let is_shut_out = guesser.is_some_and(is_over) && !is_local(client);
        if is_shut_out {
            self.counts.refused(Refusal::UnknownIdLimit);
        }
        is_shut_out
    }

    /// Counts a request for an id that there is none of.
    pub(super) fn note(&self, client: IpAddr, id: LinkId, now: Timestamp) -> Guess {
        let Some(per_minute) = self.per_minute() else {
            return Guess::Allowed;
        };
        let network = client_network(client);
        let Some(shard) = self.shard(network) else {
            return Guess::Allowed;
        };
        // 0 stands for no id.
        let id = self.hasher.hash_one(id).max(1);
        let mut guessers = shard.lock();
        if guessers.len() >= SHARD_MAX && !guessers.contains_key(&network) {
            guessers.retain(|_, guesser| !guesser.is_over(now));
            if guessers.len() >= SHARD_MAX {
                // So many at once are no people; better to forget them than to grow without end.
                guessers.clear();
            }
        }
        let new = || Guesser {
            since: now,
            count: 0,
            is_shut_out: false,
            ids: [0; REMEMBERED_IDS],
        };
        let guesser = guessers.entry(network).or_insert_with(new);
        if guesser.is_over(now) {
            *guesser = new();
        }
        if !guesser.ids.contains(&id) {
            guesser.count = guesser.count.saturating_add(1);
            guesser.ids.rotate_right(1);
            if let Some(first) = guesser.ids.first_mut() {
                *first = id;
            }
        }
        if self.shuts_out && guesser.count >= per_minute.saturating_mul(SHUT_OUT_FACTOR) {
            let until = guesser.since.plus(WINDOW_SECONDS).as_unix();
            self.shut_out_until.fetch_max(until, Ordering::Relaxed);
            if !std::mem::replace(&mut guesser.is_shut_out, true) && !is_local(client) {
                self.counts.shut_out();
                self.warn(client, now);
            }
        }
        if guesser.count <= per_minute {
            return Guess::Allowed;
        }
        self.counts.refused(Refusal::UnknownIdLimit);
        Guess::TooMany
    }

    /// Says in the log, not more often than once an hour, that a client is shut out and what to do if it should not be.
    #[cold]
    fn warn(&self, client: IpAddr, now: Timestamp) {
        let (now, last) = (now.as_unix(), self.warned_at.load(Ordering::Relaxed));
        if now.abs_diff(last) < WARNING_INTERVAL_SECONDS.unsigned_abs() {
            return;
        }
        let swapped = self
            .warned_at
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if swapped.is_ok() {
            tracing::warn!(
                client = self.addresses.redact(client).map(tracing::field::display),
                "shutting out a client that asks for unknown ids: everything it asks for is answered 429 until \
                 its minute \
                 is over; if it is a proxy or CDN of yours, add it to public.trusted_proxies; if it is an \
                 office, raise \
                 public.max_guesses_per_minute or set public.shut_out_guessers = false"
            );
        }
    }

    fn shard(&self, network: IpAddr) -> Option<&Mutex<Guessers>> {
        let hash = usize::try_from(self.hasher.hash_one(network) % SHARDS as u64).unwrap_or_default();
        self.shards.get(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Listener;

    fn id(number: u32) -> LinkId {
        format!("{number:08}").parse().unwrap()
    }

    #[test]
    fn guesses_are_counted_by_network_and_for_a_minute() {
        let guesses = UnknownIdLimit::new(Arc::new(10.into()), true, Arc::default());
        let at = Timestamp::from_unix;
        let (one, neighbour) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let other = "2001:db8:0:1::1".parse().unwrap();
        for number in 0..10 {
            assert_eq!(guesses.note(one, id(number), at(100)), Guess::Allowed);
        }
        assert_eq!(guesses.note(neighbour, id(10), at(159)), Guess::TooMany);
        assert_eq!(guesses.note(other, id(10), at(159)), Guess::Allowed);
        assert_eq!(guesses.note(one, id(11), at(160)), Guess::Allowed);
        assert!(!guesses.is_anybody_shut_out(at(160)));
    }

    #[test]
    fn who_does_not_stop_is_shut_out_for_the_rest_of_the_minute() {
        let guesses = UnknownIdLimit::new(Arc::new(10.into()), true, Arc::default());
        let at = Timestamp::from_unix;
        for (client, is_shut_out) in [("203.0.113.7", true), ("10.0.0.7", false)] {
            let client = client.parse().unwrap();
            for number in 0..19 {
                guesses.note(client, id(number), at(100));
            }
            assert!(!guesses.is_shut_out(client, at(100)));
            assert_eq!(guesses.note(client, id(19), at(100)), Guess::TooMany);
            assert!(guesses.is_anybody_shut_out(at(159)));
            assert_eq!(guesses.is_shut_out(client, at(159)), is_shut_out);
            assert!(!guesses.is_shut_out(client, at(160)));
            assert!(!guesses.is_anybody_shut_out(at(160)));
        }
        assert!(!guesses.is_shut_out("203.0.113.8".parse().unwrap(), at(100)));
    }

    #[test]
    fn shut_outs_are_counted_by_client_and_not_for_local_ones() {
        let counts = Arc::<Connections>::default();
        let guesses = UnknownIdLimit::new(Arc::new(10.into()), true, Arc::clone(&counts));
        for (client, second, shut_outs) in [
            ("203.0.113.7", 100, 1),
            ("10.0.0.7", 100, 1),
            ("203.0.113.8", 100, 2),
            ("203.0.113.7", 130, 2),
            // In another minute, it is shut out anew.
            ("203.0.113.7", 160, 3),
        ] {
            for number in 0..50 {
                guesses.note(client.parse().unwrap(), id(number), Timestamp::from_unix(second));
            }
            assert_eq!(counts.read(Listener::Public).shut_outs, shut_outs, "{client} {second}");
        }
        let lenient = UnknownIdLimit::new(Arc::new(10.into()), false, Arc::clone(&counts));
        for number in 0..50 {
            lenient.note("203.0.113.7".parse().unwrap(), id(number), Timestamp::from_unix(100));
        }
        assert_eq!(counts.read(Listener::Public).shut_outs, 3);
    }

    #[test]
    fn asking_again_is_no_guess() {
        let guesses = UnknownIdLimit::new(Arc::new(10.into()), true, Arc::default());
        let (client, now) = ("203.0.113.7".parse().unwrap(), Timestamp::from_unix(100));
        for number in 0..1_000 {
            assert_eq!(guesses.note(client, id(number % 4), now), Guess::Allowed);
        }
        assert!(!guesses.is_anybody_shut_out(now));
    }

    #[test]
    fn no_limit_is_no_limit_and_memory_is_bounded() {
        let (none, some) = (
            UnknownIdLimit::new(Arc::default(), true, Arc::default()),
            UnknownIdLimit::new(Arc::new(10.into()), true, Arc::default()),
        );
        let now = Timestamp::from_unix(100);
        for number in 0..200_000_u32 {
            let client = std::net::Ipv4Addr::from(number).into();
            assert_eq!(none.note(client, id(number), now), Guess::Allowed);
            some.note(client, id(number), now);
        }
        let remembered: usize = some.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(remembered <= SHARDS * SHARD_MAX, "{remembered}");
        assert!(none.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
