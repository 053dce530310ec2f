//! The limit of requests for unknown ids, which keeps clients from finding links by trying ids.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::http::per_client::Windows;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guess {
    Allowed,
    TooMany,
}

#[derive(Debug, Default)]
struct Guesser {
    count: u32,
    is_shut_out: bool,
    /// Hashes of the ids asked for last; 0 stands for none.
    ids: [u64; REMEMBERED_IDS],
}

#[derive(Debug)]
pub struct UnknownIdLimit {
    /// Allowed in a minute; 0: any number. A reload may change it.
    per_minute: Arc<AtomicU32>,
    /// Whether a client that goes on is refused everything.
    shuts_out: bool,
    counts: Arc<Connections>,
    addresses: LoggedAddress,
    /// When a shut-out was logged last, in unix seconds.
    warned_at: AtomicI64,
    guessers: Windows<IpAddr, Guesser>,
    /// From this unix second on, no client is shut out, so that nothing has to be looked up.
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
            guessers: Windows::new(WINDOW_SECONDS),
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

    /// Whether any client is shut out, so that the client of a request matters.
    #[inline]
    pub(super) fn is_anybody_shut_out(&self, now: Timestamp) -> bool {
        now.as_unix() < self.shut_out_until.load(Ordering::Relaxed)
    }

    /// Whether a client is refused everything. An address that is not public never is: it may be a proxy, behind which
    /// all clients are.
    pub(super) fn is_shut_out(&self, client: IpAddr, now: Timestamp) -> bool {
        let Some(per_minute) = self.per_minute() else {
            return false;
        };
        let has_too_many = |guesser: &Guesser| guesser.count >= per_minute.saturating_mul(SHUT_OUT_FACTOR);
        let has_too_many = self.guessers.get(&client_network(client), now, has_too_many);
        let is_shut_out = has_too_many == Some(true) && !is_local(client);
        if is_shut_out {
            self.counts.refused(Refusal::UnknownIdLimit);
        }
        is_shut_out
    }

    /// Counts a request for an unknown id.
    pub(super) fn note(&self, client: IpAddr, id: LinkId, now: Timestamp) -> Guess {
        let Some(per_minute) = self.per_minute() else {
            return Guess::Allowed;
        };
        let id = self.guessers.hash(id).max(1);
        let count = self.guessers.update(client_network(client), now, |window| {
            let ends = window.ends();
            let guesser = &mut window.value;
            if !guesser.ids.contains(&id) {
                guesser.count = guesser.count.saturating_add(1);
                guesser.ids.rotate_right(1);
                if let Some(first) = guesser.ids.first_mut() {
                    *first = id;
                }
            }
            if self.shuts_out && guesser.count >= per_minute.saturating_mul(SHUT_OUT_FACTOR) {
                self.shut_out_until.fetch_max(ends.as_unix(), Ordering::Relaxed);
                if !std::mem::replace(&mut guesser.is_shut_out, true) && !is_local(client) {
                    self.counts.shut_out();
                    self.warn(client, now);
                }
            }
            guesser.count
        });
        if count.is_none_or(|count| count <= per_minute) {
            return Guess::Allowed;
        }
        self.counts.refused(Refusal::UnknownIdLimit);
        Guess::TooMany
    }

    /// Logs, at most once an hour, that a client is shut out and what to do if it should not be.
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
                 its minute is over; if it is a proxy or CDN of yours, add it to public.trusted_proxies; if it is \
                 an office, raise public.max_guesses_per_minute or set public.shut_out_guessers = false"
            );
        }
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
        assert!((1..=65_536).contains(&some.guessers.len()), "{}", some.guessers.len());
        assert_eq!(none.guessers.len(), 0);
    }
}
