//! Links that sign in once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha1::{Digest as _, Sha1};

use crate::kaltura::session::Kind;
use crate::model::{Digest, PartnerId};

/// How long a link may be used.
const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Links that are waiting to be used; the oldest give way.
const WAITING_MAX: usize = 100;
const TOKEN_BYTES: usize = 24;

/// Where a link leads, below the base of the console.
const SIGN_IN_LINK_PATH: &str = "sign-in/link/";

/// Whom a sign-in makes somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub partner: PartnerId,
    pub user: String,
    pub kind: Kind,
}

#[derive(Debug)]
struct Waiting {
    grant: Grant,
    since: Instant,
}

/// The links that have been made and not used, by the digests of their tokens. They end with the process.
#[derive(Debug, Default)]
pub struct SignInLinks {
    waiting: Mutex<HashMap<Digest, Waiting>>,
}

impl SignInLinks {
    /// Makes a link and returns its path below the base of the console.
    pub fn make(&self, grant: Grant) -> String {
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>());
        let mut waiting = self.waiting.lock();
        let since = Instant::now();
        waiting.retain(|_, link| is_valid(link, since));
        if waiting.len() >= WAITING_MAX {
            let oldest = waiting.iter().min_by_key(|(_, link)| link.since);
            if let Some(digest) = oldest.map(|(digest, _)| *digest) {
                waiting.remove(&digest);
            }
        }
        waiting.insert(digest_of(&token), Waiting { grant, since });
        format!("{SIGN_IN_LINK_PATH}{token}")
    }

    /// Whether a link can still be used, and for whom.
    pub fn look_at(&self, token: &str) -> Option<Grant> {
        let waiting = self.waiting.lock();
        let link = waiting.get(&digest_of(token))?;
        is_valid(link, Instant::now()).then(|| link.grant.clone())
    }

    /// Uses a link, which works once.
    pub fn spend(&self, token: &str) -> Option<Grant> {
        let link = self.waiting.lock().remove(&digest_of(token))?;
        is_valid(&link, Instant::now()).then_some(link.grant)
    }
}

fn is_valid(link: &Waiting, now: Instant) -> bool {
    now.saturating_duration_since(link.since) < LIFETIME
}

/// The time that a search takes depends on digests, from which nobody learns a token.
fn digest_of(token: &str) -> Digest {
    Sha1::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(user: &str) -> Grant {
        Grant {
            partner: PartnerId(7),
            user: user.to_owned(),
            kind: Kind::Admin,
        }
    }

    fn token(path: &str) -> &str {
        path.strip_prefix(SIGN_IN_LINK_PATH).unwrap()
    }

    #[test]
    fn sign_in_link_works_once() {
        let links = SignInLinks::default();
        let (one, other) = (links.make(grant("one")), links.make(grant("other")));
        assert_eq!(links.look_at(token(&one)), Some(grant("one")));
        assert_eq!(links.spend(token(&one)), Some(grant("one")));
        assert_eq!(links.spend(token(&one)), None);
        assert_eq!(links.look_at(token(&one)), None);
        assert_eq!(links.spend("guessed"), None);
        assert_eq!(links.spend(token(&other)), Some(grant("other")));
    }

    #[test]
    fn sign_in_link_expires() {
        let links = SignInLinks::default();
        let path = links.make(grant("late"));
        links
            .waiting
            .lock()
            .values_mut()
            .for_each(|link| link.since -= LIFETIME);
        assert_eq!(links.look_at(token(&path)), None);
        assert_eq!(links.spend(token(&path)), None);
    }

    #[test]
    fn oldest_sign_in_link_gives_way() {
        let links = SignInLinks::default();
        let first = links.make(grant("first"));
        let rest: Vec<_> = (0..WAITING_MAX).map(|_| links.make(grant("later"))).collect();
        assert_eq!(links.spend(token(&first)), None);
        assert!(rest.iter().all(|path| links.spend(token(path)).is_some()));
    }
}
