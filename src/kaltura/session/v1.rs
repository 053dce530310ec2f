//! Version 1: fields in the clear, behind a SHA-1 over the secret and them.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use super::{BASE64, Claims, InvalidKs, Partner, Partners, Privileges, Secret, Session};
use super::{parse_kind, signer, split_once};
use crate::model::{Digest, Timestamp, whole_number};

/// Fields that a KS must have: `partnerId;partnerId;expiry;type`. Those after them may be missing.
const FIELDS_MIN: usize = 4;

/// Mints a KS for clients that know no other version. `salt` as in [`super::mint`].
///
/// `None` if the partner has no admin secret, or the user or the privileges hold a `;`, which separates the fields.
pub fn mint(claims: &Claims<'_>, partner: &Partner, salt: u64) -> Option<String> {
    if claims.user.contains(';') || claims.privileges.contains(';') {
        return None;
    }
    let info = format!(
        "{partner};{partner};{expiry};{kind};{salt};{user};{privileges};;",
        partner = claims.partner,
        expiry = claims.expiry,
        kind = claims.kind as u8,
        user = claims.user,
        privileges = claims.privileges,
    );
    let signature = hex(&sign(partner.admin_secrets.first()?, info.as_bytes()));
    Some(BASE64.encode(format!("{signature}|{info}")))
}

pub(super) fn verify(decoded: &[u8], partners: &Partners) -> Result<Session, InvalidKs> {
    let (signature, info) = split_once(decoded)?;
    let partner_field = info.split(|&byte| byte == b';').next().unwrap_or(&[]);
    let (partner, secrets) = signer(partner_field, partners)?;
    let digest = secrets
        .iter()
        .map(|secret| sign(secret, info))
        .find(|digest| hex(digest).as_bytes().ct_eq(signature).into())
        .ok_or(InvalidKs::Malformed)?;

    let info = std::str::from_utf8(info).map_err(|_| InvalidKs::Malformed)?;
    let fields: Vec<&str> = info.split(';').collect();
    if fields.len() < FIELDS_MIN {
        return Err(InvalidKs::Malformed);
    }
    let field = |index: usize| fields.get(index).copied().unwrap_or("");
    Ok(Session {
        partner,
        user: Some(field(5).to_owned()).filter(|user| !user.is_empty()),
        kind: parse_kind(field(3))?,
        expiry: whole_number(field(2))
            .map(Timestamp::from_unix)
            .ok_or(InvalidKs::Malformed)?,
        privileges: Privileges::parse(field(6)),
        digest,
    })
}

fn sign(secret: &Secret, info: &[u8]) -> Digest {
    Sha1::digest([secret.as_bytes(), info].concat()).into()
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
