//! The service `shortlink_shortlink` (docs/kaltura-api.md#short-links).

pub mod object;
pub mod profile;
pub mod query;

use std::collections::HashMap;

use crate::api::access::scope_of;
use crate::api::destinations::destination;
use crate::api::fields::{Field, Fields, parse_integer};
use crate::api::short_link::object::{object, object_with_usage, wants_clicks};
use crate::api::short_link::query::query;
use crate::api::{Api, Caller, Outcome, Params};
use crate::kaltura::ApiError;
use crate::kaltura::format::{Object, Value};
use crate::kaltura::session::{Kind, Session};
use crate::links::{Draft, LinkError, RestoreOutcome, UpdateError};
use crate::model::{
    Destination, FULL_URL_MIN_BYTES, ID_MAX_BYTES, LinkId, NAME_MAX_CHARS, SYSTEM_NAME_MIN_BYTES, ShortLink, Status,
    Timestamp, USER_ID_MAX_CHARS, whole_number,
};

/// The parameter that holds a link.
const LINK: &str = "shortLink";
/// The name of the enumeration of statuses.
const STATUS_ENUM: &str = "KalturaShortLinkStatus";

/// Values that a filter may list at most.
pub const IN_VALUES_MAX: usize = 1_000;

impl Api {
    pub(super) async fn add(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let fields = Fields::of(params, LINK)?;
        let draft = draft(&fields, &session)?;
        self.destinations.require(&draft.full_url)?;
        Ok(object(&self.links.add(draft).await?).into())
    }

    pub(super) async fn get(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        if wants_clicks(params)? {
            let found = self.links.get_with_usage(id, scope_of(&session)).await;
            let (link, usage) = found.map_err(|error| naming(text, error))?;
            return Ok(object_with_usage(&link, &usage).into());
        }
        let found = self.links.get(id, &scope_of(&session)).await;
        Ok(object(&found.map_err(|error| naming(text, error))?).into())
    }

    pub(super) async fn update(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let fields = Fields::of(params, LINK)?;
        if !fields.is_present() {
            return Err(ApiError::missing(LINK));
        }
        // What is too short for a text is too short for null.
        for (property, length) in [("systemName", SYSTEM_NAME_MIN_BYTES), ("fullUrl", FULL_URL_MIN_BYTES)] {
            if fields.field(property)? == Field::Null {
                return Err(ApiError::MinLength { property, length });
            }
        }
        let mut patch = Patch::of(&fields)?;
        patch.refusal = patch
            .full_url
            .as_ref()
            .and_then(|url| self.destinations.require(url).err());
        let kind = session.kind;
        let edit = move |stored: &ShortLink| patch.apply(stored, kind);
        let updated = self.links.update(id, scope_of(&session), edit).await;
        let updated = updated.map_err(|error| match error {
            UpdateError::Link(error) => naming(text, error),
            UpdateError::Refused(refusal) => refusal,
        });
        Ok(object(&updated?).into())
    }

    pub(super) async fn delete(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let (text, id) = link_id(params)?;
        let deleted = self.links.delete(id, scope_of(&session)).await;
        Ok(object(&deleted.map_err(|error| naming(text, error))?).into())
    }

    /// Ours: Kaltura's operators have only their database for this.
    pub(super) async fn restore(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self
            .admin_session(params, caller, "shortlink_shortlink", "restore")
            .await?;
        let (text, id) = link_id(params)?;
        let restored = self.links.restore(id, session.partner).await;
        Ok(object(&restored.map_err(|error| naming(text, error))?).into())
    }

    /// Ours: as `restore`, for several at once. A link that cannot be restored stops no other.
    pub(super) async fn restore_many(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self
            .admin_session(params, caller, "shortlink_shortlink", "restoreMany")
            .await?;
        let texts: Vec<_> = params
            .required("ids")?
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .collect();
        if texts.len() > IN_VALUES_MAX {
            return Err(ApiError::invalid("ids", format!("at most {IN_VALUES_MAX} at once")));
        }
        let dry_run = params.flag("dryRun")?;
        let ids = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let restored = self.links.restore_all(ids, session.partner, dry_run).await?;
        let outcomes: HashMap<_, _> = restored
            .iter()
            .map(|(id, outcome)| (id.as_str(), *outcome))
            .rev()
            .collect();
        let result = |text: &&str| {
            // What cannot be an id is the id of no link.
            let outcome = outcomes.get(text).copied().unwrap_or(RestoreOutcome::Unknown);
            let (outcome, status) = match outcome {
                RestoreOutcome::Restored => ("restored", Some(Status::Enabled)),
                RestoreOutcome::Already(status) => ("notDeleted", Some(status)),
                RestoreOutcome::UniqueIdTaken => ("uniqueIdTaken", Some(Status::Deleted)),
                RestoreOutcome::Unknown => ("unknown", None),
                RestoreOutcome::Damaged => ("damaged", None),
            };
            let fields = vec![
                // What is longer than an id is shown as far as it goes.
                (
                    "id",
                    Value::text(text.get(..text.floor_char_boundary(ID_MAX_BYTES)).unwrap_or("")),
                ),
                ("outcome", Value::text(outcome)),
                (
                    "status",
                    status.map_or(Value::Null, |status| Value::Int(status.number().into())),
                ),
            ];
            let class = "TinydRestoredLink";
            Value::Object(Object { class, fields })
        };
        Ok(Value::List(texts.iter().map(result).collect()).into())
    }

    pub(super) async fn list(&self, params: &Params, caller: &Caller) -> Result<Outcome, ApiError> {
        let session = self.session(params, caller).await?;
        let query = query(params, &session, self.links.clock().now())?;
        let (objects, total, turn) = if wants_clicks(params)? {
            let ((listing, usages), turn) = self.links.list_with_usage(query, &caller.reading).await?;
            let links = listing.links.iter().zip(&usages);
            let objects = links.map(|(link, usage)| object_with_usage(link, usage)).collect();
            (objects, listing.total, turn)
        } else {
            let (listing, turn) = self.links.list(query, &caller.reading).await?;
            (listing.links.iter().map(object).collect(), listing.total, turn)
        };
        let fields = vec![
            ("objects", Value::List(objects)),
            ("totalCount", Value::Int(i64::try_from(total).unwrap_or(i64::MAX))),
        ];
        let class = "KalturaShortLinkListResponse";
        Ok(Outcome::Value(Value::Object(Object { class, fields }), Some(turn)))
    }
}

/// The parameter `id`: its text for errors, and the id. What cannot be an id is the id of no link.
fn link_id(params: &Params) -> Result<(&str, LinkId), ApiError> {
    let text = params.required("id")?;
    let id = text
        .parse()
        .map_err(|_| ApiError::InvalidObjectId { id: text.to_owned() })?;
    Ok((text, id))
}

fn naming(id: &str, error: LinkError) -> ApiError {
    match error {
        LinkError::NotFound => ApiError::InvalidObjectId { id: id.to_owned() },
        error => error.into(),
    }
}

/// What `add` makes of its parameter.
fn draft(fields: &Fields<'_>, session: &Session) -> Result<Draft, ApiError> {
    if !fields.is_present() {
        return Err(ApiError::missing(LINK));
    }
    let patch = Patch::of(fields)?;
    // There is nothing stored that these could repeat.
    if let Some((property, _)) = patch.claims.first() {
        return Err(ApiError::NotUpdatable { property });
    }
    let missing = |name| ApiError::MissingParameter {
        name: fields.name(name),
    };
    let system_name = patch.system_name.ok_or_else(|| missing("systemName"))?;
    let full_url = patch.full_url.ok_or_else(|| missing("fullUrl"))?;
    let user_id = match patch.user_id.flatten() {
        Some(user) if session.kind == Kind::User && session.user.as_ref() != Some(&user) => {
            return Err(ApiError::AdminProperty { property: "userId" });
        }
        Some(user) => Some(user),
        None => session.user.clone().map(|user| checked_user_id(&user)).transpose()?,
    };
    Ok(Draft {
        partner_id: session.partner,
        user_id,
        name: patch.name.flatten(),
        system_name,
        full_url,
        unique_id: patch.unique_id.flatten(),
        status: patch.status.unwrap_or(Status::Enabled),
        expires_at: patch.expires_at.flatten(),
    })
}

/// What a request says about a link: outer `None` = nothing, inner `None` = null.
#[derive(Debug, Default)]
struct Patch {
    user_id: Option<Option<String>>,
    name: Option<Option<String>>,
    system_name: Option<String>,
    full_url: Option<Destination>,
    /// Why that makes no new link; fine if it is what is stored.
    refusal: Option<ApiError>,
    unique_id: Option<Option<String>>,
    status: Option<Status>,
    expires_at: Option<Option<Timestamp>>,
    /// Read-only fields and what is said of them; fine if it is what is stored.
    claims: Vec<(&'static str, Claim)>,
}

#[derive(Debug)]
enum Claim {
    Null,
    Text(String),
    Number(i64),
}

impl Patch {
    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let mut patch = Self {
            user_id: nullable(fields.field("userId")?, checked_user_id)?
                .map(|user| user.filter(|user| !user.is_empty())),
            name: nullable(fields.field("name")?, |text| checked_name("name", text))?,
            unique_id: nullable(fields.field("uniqueId")?, |text| checked_name("uniqueId", text))?
                .map(|unique_id| unique_id.filter(|unique_id| !unique_id.is_empty())),
            status: status(fields, "status")?,
            expires_at: expires_at(fields)?,
            ..Self::default()
        };
        patch.system_name = match fields.field("systemName")? {
            Field::Absent | Field::Null => None,
            Field::Text(text) => {
                check_min("systemName", text, SYSTEM_NAME_MIN_BYTES)?;
                Some(checked_name("systemName", text)?)
            }
        };
        patch.full_url = match fields.field("fullUrl")? {
            Field::Absent | Field::Null => None,
            Field::Text(text) => {
                check_min("fullUrl", text, FULL_URL_MIN_BYTES)?;
                Some(destination(text)?)
            }
        };
        for property in ["id", "createdAt", "updatedAt", "partnerId"] {
            let claim = match fields.field(property)? {
                Field::Absent | Field::Text("") => continue,
                Field::Null => Claim::Null,
                Field::Text(text) if property == "id" => Claim::Text(text.to_owned()),
                Field::Text(text) => Claim::Number(parse_integer(&fields.name(property), text)?),
            };
            patch.claims.push((property, claim));
        }
        Ok(patch)
    }

    /// The link with what the request says. Nothing of it is kept if any of it is refused.
    fn apply(self, stored: &ShortLink, kind: Kind) -> Result<ShortLink, ApiError> {
        for (property, claim) in &self.claims {
            let repeats = match (*property, claim) {
                ("id", Claim::Text(id)) => id == stored.id.as_str(),
                ("createdAt", Claim::Number(time)) => *time == stored.created_at.as_unix(),
                ("updatedAt", Claim::Number(time)) => *time == stored.updated_at.as_unix(),
                ("partnerId", Claim::Number(id)) => *id == i64::from(stored.partner_id.0),
                _ => false,
            };
            if !repeats {
                return Err(ApiError::NotUpdatable { property });
            }
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
        if let Some(name) = self.name {
            link.name = name;
        }
        if let Some(system_name) = self.system_name {
            link.system_name = system_name;
        }
        if let Some(full_url) = self.full_url.filter(|url| url.as_str() != stored.full_url) {
            self.refusal.map_or(Ok(()), Err)?;
            link.full_url = full_url.into_string();
        }
        if let Some(status) = self.status {
            link.status = status;
        }
        if let Some(expires_at) = self.expires_at {
            link.expires_at = expires_at;
        }
        Ok(link)
    }
}

fn nullable(
    field: Field<'_>,
    check: impl FnOnce(&str) -> Result<String, ApiError>,
) -> Result<Option<Option<String>>, ApiError> {
    Ok(match field {
        Field::Absent => None,
        Field::Null => Some(None),
        Field::Text(text) => Some(Some(check(text)?)),
    })
}

fn check_min(property: &'static str, text: &str, length: usize) -> Result<(), ApiError> {
    if text.len() < length {
        return Err(ApiError::MinLength { property, length });
    }
    Ok(())
}

fn checked(property: &'static str, text: &str, length: usize) -> Result<String, ApiError> {
    if text.chars().count() > length {
        return Err(ApiError::MaxLength { property, length });
    }
    Ok(text.to_owned())
}

fn checked_name(property: &'static str, text: &str) -> Result<String, ApiError> {
    checked(property, text, NAME_MAX_CHARS)
}

fn checked_user_id(text: &str) -> Result<String, ApiError> {
    checked("userId", text, USER_ID_MAX_CHARS)
}

pub(super) fn status(fields: &Fields<'_>, name: &str) -> Result<Option<Status>, ApiError> {
    let Some(text) = fields.text(name)? else {
        return Ok(None);
    };
    let status = whole_number(text).and_then(Status::from_number);
    status.map(Some).ok_or_else(|| ApiError::InvalidEnum {
        value: text.to_owned(),
        name: fields.name(name),
        kind: STATUS_ENUM,
    })
}

/// 0, -1 and null stand for never. A time in the past is accepted: the link has then expired at once.
fn expires_at(fields: &Fields<'_>) -> Result<Option<Option<Timestamp>>, ApiError> {
    if fields.field("expiresAt")? == Field::Null {
        return Ok(Some(None));
    }
    match fields.integer("expiresAt")? {
        None => Ok(None),
        Some(0 | -1) => Ok(Some(None)),
        Some(seconds) if Timestamp::from_unix(seconds) <= Timestamp::MAX => {
            Ok(Some(Some(Timestamp::from_unix(seconds))))
        }
        Some(_) => Err(ApiError::invalid(
            fields.name("expiresAt"),
            format!("expected unix seconds up to {} (milliseconds?)", Timestamp::MAX),
        )),
    }
}
