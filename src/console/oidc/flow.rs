//! A sign-in that is under way: what the browser keeps until the provider sends it back.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::header::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::console::cookie::{CookieKey, NamedCookie};
use crate::model::Timestamp;

/// How long somebody may take to sign in at the provider.
const LIFETIME_SECONDS: i64 = 10 * 60;
/// Longest path to come back to.
const NEXT_MAX_BYTES: usize = 512;
/// Sign-ins that have ended and could still be tried again; the oldest give way, and the provider takes each code
/// only once anyway.
const SPENT_MAX: usize = 10_000;

/// Lax: the provider's site sends the browser back.
const COOKIE: NamedCookie = NamedCookie {
    secure: "__Host-tinyd-sign-in",
    plain: "tinyd-sign-in",
    same_site: "Lax",
};

/// A sign-in. What belongs to it follows from its id and the key, so that the browser keeps no secret of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    id: String,
    /// Where to go afterwards, below the base.
    pub next: String,
    until: i64,
}

/// What a sign-in is recognised by at its end.
#[derive(Clone)]
pub struct FlowProof {
    pub state: String,
    pub nonce: String,
    /// Of PKCE.
    pub verifier: String,
}

impl Flow {
    pub fn begin(next: &str, now: Timestamp) -> Self {
        let next = if next.len() <= NEXT_MAX_BYTES { next } else { "" };
        Self {
            id: BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()),
            next: next.to_owned(),
            until: now.plus(LIFETIME_SECONDS).as_unix(),
        }
    }

    pub fn proof(&self, key: &CookieKey) -> FlowProof {
        FlowProof {
            state: key.mark("sign-in state", &self.id),
            nonce: key.mark("sign-in nonce", &self.id),
            verifier: key.mark("sign-in verifier", &self.id),
        }
    }

    pub fn cookie(&self, key: &CookieKey, is_secure: bool) -> Option<HeaderValue> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let value = key.sealed("sign-in", &text);
        let lifetime = format!("; Max-Age={LIFETIME_SECONDS}");
        COOKIE.set(&value, &lifetime, is_secure)
    }

    /// The cookie that takes the place of [`Self::cookie`].
    pub fn cleared(is_secure: bool) -> Option<HeaderValue> {
        COOKIE.set("", "; Max-Age=0", is_secure)
    }

    /// The sign-in that this browser has begun, if it is not too long ago.
    pub fn find(key: &CookieKey, headers: &HeaderMap, is_secure: bool, now: Timestamp) -> Option<Self> {
        let open = |value: &str| serde_json::from_slice::<Self>(&key.unsealed("sign-in", value)?).ok();
        let flow = COOKIE.values(headers, is_secure).find_map(open)?;
        (now.as_unix() < flow.until).then_some(flow)
    }
}

impl FlowProof {
    pub fn is_state(&self, state: &str) -> bool {
        self.state.as_bytes().ct_eq(state.as_bytes()).into()
    }
}

/// The sign-ins that have ended, for as long as their cookies last.
#[derive(Debug, Default)]
pub struct SpentFlows(Mutex<HashMap<String, i64>>);

impl SpentFlows {
    /// Whether a sign-in ends for the first time.
    pub fn spend(&self, flow: &Flow, now: Timestamp) -> bool {
        let mut spent = self.0.lock();
        if spent.contains_key(&flow.id) {
            return false;
        }
        if spent.len() >= SPENT_MAX {
            spent.retain(|_, until| now.as_unix() < *until);
        }
        if spent.len() >= SPENT_MAX
            && let Some(oldest) = spent.iter().min_by_key(|(_, until)| **until)
        {
            let id = oldest.0.clone();
            spent.remove(&id);
        }
        spent.insert(flow.id.clone(), flow.until);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::COOKIE as COOKIE_HEADER;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn sent_back(cookie: &HeaderValue) -> HeaderMap {
        let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
        HeaderMap::from_iter([(COOKIE_HEADER, HeaderValue::try_from(pair).unwrap())])
    }

    #[test]
    fn sign_in_comes_back_to_the_browser_that_began_it() {
        let key = CookieKey::temporary();
        let flow = Flow::begin("links/new", NOW);
        let cookie = flow.cookie(&key, true).unwrap();
        let text = cookie.to_str().unwrap();
        assert!(text.starts_with("__Host-tinyd-sign-in="), "{text}");
        assert!(
            text.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=600"),
            "{text}"
        );
        let headers = sent_back(&cookie);
        assert_eq!(Flow::find(&key, &headers, true, NOW.plus(599)), Some(flow));
        assert_eq!(Flow::find(&key, &headers, true, NOW.plus(600)), None);
        assert_eq!(Flow::find(&key, &headers, false, NOW), None, "of HTTPS");
        assert_eq!(Flow::find(&CookieKey::temporary(), &headers, true, NOW), None);
    }

    #[test]
    fn proof_of_each_sign_in_is_its_own() {
        let key = CookieKey::temporary();
        let (one, other) = (Flow::begin("", NOW), Flow::begin("", NOW));
        let (proof, of_other) = (one.proof(&key), other.proof(&key));
        assert!(proof.is_state(&one.proof(&key).state));
        assert!(!proof.is_state(&of_other.state) && !proof.is_state(""));
        let texts = [
            proof.state,
            proof.nonce,
            proof.verifier,
            of_other.nonce,
            of_other.verifier,
        ];
        let different: std::collections::HashSet<_> = texts.iter().collect();
        assert_eq!(different.len(), texts.len());
        // As short as PKCE allows.
        assert!(texts.iter().all(|text| text.len() == 43));
    }

    #[test]
    fn sign_in_ends_once() {
        let spent = SpentFlows::default();
        let flow = Flow::begin("", NOW);
        assert!(spent.spend(&flow, NOW));
        assert!(!spent.spend(&flow, NOW));
        for _ in 0..SPENT_MAX {
            assert!(spent.spend(&Flow::begin("", NOW.plus(1)), NOW));
        }
        assert_eq!(spent.0.lock().len(), SPENT_MAX);
    }
}
