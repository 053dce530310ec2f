//! Starting sessions with a secret, and the limit of failed attempts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::access::links::SignInLinks;
use crate::http::per_client::Windows;
use crate::kaltura::session::{Kind, Partners};
use crate::metrics::{SessionStartCounters, StartMethod, StartOutcome};
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

impl From<StartRefused> for StartOutcome {
    fn from(why: StartRefused) -> Self {
        match why {
            StartRefused::Secret => Self::Refused,
            StartRefused::Throttled => Self::Throttled,
        }
    }
}

/// Only operators may act for another partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherPartner;

/// Checks secrets, for every way to sign in.
#[derive(Debug)]
pub struct SessionStarts {
    partners: watch::Receiver<Arc<Partners>>,
    limit: StartLimit,
    /// Apart, so that a flood of them makes nobody forget the failures of known partners.
    limit_of_unknown: StartLimit,
    links: Option<SignInLinks>,
    counters: Arc<SessionStartCounters>,
}

impl SessionStarts {
    /// `partners` may change meanwhile. Links that sign in are made only where there is a console.
    pub fn new(partners: watch::Receiver<Arc<Partners>>, has_console: bool) -> Self {
        Self {
            partners,
            limit: StartLimit::default(),
            limit_of_unknown: StartLimit::default(),
            links: has_console.then(SignInLinks::default),
            counters: Arc::default(),
        }
    }

    pub const fn links(&self) -> Option<&SignInLinks> {
        self.links.as_ref()
    }

    pub const fn counters(&self) -> &Arc<SessionStartCounters> {
        &self.counters
    }

    pub fn count(&self, method: StartMethod, outcome: StartOutcome) {
        self.counters.count(method, outcome);
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
        let partners = self.partners();
        let is_known = partners.get(partner).is_some();
        // Guesses at unknown partners end alike, so that nobody learns which are known.
        let limit = if is_known { &self.limit } else { &self.limit_of_unknown };
        let at = limit.now();
        if !limit.allows(address, partner, at) {
            return Err(StartRefused::Throttled);
        }
        let mut allowed = kinds.iter().filter(|kind| partners.may_start(partner, **kind, secret));
        if let Some(kind) = allowed.next() {
            return Ok(*kind);
        }
        // Logged once, and never for unknown partners, so that a client cannot fill the log.
        if limit.failed(address, partner, at) && is_known {
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
    use std::collections::HashMap;

    use super::*;
    use crate::kaltura::session::{Partner, Secret};

    #[test]
    fn unknown_partners_are_throttled_like_known_ones() {
        let partner = Partner {
            admin_secrets: vec![Secret::new("right".to_owned())],
            user_secrets: Vec::new(),
            is_operator: false,
            policy: Default::default(),
        };
        let partners = Partners(HashMap::from([(PartnerId(1), partner)]));
        let starts = SessionStarts::new(watch::channel(Arc::new(partners)).1, false);
        let home = "192.0.2.1".parse().unwrap();
        let guess = |partner: u32| starts.kind_of(home, PartnerId(partner), "wrong");
        for _ in 0..FAILURES_MAX {
            assert_eq!([guess(1), guess(2)], [Err(StartRefused::Secret); 2]);
        }
        assert_eq!([guess(1), guess(2)], [Err(StartRefused::Throttled); 2]);
        assert_eq!(guess(3), Err(StartRefused::Secret));
    }

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
