//! Kaltura sessions (KS): minting, reading and verifying them (docs/kaltura-api.md#sessions).
//!
//! Pure: the secrets, the time, the caller's address and the random bytes are passed in. What must be remembered
//! between requests (revocations, counted calls) is not kept here.

mod privileges;
mod v1;
mod v2;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

pub use privileges::Privileges;
pub use v1::mint as mint_v1;
pub use v2::mint;

use crate::model::{Digest, LinkPolicy, PartnerId, Timestamp, whole_number};

/// Longest KS, in bytes. The clients' own have a few hundred.
pub const KS_MAX_BYTES: usize = 8192;

/// How long a session may last and an ended session id is remembered, in seconds: ten years. One length for both, so
/// that no session outlives the revocation of its id.
pub const SESSION_MAX_SECONDS: i64 = 10 * 365 * 24 * 60 * 60;

/// Characters of a KS that identify it in errors and logs (docs/kaltura-api.md#sessions).
const SHOWN_CHARACTERS: usize = 6;

/// Base64 with or without padding, after `-` and `_` have become `+` and `/`.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a session may do, with the number in its KS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its own links.
    User = 0,
    /// Every link of its partner. Higher numbers mean the same.
    Admin = 2,
}

/// Why a KS is not accepted, with the numbers of docs/kaltura-api.md#session-checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKs {
    /// Not decodable, of an unknown partner, or not signed by the partner it names.
    #[error("INVALID_STR")]
    Malformed = -1,
    /// Such as 1, a widget's.
    #[error("INVALID_TYPE")]
    Type = -4,
    #[error("EXPIRED")]
    Expired = -5,
    #[error("LOGOUT")]
    Revoked = -6,
    #[error("EXCEEDED_ACTIONS_LIMIT")]
    ActionsLimit = -8,
    #[error("EXCEEDED_RESTRICTED_IP")]
    RestrictedIp = -9,
    #[error("EXCEEDED_RESTRICTED_URI")]
    RestrictedUri = -11,
}

/// A text that must not be shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Compares in a time that depends on the lengths alone.
    pub fn matches(&self, candidate: &str) -> bool {
        // Digests have one length, so that the time does not reveal the secret's own.
        let (own, other) = (Sha1::digest(self.as_bytes()), Sha1::digest(candidate.as_bytes()));
        own.ct_eq(&other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secrets of one partner, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// At least one. Any of them verifies, the first one signs: that is how they are rotated.
    pub admin_secrets: Vec<Secret>,
    /// Good for starting sessions of type 0 only; may be empty.
    pub user_secrets: Vec<Secret>,
    /// Whether its administrators may do what concerns every partner, such as a backup.
    pub is_operator: bool,
    pub policy: LinkPolicy,
}

impl Partner {
    /// Differs where the secrets do.
    pub fn secrets_digest(&self) -> Digest {
        let mut digest = Sha1::new();
        for secret in self.admin_secrets.iter().chain(&self.user_secrets) {
            digest.update(Sha1::digest(secret.as_bytes()));
        }
        digest.finalize().into()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partners(pub HashMap<PartnerId, Partner>);

impl Partners {
    pub fn get(&self, id: PartnerId) -> Option<&Partner> {
        self.0.get(&id)
    }

    /// In no order.
    pub fn ids(&self) -> impl Iterator<Item = PartnerId> {
        self.0.keys().copied()
    }

    /// Whether `secret` may start a session of this kind: the admin secret any, the user secret only `User`.
    pub fn may_start(&self, id: PartnerId, kind: Kind, secret: &str) -> bool {
        let Some(partner) = self.get(id) else {
            // As much work as for a known partner, so that the time does not reveal the known ones.
            let _ = Secret::new(String::new()).matches(secret);
            return false;
        };
        // No early exit: every secret is compared.
        let any = |secrets: &[Secret]| secrets.iter().fold(false, |any, own| any | own.matches(secret));
        any(&partner.admin_secrets) | (any(&partner.user_secrets) & (kind == Kind::User))
    }
}

/// A session from its KS, with the signature verified and nothing else checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub partner: PartnerId,
    pub user: Option<String>,
    pub kind: Kind,
    /// The first second in which it is no longer valid.
    pub expiry: Timestamp,
    pub privileges: Privileges,
    pub digest: Digest,
}

impl Session {
    /// The key under which all sessions with the same `sessionid` privilege are revoked.
    pub fn session_id_digest(&self) -> Option<Digest> {
        let id = self.privileges.get("sessionid").filter(|id| !id.is_empty())?;
        Some(Sha1::digest(format!("{}_{id}", self.partner)).into())
    }

    /// Whether it may be used from some addresses, for some requests or so many times only.
    pub fn is_limited(&self) -> bool {
        let limits = ["iprestrict", "urirestrict", "actionslimit"];
        limits.iter().any(|name| self.privileges.get(name).is_some())
    }

    pub fn check_expiry(&self, now: Timestamp) -> Result<(), InvalidKs> {
        (self.expiry > now).then_some(()).ok_or(InvalidKs::Expired)
    }

    /// Whether the session may be used from `address` for the request target `uri` (path and query).
    pub fn check_restrictions(&self, address: IpAddr, uri: &str) -> Result<(), InvalidKs> {
        if let Some(allowed) = self.privileges.get("iprestrict") {
            // Kaltura separates several addresses with slashes.
            let caller = address.to_canonical();
            if !allowed.split('/').any(|text| {
                text.trim()
                    .parse::<IpAddr>()
                    .is_ok_and(|ip| ip.to_canonical() == caller)
            }) {
                return Err(InvalidKs::RestrictedIp);
            }
        }
        if let Some(allowed) = self.privileges.get("urirestrict") {
            let fits = |pattern: &str| match pattern.strip_suffix('*') {
                Some(prefix) => uri.starts_with(prefix),
                None => uri == pattern,
            };
            if !allowed.split('|').any(fits) {
                return Err(InvalidKs::RestrictedUri);
            }
        }
        Ok(())
    }

    /// The number of calls that the session allows. An `actionslimit` that is not a number allows none.
    pub fn actions_limit(&self) -> Option<u64> {
        let limit = self.privileges.get("actionslimit")?;
        Some(whole_number(limit).map_or(0, |limit| limit.try_into().unwrap_or(0)))
    }
}

/// The content of a new KS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims<'a> {
    pub partner: PartnerId,
    /// May be empty.
    pub user: &'a str,
    pub kind: Kind,
    /// The first second in which it is no longer valid.
    pub expiry: Timestamp,
    /// `name`, `name:value`, separated by commas.
    pub privileges: &'a str,
}

/// Decodes a KS and verifies its signature against the admin secrets of the partner it names.
pub fn verify(ks: &str, partners: &Partners) -> Result<Session, InvalidKs> {
    if ks.is_empty() || ks.len() > KS_MAX_BYTES {
        return Err(InvalidKs::Malformed);
    }
    let standard: String = ks
        .replace("%3D", "=")
        .replace("%3d", "=")
        .chars()
        // PHP's decoder skips them: tools that encode base64 break its lines.
        .filter(|c| !matches!(c, ' ' | '\t' | '\r' | '\n'))
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    let decoded = BASE64.decode(standard).map_err(|_| InvalidKs::Malformed)?;
    match decoded.strip_prefix(b"v2|") {
        Some(rest) => v2::verify(rest, partners),
        None => v1::verify(&decoded, partners),
    }
}

/// The end of a KS, by which people can recognise but not use it.
pub fn redact(ks: &str) -> &str {
    let skipped = ks.chars().count().saturating_sub(SHOWN_CHARACTERS);
    let start = ks.char_indices().nth(skipped).map_or(ks.len(), |(index, _)| index);
    // A KS that is no longer than its end would be shown whole.
    ks.get(start..).filter(|_| skipped > 0).unwrap_or("")
}

fn parse_kind(text: &str) -> Result<Kind, InvalidKs> {
    match whole_number(text) {
        Some(0) => Ok(Kind::User),
        Some(2..) => Ok(Kind::Admin),
        Some(_) => Err(InvalidKs::Type),
        None => Err(InvalidKs::Malformed),
    }
}

/// What stands before and behind the first `|`.
fn split_once(bytes: &[u8]) -> Result<(&[u8], &[u8]), InvalidKs> {
    let mut parts = bytes.splitn(2, |&byte| byte == b'|');
    parts.next().zip(parts.next()).ok_or(InvalidKs::Malformed)
}

/// The partner with this number in a KS, and the secrets that may have signed it.
fn signer<'p>(number: &[u8], partners: &'p Partners) -> Result<(PartnerId, &'p [Secret]), InvalidKs> {
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
    let id = PartnerId(number.ok_or(InvalidKs::Malformed)?);
    Ok((id, &partners.get(id).ok_or(InvalidKs::Malformed)?.admin_secrets))
}

#[cfg(test)]
mod tests;
