//! What `add` and `update` say about a link, and the link that they make of it.

use crate::api::destinations::destination;
use crate::api::fields::{Field, Fields, parse_integer};
use crate::api::short_link::{STARTS_AT, object, status};
use crate::kaltura::ApiError;
use crate::kaltura::format::Value;
use crate::kaltura::session::{Kind, Session};
use crate::links::Draft;
use crate::model::validate::{self, FULL_URL, InvalidText, NAME, SYSTEM_NAME, TextRule, UNIQUE_ID, USER_ID};
use crate::model::{Destination, ShortLink, Status, Timestamp};

pub(super) fn draft(fields: &Fields<'_>, session: &Session) -> Result<Draft, ApiError> {
    let patch = Patch::from_fields(fields)?;
    // Nothing is stored that these could repeat.
    if let Some((property, _)) = patch.claims.first() {
        return Err(ApiError::NotUpdatable { property });
    }
    let missing = |name| ApiError::missing(fields.name(name));
    let system_name = patch.system_name.ok_or_else(|| missing("systemName"))?;
    let full_url = patch.full_url.ok_or_else(|| missing("fullUrl"))?;
    let user_id = match patch.user_id.flatten() {
        Some(user) if session.kind == Kind::User && session.user.as_ref() != Some(&user) => {
            return Err(ApiError::AdminProperty { property: "userId" });
        }
        Some(user) => Some(user),
        None => {
            session.user.as_deref().map_or(Ok(()), |user| check(&USER_ID, user))?;
            session.user.clone()
        }
    };
    Ok(Draft {
        added_by: session.kind,
        partner_id: session.partner,
        user_id,
        name: patch.name.flatten(),
        system_name,
        full_url,
        unique_id: patch.unique_id.flatten(),
        status: patch.status.unwrap_or(Status::Enabled),
        starts_at: patch.starts_at.flatten(),
        expires_at: patch.expires_at.flatten(),
    })
}

/// The fields of a link in a request: outer `None` = absent, inner `None` = null.
#[derive(Debug, Clone, Default)]
pub(super) struct Patch {
    user_id: Option<Option<String>>,
    name: Option<Option<String>>,
    system_name: Option<String>,
    pub(super) full_url: Option<Destination>,
    /// Why `full_url` makes no new link. A request may repeat what is stored.
    pub(super) refusal: Option<ApiError>,
    unique_id: Option<Option<String>>,
    status: Option<Status>,
    pub(super) starts_at: Option<Option<Timestamp>>,
    expires_at: Option<Option<Timestamp>>,
    /// The read-only fields. A request may repeat what is stored.
    claims: Vec<(&'static str, Value)>,
}

impl Patch {
    pub(super) fn from_fields(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let mut patch = Self {
            user_id: nullable(fields, &USER_ID)?,
            name: nullable(fields, &NAME)?,
            unique_id: nullable(fields, &UNIQUE_ID)?,
            status: status(fields, "status")?,
            starts_at: time(fields, STARTS_AT)?,
            expires_at: time(fields, "expiresAt")?,
            system_name: text(fields, &SYSTEM_NAME)?.map(str::to_owned),
            full_url: text(fields, &FULL_URL)?.map(destination).transpose()?,
            ..Self::default()
        };
        for property in ["id", "createdAt", "updatedAt", "partnerId"] {
            let claim = match fields.field(property)? {
                Field::Absent | Field::Text("") => continue,
                Field::Null => Value::Null,
                Field::Text(text) if property == "id" => Value::text(text),
                Field::Text(text) => Value::Int(parse_integer(&fields.name(property), text)?),
            };
            patch.claims.push((property, claim));
        }
        Ok(patch)
    }

    /// The changed link.
    pub(super) fn apply(self, stored: &ShortLink, kind: Kind) -> Result<ShortLink, ApiError> {
        let repeated = object::fields(stored);
        if let Some((property, _)) = self.claims.iter().find(|claim| !repeated.contains(claim)) {
            return Err(ApiError::NotUpdatable { property });
        }
        if self.unique_id.is_some_and(|unique_id| unique_id != stored.unique_id) {
            return Err(ApiError::NotUpdatable { property: "uniqueId" });
        }
        let mut link = stored.clone();
        if let Some(user_id) = self.user_id
            && user_id != stored.user_id
        {
            if kind == Kind::User {
                return Err(ApiError::AdminProperty { property: "userId" });
            }
            link.user_id = user_id;
        }
        link.name = self.name.unwrap_or(link.name);
        link.system_name = self.system_name.unwrap_or(link.system_name);
        link.status = self.status.unwrap_or(link.status);
        link.starts_at = self.starts_at.unwrap_or(link.starts_at);
        link.expires_at = self.expires_at.unwrap_or(link.expires_at);
        if let Some(full_url) = self.full_url.filter(|url| url.as_str() != stored.full_url) {
            self.refusal.map_or(Ok(()), Err)?;
            link.full_url = full_url.into_string();
        }
        Ok(link)
    }
}

/// The text of a field whose null is not its value: absent where it is null.
fn text<'f>(fields: &Fields<'f>, rule: &TextRule) -> Result<Option<&'f str>, ApiError> {
    let Field::Text(text) = fields.field(rule.field)? else {
        return Ok(None);
    };
    check(rule, text)?;
    Ok(Some(text))
}

fn nullable(fields: &Fields<'_>, rule: &TextRule) -> Result<Option<Option<String>>, ApiError> {
    Ok(match fields.field(rule.field)? {
        Field::Absent => None,
        Field::Null => Some(None),
        Field::Text(text) => Some(rule.value(text).map_err(|why| refusal(rule, why))?),
    })
}

fn check(rule: &TextRule, text: &str) -> Result<(), ApiError> {
    rule.check(text).map_err(|why| refusal(rule, why))
}

fn refusal(rule: &TextRule, why: InvalidText) -> ApiError {
    let property = rule.field;
    match why {
        InvalidText::TooShort { min_bytes: length, .. } => ApiError::MinLength { property, length },
        InvalidText::TooLong { max_chars: length } => ApiError::MaxLength { property, length },
        InvalidText::ForbiddenCharacter => ApiError::InvalidChar {
            field: property.to_owned(),
        },
    }
}

fn time(fields: &Fields<'_>, field: &str) -> Result<Option<Option<Timestamp>>, ApiError> {
    if fields.field(field)? == Field::Null {
        return Ok(Some(None));
    }
    let time = fields.integer(field)?.map(validate::optional_time).transpose();
    time.map_err(|why| ApiError::invalid(fields.name(field), why.to_string()))
}
