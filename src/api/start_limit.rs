//! The limit of failed attempts to start a session.

use std::net::IpAddr;
use std::time::Instant;

use crate::http::per_client::Windows;
use crate::model::{PartnerId, Timestamp, client_network};

/// Failed attempts per address and partner within a window. People who mistype need fewer, and a search for 32
/// hexadecimal digits at this rate is hopeless.
const FAILURES_MAX: u32 = 10;
const WINDOW_SECONDS: i64 = 60;

/// Limits guesses of secrets: after some failures, an address is refused for the rest of a minute, even with the right
/// secret.
#[derive(Debug)]
pub(super) struct StartLimit {
    failures: Windows<(IpAddr, PartnerId), u32>,
    origin: Instant,
}

impl Default for StartLimit {
    fn default() -> Self {
        Self {
            failures: Windows::new(WINDOW_SECONDS),
            origin: Instant::now(),
        }
    }
}

impl StartLimit {
    /// A monotonic time: with the wall clock, a jump would grant further attempts.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_unix(i64::try_from(self.origin.elapsed().as_secs()).unwrap_or(i64::MAX))
    }

    pub(super) fn allows(&self, address: IpAddr, partner: PartnerId, now: Timestamp) -> bool {
        let client = (client_network(address), partner);
        let is_below = self.failures.get(&client, now, |failures| *failures < FAILURES_MAX);
        is_below.unwrap_or(true)
    }

    /// Counts a failure. Whether it is the last that is allowed in this window, which is so once in a window.
    pub(super) fn failed(&self, address: IpAddr, partner: PartnerId, now: Timestamp) -> bool {
        let client = (client_network(address), partner);
        let count = self.failures.update(client, now, |window| {
            window.value = window.value.saturating_add(1);
            window.value
        });
        count == Some(FAILURES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_and_partner_may_fail_ten_times_a_minute() {
        let limit = StartLimit::default();
        let at = Timestamp::from_unix;
        let (home, partner) = ("2001:db8::1".parse().unwrap(), PartnerId(1));
        for number in 1..=FAILURES_MAX {
            assert!(limit.allows(home, partner, at(100)));
            assert_eq!(limit.failed(home, partner, at(100)), number == FAILURES_MAX);
        }
        // Some more were under way already.
        assert!(!limit.failed(home, partner, at(100)));
        assert!(!limit.allows(home, partner, at(159)));
        assert!(!limit.allows("2001:db8::2".parse().unwrap(), partner, at(159)));
        assert!(limit.allows("2001:db8:0:1::1".parse().unwrap(), partner, at(159)));
        assert!(limit.allows(home, PartnerId(2), at(159)));
        assert!(limit.allows(home, partner, at(160)));
        assert!(!limit.failed(home, partner, at(160)));
        assert!(limit.allows(home, partner, at(160)));
    }
}
