//! Version 2: the fields as a query string behind random bytes and a SHA-1, encrypted with AES-128-CBC.

use aes::Aes128;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use base64::Engine as _;
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use super::{BASE64, Claims, InvalidKs, Partner, Partners, Privileges, Secret, Session};
use super::{parse_kind, signer, split_once};
use crate::model::{Digest, Timestamp, whole_number};

/// The cipher's block, in bytes.
const BLOCK_BYTES: usize = 16;
/// Random bytes before the query string.
const SALT_BYTES: usize = 16;
/// The digest before the random bytes.
const DIGEST_BYTES: usize = 20;
/// The format has no vector of its own; the random bytes do its work.
const IV: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

const EXPIRY: &str = "_e";
const TYPE: &str = "_t";
const USER: &str = "_u";
/// `_m`, the impersonating partner, and `_d`, data for other services: neither is a privilege.
const IGNORED: [&str; 2] = ["_m", "_d"];

/// Mints a KS. `salt` makes it different from any other with the same claims; take it from a CSPRNG.
///
/// `None` if the partner has no admin secret.
pub fn mint(claims: &Claims<'_>, partner: &Partner, salt: [u8; SALT_BYTES]) -> Option<String> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &Privileges::parse(claims.privileges).0 {
        query.append_pair(name, value);
    }
    query
        .append_pair(EXPIRY, &claims.expiry.to_string())
        .append_pair(TYPE, &(claims.kind as u8).to_string())
        .append_pair(USER, claims.user);

    let body = [&salt, query.finish().as_bytes()].concat();
    let mut message = Sha1::digest(&body).to_vec();
    message.extend_from_slice(&body);
    message.resize(message.len().next_multiple_of(BLOCK_BYTES), 0);
    let length = message.len();
    let encrypted = cbc::Encryptor::<Aes128>::new(&key(partner.admin_secrets.first()?).into(), &IV.into())
        .encrypt_padded::<NoPadding>(&mut message, length)
        // Whole blocks always encrypt.
        .ok()?;

    let mut ks = format!("v2|{}|", claims.partner).into_bytes();
    ks.extend_from_slice(encrypted);
    Some(BASE64.encode(ks).replace('+', "-").replace('/', "_"))
}

/// Reads what stands after `v2|`.
pub(super) fn verify(rest: &[u8], partners: &Partners) -> Result<Session, InvalidKs> {
    let (partner_field, encrypted) = split_once(rest)?;
    let (partner, secrets) = signer(partner_field, partners)?;
    let (digest, query) = secrets
        .iter()
        .find_map(|secret| open(secret, encrypted))
        .ok_or(InvalidKs::Malformed)?;

    let (mut expiry, mut kind, mut user) = (None, None, String::new());
    let mut privileges = Vec::new();
    for (name, value) in form_urlencoded::parse(&query) {
        match &*name {
            EXPIRY => expiry = whole_number(&value).map(Timestamp::from_unix),
            TYPE => kind = Some(parse_kind(&value)?),
            USER => user = value.into_owned(),
            name if IGNORED.contains(&name) => {}
            _ => privileges.push((name.into_owned(), value.into_owned())),
        }
    }
    Ok(Session {
        partner,
        user: Some(user).filter(|user| !user.is_empty()),
        kind: kind.ok_or(InvalidKs::Malformed)?,
        expiry: expiry.ok_or(InvalidKs::Malformed)?,
        privileges: privileges.into_iter().collect(),
        digest,
    })
}

/// Decrypts with one secret; `None` unless the digest inside fits. Returns the digest and the query string.
fn open(secret: &Secret, encrypted: &[u8]) -> Option<(Digest, Vec<u8>)> {
    let mut message = encrypted.to_vec();
    let decrypted = cbc::Decryptor::<Aes128>::new(&key(secret).into(), &IV.into())
        .decrypt_padded::<NoPadding>(&mut message)
        .ok()?;
    let end = decrypted.iter().rposition(|&byte| byte != 0)? + 1;
    let (digest, body) = decrypted.get(..end)?.split_at_checked(DIGEST_BYTES)?;
    let expected: Digest = Sha1::digest(body).into();
    if !bool::from(expected.as_slice().ct_eq(digest)) {
        return None;
    }
    Some((expected, body.get(SALT_BYTES..)?.to_vec()))
}

fn key(secret: &Secret) -> [u8; BLOCK_BYTES] {
    let digest = Sha1::digest(secret.as_bytes());
    let mut key = [0; BLOCK_BYTES];
    key.iter_mut().zip(digest).for_each(|(slot, byte)| *slot = byte);
    key
}
