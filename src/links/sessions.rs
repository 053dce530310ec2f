//! Revoked sessions, and the limit of failed attempts to start one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::model::Digest;
use crate::model::{PartnerId, Timestamp, client_network};

/// The revoked sessions and session ids; a copy of the store's.
#[derive(Debug, Default)]
pub struct Sessions {
    revoked: RwLock<HashMap<Digest, Timestamp>>,
}

impl Sessions {
    /// Whether a session or session id has been revoked.
    pub fn is_revoked(&self, digest: &Digest) -> bool {
        self.revoked.read().contains_key(digest)
    }

    pub(super) fn publish_revocation(&self, digest: Digest, until: Timestamp) {
        self.revoked.write().insert(digest, until);
    }

    /// Remembers these revocations and no others.
    pub(super) fn replace_revocations(&self, revocations: Vec<(Digest, Timestamp)>) {
        *self.revoked.write() = revocations.into_iter().collect();
    }

    pub(super) fn drop_expired(&self, now: Timestamp) {
        self.revoked.write().retain(|_, until| *until > now);
    }
}

/// Failed attempts to start a session that one address may make for one partner within a window. A person who mistypes
/// needs fewer; at this rate a secret of 32 hexadecimal digits outlasts everybody.
const FAILURES_MAX: u32 = 10;
/// The length of the window.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered at most (about 64 bytes each).
const REMEMBERED_MAX: usize = 65_536;

/// Limits guesses of secrets: after some failures, an address is refused for the rest of a minute, even with the right
/// secret.
#[derive(Debug, Default)]
pub struct SessionStartLimit {
    failures: Mutex<HashMap<(IpAddr, PartnerId), Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

impl Failures {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

impl SessionStartLimit {
    /// Whether this address may try again.
    pub fn allows(&self, address: IpAddr, partner: PartnerId, now: Instant) -> bool {
        let failures = self.failures.lock();
        let failed = failures.get(&(client_network(address), partner));
        failed.is_none_or(|failed| failed.is_over(now) || failed.count < FAILURES_MAX)
    }

    /// Remembers a failure. Whether it is the last one that is allowed in this window, which is so once in a window.
    pub fn failed(&self, address: IpAddr, partner: PartnerId, now: Instant) -> bool {
        let mut failures = self.failures.lock();
        if failures.len() >= REMEMBERED_MAX {
            failures.retain(|_, failed| !failed.is_over(now));
        }
        if failures.len() >= REMEMBERED_MAX {
            // So many at once are no people; better to forget them than to grow without end.
            failures.clear();
        }
        let failed = failures
            .entry((client_network(address), partner))
            .or_insert(Failures { count: 0, since: now });
        if failed.is_over(now) {
            *failed = Failures { count: 0, since: now };
        }
        failed.count = failed.count.saturating_add(1);
        failed.count == FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_and_partner_may_fail_ten_times_a_minute() {
        let throttle = SessionStartLimit::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let (home, partner) = ("2001:db8::1".parse().unwrap(), PartnerId(1));
        for number in 1..=FAILURES_MAX {
            assert!(throttle.allows(home, partner, at(100)));
            assert_eq!(throttle.failed(home, partner, at(100)), number == FAILURES_MAX);
        }
        // Some more were under way already.
        assert!(!throttle.failed(home, partner, at(100)));
        assert!(!throttle.allows(home, partner, at(159)));
        assert!(!throttle.allows("2001:db8::2".parse().unwrap(), partner, at(159)));
        assert!(throttle.allows("2001:db8:0:1::1".parse().unwrap(), partner, at(159)));
        assert!(throttle.allows(home, PartnerId(2), at(159)));
        assert!(throttle.allows(home, partner, at(160)));
        assert!(!throttle.failed(home, partner, at(160)));
        assert!(throttle.allows(home, partner, at(160)));
    }
}
