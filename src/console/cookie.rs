//! The cookie of somebody who is signed in: who that is and since when, sealed with the key of this appliance. It
//! stays valid across restarts, and ends where it is revoked.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use crate::access::Grant;
use crate::console::request::Fields;
use crate::kaltura::session::{Kind, Partner, Privileges, Session};
use crate::links::{Deleted, OnceSeed};
use crate::model::{Actor, LinkId, PartnerId, Status, Timestamp, Way};

/// In the data folder. Without it, everybody has to sign in again.
const KEY_FILE: &str = "console.key";
const KEY_BYTES: usize = 32;

/// A session ends when it has not been used for so long.
const IDLE_SECONDS: i64 = 2 * 60 * 60;
/// A session ends in any case.
const SESSION_SECONDS: i64 = 24 * 60 * 60;
/// How often the time of the last use is written anew.
const REFRESH_SECONDS: i64 = 60;

/// A cookie by its names. Browsers take the secure one only over HTTPS, and from this host.
#[derive(Debug)]
pub struct NamedCookie {
    pub secure: &'static str,
    pub plain: &'static str,
    pub same_site: &'static str,
}

const SESSION: NamedCookie = NamedCookie {
    secure: "__Host-tinyd",
    plain: "tinyd",
    same_site: "Strict",
};

/// How somebody has signed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignInMethod {
    /// With a secret or a link.
    #[default]
    Local,
    /// With OpenID Connect.
    Provider,
    /// By a header, which counts for its request alone.
    Header,
}

/// The key that seals cookies and the tokens of forms.
pub struct CookieKey(hmac::Key);

impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(…)")
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    id: String,
    partner: u32,
    user: String,
    is_admin: bool,
    began: i64,
    used: i64,
    #[serde(default)]
    method: SignInMethod,
    /// Of the secrets that the partner had.
    #[serde(default)]
    secrets: String,
}

/// Who is signed in.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// As that of a KS: the same rules hold.
    pub session: Session,
    pub user: String,
    id: String,
    began: Timestamp,
    used: Timestamp,
    pub method: SignInMethod,
    /// Of the secrets that the partner had when somebody signed in with them.
    pub secrets: String,
}

impl SignedIn {
    pub fn begin(grant: Grant, method: SignInMethod, now: Timestamp) -> Self {
        let id = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        Self {
            method,
            ..Self::new(id, grant, now, now)
        }
    }

    fn new(id: String, grant: Grant, began: Timestamp, used: Timestamp) -> Self {
        let session = Session {
            partner: grant.partner,
            user: Some(grant.user.clone()),
            kind: grant.kind,
            expiry: began.plus(SESSION_SECONDS).min(used.plus(IDLE_SECONDS)),
            privileges: Privileges::default(),
            // Of no KS, which are longer.
            digest: Sha1::digest(format!("console {id}")).into(),
        };
        Self {
            session,
            user: grant.user,
            id,
            began,
            used,
            method: SignInMethod::Local,
            secrets: String::new(),
        }
    }

    /// The same, for as long as the partner has the secrets of this mark.
    pub fn bound_to(self, secrets: String) -> Self {
        Self { secrets, ..self }
    }

    /// Who changes something, for the audit log.
    pub fn actor(&self) -> Actor {
        Actor::of(&self.session, Way::Console)
    }

    pub fn is_admin(&self) -> bool {
        self.session.kind == Kind::Admin
    }

    /// The same, used now; `None` while that is not worth a new cookie.
    pub fn refreshed(&self, now: Timestamp) -> Option<Self> {
        (now >= self.used.plus(REFRESH_SECONDS)).then(|| Self {
            used: now,
            ..self.clone()
        })
    }

    /// The session until its last possible end, to be revoked.
    pub fn to_revoke(&self) -> Session {
        Session {
            expiry: self.began.plus(SESSION_SECONDS),
            ..self.session.clone()
        }
    }
}

impl CookieKey {
    /// The key in the data folder, which is made if there is none. Redirects do not depend on it: where it can be
    /// neither read nor written, sessions end with the process.
    pub fn in_folder(folder: &Path) -> Self {
        Self::read_or_write(&folder.join(KEY_FILE)).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot keep the key of console sessions: they end with this process");
            Self::temporary()
        })
    }

    fn read_or_write(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) if bytes.len() == KEY_BYTES => return Ok(Self::new(&bytes)),
            Ok(_) => tracing::warn!(path = %path.display(), "replacing a damaged key: people have to sign in again"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let bytes = rand::random::<[u8; KEY_BYTES]>();
        // Whole, or not at all.
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = tempfile::Builder::new().prefix(KEY_FILE).tempfile_in(folder)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(Self::new(&bytes))
    }

    /// A key that ends with the process, where nothing is written.
    pub fn temporary() -> Self {
        Self::new(&rand::random::<[u8; KEY_BYTES]>())
    }

    fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// What only the holder of the key can make of a text.
    pub fn mark(&self, purpose: &str, text: &str) -> String {
        let tag = hmac::sign(&self.0, format!("{purpose} {text}").as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(tag.as_ref())
    }

    /// Who a header says has signed in: for one request, but with the same form token at each.
    pub fn signed_in_by_header(&self, grant: Grant, now: Timestamp) -> SignedIn {
        let (partner, kind, user) = (grant.partner, grant.kind, &grant.user);
        let id = self.mark("header", &format!("{partner} {kind:?} {user}"));
        SignedIn {
            method: SignInMethod::Header,
            ..SignedIn::new(id, grant, now, now)
        }
    }

    /// A mark of the secrets of a partner, by which nobody learns them: other secrets have another.
    pub fn mark_of(&self, partner: &Partner) -> String {
        let digest = partner.secrets_digest();
        self.mark("secrets", &BASE64_URL_SAFE_NO_PAD.encode(digest))
    }

    /// A mark that lets a session undo a deletion until then, and says which status the link had.
    pub fn undo_mark(&self, signed_in: &SignedIn, deleted: &Deleted, until: Timestamp) -> String {
        self.undo_mark_of(signed_in, deleted.link.id, deleted.was, until)
    }

    fn undo_mark_of(&self, signed_in: &SignedIn, link: LinkId, was: Status, until: Timestamp) -> String {
        let text = format!("{until}.{}", was.name());
        let mark = self.mark("undo", &format!("{} {link} {text}", signed_in.id));
        format!("{text}.{mark}")
    }

    /// The status that a link had, if somebody may undo its deletion now.
    pub fn undone(&self, signed_in: &SignedIn, link: LinkId, mark: &str, now: Timestamp) -> Option<Status> {
        let until = Timestamp::from_unix(mark.split('.').next()?.parse().ok()?);
        let is_its = |was: &Status| {
            let expected = self.undo_mark_of(signed_in, link, *was, until);
            expected.as_bytes().ct_eq(mark.as_bytes()).into()
        };
        [Status::Enabled, Status::Disabled]
            .into_iter()
            .find(is_its)
            .filter(|_| now <= until)
    }

    /// What a form that is sent twice stands for, and no other: without its field `once`, nothing.
    pub fn once_seed(&self, signed_in: &SignedIn, path: &[&str], form: &Fields) -> Option<OnceSeed> {
        if form.text("once").is_empty() {
            return None;
        }
        let mut context = hmac::Context::with_key(&self.0);
        let fields = form.pairs().flat_map(|(name, value)| [name, value]);
        let texts = ["once", &signed_in.id]
            .into_iter()
            .chain(path.iter().copied())
            .chain(fields);
        for text in texts {
            context.update(&text.len().to_be_bytes());
            context.update(text.as_bytes());
        }
        context.sign().as_ref().try_into().ok()
    }

    /// The value of the field that proves that a form is ours.
    pub fn form_token(&self, signed_in: &SignedIn) -> String {
        self.mark("form", &signed_in.id)
    }

    pub fn is_form_token(&self, signed_in: &SignedIn, token: &str) -> bool {
        self.form_token(signed_in).as_bytes().ct_eq(token.as_bytes()).into()
    }

    fn seal(&self, signed_in: &SignedIn) -> String {
        let sealed = Sealed {
            id: signed_in.id.clone(),
            partner: signed_in.session.partner.0,
            user: signed_in.user.clone(),
            is_admin: signed_in.is_admin(),
            began: signed_in.began.as_unix(),
            used: signed_in.used.as_unix(),
            method: signed_in.method,
            secrets: signed_in.secrets.clone(),
        };
        self.sealed("cookie", &serde_json::to_vec(&sealed).unwrap_or_default())
    }

    /// The value of a cookie that only the holder of the key can make. Everybody can read it.
    pub fn sealed(&self, purpose: &str, content: &[u8]) -> String {
        let text = BASE64_URL_SAFE_NO_PAD.encode(content);
        let mark = self.mark(purpose, &text);
        format!("{text}.{mark}")
    }

    pub fn unsealed(&self, purpose: &str, value: &str) -> Option<Vec<u8>> {
        let (text, mark) = value.split_once('.')?;
        let is_ours = bool::from(self.mark(purpose, text).as_bytes().ct_eq(mark.as_bytes()));
        is_ours.then(|| BASE64_URL_SAFE_NO_PAD.decode(text).ok())?
    }

    /// Who a cookie says is signed in, if it is ours. Neither its end nor its revocation are checked.
    fn open(&self, value: &str) -> Option<SignedIn> {
        let sealed: Sealed = serde_json::from_slice(&self.unsealed("cookie", value)?).ok()?;
        let grant = Grant {
            partner: PartnerId(sealed.partner),
            user: sealed.user,
            kind: if sealed.is_admin { Kind::Admin } else { Kind::User },
        };
        let at = Timestamp::from_unix;
        Some(SignedIn {
            method: sealed.method,
            secrets: sealed.secrets,
            ..SignedIn::new(sealed.id, grant, at(sealed.began), at(sealed.used))
        })
    }

    /// Who the cookies of a request say is signed in.
    pub fn find(&self, headers: &HeaderMap, is_secure: bool) -> Option<SignedIn> {
        SESSION.values(headers, is_secure).find_map(|value| self.open(value))
    }

    /// `Set-Cookie` of a session. Browsers drop it when they end.
    pub fn set_cookie(&self, signed_in: &SignedIn, is_secure: bool) -> Option<HeaderValue> {
        SESSION.set(&self.seal(signed_in), "", is_secure)
    }
}

/// The field by which a form differs from every other one.
pub fn new_once() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

/// `Set-Cookie` of nobody.
pub fn clear_cookie(is_secure: bool) -> Option<HeaderValue> {
    SESSION.set("", "; Max-Age=0", is_secure)
}

impl NamedCookie {
    const fn name(&self, is_secure: bool) -> &'static str {
        if is_secure { self.secure } else { self.plain }
    }

    /// The values that a request has of it.
    pub fn values<'h>(&self, headers: &'h HeaderMap, is_secure: bool) -> impl Iterator<Item = &'h str> {
        let name = self.name(is_secure);
        let lines = headers.get_all(COOKIE).iter();
        let pairs = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'));
        pairs.filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
    }

    /// `Set-Cookie`.
    pub fn set(&self, value: &str, attributes: &str, is_secure: bool) -> Option<HeaderValue> {
        let (name, same_site) = (self.name(is_secure), self.same_site);
        let secure = if is_secure { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite={same_site}{secure}{attributes}");
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn signed_in() -> SignedIn {
        let grant = Grant {
            partner: PartnerId(7),
            user: "ünï; \"me\"".to_owned(),
            kind: Kind::Admin,
        };
        SignedIn::begin(grant, SignInMethod::Provider, NOW)
    }

    fn headers_with(value: &str) -> HeaderMap {
        let cookie = HeaderValue::try_from(format!("other=1; tinyd={value}; more=2")).unwrap();
        HeaderMap::from_iter([(COOKIE, cookie)])
    }

    #[test]
    fn cookie_says_who_is_signed_in() {
        let key = CookieKey::temporary();
        let value = key.seal(&signed_in());
        let found = key.find(&headers_with(&value), false).unwrap();
        assert_eq!(
            (found.user.as_str(), found.session.partner),
            ("ünï; \"me\"", PartnerId(7))
        );
        assert!(found.is_admin());
        assert_eq!(found.method, SignInMethod::Provider);
        assert!(key.find(&headers_with(&value), true).is_none(), "of plain HTTP");
        assert!(CookieKey::temporary().find(&headers_with(&value), false).is_none());
    }

    #[test]
    fn changed_cookie_is_nobodys() {
        let key = CookieKey::temporary();
        let value = key.seal(&signed_in());
        for position in 0..value.len() {
            let mut changed = value.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(key.find(&headers_with(&changed), false).is_none(), "{position}");
        }
        for value in ["", ".", "a.b", "é"] {
            assert!(key.open(value).is_none());
        }
    }

    #[test]
    fn session_ends_when_idle_and_in_any_case() {
        let mut session = signed_in();
        assert_eq!(session.session.expiry, NOW.plus(IDLE_SECONDS));
        assert!(session.refreshed(NOW.plus(REFRESH_SECONDS - 1)).is_none());
        let key = CookieKey::temporary();
        for hour in 1..=23 {
            let used = session.refreshed(NOW.plus(hour * 3600)).unwrap();
            session = key.open(&key.seal(&used)).unwrap();
        }
        assert_eq!(session.session.expiry, NOW.plus(SESSION_SECONDS));
        assert_eq!(
            session.to_revoke().digest,
            signed_in_again(&key, &session).session.digest
        );
    }

    fn signed_in_again(key: &CookieKey, session: &SignedIn) -> SignedIn {
        key.open(&key.seal(session)).unwrap()
    }

    #[test]
    fn key_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let value = CookieKey::in_folder(folder.path()).seal(&signed_in());
        assert!(CookieKey::in_folder(folder.path()).open(&value).is_some());
        fs::write(folder.path().join(KEY_FILE), b"short").unwrap();
        assert!(CookieKey::in_folder(folder.path()).open(&value).is_none());
        // Without a folder, there is a key all the same.
        let value = CookieKey::in_folder(&folder.path().join("none")).seal(&signed_in());
        assert!(CookieKey::in_folder(folder.path()).open(&value).is_none());
    }

    #[test]
    fn form_token_belongs_to_one_session() {
        let key = CookieKey::temporary();
        let (one, other) = (signed_in(), signed_in());
        let token = key.form_token(&one);
        assert!(key.is_form_token(&one, &token));
        assert!(!key.is_form_token(&other, &token));
        assert!(!key.is_form_token(&one, ""));
    }
}
