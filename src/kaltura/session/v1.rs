//! Version 1: fields in the clear, behind a SHA-1 over the secret and them.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use super::{BASE64, Claims, InvalidKs, Partners, Privileges, Secret, Session, none_if_empty};
use super::{parse_kind, parse_partner};
use crate::model::Digest;
use crate::model::{Timestamp, whole_number};

/// Fields that a KS must have: `partnerId;partnerId;expiry;type`. Those after them may be missing.
const FIELDS_MIN: usize = 4;

pub(super) fn mint(claims: &Claims<'_>, secret: &Secret, salt: u64) -> Option<String> {
    if claims.user.contains(';') || claims.privileges.contains(';') {
        return None;
    }
    let info = format!(
        "{partner};{partner};{expiry};{kind};{salt};{user};{privileges};;",
        partner = claims.partner,
        expiry = claims.expiry,
        kind = claims.kind.number(),
        user = claims.user,
        privileges = claims.privileges,
    );
    let signature = hex(&sign(secret, info.as_bytes()));
    Some(BASE64.encode(format!("{signature}|{info}")))
}

pub(super) fn verify(decoded: &[u8], partners: &Partners) -> Result<Session, InvalidKs> {
    let separator = decoded
        .iter()
        .position(|&byte| byte == b'|')
        .ok_or(InvalidKs::Malformed)?;
    let (signature, rest) = decoded.split_at(separator);
    let info = rest.get(1..).unwrap_or(&[]);
    let partner_field = info.split(|&byte| byte == b';').next().unwrap_or(&[]);
    let partner = parse_partner(partner_field).ok_or(InvalidKs::Malformed)?;
    let secrets = &partners.get(partner).ok_or(InvalidKs::Malformed)?.admin_secrets;

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
        user: none_if_empty(field(5).to_owned()),
        kind: parse_kind(field(3))?,
        expiry: whole_number(field(2))
            .map(Timestamp::from_unix)
            .ok_or(InvalidKs::Malformed)?,
        privileges: Privileges::parse(field(6)),
        digest,
    })
}

fn sign(secret: &Secret, info: &[u8]) -> Digest {
    Sha1::new()
        .chain_update(secret.as_bytes())
        .chain_update(info)
        .finalize()
        .into()
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
