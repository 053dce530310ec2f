//! Starting sessions with a secret, and the limit of failed attempts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::access::links::SignInLinks;
use crate::http::per_client::Windows;
use crate::kaltura::session::{Kind, Partners};
use crate::model::{PartnerId, Timestamp, client_network};

/// Failed attempts per address and partner within a window. People who mistype need fewer, and a search for 32
/// hexadecimal digits at this rate is hopeless.
const FAILURES_MAX: u32 = 10;
const WINDOW_SECONDS: i64 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartRefused {
    /// No such partner, or not its secret.
    Secret,
    /// Too many failed attempts.
    Throttled,
}

/// Only operators may act for another partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherPartner;

/// Checks secrets, for every way to sign in.
#[derive(Debug)]
pub struct SessionStarts {
    partners: watch::Receiver<Arc<Partners>>,
    limit: StartLimit,
    links: Option<SignInLinks>,
}

impl SessionStarts {
    /// `partners` may change meanwhile. Links that sign in are made only where there is a console.
    pub fn new(partners: watch::Receiver<Arc<Partners>>, has_console: bool) -> Self {
        Self {
            partners,
            limit: StartLimit::default(),
            links: has_console.then(SignInLinks::default),
        }
    }

    pub const fn links(&self) -> Option<&SignInLinks> {
        self.links.as_ref()
    }

    pub fn partners(&self) -> Arc<Partners> {
        Arc::clone(&self.partners.borrow())
    }

    /// Whether administrators of this partner act for all.
    pub fn is_operator(&self, partner: PartnerId) -> bool {
        self.partners().get(partner).is_some_and(|partner| partner.is_operator)
    }

    /// Whose links an administrator of `own` means: those of the partner that they name, else their own, or for
    /// operators, `None` for all.
    pub fn partner_meant(&self, own: PartnerId, named: Option<PartnerId>) -> Result<Option<PartnerId>, OtherPartner> {
        let is_operator = self.is_operator(own);
        match named {
            None => Ok((!is_operator).then_some(own)),
            Some(partner) if partner == own || is_operator => Ok(Some(partner)),
            Some(_) => Err(OtherPartner),
        }
    }

    /// Whether this secret may start a session of this kind.
    pub fn check(&self, address: IpAddr, partner: PartnerId, kind: Kind, secret: &str) -> Result<(), StartRefused> {
        let kinds = [kind];
        self.first_allowed(address, partner, &kinds, secret).map(drop)
    }

    /// The most that this secret may start.
    pub fn kind_of(&self, address: IpAddr, partner: PartnerId, secret: &str) -> Result<Kind, StartRefused> {
        self.first_allowed(address, partner, &[Kind::Admin, Kind::User], secret)
    }

    fn first_allowed(
        &self,
        address: IpAddr,
        partner: PartnerId,
        kinds: &[Kind],
        secret: &str,
    ) -> Result<Kind, StartRefused> {
        let at = self.limit.now();
        if !self.limit.allows(address, partner, at) {
            return Err(StartRefused::Throttled);
        }
        let partners = self.partners();
        let mut allowed = kinds.iter().filter(|kind| partners.may_start(partner, **kind, secret));
        if let Some(kind) = allowed.next() {
            return Ok(*kind);
        }
        // An unknown partner has no secret to guess, and would only take the place of a known one.
        let is_partner = partners.get(partner).is_some();
        // Logged once, so that a client cannot fill the log.
        if is_partner && self.limit.failed(address, partner, at) {
            tracing::warn!(
                partner = partner.0,
                "too many failed attempts to start a session; refused for a minute"
            );
        }
        Err(StartRefused::Secret)
    }
}

/// Limits guesses of secrets: after some failures, an address is refused for the rest of a minute, even with the right
/// secret.
#[derive(Debug)]
struct StartLimit {
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
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(i64::try_from(self.origin.elapsed().as_secs()).unwrap_or(i64::MAX))
    }

    fn allows(&self, address: IpAddr, partner: PartnerId, now: Timestamp) -> bool {
        let client = (client_network(address), partner);
        let is_below = self.failures.get(&client, now, |failures| *failures < FAILURES_MAX);
        is_below.unwrap_or(true)
    }

    /// Counts a failure. Whether it is the last that is allowed in this window, which is so once in a window.
    fn failed(&self, address: IpAddr, partner: PartnerId, now: Timestamp) -> bool {
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
